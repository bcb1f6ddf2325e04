"""Epsilon against the reference tables of the specification: rows, claims and adjacencies."""

import math
import warnings

import pytest

from manyloom.core.errors import BadInput
from manyloom.privacy.accountants import (
    Spent,
    check,
    default_accountant,
    default_adjacency,
    epsilon,
    everyone,
    exact,
    fixed,
    poisson,
    safe_cap,
    truncated,
)

# z, q, T, delta, RDP, PLD: add-or-remove
TABLE = [
    (1.0, 0.01, 1000, 1e-5, 2.101367, 1.828244),
    (1.1, 256 / 60000, 14062, 1e-5, 2.596556, 2.381686),
    (1.1, 0.01, 6000, 1e-5, 4.246599, 3.899771),
    (0.8, 0.01, 1000, 1e-6, 4.293457, 3.706190),
    (1.0, 0.1, 100, 1e-5, 7.903850, 7.046603),
    (2.0, 0.1, 100, 1e-5, 2.580571, 2.337400),
    (0.5, 0.02, 50, 1e-5, 9.730294, 7.970705),
    (4.0, 0.25, 500, 1e-5, 7.211208, 6.678788),
    (5.0, 1, 100, 1e-5, 10.725510, 9.997256),
    (1.0, 1, 1, 1e-5, 4.728507, 4.377178),
    (10.0, 1, 1000, 1e-6, 20.551992, 19.423656),
    (1.0, 0.001, 2000, 1e-8, 1.265676, 0.362801),
    (0.6, 0.0001, 1500, 1e-6, 1.974933, 0.300977),
    (1.0, 5000 / 763430, 4096, 1e-6, 2.919787, 2.676422),
    (1.5, 100 / 3400, 1500, 1 / 3400, 3.331787, 2.972316),
    (0.3, 100 / 342477, 1500, 1 / 342477, 16.706127, 13.507395),
]


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_reference_rows_by_both_accountants_and_pld_is_never_above_rdp(row):
    z, q, rounds, delta, by_rdp, by_pld = row
    spent = [Spent(3.0 * z, 3.0, poisson(10**6, q), rounds)]
    rdp = epsilon(spent, delta, "rdp", "add-or-remove")
    pld = epsilon(spent, delta, "pld", "add-or-remove")
    assert rdp == pytest.approx(by_rdp, rel=1e-4)
    assert pld == pytest.approx(by_pld, rel=1e-3)
    assert pld <= rdp


def test_zero_out_equals_add_or_remove_under_poisson():
    spent = [Spent(2.0, 1.0, poisson(1000, 0.1), 100)]
    for accountant in ("pld", "rdp"):
        assert epsilon(spent, 1e-5, accountant, "zero-out") == pytest.approx(
            epsilon(spent, 1e-5, accountant, "add-or-remove"), rel=1e-9
        )


# z, cohort, N, T, delta, Poisson PLD, Poisson replace-one PLD, fixed replace-one RDP, what raw z would give
CLAIMS = [
    (1.0, 100, 10000, 1000, 1e-5, 1.8282, 2.8434, 20.9871, 3.5761),
    (1.1, 100, 3400, 1500, 1 / 3400, 4.9728, 9.0663, 75.8963, 12.4042),
    (2.0, 100, 1000, 100, 1e-5, 2.3374, 4.3681, 14.0538, 5.3790),
    (4.0, 50, 500, 200, 1e-4, 1.1940, 2.5262, 7.1737, 2.9261),
]


