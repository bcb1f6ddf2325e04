"""What a client checks by itself whatever a server says, and how long it keeps a secret."""

from __future__ import annotations

import pytest

from manyloom.core.exchange import Ask
from manyloom.core.slots import Slots
from manyloom.secure import FULL, keys
from manyloom.secure.wire import VERBS, numbers, pack, raw, rows, table
from tests.secure.playing import World, params
from tests.secure.watching import Watch, bytes_of


@pytest.mark.parametrize("field", ["c_pk", "s_pk", "nonce", "commit"])
def test_ones_own_advert_must_be_there_unchanged(field: str) -> None:
    """Semi-honest, where no signature would show it: a server that puts its own key in a client's name."""

    def mine(ask: Ask, i: int, body: Slots) -> Slots:
        if VERBS.index(ask.verb) != 1:
            return body
        a = [keys.Advert.from_bytes(x) for x in rows(body["adverts"], keys.ADVERT)]
        a[i] = a[i]._replace(**{field: keys.public(b"k" * 32)})
        return body | {"adverts": table([x.to_bytes() for x in a], keys.ADVERT)}

    world = World(5, params(5, mode="semi", kappa=40), meddle=mine)
    assert world.run(attempts=1).total is None
    assert set(world.refused.values()) == {"this client's own advert was changed"}


def _told(stage: int, change: dict[str, object], n: int = 7) -> str:
    """Why client 0 of n stops when it is told this."""

    def meddle(ask: Ask, i: int, body: Slots) -> Slots:
        if i or VERBS.index(ask.verb) != stage:
            return body
        if stage == 2:
            near = [v for v in change["u1"] if v]  # pyright: ignore[reportGeneralTypeIssues]
            keep = [j for j, v in enumerate(body["from"].tolist()) if v in near]
            return body | {"u1": numbers(change["u1"]), "from": numbers(near), "sealed": body["sealed"][keep]}  # pyright: ignore
        near = [v for v in change["u2"] if v]  # pyright: ignore[reportGeneralTypeIssues]
        return body | {"u2": numbers(change["u2"]), "signatures": body["signatures"][[v - 1 for v in near]]}  # pyright: ignore

    world = World(n, params(n), meddle=meddle)
    world.run(attempts=1)
    return world.refused.get(0, "")


def test_too_few_neighbours_or_clients() -> None:
    """n = 7: six neighbours, threshold 4, and half of all must be in the sum."""
    assert _told(2, {"u1": [0, 1, 2, 3, 4, 5]}) == ""  # enough
    assert _told(2, {"u1": [0, 1, 2, 3]}) == "only 3 neighbours shared, the threshold is 4"
    assert _told(2, {"u1": [0, 1]}) == "only 2 clients shared, agreed 3"
    assert _told(3, {"u2": [0, 1, 2, 3, 4, 5]}) != "too few neighbours in the sum"
    assert _told(3, {"u2": [0, 1, 2, 3]}) == "too few neighbours in the sum"
    assert _told(3, {"u2": [0, 1, 2]}) == "only 3 clients in the sum, agreed 4"


def test_a_quorum_counts_each_signer_once_and_only_of_this_sum() -> None:
    """n = 7, q3 = 4. Valid signatures beyond the quorum need not be looked at; invalid ones don't help."""
    good = World(7, params(7))
    good.meddle = lambda ask, i, b: (
        b | {"signers": b["signers"][[6, 5, 4, 0]], "signatures": b["signatures"][[6, 5, 4, 0]]}
        if VERBS.index(ask.verb) == 4 else b
    )  # fmt: skip
    assert good.run(attempts=1).total is not None
    for signers, which in (
        ([0, 1, 2, 2, 2], [0, 1, 2, 2, 2]),
        ([0, 1, 2, 3], [0, 1, 2, 4]),
        ([0, 1, 2, 9], [0, 1, 2, 3]),
    ):
        bad = World(7, params(7))
        bad.meddle = lambda ask, i, b, s=signers, w=which: (
            b | {"signers": numbers(s), "signatures": b["signatures"][w]} if VERBS.index(ask.verb) == 4 else b
        )
        assert bad.run(attempts=1).total is None
        assert len(bad.refused) == 7 and all("3 clients signed this sum, 4 must" in x for x in bad.refused.values())


@pytest.mark.parametrize("mode", ["active", "semi"])
def test_secrets_are_kept_no_longer_than_they_are_needed(mode: str) -> None:
    """Searched in all that a client remembers, byte for byte, before each stage and at the end."""
    watch = Watch()
    world = World(5, params(5, 40, mode=mode, kappa=80), suite=watch.suite())
    kinds: dict[int, set[str]] = {}

    def found(i: int) -> set[str]:
        memory = bytes_of(world.memory[i])
        return {kind for kind, all in watch.secrets.items() if any(x in memory for x in all)}

    def look(ask: Ask, i: int, body: Slots) -> Slots:
        kinds.setdefault(VERBS.index(ask.verb), set()).update(found(i))
        return body

    world.meddle = look
    assert world.run(attempts=1).total is not None
    before = {1: {"key", "self"}, 2: {"key", "self"}, 4: {"share"}} | ({3: {"share"}} if mode == "active" else {})
    assert kinds == {0: set()} | before
    assert set().union(*(found(i) for i in range(5))) == {"share"}  # the answer itself, should it be asked again
    assert not any("secure.waiting" in m or "secure.shares" in m for m in world.memory)


def test_an_attempt_that_fails_leaves_no_secret() -> None:
    """A client that aborts at any stage forgets at once."""
    for stage, slot in ((1, "adverts"), (2, "sealed"), (3, "signatures"), (4, "signatures")):
        watch = Watch()
        world = World(5, params(5, 40), suite=watch.suite())
        world.meddle = lambda ask, i, b, stage=stage, slot=slot: (
            b | {slot: b[slot] ^ 1} if i == 2 and VERBS.index(ask.verb) == stage else b
        )
        world.run(attempts=1)
        assert 2 in world.refused
        memory = bytes_of(world.memory[2])
        assert not any(x in memory for all in watch.secrets.values() for x in all)


def test_the_suite_is_a_clients_own() -> None:
    """A server that looks away gets no sum from clients that do not: its signatures and keys are no use to it."""
    world = World(5, params(5), server=FULL._replace(verify=lambda *_: True))
    world.corrupt = lambda ask, i, b: (
        {"advert": pack(raw(b["advert"])[:-64] + bytes(64))[None]} if i == 3 and VERBS.index(ask.verb) == 0 else b
    )
    assert world.run(attempts=1).total is None
    assert all("client 3 is not signed" in world.refused[i] for i in (0, 1, 2, 4))
