"""Privacy losses by whole arrays say what dp-accounting's PLD accountant says, and a round's answer is cheap."""

import math

import dp_accounting as dp
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.privacy import losses
from manyloom.privacy.accountants import Spent, epsilon, everyone, exact, poisson, safe_cap, truncated
from manyloom.privacy.losses import Release

RELATIONS = {
    "zero-out": dp.NeighboringRelation.REPLACE_SPECIAL,
    "add-or-remove": dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp.NeighboringRelation.REPLACE_ONE,
}


def event(s):
    gaussian = dp.GaussianDpEvent(s.z)
    if s.sampling.kind == "none":
        return gaussian
    if s.sampling.cap is None:
        return dp.PoissonSampledDpEvent(s.sampling.rate, gaussian)
    return dp.TruncatedSubsampledGaussianDpEvent(s.sampling.population, s.sampling.rate, s.sampling.cap, s.z)


def library(spent, delta, adjacency):
    total = pld.PLDAccountant(neighboring_relation=RELATIONS[adjacency])
    for s in spent:
        total.compose(event(s), s.count)
    return total.get_epsilon(delta)


ONE, SOME = poisson(1000, 0.05), poisson(50, 0.5)
CASES = [
    ([Spent(1.2, 1.0, SOME)], 1e-5, "zero-out"),
    ([Spent(2.064, 1.0, SOME, 40)], 1e-3, "zero-out"),
    ([Spent(2.064, 1.0, SOME, 40)], 1e-3, "add-or-remove"),
    ([Spent(2.0, 1.0, ONE, 30)], 1e-5, "replace-one"),
    ([Spent(2.0, 1.0, ONE, 1)], 1e-5, "replace-one"),
    ([Spent(50.0, 1.0, ONE, 3)], 1e-7, "zero-out"),
    ([Spent(5000.0, 1.0, ONE, 3)], 1e-7, "zero-out"),
    ([Spent(5.0, 1.0, truncated(40, 0.3, 20), 7)], 1e-3, "zero-out"),
    ([Spent(5.0, 1.0, truncated(40, 0.3, 13), 7)], 1e-3, "zero-out"),
    pytest.param([Spent(1.0, 1.0, truncated(40, 0.3, 20), 7)], 1e-3, "zero-out", marks=pytest.mark.slow),
    ([Spent(2.0, 1.0, ONE, 30), Spent(3.0, 1.0, everyone(1000), 5)], 1e-5, "zero-out"),
    ([Spent(2.0, 1.0, ONE, 30), Spent(3.0, 1.0, everyone(1000), 5)], 1e-5, "replace-one"),
    ([Spent(2.0, 1.0, ONE, 30), Spent(2.5, 1.0, SOME, 3), Spent(6.0, 1.0, truncated(40, 0.3, 20))], 1e-5, "zero-out"),
]


@pytest.mark.parametrize("spent, delta, adjacency", CASES)
def test_the_same_epsilon_as_the_library(spent, delta, adjacency):
    assert epsilon(spent, delta, "pld", adjacency) == pytest.approx(library(spent, delta, adjacency), rel=1e-6)


def test_a_changed_rate_or_noise_would_be_seen():
    """What the comparison above resolves: a ten-thousandth of noise or of the rate."""
    spent = [Spent(2.064, 1.0, SOME, 40)]
    base = library(spent, 1e-3, "zero-out")
    for wrong in (Spent(2.0642, 1.0, SOME, 40), Spent(2.064, 1.0, poisson(50, 0.50005), 40)):
        assert epsilon([wrong], 1e-3, "pld", "zero-out") != pytest.approx(base, rel=1e-5)