@pytest.mark.parametrize("row", CLAIMS, ids=str)
def test_same_noise_three_claims(row):
    z, m, n, rounds, delta, by_poisson, replaced, by_fixed, raw = row
    drawn = [Spent(z, 1.0, poisson(n, m / n), rounds)]
    assert epsilon(drawn, delta, "pld", "zero-out") == pytest.approx(by_poisson, rel=1e-3)
    assert epsilon(drawn, delta, "pld", "replace-one") == pytest.approx(replaced, rel=1e-3)
    taken = epsilon([Spent(z, 1.0, fixed(n, m), rounds)], delta, "rdp", "replace-one")
    assert taken == pytest.approx(by_fixed, rel=1e-4)
    # the regression: the multiplier of the clip, not of twice the clip, makes it several times smaller
    assert epsilon([Spent(2 * z, 1.0, fixed(n, m), rounds)], delta, "rdp", "replace-one") == pytest.approx(
        raw, rel=1e-4
    )


def test_a_fixed_cohort_under_a_poisson_label_would_read_six_times_smaller_and_more():
    """What the refusal of `check` keeps from being printed, over all rows."""
    for z, m, n, rounds, delta, *_ in CLAIMS:
        label = epsilon([Spent(z, 1.0, poisson(n, m / n), rounds)], delta, "pld", "zero-out")
        truth = epsilon([Spent(z, 1.0, fixed(n, m), rounds)], delta, "rdp", "replace-one")
        assert 6.0 <= truth / label < 15.5


CAPS = {120: 5.2972, 130: 3.6841, 140: 1.9712, 150: 1.8305, 160: 1.8283}


@pytest.mark.parametrize("cap", CAPS)
def test_truncated_poisson(cap):
    spent = [Spent(1.0, 1.0, truncated(10_000, 0.01, cap), 1000)]
    assert epsilon(spent, 1e-5, "pld", "zero-out") == pytest.approx(CAPS[cap], abs=6e-5)


def test_a_cap_never_gains_and_the_safe_one_costs_a_thousandth():
    def at(cap):
        return epsilon([Spent(1.0, 1.0, truncated(10_000, 0.01, cap), 1000)], 1e-5, "pld", "zero-out")

    plain = epsilon([Spent(1.0, 1.0, poisson(10_000, 0.01), 1000)], 1e-5, "pld", "zero-out")
    by_cap = [at(cap) for cap in CAPS]
    assert by_cap == sorted(by_cap, reverse=True) and by_cap[-1] >= plain
    assert at(safe_cap(10_000, 0.01)) == by_cap[3] and by_cap[3] / plain - 1 < 2e-3


def test_three_adjacencies_of_one_gaussian_release():
    """The library doubles the sensitivity in its PLD accountant only (9.9973 against 4.7285); here it is owned once."""
    import dp_accounting as library
    from dp_accounting import pld, rdp

    bare = {}
    for name, made in (("pld", pld.PLDAccountant), ("rdp", rdp.RdpAccountant)):
        accountant = made(neighboring_relation=library.NeighboringRelation.REPLACE_ONE)
        bare[name] = accountant.compose(library.GaussianDpEvent(1.0)).get_epsilon(1e-5)
    assert bare == pytest.approx({"pld": 9.9973, "rdp": 4.7285}, abs=1e-4)
    spent = [Spent(1.0, 1.0, everyone(100))]
    for adjacency in ("zero-out", "add-or-remove"):
        assert epsilon(spent, 1e-5, "pld", adjacency) == pytest.approx(4.377178, abs=1e-6)
        assert epsilon(spent, 1e-5, "rdp", adjacency) == pytest.approx(4.728507, rel=1e-4)
    assert epsilon(spent, 1e-5, "pld", "replace-one") == pytest.approx(9.9973, abs=1e-4)
    doubled = epsilon([Spent(0.5, 1.0, everyone(100))], 1e-5, "rdp", "zero-out")
    assert epsilon(spent, 1e-5, "rdp", "replace-one") == pytest.approx(doubled) and doubled > 9.9973


CLASSIC = {0.1: 0.0607, 0.5: 0.3526, 1: 0.7510, 2: 1.6103, 4: 3.5112, 8: 7.9144, 10: 10.394, 20: 25.44}


