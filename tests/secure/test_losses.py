"""Whoever is lost, whenever: what must come of it is computed beside, and the sum is that of whoever is in it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.errors import BadInput
from manyloom.secure import FULL, IDEAL, SECRET, Policy, degree
from manyloom.secure.client import ANSWER
from manyloom.secure.graph import least_threshold, quorum_of_signers, sound
from manyloom.secure.params import Params
from manyloom.secure.suite import Suite
from tests.secure import playing
from tests.secure.playing import World, params

Lost = tuple[frozenset[int], ...]  # by stage


def expected(p: Params, n: int, lost: Lost) -> set[int] | None:
    """Who is in the sum of an attempt, or that there is none: for cohorts in which all are neighbours."""
    u0 = set(range(n)) - lost[0]
    if len(u0) < p.n_min:
        return None
    try:
        t = degree(len(u0), p.gamma, p.delta_drop, p.kappa, p.mode).t  # pyright: ignore[reportArgumentType]
    except BadInput:
        return None
    u1 = u0 - lost[1]
    if len(u1) < max(p.n_min, t + 1):  # a client counts its neighbours
        return None
    u2 = u1 - lost[2]
    if len(u2) < max(p.floor_of(len(u0)), t + 1):
        return None
    asked = u2
    if p.mode == "active":
        asked = u2 - lost[3]
        if len(asked) < quorum_of_signers(len(u0), 0):
            return None
    answered = asked - lost[4]
    return u2 if all(len(answered - {v}) >= t for v in u1) else None


def check(n: int, mode: str, lost: Lost) -> bool:
    p = params(n, 3, mode=mode)
    assert int(float(p.gamma) * n) == 0  # `expected` knows no corrupt client
    world = World(n, p, lost={(0, i): set(x) for i, x in enumerate(lost)})
    got, want = world.run(attempts=1), expected(p, n, lost)
    assert (got.total is None) == (want is None), (lost, got.why)
    if want is None:
        assert got.why and not len(got.clients)
        return False
    assert set(got.clients.tolist()) == want and got.total is not None
    assert np.array_equal(got.total, world.plain(got.clients))
    gone = frozenset[int]().union(*(x for i, x in enumerate(lost) if (i, mode) != (3, "semi")))
    assert {x.client for x in got.lost} == gone and got.released
    return True


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(3, 6), st.sampled_from(["active", "semi"]))
def test_any_losses_at_all_stages_at_once(data: st.DataObject, n: int, mode: str) -> None:
    some = st.frozensets(st.integers(0, n - 1), max_size=2)
    check(n, mode, tuple(data.draw(some, label=f"stage {i}") for i in range(5)))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(st.data(), st.integers(3, 6), st.sampled_from(["active", "semi"]))
def test_many_more_losses_at_all_stages(data: st.DataObject, n: int, mode: str) -> None:
    some = st.frozensets(st.integers(0, n - 1), max_size=n)
    check(n, mode, tuple(data.draw(some, label=f"stage {i}") for i in range(5)))


@pytest.mark.parametrize("mode", ["active", "semi"])
@pytest.mark.parametrize("n", [4, 5, 6])
def test_exactly_as_many_answers_as_the_threshold(n: int, mode: str) -> None:
    """t answers of neighbours open every secret (t + 1 clients: nobody holds a share of its own); one less opens none.

    Also with a client lost after it shared, whose key takes t answers of others.
    """
    t = least_threshold(n, n - 1, "0.05", 80, mode)[0]  # pyright: ignore[reportArgumentType]
    nobody: frozenset[int] = frozenset()
    seen = set()
    for answers in range(n + 1):
        for after in (nobody, frozenset({n - 1})):
            lost = (nobody, nobody, after, nobody, frozenset(range(answers, n)))
            seen.add((answers - t, check(n, mode, lost)))
    assert (1, True) in seen and (0, False) in seen and (0, True) not in seen


def test_what_a_failed_attempt_leaves() -> None:
    """One answer too few: a named reason, no total, and no secret but the answer itself that may be asked again."""
    world = World(6, params(6), lost={(0, 4): {3, 4, 5}})
    got = world.run(attempts=1)
    assert got.total is None and got.released and "are needed" in (got.why or "") and not len(got.clients)
    for i in range(3):
        assert not any(name in SECRET and not name.startswith(ANSWER) for name in world.memory[i])


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_losses_at_every_stage_in_a_ring(stage: int) -> None:
    world = World(60, params(60, mode="semi", kappa=40, n_min=30), lost={(0, stage): {7, 8, 9, 41}})
    got = world.run(attempts=1)
    assert len(got.clients) == 56 and got.total is not None and np.array_equal(got.total, world.plain(got.clients))


@settings(max_examples=8, deadline=None)
@given(st.data(), st.integers(7, 10))
def test_any_sound_degree_gives_the_sum(data: st.DataObject, n: int) -> None:
    p = params(n, 4)
    good = [(k, t) for k in [*range(4, n - 1, 2), n - 1] for t in range(2, k + 1)
            if sound(n, k, t, p.gamma, "0", p.kappa, "active") is None]  # fmt: skip
    k, t = data.draw(st.sampled_from(good))
    world = World(n, params(n, 4, delta_drop="0"), degree=(k, t))
    got = world.run(attempts=1)
    assert got.total is not None and np.array_equal(got.total, world.plain(np.arange(n)))
    assert world.asks[1].body["kt"].tolist() == [k, t]


@pytest.mark.parametrize("total", [2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
def test_vectors_about_as_long_as_chunks(total: int) -> None:
    world = World(3, params(3, total - 1, delta_drop="0"))
    got = world.run(attempts=1)
    assert got.total is not None and len(got.total) == total and np.array_equal(got.total, world.plain(got.clients))


def test_two_clients_have_no_graph() -> None:
    """A threshold of 2 takes 2 neighbours: two clients can't hide from each other's shares, whatever a policy says."""
    for mode in ("active", "semi"):
        with pytest.raises(BadInput, match="over 2 clients"):
            degree(2, "0.05", "0", 40, mode)  # pyright: ignore[reportArgumentType]
        got = World(2, params(2, n_min=2, n_max=2, mode=mode, delta_drop="0"), policy=Policy(n_min=2)).run(attempts=1)
        assert got.total is None and "over 2 clients" in (got.why or "")


def _three_hundred(monkeypatch: pytest.MonkeyPatch, mode: str, suite: Suite) -> None:
    many = (Ed25519PrivateKey.from_private_bytes(i.to_bytes(32, "big")) for i in range(300))
    monkeypatch.setattr(playing, "KEYS", sorted(many, key=lambda k: k.public_key().public_bytes_raw()))
    lost = {(0, 2): set(range(0, 300, 13)), (0, 4): {1}}
    world = World(300, params(300, 20, mode=mode, n_min=200), lost=lost, suite=suite)
    got = world.run(attempts=1)
    assert got.total is not None and len(got.clients) == 276
    assert np.array_equal(got.total, world.plain(got.clients))


@pytest.mark.parametrize("mode", ["active", "semi"])
def test_three_hundred_clients_simulated(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    _three_hundred(monkeypatch, mode, IDEAL)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["active", "semi"])
def test_three_hundred_clients(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    _three_hundred(monkeypatch, mode, FULL)


def test_the_computed_outcome_can_be_wrong() -> None:
    """`expected` is no tautology: with a threshold one off, the played attempts would contradict it."""
    nobody: frozenset[int] = frozenset()
    p = params(5, 3, mode="semi")
    found = {(a, b): expected(p, 5, (nobody, frozenset(range(a)), nobody, nobody, frozenset(range(b)))) is not None
             for a, b in itertools.product(range(4), repeat=2)}  # fmt: skip
    assert found[0, 2] and not found[0, 3] and found[1, 1] and not found[3, 0]
