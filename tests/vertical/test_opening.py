"""The opening: who takes part, fresh keys, the same schema and parameters; and what ends it on all sides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from manyloom.core.errors import BadInput, ManyloomError, RunFailed
from manyloom.core.exchange import Ask, Exchange
from manyloom.core.slots import Slots
from manyloom.secure.wire import pack, raw
from manyloom.vertical import hello, opening, sealed
from manyloom.vertical.opening import Node, Opened, digest, node
from manyloom.vertical.party import Party
from tests.vertical.playing import Players

SCHEMA, PARAMETERS = digest("schema", ["int"]), digest("parameters", {"seed": 0})


def party(name: str) -> Party:
    return Party(name, [], torch.zeros(0, 0))


class Meeting:
    """A label party "bank" and feature parties, each with its own pins, schema and parameters."""

    def __init__(self, *names: str, schema: Mapping[str, bytes] | None = None,
                 parameters: Mapping[str, bytes] | None = None) -> None:  # fmt: skip
        self.names = names
        self.me = node("bank")
        self.nodes = {n: node(n) for n in names}
        self.pins = {n.name: n.public for n in (self.me, *self.nodes.values())}
        agreed = [((schema or {}).get(n, SCHEMA), (parameters or {}).get(n, PARAMETERS)) for n in names]
        own = [opening.handlers(self.nodes[n], self.pins, *both) for n, both in zip(names, agreed)]
        self.players = Players(own, [party(n) for n in names])

    def opened(self, **more: object) -> Exchange[Opened]:
        given: dict[str, object] = {"me": self.me, "pins": self.pins, "names": self.names, "schema": SCHEMA,
                                    "parameters": PARAMETERS}  # fmt: skip
        return opening.opened(len(self.names), **(given | more))  # pyright: ignore[reportArgumentType]

    def open(self, **more: object) -> Opened:
        return self.players.play(self.opened(**more))


def test_all_sides_get_one_exchange_id_and_the_same_keys() -> None:
    at = Meeting("shop", "app", "über")
    found = at.open()
    hellos = raw(at.players.said[3].down["hellos"])
    assert found.xid == hashlib.sha256(b"manyloom/xid/v1" + hellos).digest()
    parsed = hello.parse(at.players.said[3].down, "hellos")
    assert [h.name for h in parsed] == ["app", "bank", "shop", "über"]
    memory = {n: at.players.memory[i] for i, n in enumerate(at.names)}
    assert all(raw(m["xid"]) == found.xid for m in memory.values())
    keys = {n: m["seal.keys"] for n, m in memory.items()}
    order = ["app", "bank", "shop", "über"]
    for a in at.names:  # what one sends by, the other reads by; and no key twice
        for b in at.names:
            if a != b:
                assert torch.equal(keys[a][order.index(b)][:32], keys[b][order.index(a)][32:])
    every = {raw(half) for k in keys.values() for row in k for half in (row[:32], row[32:])} - {bytes(32)}
    assert len(every) == 12  # ordered pairs of four
    for i, name in enumerate(at.names):
        both = found.sealer._keys[i]  # pyright: ignore[reportPrivateUsage]
        assert both.out + both.back == raw(keys[name][1])[32:] + raw(keys[name][1])[:32]


def test_the_private_key_is_gone_and_nothing_is_in_a_checkpoint() -> None:
    at = Meeting("shop")
    at.open()
    assert at.players.memory[0]["open.private"].numel() == 0
    assert at.players.checkpoint() == [{}]
    assert at.me.key.private_bytes_raw() not in at.players.transcript()
    assert at.nodes["shop"].key.private_bytes_raw() not in at.players.transcript()
    assert at.me.key.private_bytes_raw().hex() not in repr(at.me)


def test_a_retried_opening_makes_everything_anew() -> None:
    at = Meeting("shop", "app")
    first = at.open()
    keys = {raw(half) for row in at.players.memory[0]["seal.keys"] for half in (row[:32], row[32:])} - {bytes(32)}
    second = at.open()
    after = {raw(half) for row in at.players.memory[0]["seal.keys"] for half in (row[:32], row[32:])} - {bytes(32)}
    assert first.xid != second.xid and not keys & after and len(keys) == len(after) == 4
    a, b = (hello.parse(s.up, "hello")[0] for s in at.players.said if s.verb == "open.hello" and s.party == 0 and s.up)
    assert a.nonce != b.nonce and a.key != b.key and a.signature != b.signature


def test_bytes_are_as_predicted() -> None:
    at = Meeting("shop", "über")
    at.open()
    assert at.players.bytes() == opening.traffic(at.names, "bank")


@pytest.mark.parametrize("field", ["schema", "parameters"])
def test_a_mismatch_aborts_all_sides_and_names_the_field(field: str) -> None:
    other = {"app": digest(field, "other")}
    at = Meeting("shop", "app", **{field: other})
    with pytest.raises(RunFailed, match=f'the {field} digest of "app"') as caught:
        at.open()
    assert "compare the job files" in str(caught.value)
    for memory in at.players.memory:  # "shop" had opened, and was told
        assert memory["xid"].numel() == 0 and memory["seal.keys"].numel() == 0
    aborted = [s for s in at.players.said if s.verb == "open.abort"]
    assert [s.party for s in aborted if s.up is not None] == [0]
    assert all(digest(field, "other") not in raw(t) for s in at.players.said for t in s.down.values())
    at.players.handlers = [opening.handlers(n, at.pins, SCHEMA, PARAMETERS) for n in at.nodes.values()]
    assert raw(at.players.memory[0]["xid"]) != at.open().xid == raw(at.players.memory[0]["xid"])


def bitten(slot: str, at: int) -> Callable[[Ask, int, Slots], Slots]:
    def bite(ask: Ask, party: int, body: Slots) -> Slots:
        if slot in body and party == 1:
            body[slot][at % len(body[slot])] ^= 1
        return body

    return bite


# of a hello: version, name, role, nonce, key, signature
@pytest.mark.parametrize("at", [0, 9, 12, 20, 50, 90, -1])
@pytest.mark.parametrize("way", ["down", "up"])
def test_a_changed_hello_is_refused(at: int, way: str) -> None:
    meeting = Meeting("shop", "apps")
    setattr(meeting.players, f"on_way_{way}", bitten("hello", at))
    with pytest.raises(ManyloomError) as caught:
        meeting.open()
    field = {0: "protocol version", 9: "sender", 12: "role"}.get(at, "signature")
    assert f'opening: the {field} of "' in str(caught.value)
    assert "xid" not in meeting.players.memory[1]


@pytest.mark.parametrize("at", range(0, 560, 37))
def test_changed_hellos_are_refused(at: int) -> None:
    meeting = Meeting("shop", "apps")
    meeting.players.on_way_down = bitten("hellos", at)
    with pytest.raises(RunFailed, match='"apps" gave no answer to open.check'):
        meeting.open()
    assert "xid" not in meeting.players.memory[1]


def test_a_changed_check_does_not_open() -> None:
    for slot, at in (("box", 3), ("box", 100), ("box", -1)):
        for way in ("down", "up"):
            meeting = Meeting("shop", "apps")
            setattr(meeting.players, f"on_way_{way}", bitten(slot, at) if way == "down" else bitten_up(at))
            with pytest.raises(RunFailed):
                meeting.open()


def bitten_up(at: int) -> Callable[[Ask, int, Slots], Slots]:
    return lambda ask, party, body: bitten("box", at)(ask, party, body) if ask.verb == "open.check" else body


def signed_by(me: Node, role: int = 1, version: int = 1) -> Tensor:
    one, _ = hello.said(me, role)
    one = one._replace(version=version)
    return pack(one._replace(signature=me.key.sign(one.signed())).to_bytes())


def answering(told: Tensor) -> Callable[[Ask, int, Slots], Slots]:
    return lambda ask, party, body: {"hello": told} if ask.verb == "open.hello" else body


def test_who_is_not_pinned_is_not_let_in() -> None:
    at = Meeting("shop")
    stranger = node("shop")
    for told, field in (
        (signed_by(stranger), "signature"),
        (signed_by(node("thief")), "sender"),
        (signed_by(at.nodes["shop"], role=0), "role"),
        (signed_by(at.nodes["shop"], role=7), "role"),
        (signed_by(at.nodes["shop"], version=2), "protocol version"),
    ):
        at.players.on_way_up = answering(told)
        with pytest.raises(RunFailed, match=f"opening: the {field} of"):
            at.open()


def test_a_party_lets_in_only_whom_it_pinned() -> None:
    at = Meeting("shop")
    at.players.handlers = [opening.handlers(at.nodes["shop"], {"shop": at.pins["shop"]}, SCHEMA, PARAMETERS)]
    with pytest.raises(RunFailed, match='the sender of "bank"'):
        at.open()


def test_a_party_checks_the_others_signatures_itself() -> None:
    """The label party lets a thief in as "app": "shop" has the true key of "app", and takes no part."""
    at = Meeting("shop", "app")
    thief = node("app")
    own = opening.handlers(thief, at.pins | {"app": thief.public}, SCHEMA, PARAMETERS)
    at.players.handlers = [at.players.of(0), own]
    with pytest.raises(RunFailed, match=r'"shop" gave no answer to open.check') as caught:
        at.open(pins=at.pins | {"app": thief.public})
    assert 'the signature of "app"' in " ".join(str(caught.value).split())
    assert "xid" not in at.players.memory[0]


def test_a_party_misses_its_own_hello() -> None:
    """A hub that plays two openings against each other: all is signed, but from another hello."""
    at = Meeting("shop", "app")
    earlier: list[Slots] = []

    def swap(ask: Ask, party: int, body: Slots) -> Slots:
        if ask.verb == "open.check" and party == 1:
            earlier.append(body)
            return body | {"hellos": earlier[0]["hellos"]}
        return body

    at.players.on_way_down = swap
    at.open()
    with pytest.raises(RunFailed, match="own hello is not among"):
        at.open()


def test_hellos_in_another_order_twice_or_without_a_label_party() -> None:
    at = Meeting("shop")
    seen: list[Slots] = []
    at.players.on_way_down = lambda ask, party, body: seen.append(body) or body
    check = at.players.handlers[0]["open.check"]  # pyright: ignore[reportArgumentType]
    at.open()
    bank, shop = hello.parse(seen[1], "hellos")
    private = hello.said(at.nodes["shop"], 1)
    memory = at.players.memory[0] | {"open.private": pack(private[1])}
    for hellos, why in (
        ((shop, bank), "another order"),
        ((bank, shop, shop), "a name twice"),
        ((shop,), "0 label parties"),
    ):
        body = seen[1] | {"hellos": pack(b"".join(h.to_bytes() for h in hellos))}
        with pytest.raises(ManyloomError, match=why):
            check.run(body, memory, party("shop"))


@pytest.mark.parametrize(
    "told", [torch.zeros(5, dtype=torch.uint8), torch.zeros(200, dtype=torch.uint8), torch.zeros(140), None,
             torch.full((200,), 255, dtype=torch.uint8)]
)  # fmt: skip
def test_what_is_no_hello_is_refused_naming_the_slot(told: Tensor | None) -> None:
    at = Meeting("shop")
    at.players.on_way_up = lambda ask, party, body: {} if told is None else {"hello": told}
    with pytest.raises(BadInput, match='"hello" has the wrong form'):
        at.open()


def test_one_byte_more_or_less_is_no_hello() -> None:
    at = Meeting("shop")
    for cut in (slice(0, -1), slice(1, None)):
        at.players.on_way_up = lambda ask, party, body, cut=cut: {"hello": body["hello"][cut]}
        with pytest.raises(ManyloomError):
            at.open()
    at.players.on_way_up = lambda ask, party, body: {"hello": torch.cat([body["hello"], body["hello"][:1]])}
    with pytest.raises(BadInput, match='"hello" has the wrong form'):
        at.open()


def test_a_key_of_small_order_is_refused() -> None:
    at = Meeting("shop")
    low = hello.said(at.nodes["shop"], 1)[0]._replace(key=bytes(32))
    at.players.on_way_up = answering(pack(low._replace(signature=at.nodes["shop"].key.sign(low.signed())).to_bytes()))
    with pytest.raises(RunFailed, match="all-zero"):
        at.open()


def test_a_repeated_ask_gets_the_same_bytes() -> None:
    at = Meeting("shop")
    asked: list[tuple[str, Slots]] = []
    at.players.on_way_down = lambda ask, party, body: asked.append((ask.verb, body)) or body
    at.open()
    for (verb, body), said in zip(asked, list(at.players.said)):
        again, changes = at.players.of(0)[verb].run(body, at.players.memory[0], party("shop"))
        assert said.up is not None and not changes
        assert {n: raw(t) for n, t in again.items()} == {n: raw(t) for n, t in said.up.items()}


def test_an_old_hello_does_no_harm_to_what_is_open() -> None:
    """Replayed by a hub: the party answers it, but its open channel stays as it is."""
    at = Meeting("shop")
    asked: list[Slots] = []
    at.players.on_way_down = lambda ask, party, body: asked.append(body) or body
    at.open()
    found = at.open()
    _, changes = at.players.of(0)["open.hello"].run(asked[0], at.players.memory[0], party("shop"))
    assert not set(changes) & {"xid", *sealed.SECRET}
    assert raw(at.players.memory[0]["xid"]) == found.xid


def test_a_lost_party_ends_it_by_name() -> None:
    for verb in ("open.hello", "open.check"):
        at = Meeting("shop", "app")
        at.players.lose = lambda ask, party, verb=verb: "unplugged" if ask.verb == verb and party == 1 else None
        with pytest.raises(RunFailed, match=f'"app" gave no answer to {verb}') as caught:
            at.open()
        assert "unplugged" in str(caught.value)


def test_names() -> None:
    for wrong in ("", "a\0b", "x" * 65):
        with pytest.raises(BadInput, match="1 to 64 bytes"):
            node(wrong)
    at = Meeting("shop", "app")
    with pytest.raises(BadInput, match="a name of its own"):
        at.open(names=("shop", "bank"))