@pytest.mark.parametrize("target", CLASSIC)
def test_true_epsilon_of_the_classic_sigma(target):
    sigma = math.sqrt(2 * math.log(1.25 / 1e-5)) / target
    assert exact(sigma, 1e-5) == pytest.approx(CLASSIC[target], rel=6e-4)


COMPOSED = [(1, 0.7510, 1.61), (10, 2.69, 5.98), (50, 6.83, 16.1), (100, 10.4, 25.4), (1000, 48.4, 140)]


@pytest.mark.parametrize("rounds, zeroed, replaced", COMPOSED)
def test_a_classic_epsilon_of_one_a_round_composed(rounds, zeroed, replaced):
    """To the three digits printed: half a unit of the last, or 5e-3."""
    spent = [Spent(math.sqrt(2 * math.log(1.25e5)), 1.0, everyone(9), rounds)]
    for adjacency, value in (("zero-out", zeroed), ("add-or-remove", zeroed), ("replace-one", replaced)):
        assert epsilon(spent, 1e-5, "pld", adjacency) == pytest.approx(value, rel=5e-3)
    # so ten rounds are far below ten times one, and one round more than it says under replace-one
    assert rounds == 1 or epsilon(spent, 1e-5, "pld", "zero-out") < rounds * COMPOSED[0][1]


def test_the_closed_form_of_everyone_every_round_is_below_pld_of_the_same_and_rdp_above():
    """Rows 9-11: PLD equals the analytic Gaussian to all printed digits; RDP is looser."""
    for z, q, rounds, delta, _, by_pld in TABLE:
        if q == 1:
            assert exact(z / math.sqrt(rounds), delta) == pytest.approx(by_pld, abs=1e-6)


@pytest.mark.parametrize(
    "sampling, accountant, adjacency",
    [
        (fixed(100, 10), "pld", "replace-one"),
        (fixed(100, 10), "rdp", "zero-out"),
        (poisson(100, 0.1), "rdp", "replace-one"),
        (truncated(100, 0.1, 30), "rdp", "zero-out"),
        (truncated(100, 0.1, 30), "pld", "add-or-remove"),
    ],
)
def test_an_accountant_that_does_not_cover_the_sampling_is_refused(sampling, accountant, adjacency):
    with pytest.raises(BadInput) as told:
        check(sampling, accountant, adjacency)
    assert told.value.code == "accountant-invalid" and told.value.mend


@pytest.mark.parametrize("sampling", [fixed(100, 10), poisson(100, 0.1), truncated(100, 0.1, 30), everyone(100)])
def test_the_defaults_are_valid(sampling):
    check(sampling, default_accountant(sampling), default_adjacency(sampling))


def test_edges():
    nobody = Spent(1.0, 1.0, everyone(10), 0)
    assert epsilon([nobody], 1e-5, "pld", "zero-out") == 0.0
    assert epsilon([Spent(0.0, 1.0, everyone(10))], 1e-5, "pld", "zero-out") == math.inf
    assert safe_cap(100, 0.9) == 100 and truncated(100, 0.1, 100).kind == "poisson" and fixed(5, 5).kind == "none"
    # a clip that moves keeps z: equal releases are counted together, and order does not matter
    moving = [Spent(1.1 * c, c, poisson(1000, 0.01), 1) for c in (0.1, 0.3, 0.7)]
    assert len({s.z for s in moving}) == 1


def test_orders_that_do_not_converge_are_silent(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epsilon([Spent(0.3, 1.0, poisson(1000, 0.001), 50)], 1e-5, "rdp", "zero-out")
    assert capfd.readouterr().err == ""


def test_a_cap_costs_and_a_wide_one_costs_nothing():
    plain = epsilon([Spent(2.0, 1.0, poisson(20, 0.3), 5)], 1e-3, "pld", "zero-out")
    tight, wide = (
        epsilon([Spent(2.0, 1.0, truncated(20, 0.3, cap), 5)], 1e-3, "pld", "zero-out")
        for cap in (7, safe_cap(20, 0.3))
    )
    assert plain <= wide < plain * 1.01 < tight
