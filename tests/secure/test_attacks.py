"""Each thing that an active server tries, and what stops it (privacy specification, 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom.core.exchange import Ask, Lost, Reply, play
from manyloom.core.slots import Slots
from manyloom.secure import FULL, HANDLERS, SECRET, Policy, Refused, forget, keys, secure_sum
from manyloom.secure.graph import least_threshold, sound
from manyloom.secure.transcript import hash_roster, session
from manyloom.secure.wire import VERBS, numbers, pack, raw, rows, table
from tests.secure.playing import DIGEST, KEYS, MODEL, RUN, Meddle, World, params

BLIND = FULL._replace(verify=lambda key, signature, message: True)  # a server that passes anything on


def at(stage: int, clients: set[int], change: Callable[[Slots, int], Slots]) -> Meddle:
    """A server that tells some clients something else at one stage."""

    def meddle(ask: Ask, i: int, body: Slots) -> Slots:
        return change(body, i) if VERBS.index(ask.verb) == stage and i in clients else body

    return meddle


def nothing_opened(world: World) -> str:
    """Plays it; nobody may give a share. Why clients stopped."""
    got = world.run(attempts=1)
    assert got.total is None
    assert not any(stage == 4 for stage, _, _ in world.replies)
    return " | ".join(sorted(set(world.refused.values())))


def test_another_model_to_one() -> None:
    world = World(5, params(5), server=BLIND)
    world.sites[2] = replace(world.sites[2], model=b"x" * 32)
    assert "client 2 is not signed for this session" in nothing_opened(world)
    honest = World(5, params(5))  # an honest server leaves it out
    honest.sites[2] = replace(honest.sites[2], model=b"x" * 32)
    assert honest.run().clients.tolist() == [0, 1, 3, 4]


def test_another_model_to_one_semi_honest() -> None:
    world = World(5, params(5, mode="semi", kappa=40))
    world.sites[2] = replace(world.sites[2], model=b"x" * 32)
    assert world.run().clients.tolist() == [0, 1, 3, 4] and "another session" in world.refused[2]
    lied = World(5, params(5, mode="semi", kappa=40))
    lied.sites[2] = replace(lied.sites[2], model=b"x" * 32)
    other = session(DIGEST, RUN, 1, 0, b"x" * 32, lied.p.digest(), hash_roster(None))
    lied.meddle = at(1, {2}, lambda b, i: b | {"session": pack(other)})  # the server plays along
    assert "do not open" in nothing_opened(lied)


def test_other_parameters_to_one() -> None:
    other = pack(params(5, alpha="0.6").to_bytes())
    world = World(5, params(5), server=BLIND)
    world.meddle = at(0, {1}, lambda b, i: b | {"params": other})
    assert "client 1 is not signed for this session" in nothing_opened(world)


def test_another_threshold_to_one() -> None:
    world = World(5, params(5), meddle=at(1, {1}, lambda b, i: b | {"kt": numbers([4, 4])}))
    assert "do not open" in nothing_opened(world)
    low = World(5, params(5), meddle=at(1, set(range(5)), lambda b, i: b | {"kt": numbers([4, 2])}))
    assert "threshold 2" in nothing_opened(low)


def test_two_signed_adverts_of_one_client() -> None:
    world = World(5, params(5))
    sid = session(DIGEST, RUN, 1, 0, MODEL, world.p.digest(), hash_roster(world.setting.roster))
    twin = keys.advertise(0, sid, KEYS[0])[0].to_bytes()

    def swap(body: Slots, i: int) -> Slots:
        return body | {"adverts": table([twin, *rows(body["adverts"], keys.ADVERT)[1:]], keys.ADVERT)}

    world.meddle = at(1, {3, 4}, swap)
    assert "do not open" in nothing_opened(world)


@pytest.mark.parametrize("what", ["own", "double", "order", "forged"])
def test_adverts_changed(what: str) -> None:
    def change(body: Slots, i: int) -> Slots:
        a = rows(body["adverts"], keys.ADVERT)
        if what == "own":
            a[i] = a[i][:-1] + bytes([a[i][-1] ^ 1])
        elif what == "double":
            a[0] = a[0][:4] + a[1][4:36] + a[0][36:]
        elif what == "order":
            a = a[::-1]
        else:
            a[0] = a[0][:100] + bytes(32) + a[0][132:]
        return body | {"adverts": table(a, keys.ADVERT)}

    world = World(5, params(5), meddle=at(1, {1, 2, 3, 4}, change))
    assert nothing_opened(world)
    assert {1, 2, 3, 4} <= set(world.refused)


@pytest.mark.parametrize("what", ["withheld", "extra", "flipped", "swapped"])
def test_sealed_shares_changed(what: str) -> None:
    def change(body: Slots, i: int) -> Slots:
        sealed, who = body["sealed"].clone(), body["from"]
        if what == "withheld":
            return body | {"sealed": sealed[1:], "from": who[1:]}
        if what == "extra":
            return body | {"sealed": torch.cat([sealed, sealed[:1]]), "from": torch.cat([who, numbers([i])])}
        if what == "flipped":
            sealed[0, 0] ^= 1
            return body | {"sealed": sealed}
        return body | {"sealed": sealed.flip(0)}

    world = World(5, params(5), meddle=at(2, {0, 1, 2}, change))
    why = nothing_opened(world)
    assert set(world.refused) == {0, 1, 2}
    assert ("withheld" if what in ("withheld", "extra") else "do not open") in why


def test_clients_that_hold_different_first_sets() -> None:
    def without_nine(body: Slots, i: int) -> Slots:
        keep = body["from"] != 9
        return body | {"u1": body["u1"][:-1], "from": body["from"][keep], "sealed": body["sealed"][keep]}

    world = World(10, params(10), meddle=at(2, {0, 1, 2, 3, 4}, without_nine), server=BLIND)
    assert "did not sign the same U1" in nothing_opened(world)
    assert set(world.refused) == set(range(10))


def test_different_sums_to_two_halves() -> None:
    def without_nine(body: Slots, i: int) -> Slots:
        return body | {"u2": body["u2"][:-1], "signatures": body["signatures"][:-1]}

    world = World(10, params(10), meddle=at(3, {0, 1, 2, 3, 4}, without_nine), server=BLIND)
    got = world.run()
    assert got.total is None and not any(stage == 4 for stage, _, _ in world.replies)
    assert all("clients signed this sum, 6 must" in why for why in world.refused.values()) and len(world.refused) == 10


@pytest.mark.parametrize("name,stage", [("u1", 2), ("u2", 3)])
def test_a_client_left_out_or_too_few_in(name: str, stage: int) -> None:
    world = World(6, params(6), meddle=at(stage, {5}, lambda b, i: b | {name: numbers(range(5))}), server=BLIND)
    world.run(attempts=1)
    assert "leaves this client out" in world.refused[5]
    few = World(6, params(6), meddle=at(stage, {0}, lambda b, i: b | {name: numbers([0, 1])}), server=BLIND)
    few.run(attempts=1)
    assert "only 2 clients" in few.refused[0]


def test_one_signature_too_few() -> None:
    def less(body: Slots, i: int) -> Slots:
        return body | {"signers": numbers([0, 1, 2, 2, 77]), "signatures": body["signatures"][[0, 1, 2, 2, 3]]}

    world = World(7, params(7), meddle=at(4, set(range(7)), less))
    assert world.run().total is None
    assert all("3 clients signed this sum, 4 must" in why for why in world.refused.values())


def _asked(world: World) -> dict[int, list[Slots]]:
    """What each client was asked, stage by stage, in an honest round."""
    seen: dict[int, list[Slots]] = {i: [] for i in range(world.n)}

    def note(ask: Ask, i: int, body: Slots) -> Slots:
        seen[i].append(body)
        return body

    world.meddle = note
    assert world.run().total is not None
    return seen


def test_both_kinds_of_share_of_one_client() -> None:
    world = World(5, params(5, mode="semi", kappa=40))
    ask = _asked(world)[0][-1]
    with pytest.raises(Refused):
        HANDLERS[VERBS[4]].run(ask | {"u2": numbers([0, 1, 2, 3])}, world.memory[0], world.sites[0])
    b, s = (world.replies[-5][2][n].shape[1] for n in ("b", "s"))
    assert (b, s) == (4, 0)


def test_asked_again() -> None:
    world = World(5, params(5))
    before: list[tuple[int, Slots, Slots]] = []

    def note(ask: Ask, i: int, body: Slots) -> Slots:
        if i == 0:
            stage = VERBS.index(ask.verb)
            if stage:
                done, last, _ = (stage - 1, *before[-1][1:])
                reply, _ = HANDLERS[VERBS[done]].run(last, world.memory[0], world.sites[0])
                mine = [r for s, c, r in world.replies if (s, c) == (done, 0)][0]
                assert all(torch.equal(reply[n], mine[n]) for n in mine)  # the same ask: the same bytes
                with pytest.raises(Refused):  # another one: no
                    other = last | {next(iter(sorted(last))): next(iter(last.values())) * 0}
                    HANDLERS[VERBS[done]].run(other | {"new": numbers([1])}, world.memory[0], world.sites[0])
            before.append((stage, body, {}))
        return body

    world.meddle = note
    assert world.run().total is not None
    for stage, body, _ in before[:-1]:
        with pytest.raises(Refused):
            HANDLERS[VERBS[stage]].run(body, world.memory[0], world.sites[0])


def test_another_attempt_after_a_release_or_an_old_round() -> None:
    world = World(5, params(5))
    first = _asked(world)[0][0]
    for round, attempt, why in ((1, 1, "were given"), (1, 0, "not after"), (0, 1, "not after"), (2, 2, "two at most")):
        with pytest.raises(Refused, match=why):
            HANDLERS[VERBS[0]].run(first | {"at": numbers([round, attempt])}, world.memory[0], world.sites[0])
    reply, _ = HANDLERS[VERBS[0]].run(first | {"at": numbers([5, 0])}, world.memory[0], world.sites[0])
    assert reply["advert"].shape == (1, 196)
    with pytest.raises(Refused, match="approved"):
        HANDLERS[VERBS[0]].run(first | {"at": numbers([2, 0]), "run": pack(b"r2")}, world.memory[0], world.sites[0])


def test_another_session_is_refused_without_harm() -> None:
    world = World(5, params(5))

    def stranger(ask: Ask, i: int, body: Slots) -> Slots:
        if "session" in body:
            with pytest.raises(Refused, match="another session") as why:
                HANDLERS[ask.verb].run(body | {"session": pack(bytes(32))}, world.memory[i], world.sites[i])
            world.memory[i] = why.value.memory
        return body

    world.meddle = stranger
    assert world.run().total is not None


def test_a_restart_ends_an_attempt() -> None:
    def restart(ask: Ask, i: int, body: Slots) -> Slots:
        if i == 0 and VERBS.index(ask.verb) == 2 and ask.attempt == 0:
            world.memory[0] = {n: v for n, v in world.memory[0].items() if n not in SECRET}
        return body

    world = World(5, params(5), meddle=restart)
    got = world.run()
    assert got.clients.tolist() == [1, 2, 3, 4] and "restarted" in world.refused[0]


def test_what_a_deadline_leaves_behind() -> None:
    world = World(5, params(5), lost={(0, 3): {0}})
    assert world.run().total is not None  # client 0 was asked no more
    before = world.memory[0]
    keys_, shares = before["secure.tid"], before["secure.shares"]
    assert shares.any() and "secure.waiting" in before
    left = forget(before, waiting=True)
    assert not shares.any() and not keys_.any() and not set(left) & set(SECRET)


def test_dropouts_that_cut_the_ring_need_more_than_half_and_the_corrupt() -> None:
    least, x, w = least_threshold(60, 16, "0.1", 80, "active")
    assert w is not None and least >= 8 + w and least > (16 + x) / 2
    assert sound(60, 16, 8 + w - 1, "0.1", "0", 80, "active")
    assert all(_arc_opens(60, 16, t, bad) == (t <= 8 + bad) for t in range(4, 17) for bad in range(0, 9))


def _arc_opens(n: int, k: int, t: int, bad: int) -> bool:
    """Whether, with two runs of k/2 dropped (`bad` of each corrupt), b_v of every v on the arc has t shares."""
    half, arc = k // 2, n // 2 - k // 2
    inside = set(range(arc))
    cut = set(range(arc, arc + half)), set(range(n - half, n))
    holders = inside | {v for run in cut for v in sorted(run)[:bad]}
    near = {v: {(v + s) % n for s in range(-half, half + 1) if s} for v in inside}
    return all(len(near[v] & holders) >= t for v in inside)


def test_a_cohort_with_too_few_honest_is_below_the_floor() -> None:
    p = params(30, gamma="0.3", n_min=10)  # 10 - 9 = 1
    assert "n_min = 10 with gamma" in (Policy().refuses(p, rostered=True) or "")


def test_participation_is_limited_by_the_client() -> None:
    world = World(3, params(3, delta_drop="0"), policy=Policy(separation=3, participations=1))
    first = _asked(world)[0][0]
    with pytest.raises(Refused, match="less than 3 after"):
        HANDLERS[VERBS[0]].run(first | {"at": numbers([5, 0])}, world.memory[0], world.sites[0])
    with pytest.raises(Refused, match="took part 1 times"):
        HANDLERS[VERBS[0]].run(first | {"at": numbers([17, 0])}, world.memory[0], world.sites[0])


# ---- clients that do not follow


def _replace_row(stage: int, who: int, change: Callable[[Slots], Slots]) -> Callable[[Ask, int, Slots], Slots]:
    return lambda ask, i, body: change(body) if VERBS.index(ask.verb) == stage and i == who else body


@pytest.mark.parametrize("change", [
    lambda b: b | {"masked": b["masked"][:, :-1]}, lambda b: b | {"masked": b["masked"].float()},
    lambda b: {"masked": b["masked"]}, lambda b: b | {"sign": b["sign"] ^ 1}, lambda b: b | {"more": b["sign"]},
])  # fmt: skip
def test_masked_inputs_that_are_malformed_are_lost(change: Callable[[Slots], Slots]) -> None:
    world = World(5, params(5), corrupt=_replace_row(2, 3, change))
    got = world.run()
    assert got.clients.tolist() == [0, 1, 2, 4] and got.total is not None
    assert np.array_equal(got.total, world.plain(got.clients))
    assert [(x.client, x.reason) for x in got.lost] == [(3, "malformed")]


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)])
def test_keys_of_small_order_are_lost(key: bytes) -> None:
    def weak(body: Slots) -> Slots:
        advert = keys.Advert.from_bytes(raw(body["advert"]))
        return {"advert": pack(advert._replace(s_pk=key).to_bytes())[None]}

    world = World(5, params(5, mode="semi", kappa=40), corrupt=_replace_row(0, 3, weak))
    assert world.run().clients.tolist() == [0, 1, 2, 4]


def test_a_wrong_share_is_named_and_does_not_stop_the_sum() -> None:
    world = World(6, params(6, mode="semi", kappa=40), corrupt=_replace_row(4, 2, lambda b: b | {"b": b["b"] * 0}))
    got = world.run()
    assert got.total is not None and got.liars == [2] and np.array_equal(got.total, world.plain(got.clients))


def test_strangers_and_repetitions_are_not_read() -> None:
    world = World(5, params(5), lost={(0, 2): {4}})

    def noisy(ask: Ask) -> list[Reply | Lost]:
        found = world.answer(ask)
        came = [a for a in found if isinstance(a, Reply)]
        bad = [Reply(a.clients, {n: t * 0 for n, t in a.body.items()}) for a in came]
        return [*found, *bad, Reply(np.array([77]), came[0].body), *([Reply(np.array([4]), came[0].body)] * 2)]

    got = play(secure_sum(np.arange(5), world.p, world.setting, round=1), noisy)
    assert got.total is not None and np.array_equal(got.total, world.plain(got.clients))
    assert 4 not in got.clients.tolist()
