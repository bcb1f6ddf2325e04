"""The virtual clock: times by hand."""

import math

import numpy as np
import pytest

from manyloom.core import seeds
from manyloom.core.exchange import Ask
from manyloom.runtime.clock import STRETCH, Clock, Span
from manyloom.runtime.timing import timed

IDS = np.arange(50, dtype=np.uint64)
THREE = np.array([0, 1, 2], np.int64)
TRACE = {0: [Span(0, 100, 1.0)], 1: [Span(0, 10, 2.0), Span(50, 100, 1.0)], 2: [Span(30, 100, 0.5)]}


def test_equal_speeds_are_a_second_a_step() -> None:
    clock = Clock(0, IDS)
    assert clock.speeds(THREE).tolist() == [1, 1, 1]
    assert clock.work(0, 7, 5.0) == (7, 12.0, False)
    assert clock.work(0, 7, 5.0, until=8.5) == (3, 8.5, False)


def test_lognormal_speeds_are_those_of_the_seed() -> None:
    clock = Clock(3, np.arange(20_000, dtype=np.uint64), sigma=1.0)
    drawn = np.log(clock.speeds(np.arange(20_000)))
    assert abs(drawn.mean()) < 0.03 and abs(drawn.std() - 1) < 0.03
    assert np.array_equal(clock.speeds(THREE), Clock(3, IDS, sigma=1.0).speeds(THREE))
    assert not np.array_equal(clock.speeds(THREE), Clock(4, IDS, sigma=1.0).speeds(THREE))
    one = float(clock.speeds(THREE[:1])[0])
    assert clock.work(0, 10, 2.0).at == pytest.approx(2.0 + 10 * one)


def test_a_trace_says_who_is_there_and_how_fast() -> None:
    clock = Clock(0, IDS, trace=TRACE)
    assert clock.there(THREE, 0.0).tolist() == [True, True, False]
    assert clock.there(THREE, 20.0).tolist() == [True, False, False]
    assert clock.there(THREE, 130.0).tolist() == [True, False, True]  # it begins again after 100
    assert clock.work(2, 10, 30.0) == (10, 35.0, False)
    gone = clock.work(1, 10, 0.0)  # 5 steps in 10 s, then it is away
    assert gone.left and gone.steps == 5 and gone.at == 10.0
    assert clock.work(1, 5, 0.0) == (5, 10.0, False)


def test_availability_is_a_share_of_time() -> None:
    clock = Clock(1, np.arange(2000, dtype=np.uint64), availability=0.3)
    everybody = np.arange(2000)
    shares = [clock.there(everybody, k * STRETCH).mean() for k in range(20)]
    assert abs(np.mean(shares) - 0.3) < 0.02
    assert np.array_equal(clock.there(everybody, 0.0), clock.there(everybody, STRETCH - 1))
    assert not np.array_equal(clock.there(everybody, 0.0), clock.there(everybody, STRETCH))


def test_a_round_waits_for_so_many_and_no_longer_than_it_may() -> None:
    clock = Clock(0, IDS, trace=TRACE)
    here, at = clock.reachable(THREE, 2, 15.0, 1000.0)
    assert at == 30.0 and here.tolist() == [0, 2]
    here, at = clock.reachable(THREE, 3, 15.0, 20.0)
    assert at == 20.0 and here.tolist() == [0]


def test_who_answers_when_by_hand() -> None:
    """0 needs 10 s, 1 is away, 2 needs 5 s from 30 on; the deadline is 8 s."""
    clock = Clock(0, IDS, trace=TRACE)
    names = ["a", "b", "c"]
    ask = Ask(THREE, "train", at=30.0, deadline_s=8.0)
    steps = np.array([10, 10, 10], np.int64)
    got = timed(clock, ask, THREE, steps, names, partial=False)
    assert got.clients.tolist() == [2] and got.at.tolist() == [35.0] and got.most.tolist() == [10]
    assert [(x.client, x.reason) for x in got.lost] == [(0, "deadline"), (1, "away")]
    some = timed(clock, ask, THREE, steps, names, partial=True)
    assert some.clients.tolist() == [2, 0] and some.at.tolist() == [35.0, 38.0] and some.most.tolist() == [10, 8]
    all_of = timed(clock, ask, THREE, steps, names, partial=False, counts=False)
    assert all_of.clients.tolist() == [2, 0] and all_of.at.tolist() == [35.0, 40.0]


def test_equal_times_go_by_name() -> None:
    got = timed(Clock(0, IDS), Ask(THREE, "train"), THREE, np.array([3, 3, 3]), ["z", "a", "m"], partial=False)
    assert got.clients.tolist() == [1, 2, 0]


def test_nothing_is_drawn_from_a_generator() -> None:
    """A speed is a function of (seed, id): the same in any order and alone."""
    clock = Clock(5, IDS, sigma=0.7)
    order = np.array([9, 3, 7])
    assert clock.speeds(order).tolist() == [float(clock.speeds(np.array([c]))[0]) for c in order.tolist()]
    uniform = seeds.uniform(5, 0, IDS[order], "speed")
    assert np.all((uniform > 0) & (uniform < 1)) and math.isfinite(float(clock.speeds(order).max()))


@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 1.1, 3.3])
def test_a_trace_goes_on_for_ever_whatever_its_period_rounds_to(period: float) -> None:
    """k P + P and (k + 1) P differ in the last bit: time must pass all the same."""
    clock = Clock(0, IDS, trace={0: [Span(0, period, 0.01)], 1: [Span(0, period / 2, 0.01)]})
    now = 0.0
    for _ in range(100):
        span = clock._span(0, now, 0.0, now)
        assert span is not None and span.end > now
        now = span.end
    assert now == pytest.approx(100 * period)
    done = clock.work(0, 2000, 0.0)
    assert done.steps == 2000 and done.at == pytest.approx(20.0) and not done.left
    for k in range(50):
        assert clock._next(k * period) > k * period
