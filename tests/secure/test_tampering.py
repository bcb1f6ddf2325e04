"""Messages changed, doubled, late or from another time: refused or lost, never summed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from manyloom.core.exchange import Ask, Lost, Reply, play
from manyloom.core.slots import Slots
from manyloom.secure import FULL, HANDLERS, Refused, Summed, keys, secure_sum, wait
from manyloom.secure.shamir import SHARE, P
from manyloom.secure.stages import LIVE
from manyloom.secure.wire import VERBS, numbers, pack, raw, rows, table
from tests.secure.playing import Meddle, World, params
from tests.secure.test_vectors import SMALL

H = bytes.fromhex


def semi(n: int = 5, **more: object) -> World:
    return World(n, params(n, mode="semi", kappa=40), **more)  # pyright: ignore[reportArgumentType]


def reply(stage: int, who: set[int], change: Callable[[Slots, int], Slots]) -> Callable[[Ask, int, Slots], Slots]:
    """Clients that answer one stage with something else."""
    return lambda ask, i, body: change(body, i) if VERBS.index(ask.verb) == stage and i in who else body


def asked(stage: int, who: set[int], change: Callable[[Slots, int], Slots]) -> Meddle:
    """A server that says something else to some."""
    return reply(stage, who, change)


def of(body: Slots) -> keys.Advert:
    return keys.Advert.from_bytes(raw(body["advert"]))


def summed(world: World, clients: list[int]) -> Summed:
    got = world.run(attempts=1)
    assert got.total is not None and got.clients.tolist() == clients
    assert np.array_equal(got.total, world.plain(got.clients))
    return got


# ---- a client's messages


@pytest.mark.parametrize("what", ["number", "channel key", "mask key", "both keys the same"])
def test_an_advert_of_another_client_is_lost(what: str) -> None:
    """The first to say a number or a key has it."""
    said: list[keys.Advert] = []

    def copy(ask: Ask, i: int, body: Slots) -> Slots:
        if VERBS.index(ask.verb):
            return body
        said.append(of(body))
        if i != 3:
            return body
        first, own = said[0], said[-1]
        change = {"number": {"uid": first.uid}, "channel key": {"c_pk": first.c_pk}, "mask key": {"s_pk": first.s_pk},
                  "both keys the same": {"s_pk": own.c_pk}}[what]  # fmt: skip
        return {"advert": pack(own._replace(**change).to_bytes())[None]}

    lost = summed(semi(corrupt=copy), [0, 1, 2, 4]).lost
    assert [(x.client, x.reason, x.text) for x in lost] == [(3, "malformed", "its number or key is another client's")]


def test_an_unsigned_or_forged_advert_is_lost() -> None:
    for change in (lambda a: a._replace(signature=bytes(64)), lambda a: a._replace(nonce=bytes(32)),
                   lambda a: a._replace(uid=1), lambda a: a._replace(uid=77)):  # fmt: skip
        world = World(5, params(5), corrupt=reply(
            0, {3}, lambda b, i, change=change: {"advert": pack(change(of(b)).to_bytes())[None]}))  # fmt: skip
        summed(world, [0, 1, 2, 4])


@pytest.mark.parametrize("point", SMALL)
@pytest.mark.parametrize("which", ["c_pk", "s_pk"])
def test_every_key_of_small_order_is_lost(point: str, which: str) -> None:
    world = semi(
        corrupt=reply(0, {3}, lambda b, i: {"advert": pack(of(b)._replace(**{which: H(point)}).to_bytes())[None]})
    )
    summed(world, [0, 1, 2, 4])


@pytest.mark.parametrize("point", SMALL[:3])
def test_a_server_that_passes_on_a_key_of_small_order_is_refused(point: str) -> None:
    def weak(body: Slots, i: int) -> Slots:
        a = [keys.Advert.from_bytes(x) for x in rows(body["adverts"], keys.ADVERT)]
        a[4] = a[4]._replace(c_pk=H(point))
        return body | {"adverts": table([x.to_bytes() for x in a], keys.ADVERT)}

    world = semi(meddle=asked(1, {0, 1, 2, 3}, weak))
    assert world.run(attempts=1).total is None and set(world.refused) >= {0, 1, 2, 3}


@pytest.mark.parametrize("change", [
    lambda b: {"sealed": b["sealed"][:, :-1]}, lambda b: {"sealed": b["sealed"][:, :, :-1]},
    lambda b: {"sealed": b["sealed"].to(torch.int32)}, lambda b: {}, lambda b: b | {"more": b["sealed"]},
])  # fmt: skip
def test_sealed_shares_of_another_form_are_lost(change: Callable[[Slots], Slots]) -> None:
    summed(World(5, params(5), corrupt=reply(1, {2}, lambda b, i: change(b))), [0, 1, 3, 4])


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("mode", ["active", "semi"])
def test_a_message_of_another_round_or_attempt(stage: int, mode: str) -> None:
    """Client 3 repeats what it said before: lost, or its neighbours stop, or the sum fails; never summed."""
    for again in ((1, 1), (5, 0)):
        world = World(5, params(5, mode=mode, kappa=80), lost={(0, 4): set()})
        old: dict[int, Slots] = {}
        world.corrupt = lambda ask, i, b, old=old: old.setdefault(VERBS.index(ask.verb), b) if i == 3 else b
        world.lost = {(0, 3 if mode == "active" else 2): {0, 1, 2}}  # too few: nothing is opened
        assert world.run(attempts=1).total is None and stage in old
        world.lost = {}
        world.corrupt = reply(stage, {3}, lambda b, i, old=old: old[stage])
        world.memory = [wait(m, q, again[0]) for m, q in zip(world.memory, world.q)]
        got = play(secure_sum(np.arange(5), world.p, world.setting, round=again[0], attempt=again[1]), world.answer)
        if got.total is not None:
            assert 3 not in got.clients.tolist() and np.array_equal(got.total, world.plain(got.clients))
        else:
            assert got.why
        assert 3 not in got.clients.tolist()


def test_a_masked_input_of_another_attempt_does_not_pass_as_a_sum() -> None:
    """Semi-honest there is no signature: the count of contributions, masked along, does not come out."""
    world = semi(lost={(0, 2): {0, 1, 2}})
    old: list[Slots] = []
    world.corrupt = reply(2, {3}, lambda b, i: old.append(b) or b)
    assert world.run(attempts=1).total is None
    world.lost, world.corrupt = {}, reply(2, {3}, lambda b, i: old[0])
    got = play(secure_sum(np.arange(5), world.p, world.setting, round=1, attempt=1), world.answer)
    assert got.total is None and "the sum counts" in (got.why or "")


@pytest.mark.parametrize("name", ["b", "s"])
@pytest.mark.parametrize("value", [bytes(SHARE), b"\xff" * SHARE, P.to_bytes(SHARE, "little")], ids=["0", "top", "p"])
def test_a_share_replaced_is_named(name: str, value: bytes) -> None:
    def lie(body: Slots, i: int) -> Slots:
        assert body[name].shape[1]
        return body | {name: table([value] * body[name].shape[1], SHARE)[None]}

    world = semi(7, lost={(0, 2): {6}}, corrupt=reply(4, {2}, lie))
    got = world.run(attempts=1)
    assert got.total is not None and got.liars == [2] and np.array_equal(got.total, world.plain(got.clients))


def test_too_many_lies_open_nothing() -> None:
    """Fewer than t right shares of a secret: no sum, and the server says whose."""
    world = semi(6, corrupt=reply(4, {0, 1, 2, 3, 4}, lambda b, i: b | {"b": b["b"] ^ 1}))
    got = world.run(attempts=1)
    assert got.total is None and got.released and "open nothing" in (got.why or "")


@pytest.mark.parametrize("stage", [3, 4])
def test_a_masked_input_that_comes_late_is_not_read(stage: int) -> None:
    """After U2 was fixed; with its sender's key already opened it would be bare."""
    world = World(5, params(5))
    late: list[Slots] = []

    def slow(ask: Ask) -> list[Reply | Lost]:
        found = world.answer(ask)
        if VERBS.index(ask.verb) == 2:
            late.extend(a.body for a in found if isinstance(a, Reply) and a.clients[0] == 4)
            return [a for a in found if not (isinstance(a, Reply) and a.clients[0] == 4)]
        return [*found, Reply(np.array([4]), late[0])] if VERBS.index(ask.verb) == stage else found

    got = play(secure_sum(np.arange(5), world.p, world.setting, round=1), slow)
    assert late and got.clients.tolist() == [0, 1, 2, 3]
    assert got.total is not None and np.array_equal(got.total, world.plain(got.clients))
    assert [x.client for x in got.lost] == [4]


