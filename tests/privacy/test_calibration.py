"""Two of epsilon, noise and rounds give the third, on the accountant that reports."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.errors import BadInput
from manyloom.privacy.accountants import everyone, fixed, poisson, truncated
from manyloom.privacy.calibration import (
    check_delta,
    default_delta,
    epsilon_for,
    left_of_delta,
    noise_for,
    rounds_for,
)

# target, delta, q, T, z by PLD, z by RDP
VECTORS = [
    (2, 1e-5, 0.01, 1000, 0.959103, 1.022290),
    (8, 1e-6, 0.01, 2000, 0.674178, 0.701282),
    (1, 1e-5, 0.02, 500, 1.878554, 2.023140),
]


def up(z):
    return math.ceil(z * 1e4) / 1e4


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
@pytest.mark.parametrize("target, delta, q, rounds, by_pld, by_rdp", VECTORS)
def test_reference_roots_rounded_up_and_both_sides_of_them(target, delta, q, rounds, by_pld, by_rdp, accountant):
    """Up at the fourth decimal; what is reached is at most the target, and one step less noise is above it."""
    drawn = poisson(10**5, q)
    z = noise_for(target, rounds, drawn, delta, accountant)
    assert z == up(by_pld if accountant == "pld" else by_rdp)
    assert epsilon_for(z, rounds, drawn, delta, accountant) <= target
    assert epsilon_for(z - 1e-4, rounds, drawn, delta, accountant) > target


def test_the_reported_accountant_is_the_one_that_calibrates():
    """The root of one accountant overshoots or undershoots on the other."""
    target, delta, q, rounds, by_pld, by_rdp = VECTORS[0]
    drawn = poisson(10**5, q)
    assert epsilon_for(up(by_pld), rounds, drawn, delta, "rdp") > target
    assert epsilon_for(up(by_rdp), rounds, drawn, delta, "pld") < 0.95 * target


@pytest.mark.parametrize("cap", [pytest.param(26, marks=pytest.mark.slow), 40])
def test_a_capped_cohort_calibrates_as_such(cap):
    target, rounds, delta = 8.0, 40, default_delta(50)
    cut, plain = truncated(50, 0.5, cap), poisson(50, 0.5)
    z = noise_for(target, rounds, cut, delta, "pld")
    assert epsilon_for(z, rounds, cut, delta, "pld") <= target < epsilon_for(z - 1e-4, rounds, cut, delta, "pld")
    assert z >= noise_for(target, rounds, plain, delta, "pld")
    assert cap == 40 or epsilon_for(z, rounds, plain, delta, "pld") < target / 2  # what the wrong claim would say


@settings(deadline=None, max_examples=5, derandomize=True)
@given(target=st.floats(0.1, 8), rounds=st.integers(100, 2000), q=st.floats(0.05, 1.0))
def test_every_root_is_on_the_grid_and_the_least_there(target, rounds, q):
    drawn = poisson(5000, q)
    z = noise_for(target, rounds, drawn, 1e-5, "rdp")
    assert z == round(z * 1e4) / 1e4
    assert epsilon_for(z, rounds, drawn, 1e-5, "rdp") <= target
    assert z <= 0.01 or epsilon_for((round(z * 1e4) - 1) / 1e4, rounds, drawn, 1e-5, "rdp") > target


EXACT = {0.1: 30.7496, 0.5: 7.0318, 1: 3.7306, 2: 1.9938, 4: 1.0812, 8: 0.6002, 10: 0.4999, 20: 0.2900}


@pytest.mark.parametrize("target", EXACT)
def test_exact_sigma_of_one_release(target):
    z = noise_for(target, 1, everyone(10), 1e-5, "pld")
    assert EXACT[target] - 6e-5 <= z <= EXACT[target] + 1.6e-4
    assert epsilon_for(z, 1, everyone(10), 1e-5, "pld") <= target


def test_rounds_are_the_most_that_fit():
    drawn = poisson(1000, 0.05)
    n = rounds_for(4.0, 1.2, drawn, 1e-5, "rdp")
    assert epsilon_for(1.2, n, drawn, 1e-5, "rdp") <= 4.0 < epsilon_for(1.2, n + 1, drawn, 1e-5, "rdp")
    assert rounds_for(0.1, 0.5, drawn, 1e-5, "rdp") == 0
    assert rounds_for(1e6, 5.0, everyone(10), 1e-5, "pld", most=77) == 77


def test_a_fixed_cohort_calibrates_as_such():
    z = noise_for(8.0, 5, fixed(10, 2), 1e-2, "rdp")
    assert epsilon_for(z, 5, fixed(10, 2), 1e-2, "rdp") <= 8.0
    assert epsilon_for(z, 5, poisson(10, 0.2), 1e-2, "rdp") < 4.0  # what the wrong claim would say


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_an_epsilon_that_means_nothing_is_refused(target):
    with pytest.raises(BadInput):
        noise_for(target, 1, everyone(10), 1e-5, "pld")


def test_delta():
    check_delta(default_delta(4), 4)
    for wrong in (0.25, 0.5, 0.0):
        with pytest.raises(BadInput) as told:
            check_delta(wrong, 4)
        assert told.value.code == "delta-too-large"
    assert left_of_delta(1e-5, 50.0, 1e2) < 1e-5
    with pytest.raises(BadInput) as told:
        left_of_delta(1e-9, 60.0, 1e9)
    assert told.value.code == "delta-spent-on-sampling"
