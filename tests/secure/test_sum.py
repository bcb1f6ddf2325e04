"""The sum is the plain integer sum over whoever is in it, whoever is lost, wherever."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.slots import to_bytes
from manyloom.secure import FULL, IDEAL, SECRET
from manyloom.secure.client import ANSWER
from manyloom.secure.suite import Suite
from tests.secure.playing import World, params


def semi(n: int, **more: object) -> World:
    return World(n, params(n, mode="semi", kappa=40, **more))


@pytest.mark.parametrize("suite", [FULL, IDEAL], ids=["full", "ideal"])
@pytest.mark.parametrize("mode", ["active", "semi"])
@pytest.mark.parametrize("n,d", [(3, 0), (3, 1), (5, 7), (30, 1)])
def test_exact(n: int, d: int, mode: str, suite: Suite) -> None:
    world = World(n, params(n, d, mode=mode, kappa=80, delta_drop="0"), suite=suite)
    got = world.run()
    assert got.why is None and got.total is not None and not got.lost and got.attempt == 0
    assert got.clients.tolist() == list(range(n)) and np.array_equal(got.total, world.plain(got.clients))


def test_longer_than_a_chunk() -> None:
    world = World(3, params(3, 2**16 + 12345, delta_drop="0"))
    got = world.run()
    assert got.total is not None and np.array_equal(got.total, world.plain(got.clients))


def test_a_ring_of_few_neighbours() -> None:
    world = World(60, params(60, mode="semi", kappa=40, n_min=30), lost={(0, 2): {3, 9, 30}, (0, 4): {1}})
    got = world.run()
    k = int(world.asks[1].body["kt"][0])
    assert 4 <= k < 59
    assert len(got.clients) == 57 and got.total is not None and np.array_equal(got.total, world.plain(got.clients))


@pytest.mark.parametrize("mode", ["active", "semi"])
@pytest.mark.parametrize("stage", range(5))
def test_every_subset_of_five_lost_at_every_stage(stage: int, mode: str) -> None:
    if (stage, mode) == (3, "semi"):
        return
    for gone in itertools.chain.from_iterable(itertools.combinations(range(5), r) for r in range(4)):
        world = World(5, params(5, mode=mode), lost={(a, stage): set(gone) for a in (0, 1)})
        got = world.run()
        most = 2 if mode == "semi" and stage > 0 else 1  # the threshold is 2 of 4 neighbours, 3 in active mode
        assert (got.total is not None) == (len(gone) <= most), (gone, got.why)
        if got.total is None:
            assert got.why
            continue
        assert set(got.clients.tolist()) == set(range(5)) - (set(gone) if stage < 3 else set())
        assert np.array_equal(got.total, world.plain(got.clients))
        assert {x.client for x in got.lost} == set(gone)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(6, 9),
    st.sampled_from(["active", "semi"]),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 8)), max_size=7),
)
def test_any_pattern_of_losses(n: int, mode: str, losses: list[tuple[int, int, int]]) -> None:
    lost: dict[tuple[int, int], set[int]] = {}
    for attempt, stage, client in losses:
        lost.setdefault((attempt, stage), set()).add(client)
    results = []
    for suite in (FULL, IDEAL):
        world = World(n, params(n, mode=mode), lost=lost, suite=suite)
        got = world.run()
        if got.total is not None:
            assert np.array_equal(got.total, world.plain(got.clients))
        assert (got.total is None) == (got.why is not None)
        total = None if got.total is None else got.total.tolist()
        results.append((total, got.clients.tolist(), got.sent_up, got.sent_down, got.attempt, got.released))
    assert results[0] == results[1]  # both fidelities: the same integers, the same bytes


def test_exactly_t_answers_are_enough_and_one_less_opens_nothing() -> None:
    for answers, opens in ((3, True), (2, False)):  # n = 6, k = 5, t = 2: of b_v only the others count
        world = semi(6, delta_drop="0")
        world.lost = {(0, 4): set(range(answers, 6))}
        got = world.run()
        assert (got.total is not None) == opens
        if not opens:
            assert got.why and "are needed" in got.why and got.released and got.attempt == 0
            assert not any(n in SECRET for i in range(answers) for n in world.memory[i] if not n.startswith(ANSWER))


def test_one_retry_with_fresh_keys_while_nothing_was_released() -> None:
    world = World(5, params(5), lost={(0, 2): {0, 1, 2}})
    got = world.run()
    assert got.attempt == 1 and got.total is not None and len(got.clients) == 5
    first = [r["advert"] for s, i, r in world.replies if s == 0 and i == 0]
    assert len(first) == 2 and not np.array_equal(first[0][0, 4:68], first[1][0, 4:68])
    again = World(5, params(5), lost={(0, 4): {0, 1, 2}})
    got = again.run()
    assert got.total is None and got.attempt == 0 and got.released


def test_nothing_secret_in_replies_or_in_what_a_checkpoint_holds() -> None:
    world = World(5, params(5, 40), lost={(0, 2): {4}})
    seen: list[bytes] = []

    def peek(ask: object, i: int, body: dict[str, object]) -> dict[str, object]:
        if "secure.keys" in world.memory[i]:
            raw = world.memory[i]["secure.keys"].numpy().tobytes()
            seen.extend(x for x in (raw[:32], raw[32:64], raw[64:]) if any(x))
        kept = {n: v for n, v in world.memory[i].items() if n not in SECRET}
        saved.append(to_bytes(kept))
        return body

    saved: list[bytes] = []
    world.meddle = peek  # pyright: ignore[reportAttributeAccessIssue]
    assert world.run().total is not None
    told = b"".join(v.numpy().tobytes() for _, _, body in world.replies for v in body.values()) + b"".join(saved)
    assert len(set(seen)) == 15 and not any(x in told for x in seen)
    plain = world.q[0].tobytes()
    assert plain[:64] not in told
    assert all(not any(n.startswith("secure.shares") for n in m) for m in world.memory[:4])
    assert all("secure.waiting" not in m for m in world.memory[:4])


def test_bytes_up_are_four_a_number_and_little_more() -> None:
    world = World(5, params(5, 100_000))
    got = world.run()
    assert got.sent_up <= 1.01 * 4 * 5 * 100_000


def test_what_leaves_looks_uniform_and_is_new_each_time() -> None:
    """Chi-squared on the bytes of y_u for constant input; without masks (the planted error) it must fail."""
    limit = 255 + 5 * (2 * 255) ** 0.5
    sent: list[np.ndarray] = []
    for suite in (FULL, FULL, IDEAL):
        np.random.seed(0)
        torch.manual_seed(0)  # seeds do not reach a mask
        world = World(3, params(3, 50_000, delta_drop="0"), suite=suite)
        for i in range(3):
            world.memory[i]["secure.waiting"][:] = 50
            world.memory[i]["secure.waiting"][:, 0] = 1
        assert world.run().total is not None
        sent.append(np.stack([body["masked"][0].numpy() for stage, _, body in world.replies if stage == 2]))
    for rows, uniform in zip(sent, (True, True, False)):
        for row in rows:
            counts = np.bincount(row.view(np.uint8), minlength=256)
            expected = counts.sum() / 256
            assert (((counts - expected) ** 2 / expected).sum() < limit) == uniform
    assert (sent[0] == sent[1]).mean() < 1e-3