# ---- a server's messages


@pytest.mark.parametrize("stage", range(1, 5))
def test_an_ask_that_is_malformed_ends_the_attempt_and_erases(stage: int) -> None:
    """Any slot missing, of another type, or of another shape: refused, with every secret gone."""
    first = {1: "adverts", 2: "u1", 3: "signatures", 4: "signers"}[stage]
    for change in (lambda b: {n: v for n, v in b.items() if n != first}, lambda b: b | {first: b[first].float()},
                   lambda b: b | {first: b[first][..., :-1]}):  # fmt: skip
        world = World(5, params(5), meddle=asked(stage, {0}, lambda b, i, change=change: change(b)))
        world.run(attempts=1)
        assert 0 in world.refused and not any(n in world.memory[0] for n in LIVE)


def test_an_ask_of_an_earlier_attempt_is_refused() -> None:
    """What was right in attempt 0 is another session in attempt 1."""
    world = World(5, params(5), lost={(0, 3): {1, 2, 3, 4}})
    old: dict[int, Slots] = {}

    def keep(ask: Ask, i: int, body: Slots) -> Slots:
        stage = VERBS.index(ask.verb)
        if i == 0 and ask.attempt == 0:
            old[stage] = body
        elif i == 0 and stage in (1, 2):
            replayed = old[stage] | {"at": numbers([1, 1])}
            with pytest.raises(Refused, match="another session") as why:
                HANDLERS[ask.verb].run(replayed, world.memory[0], world.sites[0])
            world.memory[0] = why.value.memory
            with pytest.raises(Refused, match="not what comes next"):
                HANDLERS[ask.verb].run(old[stage], world.memory[0], world.sites[0])
        return body

    world.meddle = keep
    got = world.run()
    assert got.attempt == 1 and got.total is not None and np.array_equal(got.total, world.plain(np.arange(5)))


def test_shares_beyond_the_field_are_refused() -> None:
    """A neighbour that seals p itself: no share."""
    big = FULL._replace(split=lambda secret, k, t: [P.to_bytes(SHARE, "little")] * k)
    world = semi(meddle=None)
    world.sites[4] = world.sites[4].__class__(**(world.sites[4].__dict__ | {"suite": big}))
    assert world.run(attempts=1).total is None
    assert all("no share: client 4" in world.refused[i] for i in range(4))
