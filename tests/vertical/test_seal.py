"""Boxes: what a hub sees, what does not open, and that no (key, nonce) pair occurs twice."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from manyloom.core.errors import BadInput, ManyloomError, RunFailed
from manyloom.core.exchange import Ask, Exchange, Fold, Handler, Lost, Reply, play
from manyloom.core.slots import Slots, from_bytes, to_bytes
from manyloom.secure.keys import public
from manyloom.secure.wire import pack, raw
from manyloom.vertical import ids, opening, psi, sealed, wire
from manyloom.vertical import seal as sealing
from manyloom.vertical.opening import digest, node
from manyloom.vertical.party import Party
from manyloom.vertical.seal import BOX, agreed, derived, seal, unseal
from manyloom.vertical.settings import Align
from tests.vertical.playing import Players

KEY = bytes(range(32))
SECRETS = {"y": torch.arange(1000, dtype=torch.float32) + 0.125, "id": torch.arange(7, dtype=torch.int64)}

# ---- a box


def test_hkdf_is_rfc_5869s() -> None:
    """Its first test case; and the key of a pair, by hand."""
    made = HKDF(SHA256(), 42, bytes(range(13)), bytes(range(0xF0, 0xFA))).derive(b"\x0b" * 22)
    assert made.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    a, b, xid = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
    left, right = agreed(a, public(b), xid, "bank", "shop"), agreed(b, public(a), xid, "shop", "bank")
    assert left.out == right.back and left.back == right.out and left.out != left.back
    assert derived(b"s", xid, "bank", "shop") == HKDF(
        SHA256(), 32, xid, b"manyloom/seal/v1\0bank\0shop").derive(b"s")  # fmt: skip


@pytest.mark.parametrize("order", [0, 1])
def test_a_shared_secret_of_zeros_is_refused(order: int) -> None:
    with pytest.raises(RunFailed, match="all-zero"):
        agreed(KEY, order.to_bytes(32, "little"), bytes(32), "bank", "shop")


def test_a_box_is_as_described() -> None:
    """Opened by hand: counter as nonce, verb, 0, counter as associated data, 8 bytes of length, zeros to 4 KiB."""
    box = raw(seal(KEY, "ids.open", 258, SECRETS))
    nonce = bytes(10) + b"\1\2"
    assert box[:12] == nonce and len(box) == 12 + 8192 + 16
    text = AESGCM(KEY).decrypt(nonce, box[12:], b"ids.open\0" + nonce)
    n = int.from_bytes(text[:8], "little")
    assert text[8 : 8 + n] == to_bytes(SECRETS) and not any(text[8 + n :])


@pytest.mark.parametrize("n", [0, 1, 4096 - 8 - 72 - 1, 4096 - 8 - 72, 4096 - 8 - 72 + 1, 10_000])
def test_bodies_come_back_and_sizes_are_in_steps(n: int) -> None:
    body = {"x": torch.arange(n).byte()}
    box = seal(KEY, "v", 0, body)
    assert (len(box) - 28) % 4096 == 0 and len(box) - 28 - 4096 < len(to_bytes(body)) + 8 <= len(box) - 28
    assert torch.equal(unseal(KEY, "v", {BOX: box})["x"], body["x"])
    assert unseal(KEY, "v", {BOX: seal(KEY, "v", 1, {})}) == {}


def test_any_changed_byte_is_refused() -> None:
    box = seal(KEY, "v", 3, {"x": torch.zeros(4)})
    for at in [*range(40), *range(40, len(box), 97), len(box) - 1]:
        wrong = box.clone()
        wrong[at] ^= 1
        with pytest.raises(RunFailed, match="does not open"):
            unseal(KEY, "v", {BOX: wrong})
    for key, verb in ((KEY[::-1], "v"), (KEY, "w"), (KEY, "v\0")):
        with pytest.raises(RunFailed, match="does not open"):
            unseal(key, verb, {BOX: box})


@pytest.mark.parametrize(
    "box", [torch.zeros(0), torch.zeros(0, dtype=torch.uint8), torch.zeros(4096 + 27, dtype=torch.uint8),
            torch.zeros(1, 4096 + 28, dtype=torch.uint8), torch.zeros(4096 + 29, dtype=torch.uint8), None]
)  # fmt: skip
def test_what_is_no_box_is_refused_naming_the_slot(box: Tensor | None) -> None:
    with pytest.raises(BadInput, match='"box"'):
        unseal(KEY, "v", {} if box is None else {BOX: box})


def test_a_text_that_is_no_body() -> None:
    nonce = bytes(12)
    for text in (b"\xff" * 4096, bytes(8192), (4).to_bytes(8, "little") + b"abcdE" + bytes(4083)):
        box = pack(nonce + AESGCM(KEY).encrypt(nonce, text, b"v\0" + nonce))
        with pytest.raises((RunFailed, ValueError)):
            unseal(KEY, "v", {BOX: box})


def test_more_than_8_mib_is_sent_in_chunks() -> None:
    with pytest.raises(BadInput, match="send it in chunks"):
        seal(KEY, "v", 0, {"x": torch.zeros(8 << 20, dtype=torch.uint8)})


def test_encodings() -> None:
    flags = torch.rand(37, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(wire.flags({"b": wire.bitmap(flags)}, "b", 37), flags)
    assert wire.flags({"b": wire.bitmap(flags[:0])}, "b", 0).numel() == 0
    with pytest.raises(BadInput, match='"b"'):
        wire.flags({"b": wire.bitmap(torch.ones(38, dtype=torch.bool))}, "b", 37)
    for body in ({}, {"n": torch.zeros(1)}, {"n": torch.zeros(2).long()}, {"n": torch.tensor([-1])}):
        with pytest.raises(BadInput, match='"n" has the wrong form'):
            wire.count(body, "n")


# ---- a conversation through a hub


@dataclass
class Hub:
    """Between the parties: keeps a copy of all it sees, and may change what it forwards."""

    players: Players
    seen: list[tuple[tuple[int, ...], str, bytes]] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)

    def answer(self, ask: Ask) -> list[Reply | Lost]:
        self.asks.append(ask)
        answers = self.players.answer(ask)
        for i, each in ask.each.items():
            self.seen += [((-1, i), ask.verb, b"".join(map(raw_of, (ask.body | dict(each)).values())))]
        for a in answers:
            if isinstance(a, Reply):
                self.seen += [((int(a.clients[0]), -1), ask.verb, b"".join(map(raw_of, a.body.values())))]
        return answers

    def holds(self, secret: Tensor) -> bool:
        return any(raw_of(secret)[:64] in data for _, _, data in self.seen)


def raw_of(t: Tensor) -> bytes:
    return t.contiguous().numpy().tobytes()


def double(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
    if "fail" in body:
        raise ValueError("the secret word is swordfish")
    if "stray" in body:
        return {"other": body["y"]}, {}
    return {"z": body["y"] * 2}, {"asked": memory["asked"] + 1}


def pass_on(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
    box, changes = sealed.hand(memory, "app", "ring", {"note": body["y"] + 1})
    return {"handed": box}, changes


def receive(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
    found, changes = sealed.take(memory, "shop", "ring", body, "handed")
    return {"z": found["note"]}, changes


SEEN = ("seal.sent", "seal.seen")
HANDLERS = {
    "double": Handler(double, ("z",), {"asked": torch.zeros(1)}),
    "pass": Handler(pass_on, ("handed",), {}, SEEN),
    "receive": Handler(receive, ("z",), {}, SEEN),
}
NAMES = ("shop", "app")


def players(inner: dict[str, Handler], behind: bool = True, parties: list[Party] | None = None) -> Players:
    """Two feature parties, not opened yet."""
    there = parties or [Party(n, [], torch.zeros(0, 0)) for n in NAMES]
    nodes = [node(p.name) for p in there]
    me = node("bank")
    pins = {n.name: n.public for n in (me, *nodes)}
    own = sealed.unsealing(inner) if behind else inner
    made = Players(
        [opening.handlers(n, pins, digest("schema", 0), digest("parameters", 0)) | own for n in nodes], there
    )
    made.opener = lambda: opening.opened(len(nodes), me, pins, names=[n.name for n in nodes],  # type: ignore[attr-defined]
                                         schema=digest("schema", 0), parameters=digest("parameters", 0))  # fmt: skip
    return made


def opened(inner: dict[str, Handler] = HANDLERS, behind: bool = True) -> tuple[Hub, opening.Opened]:
    at = players(inner, behind)
    return Hub(at), again(at)


def again(at: Players) -> opening.Opened:
    return at.play(at.opener())  # type: ignore[attr-defined]


def ask(verb: str, to: tuple[int, ...] = (0, 1), **body: Tensor) -> Exchange[list[Reply | Lost]]:
    return (
        yield Ask(
            np.array(to), verb, dict(body), {i: {"mine": torch.tensor([i])} for i in to}, round=5, attempt=1, number=7
        )
    )


def test_a_hub_sees_who_verb_and_sizes_only() -> None:
    hub, found = opened()
    replies = play(sealed.sealed(ask("double", **SECRETS), found.sealer), hub.answer)
    assert [torch.equal(r.body["z"], SECRETS["y"] * 2) for r in replies if isinstance(r, Reply)] == [True, True]
    (seen,) = hub.asks
    assert (
        seen.body == {}
        and all(set(each) == {BOX} for each in seen.each.values())
        and (seen.round, seen.attempt) == (0, 0)
    )
    assert [(who, verb, len(data)) for who, verb, data in hub.seen] == [
        ((-1, 0), "double", 8220), ((-1, 1), "double", 8220),
        ((0, -1), "double", 4124), ((1, -1), "double", 4124)]  # fmt: skip
    for secret in (SECRETS["y"], SECRETS["y"] * 2, SECRETS["id"]):
        assert not hub.holds(secret)
    assert not any(word in data for _, _, data in hub.seen for word in (b'"y"', b'"z"', b"F32", b"shape"))


def test_without_boxes_the_hub_finds_them() -> None:
    """The negative control of the test above."""
    hub, _ = opened(behind=False)
    play(ask("double", **SECRETS), hub.answer)
    assert all(hub.holds(secret) for secret in (SECRETS["y"], SECRETS["y"] * 2, SECRETS["id"]))


def test_the_conversation_is_the_same_with_and_without_boxes() -> None:
    hub, found = opened()
    boxed = play(sealed.sealed(ask("double", **SECRETS), found.sealer), hub.answer)
    plain = play(ask("double", **SECRETS), opened(behind=False)[0].answer)
    for a, b in zip(boxed, plain):
        assert isinstance(a, Reply) and isinstance(b, Reply)
        assert torch.equal(a.body["z"], b.body["z"]) and (a.sent, a.asked) == (b.sent, b.asked) == (4000, 7)
        assert a.channel == (4124 - 4000, 8220 - 4000 - 56 - 8)
    assert hub.players.memory[0]["asked"] == 1 and "asked" in hub.players.checkpoint()[0]
    assert set(hub.players.checkpoint()[0]) == {"asked"}


def test_a_handlers_trouble_is_told_in_its_box() -> None:
    hub, found = opened()
    (lost,) = play(sealed.sealed(ask("double", (1,), y=torch.zeros(1), fail=torch.zeros(1)), found.sealer), hub.answer)
    assert isinstance(lost, Lost) and lost.client == 1 and lost.text == "ValueError: the secret word is swordfish"
    assert lost.traceback is not None and "in double" in lost.traceback
    assert not any(b"swordfish" in data for _, _, data in hub.seen)
    assert hub.players.memory[1].get("asked", torch.zeros(1)) == 0
    assert isinstance(play(sealed.sealed(ask("double", (1,), y=torch.zeros(1)), found.sealer), hub.answer)[0], Reply)


def test_only_declared_tensors_are_put_in_a_box_and_gates_see_tensors() -> None:
    hub, found = opened()
    (lost,) = play(sealed.sealed(ask("double", (0,), y=torch.zeros(1), stray=torch.zeros(1)), found.sealer), hub.answer)
    assert isinstance(lost, Lost) and '"other"' in lost.text
    told: list[tuple[str, list[str]]] = []

    def gate(verb: str, body: Slots) -> None:
        told.append((verb, sorted(body)))
        if len(told) == 4:
            raise ValueError("not by my policy")

    at = players(HANDLERS)
    own = sealed.unsealing(HANDLERS, entering=gate, leaving=gate)
    at.handlers = [dict(h) | own for h in at.handlers]  # pyright: ignore[reportCallIssue, reportArgumentType]
    sealer = again(at).sealer
    replies = play(sealed.sealed(ask("double", y=torch.zeros(1)), sealer), at.answer)
    assert told[:2] == [("double", ["mine", "y"]), ("double", ["z"])]
    assert isinstance(replies[0], Reply) and isinstance(replies[1], Lost) and "not by my policy" in replies[1].text


# ---- what a hub may try


def boxes(n: int = 3) -> tuple[Hub, opening.Opened, list[tuple[Slots, Slots]]]:
    """A hub that has forwarded n asks to each party, and what it kept: (ask to party 0, its reply)."""
    hub, found = opened()
    kept: list[tuple[Slots, Slots]] = []
    for i in range(n):
        play(sealed.sealed(ask("double", y=torch.full((3,), float(i))), found.sealer), hub.answer)
        said = hub.players.said[-2]
        assert said.up is not None
        kept.append((said.down, said.up))
    return hub, found, kept


def refused(hub: Hub, found: opening.Opened, match: str, verb: str = "double", to: tuple[int, ...] = (0,)) -> None:
    with pytest.raises(RunFailed, match=match.replace(" ", r"\s+")):
        play(sealed.sealed(ask(verb, to, y=torch.ones(3)), found.sealer), hub.answer)


def test_replayed_swapped_truncated_and_foreign_boxes() -> None:
    hub, found, kept = boxes()
    memory = {n: t.clone() for n, t in hub.players.memory[0].items()}
    for old in (kept[0][0], kept[1][0], kept[2][1]):  # two old asks, and a reply sent back as an ask
        hub.players.on_way_down = lambda a, p, body, old=old: old
        refused(hub, found, "an old one")
    hub.players.on_way_down = lambda a, p, body: hub.asks[-1].each[1]  # what is for the other party
    refused(hub, found, "does not open", to=(0, 1))
    for cut in (slice(0, -1), slice(4096, None), slice(0, 12), slice(0, 0)):
        hub.players.on_way_down = lambda a, p, body, cut=cut: {BOX: body[BOX][cut]}
        refused(hub, found, "is no box|does not open")
    hub.players.on_way_down = lambda a, p, body: body | {"beside": torch.zeros(1)}
    refused(hub, found, '"box" has the wrong form')
    hub.players.on_way_down = lambda a, p, body: body
    after = hub.players.memory[0]
    assert all(torch.equal(after[n], t) for n, t in memory.items())  # refused without harm
    (reply,) = play(sealed.sealed(ask("double", (0,), y=torch.ones(1)), found.sealer), hub.answer)
    assert isinstance(reply, Reply) and reply.body["z"] == 2


def test_replies_answer_their_own_ask() -> None:
    hub, found, kept = boxes()
    for old in (kept[0][1], kept[2][1], kept[2][0]):
        hub.players.on_way_up = lambda a, p, body, old=old: old
        refused(hub, found, "answers another ask|does not open")
    hub.players.on_way_up = lambda a, p, body: {}
    refused(hub, found, "no box")
    bytes_of = [0]

    def bite(a: Ask, p: int, body: Slots) -> Slots:
        body[BOX][bytes_of[0]] ^= 128
        return body

    hub.players.on_way_up = bite
    for at in (0, 11, 12, 2000, -1):
        bytes_of[0] = at
        refused(hub, found, "does not open")


def test_a_repeated_ask_gets_the_same_bytes() -> None:
    hub, _, kept = boxes()
    asked, told = kept[-1]
    count = hub.players.memory[0]["asked"].clone()
    for _ in range(2):
        again, changes = hub.players.of(0)["double"].run(asked, hub.players.memory[0], hub.players.parties[0])
        assert raw(again[BOX]) == raw(told[BOX]) and not changes
    assert torch.equal(hub.players.memory[0]["asked"], count)
    with pytest.raises(RunFailed):  # the same box under another verb
        hub.players.of(0)["pass"].run(asked, hub.players.memory[0], hub.players.parties[0])


def test_a_lost_ask_leaves_a_gap_and_no_harm() -> None:
    hub, found, _ = boxes(1)
    hub.players.lose = lambda a, p: "unplugged" if p == 0 else None
    lost, reply = play(sealed.sealed(ask("double", y=torch.ones(1)), found.sealer), hub.answer)
    assert isinstance(lost, Lost) and lost.reason == "away" and isinstance(reply, Reply)
    hub.players.lose = lambda a, p: None
    assert all(
        isinstance(r, Reply) for r in play(sealed.sealed(ask("double", y=torch.ones(1)), found.sealer), hub.answer)
    )


def test_nothing_is_answered_before_the_opening_or_after_another() -> None:
    at = players(HANDLERS)
    with pytest.raises(RunFailed, match="no open exchange"):
        at.of(0)["double"].run({BOX: torch.zeros(4124, dtype=torch.uint8)}, {}, at.parties[0])
    hub, old = opened()
    again(hub.players)
    refused(hub, old, "does not open|an old one")


def test_what_is_sealed_is_not_summed() -> None:
    hub, found = opened()

    def summed() -> Exchange[object]:
        return (yield Ask(np.array([0]), "double", {}, fold=Fold(("z",))))

    with pytest.raises(RunFailed, match="summed on the way"):
        play(sealed.sealed(summed(), found.sealer), hub.answer)


def test_a_conversation_that_breaks_is_closed() -> None:
    closed: list[bool] = []

    def inner() -> Exchange[None]:
        try:
            yield Ask(np.array([0]), "double", {"y": torch.zeros(1)})
        finally:
            closed.append(True)

    hub, found = opened()
    hub.players.on_way_up = lambda a, p, body: {}
    with pytest.raises(RunFailed):
        play(sealed.sealed(inner(), found.sealer), hub.answer)
    assert closed == [True]


def test_a_sealer_cannot_be_copied() -> None:
    _, found = opened()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="no nonce may be used twice"):
            attempt(found.sealer)


# ---- party to party


def test_party_to_party_through_a_driver_that_cannot_read() -> None:
    hub, found = opened()
    secret = torch.arange(100, dtype=torch.float64)

    def ring() -> Exchange[Tensor]:
        (handed,) = yield Ask(np.array([0]), "pass", {"y": secret})
        assert isinstance(handed, Reply)
        box = handed.body["handed"]
        keys = found.sealer._keys  # pyright: ignore[reportPrivateUsage]
        for key in (k for pair in keys for k in pair):
            with pytest.raises(RunFailed, match="does not open"):
                unseal(key, "ring", {BOX: box})
        (told,) = yield Ask(np.array([1]), "receive", {"handed": box})
        (twice,) = yield Ask(np.array([1]), "receive", {"handed": box})
        assert isinstance(told, Reply) and isinstance(twice, Lost) and "an old one" in twice.text
        return told.body["z"]

    for _ in range(2):
        assert torch.equal(play(sealed.sealed(ring(), found.sealer), hub.answer), secret + 1)
    assert not hub.holds(secret + 1)
    for name in ("bank", "shop", "nobody"):
        with pytest.raises(BadInput, match="another feature party"):
            sealed.hand(hub.players.memory[0], name, "ring", {})


# ---- over a whole alignment, lost and begun again


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bytes, bytes, bytes]]]:
    """Every (key, nonce, text) that is encrypted."""
    found: list[tuple[bytes, bytes, bytes]] = []

    def watched(key: bytes) -> object:
        real = AESGCM(key)

        class One:
            def encrypt(self, nonce: bytes, text: bytes, bound: bytes) -> bytes:
                found.append((key, nonce, text))
                return real.encrypt(nonce, text, bound)

            decrypt = staticmethod(real.decrypt)

        return One()

    monkeypatch.setattr(sealing, "AESGCM", watched)
    yield found


def test_no_key_and_nonce_twice_resume_included(used: list[tuple[bytes, bytes, bytes]]) -> None:
    mine = ids.canonical([list(range(60))], ["int"]).keys
    theirs = [ids.canonical([list(range(k, k + 50))], ["int"]).keys for k in (30, 40)]
    settings = Align()
    parties = [Party(n, keys, torch.zeros(len(keys), 1)) for n, keys in zip(NAMES, theirs)]
    at = players(psi.handlers(settings, chunk=16, threads=1), parties=parties)
    hub = Hub(at)

    def whole() -> psi.AlignedAll:
        found = again(at)
        align = psi.aligned_all(mine, 2, xid=found.xid, settings=settings, chunk=16, threads=1)
        return play(sealed.sealed(align, found.sealer), hub.answer)

    at.lose = lambda a, p: "unplugged" if a.verb == "ids.return" else None
    with pytest.raises(RunFailed):
        whole()
    at.lose = lambda a, p: None
    at.memory = at.checkpoint()  # killed and begun again: what is secret is gone
    first, second = whole(), whole()
    assert [mine[i] for i in first.rows.tolist()] == [mine[i] for i in second.rows.tolist()]  # type: ignore[union-attr]
    assert first.common == 20
    pairs = {(key, nonce) for key, nonce, _ in used}
    assert len(pairs) == len(used) > 60
    assert len({key for key, _ in pairs}) == 3 * 4
    public = [s.up["hello"][-128 + 32 : -64] for s in at.said if s.verb == "open.hello" and s.up]
    known = [bytes(32), *map(raw, public), *(raw(m["xid"]) for m in at.memory)]  # all that a hub saw in the clear
    for _, verb, data in hub.seen:
        openers = [key for key in {k for k, _ in pairs} if opens(key, verb, data)]
        assert len(openers) == 1 and not any(opens(key, verb, data) for key in known)


def opens(key: bytes, verb: str, data: bytes) -> bool:
    try:
        return unseal(key, verb, {BOX: pack(data)}) is not None
    except RunFailed:
        return False


def test_the_watch_itself_sees_a_repeated_nonce(used: list[tuple[bytes, bytes, bytes]]) -> None:
    for _ in range(2):
        seal(KEY, "v", 0, {})
    assert len(used) == 2 and len({(k, n) for k, n, _ in used}) == 1
    assert from_bytes(used[0][2][8:][: int.from_bytes(used[0][2][:8], "little")]) == {}


def test_a_refusal_is_a_manyloom_error() -> None:
    assert issubclass(RunFailed, ManyloomError)