@pytest.mark.parametrize(
    "z, rate, side", [(1.0, 0.01, "REMOVE"), (1.0, 0.01, "ADD"), (0.7, 0.3, "REPLACE"), (2.0, 1.0, "REMOVE")]
)
def test_one_release_has_the_librarys_delta_at_every_grid_point(z, rate, side):
    """delta(e) of the discretised losses, at grid points, is that of the mechanism itself, by its scalar code."""
    from dp_accounting.pld import privacy_loss_mechanism as mechanism

    one = losses._discretised(z, rate, side)
    gaussian = mechanism.GaussianPrivacyLoss(z, sampling_prob=rate, adjacency_type=mechanism.AdjacencyType[side])
    loss = (one.low + np.arange(one.p.size)) * losses.INTERVAL
    assert one.p.sum() + one.infinite == pytest.approx(1.0, abs=1e-6) and one.p.min() >= 0
    for e in loss[loss >= 0][:: one.p.size // 50]:
        above = loss > e
        delta = one.infinite - np.dot(np.expm1(e - loss[above]), one.p[above])
        assert delta == pytest.approx(gaussian.get_delta_for_epsilon(float(e)), rel=1e-9, abs=1e-12)


def test_between_grid_points_delta_never_comes_out_smaller():
    one = losses._discretised(1.0, 1.0, "REMOVE")
    loss = (one.low + np.arange(one.p.size)) * losses.INTERVAL
    for e in (0.00005, 1.23456, 4.377178):
        above = loss > e
        delta = one.infinite - np.dot(np.expm1(e - loss[above]), one.p[above])
        assert 0 <= delta - dp.pld.privacy_loss_mechanism.GaussianPrivacyLoss(1.0).get_delta_for_epsilon(e) < 1e-8


def test_gaussians_alone_are_the_closed_form():
    assert losses.epsilon(((Release(10.0), 1000),), 1e-6) == pytest.approx(exact(10 / 1000**0.5, 1e-6), rel=1e-5)


def test_a_run_discretises_its_release_once(monkeypatch):
    """Every round shows what is spent: only the first answer may be dear."""
    asked, real = [], losses._discretised
    monkeypatch.setattr(losses, "_discretised", lambda *a: asked.append(a) or real(*a))
    drawn, cut = poisson(77, 0.25), truncated(77, 0.25, safe_cap(77, 0.25))
    spent = [epsilon([Spent(2.25, 1.0, drawn, k)], 1e-3, "pld", "zero-out") for k in range(1, 41)]
    assert spent == sorted(spent) and len(set(spent)) == 40 and len(asked) == 2
    for k in range(1, 11):
        epsilon([Spent(2.25, 1.0, cut, k)], 1e-3, "pld", "zero-out")
    assert len(asked) == 5
    # another kind of release beside it: two more, however often
    for k in range(1, 6):
        epsilon([Spent(2.25, 1.0, drawn, 20), Spent(3.25, 1.0, drawn, k)], 1e-3, "pld", "zero-out")
    assert len(asked) == 7


def test_the_answer_does_not_depend_on_what_was_asked_before():
    """`plan` and the run agree to all digits: 30 rounds are 30 rounds, asked at once or one by one."""
    drawn = poisson(1000, 0.037)
    mixed = [Spent(1.75, 1.0, drawn, 29), Spent(2.75, 1.0, drawn, 3)]
    slowly = [epsilon([Spent(1.75, 1.0, drawn)] * k, 1e-5, "pld", "zero-out") for k in range(1, 31)][-1]
    grown = [epsilon([*mixed[:1], Spent(2.75, 1.0, drawn, k)], 1e-5, "pld", "zero-out") for k in (1, 2, 3)][-1]
    from manyloom.privacy import accountants

    for cached in (accountants._composed, losses._together, losses._repeated, losses._single):
        cached.cache_clear()
    assert epsilon([Spent(1.75, 1.0, drawn, 30)], 1e-5, "pld", "zero-out") == slowly
    assert epsilon(mixed, 1e-5, "pld", "zero-out") == grown


def test_very_many_kinds_of_release(monkeypatch):
    spent = [Spent(5.0 + k, 1.0, SOME) for k in range(4)]
    deep = epsilon(spent, 1e-4, "pld", "zero-out")
    monkeypatch.setattr(losses, "_DEEP", 2)
    from manyloom.privacy import accountants

    accountants._composed.cache_clear()
    assert epsilon(spent, 1e-4, "pld", "zero-out") == deep


def test_releases_that_cost_almost_nothing_or_everything():
    assert epsilon([Spent(1e6, 1.0, SOME, 3)], 1e-5, "pld", "zero-out") == 0.0
    dear = [Spent(0.8, 1.0, SOME)]
    assert epsilon(dear, 1e-5, "pld", "zero-out") == pytest.approx(library(dear, 1e-5, "zero-out"), rel=1e-6)
    assert epsilon([Spent(1.0, 1.0, SOME, 10)], 1e-16, "pld", "zero-out") == math.inf  # below what the grid resolves


@settings(deadline=None, max_examples=6, derandomize=True)
@given(
    z=st.floats(1.5, 8.0),
    rate=st.floats(0.001, 0.9),
    count=st.integers(1, 100),
    delta=st.sampled_from([1e-3, 1e-5, 1e-7]),
)
def test_pld_is_never_above_rdp(z, rate, count, delta):
    spent = [Spent(z, 1.0, poisson(10_000, rate), count)]
    by_pld = epsilon(spent, delta, "pld", "zero-out")
    assert 0 <= by_pld <= epsilon(spent, delta, "rdp", "zero-out") * (1 + 1e-9) + 2e-4
    # sampling never costs, replacing never gains, a cap never gains
    assert by_pld <= epsilon([Spent(z, 1.0, everyone(10_000), count)], delta, "pld", "zero-out") * (1 + 1e-4) + 2e-4
    assert by_pld <= epsilon(spent, delta, "pld", "replace-one") * (1 + 1e-9)
    cut = [Spent(z, 1.0, truncated(10_000, rate, safe_cap(10_000, rate)), count)]
    assert by_pld <= epsilon(cut, delta, "pld", "zero-out") * (1 + 1e-9)
