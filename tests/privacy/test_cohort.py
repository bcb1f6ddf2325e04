"""Cohorts under a run's secret: their sizes, their law, the secret's file."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from manyloom.privacy import cohort
from manyloom.privacy.accountants import everyone, fixed, poisson, safe_cap, truncated

KEY, OTHER = bytes(range(32)), bytes(32)


def sizes(sampling, rounds=2000, key=KEY):
    return np.array([len(cohort.draw(key, sampling, r, 0)) for r in range(rounds)])


def share(sampling, rounds=2000):
    """How often each of the population was drawn."""
    seen = np.zeros(sampling.population)
    for r in range(rounds):
        seen[cohort.draw(KEY, sampling, r, 0)] += 1
    return seen / rounds


def refutes(found: np.ndarray, n: int, q: float) -> bool:
    """Whether sizes are not those of n independent draws with probability q: mean and variance, five deviations."""
    mean, var = n * q, n * q * (1 - q)
    off = abs(found.mean() - mean) / np.sqrt(var / len(found))
    spread = abs(found.var(ddof=1) / var - 1) / np.sqrt(2 / len(found))
    return bool(off > 5 or spread > 5)


@pytest.mark.parametrize(("n", "q"), [(200, 0.3), (50, 0.02), (1000, 0.9)])
def test_poisson_sizes_are_binomial(n, q):
    found = sizes(poisson(n, q))
    assert not refutes(found, n, q)
    assert refutes(found, n, q * 1.03 if q < 0.9 else 0.9 * 0.99) or n * q < 2  # the planted error is found
    if n == 50:  # many of them empty
        assert stats.binomtest(int((found == 0).sum()), len(found), 0.98**50).pvalue > 1e-6


def test_each_client_by_itself_alike_and_independent_over_rounds():
    rounds = 4000
    drawn = np.zeros((rounds, 40), bool)
    for r in range(rounds):
        drawn[r, cohort.draw(KEY, poisson(40, 0.25), r, 0)] = True
    chi = ((drawn.mean(0) - 0.25) ** 2 / (0.25 * 0.75 / rounds)).sum()
    assert stats.chi2(40).cdf(chi) < 1 - 1e-6
    z = np.corrcoef(drawn.T)[np.triu_indices(40, 1)] * np.sqrt(rounds)  # pairs within a round
    assert abs(z.std() - 1) < 0.12 and abs(z).max() < 5.5
    after = [np.corrcoef(drawn[:-1, i], drawn[1:, i])[0, 1] * np.sqrt(rounds) for i in range(40)]
    assert max(map(abs, after)) < 5


def test_above_the_cap_a_uniform_part_is_kept():
    sampling = truncated(60, 0.5, 30)
    found = sizes(sampling)
    assert found.max() == 30 and (found == 30).mean() > 0.4 and (found < 30).mean() > 0.3
    untouched = [r for r in range(300) if len(cohort.draw(KEY, poisson(60, 0.5), r, 0)) <= 30]
    for r in untouched:
        assert np.array_equal(cohort.draw(KEY, sampling, r, 0), cohort.draw(KEY, poisson(60, 0.5), r, 0))
    over = [r for r in range(300) if r not in untouched]
    assert all(set(cohort.draw(KEY, sampling, r, 0)) < set(cohort.draw(KEY, poisson(60, 0.5), r, 0)) for r in over)
    expected = found.mean() / 60
    seen = share(sampling)
    assert abs(seen - expected).max() < 5.5 * np.sqrt(expected * (1 - expected) / 2000)  # not the first, not the last
    assert safe_cap(60, 0.5) == 50 and (sizes(poisson(60, 0.5)) > 50).sum() == 0


@pytest.mark.parametrize("m", [1, 10, 39])
def test_a_fixed_cohort_has_its_size_and_is_uniform(m):
    assert set(sizes(fixed(40, m), 200)) == {m}
    p = m / 40
    assert abs(share(fixed(40, m)) - p).max() < 5.5 * np.sqrt(p * (1 - p) / 2000)


def test_ascending_places_without_repeats():
    for sampling in (poisson(100, 0.4), truncated(100, 0.4, 30), fixed(100, 30), everyone(100)):
        for r in range(50):
            found = cohort.draw(KEY, sampling, r, 0)
            assert found.dtype == np.int64 and (np.diff(found) > 0).all() and (found >= 0).all() and (found < 100).all()
    assert len(cohort.draw(KEY, everyone(100), 1, 0)) == 100


def test_key_round_and_attempt_decide_and_nothing_else_does():
    one = cohort.draw(KEY, poisson(100, 0.5), 3, 1)
    np.random.seed(0)
    assert np.array_equal(one, cohort.draw(KEY, poisson(100, 0.5), 3, 1))
    for key, r, attempt in ((OTHER, 3, 1), (KEY, 4, 1), (KEY, 3, 0), (KEY, 1, 3)):
        assert not np.array_equal(one, cohort.draw(key, poisson(100, 0.5), r, attempt))


def test_the_secret_is_made_once_for_its_owner_alone_and_is_read_again(tmp_path):
    path = tmp_path / "cohort.key"
    made = cohort.secret(path)
    assert len(made) == 32 and path.read_bytes() == made == cohort.secret(path)
    assert path.stat().st_mode & 0o777 == 0o600 and [p.name for p in tmp_path.iterdir()] == ["cohort.key"]
    assert cohort.secret(tmp_path / "another") != made
    path.write_bytes(made[:7])  # half a file is none
    assert len(cohort.secret(path)) == 32 and cohort.secret(path) != made and path.stat().st_mode & 0o777 == 0o600


def test_erased_means_overwritten_and_gone(tmp_path):
    path, link = tmp_path / "cohort.key", tmp_path / "kept"
    made = cohort.secret(path)
    link.hardlink_to(path)
    cohort.erase(path)
    assert not path.exists() and link.read_bytes() == bytes(32) != made
    cohort.erase(path)  # nothing to erase is no error
    assert cohort.secret(path) != made
