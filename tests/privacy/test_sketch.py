"""Bugs of the naive sketch, "client DP and masks": privacy.md §11, 8-12, what mechanism and accounting answer for.

Each keeps the naive code beside ours and asserts what it does wrong. Items 2, 6 and the first half of 11 are in
`test_regressions.py`; aliasing (1) and masks (3-7) belong to the work and to the secure sum.
"""

import math

import numpy as np
import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.privacy.accountants import Spent, check, default_adjacency, epsilon, everyone, exact, poisson
from manyloom.privacy.calibration import check_delta, default_delta, epsilon_for, noise_for
from manyloom.privacy.guarantee import Facts, derive, planned
from manyloom.privacy.mechanisms import clipped, decode, encode, noised, norm
from manyloom.privacy.source import Secret


def test_11_8_a_norm_takes_integers_and_the_counter_is_not_noised_with_the_weights():
    """BatchNorm's counter is Long: its norm crashes in torch, and clip and noise made it 8.897."""
    with pytest.raises(RuntimeError):
        torch.tensor([3, 4]).norm()
    assert norm(np.array([3, 4])) == 5.0
    x, size = clipped(np.array([3, 4]), 1.0)
    assert size == 5.0 and x == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize(
    "bad, naive_does",
    [
        (np.array([1e9, math.nan], np.float32), "leaves 1e9"),
        (np.array([math.inf, 1.0], np.float32), "makes nan"),
        (np.full(4, 1e20, np.float32), "makes zeros"),
    ],
    ids=["nan", "inf", "1e20"],
)
def test_11_9_clip_of_nan_inf_and_1e20(bad, naive_does):
    """`coef < 1` is False for NaN; inf / inf is NaN; norm^2 overflows in float32."""

    def naive(x, clip):
        with np.errstate(all="ignore"):
            coef = np.float32(clip) / np.sqrt((x**2).sum(dtype=np.float32))
            return x * coef if coef < 1 else x

    done = naive(bad, 1.0)
    assert {
        "leaves 1e9": float(np.nanmax(done)) == 1e9,
        "makes nan": bool(np.isnan(done).any()),
        "makes zeros": not done.any(),
    }[naive_does]
    out, size = clipped(bad, 1.0)
    assert np.isfinite(out).all() and np.linalg.norm(out) <= 1 + 1e-12
    e = encode(bad, 1.0, 2**10, Secret())
    assert int((e.q**2).sum()) <= 2**20
    if naive_does == "makes zeros":
        assert size == pytest.approx(2e20) and out == pytest.approx(np.full(4, 0.5)) and e.finite and e.q.any()
    else:
        assert math.isnan(size) and not out.any() and not e.finite and not e.q.any()


def test_11_10_sensitivity_is_the_clip_that_the_code_applies():
    """Clip 5 with noise for 1 was accounted as z = 1: a fifth of the noise."""
    clip, sigma = 5.0, 1.0
    assert Spent(sigma, clip, everyone(10)).z == 0.2
    said, true = exact(1.0, 1e-5), epsilon([Spent(sigma, clip, everyone(10))], 1e-5, "pld", "zero-out")
    assert said == pytest.approx(4.377, abs=1e-3) and true > 5 * said
    # in integers it can't come apart: what is encoded never exceeds S, and sigma is z S, whatever the clip
    for clip in (0.1, 1.0, 5.0):
        q = encode(np.full(9, 1e3), clip, 2**10, Secret()).q
        assert 0.98 * 2**10 < math.sqrt(int((q**2).sum())) <= 2**10


@pytest.mark.parametrize("population", [100, 100_000, 10**6])
def test_11_10_delta_follows_the_population(population):
    """Fixed at 1e-5 whatever N: at N = 100 000 and more a mechanism that publishes one client passes."""
    spent = planned(poisson(population, 0.1), 2.0, 0.5, 20)
    facts = Facts(spent, population, 1e-5, 1e-5, "client", "pld", "zero-out", "rounded Gaussian", True, True, (), ())
    if population >= 100_000:
        with pytest.raises(BadInput) as told:
            check_delta(1e-5, population)
        assert told.value.code == "delta-too-large" and "1/N" in (told.value.rule or "")
        with pytest.raises(BadInput):
            derive(facts)
    else:
        check_delta(1e-5, population)
    check_delta(default_delta(population), population)
    assert default_delta(population) == pytest.approx(population**-1.1)


def test_11_11_replace_one_needs_twice_the_sensitivity():
    """Adjacency unstated: the same release is 4.38 or 10.0."""
    one = [Spent(1.0, 1.0, everyone(10))]
    by = {a: epsilon(one, 1e-5, "pld", a) for a in ("zero-out", "add-or-remove", "replace-one")}
    assert by["zero-out"] == by["add-or-remove"] == pytest.approx(4.3772, abs=1e-4)
    assert by["replace-one"] == pytest.approx(exact(0.5, 1e-5)) == pytest.approx(9.9973, abs=1e-4)
    for sampling in (poisson(10, 0.5), everyone(10)):
        assert default_adjacency(sampling) == "zero-out"
    with pytest.raises(BadInput):
        check(poisson(10, 0.5), "rdp", "replace-one")


def test_11_12_noise_is_added_once_to_the_sum_and_not_by_each_client():
    """Local noise at d = 1M is 4845 times the clip: the model is destroyed. Central noise is shared by the cohort."""
    d, clip, scale, n = 10**6, 1.0, 2**12, 1000.0
    local = math.sqrt(2 * math.log(1.25 / 1e-5)) * math.sqrt(d)  # of the classic sigma at epsilon 1
    assert local / clip == pytest.approx(4845, rel=1e-3)
    z = noise_for(1.0, 1, everyone(1000), 1e-5, "pld")
    released = decode(noised(np.zeros(d, np.int64), z * scale), clip, scale, n)
    size = float(np.linalg.norm(released)) / clip
    assert size == pytest.approx(z * math.sqrt(d) / n, rel=0.01) and size < local / 1000
    # summed over the cohort local noise of one strength would still be sqrt(n) times as large
    assert math.sqrt(n) * z * math.sqrt(d) / n > 30 * size
    assert epsilon_for(z, 1, everyone(1000), 1e-5, "pld") <= 1.0
