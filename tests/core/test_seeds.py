"""Randomness is a function of (seed, round, client, purpose)."""

import numpy as np
from scipy import stats

from manyloom.core import seeds


def test_published_values_of_splitmix64():
    """The first outputs of splitmix64 from state 0 (Vigna's reference): mix(k * phi)."""
    state = np.arange(1, 4, dtype=np.uint64) * seeds.PHI
    assert [hex(int(v)) for v in seeds.mix(state)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_golden_key_and_permutation_never_change():
    """Runs of earlier versions must stay repeatable: these numbers are part of the format."""
    k = seeds.key(7, 3, np.array([5, 9], np.uint64), "shuffle", 1)
    again = seeds.key(7, 3, np.array([9, 5], np.uint64), "shuffle", 1)[::-1]
    assert (k == again).all()
    p = seeds.permutations(k, np.array([5, 3]))
    assert sorted(p[0].tolist()) == [0, 1, 2, 3, 4] and sorted(p[1, :3].tolist()) == [0, 1, 2]
    assert (int(k[0]), p[0].tolist()) == GOLDEN


GOLDEN = (11903655869230213665, [3, 0, 1, 2, 4])


def test_each_part_of_the_key_matters():
    ids = np.arange(3, dtype=np.uint64)
    base = seeds.key(1, 1, ids, "a")
    for other in (
        seeds.key(2, 1, ids, "a"),
        seeds.key(1, 2, ids, "a"),
        seeds.key(1, 1, ids, "b"),
        seeds.key(1, 1, ids, "a", 1),
    ):
        assert not (base == other).any()


def test_permutations_are_uniform_over_positions_and_biased_ones_are_caught():
    keys = seeds.key(0, 1, np.arange(20_000, dtype=np.uint64), "shuffle")
    p = seeds.permutations(keys, np.full(20_000, 10))

    def chi(p):
        counts = np.stack([np.bincount(p[:, j], minlength=10) for j in range(10)])
        return stats.chi2.sf(((counts - 2000) ** 2 / 2000).sum(), 81)

    assert chi(p) > 1e-4
    p[:1500] = np.arange(10)  # planted: a few rows that are not shuffled
    assert chi(p) < 1e-4


def test_uniform_is_uniform():
    u = seeds.uniform(3, 1, np.arange(20_000, dtype=np.uint64), "dropout/0")
    assert 0 <= u.min() and u.max() < 1 and stats.kstest(u, "uniform").pvalue > 1e-4
