"""The rounded Gaussian and the rounding, by statistics that are shown to find planted errors.

Every check returns the p-values of one sample. A correct sampler fails one of them once in a million runs; a noise
scale off by 2 %, a shift, a lost sign, a cut tail or a biased rounding fails at the same size of sample.
"""

import math

import mpmath
import numpy as np
import pytest
from scipy import special, stats

from manyloom.privacy import sampler
from manyloom.privacy.mechanisms import decode, encode, noised, shrink, stochastic_round
from manyloom.privacy.sampler import LOST, magnitude, rounded_gaussian, survival, table
from manyloom.privacy.source import Injected, Secret

SURE = 1e-6
SIGMAS = [0.7, 4.0, 26214.4]
FEW, MANY = 400_000, 16_000_000


def law(sigma):
    """P(|X| > k) for k = 0 .. 12 sigma, and from it E X^2 and E X^4: exact at any sigma, small ones too."""
    k = np.arange(math.ceil(12 * sigma), dtype=np.float64)
    beyond = special.erfc((k + 0.5) / (sigma * math.sqrt(2)))
    return beyond, float(((2 * k + 1) * beyond).sum()), float((((k + 1) ** 4 - k**4) * beyond).sum())


def verdicts(x, sigma):
    """p-values of mean, variance, signs, chi-squared and Kolmogorov-Smirnov of draws [n] of round(N(0, sigma^2))."""
    n = len(x)
    _, second, fourth = law(sigma)
    found = {}
    found["mean"] = 2 * stats.norm.sf(abs(float(x.mean())) / math.sqrt(second / n))
    square = float((x.astype(np.float64) ** 2).mean())
    found["variance"] = 2 * stats.norm.sf(abs(square - second) / math.sqrt((fourth - second**2) / n))
    signed = x[x != 0]
    found["sign"] = stats.binomtest(int((signed > 0).sum()), len(signed)).pvalue
    edges = np.unique(np.floor(sigma * stats.norm.ppf(np.linspace(0.005, 0.995, 100)))) + 0.5
    share = np.diff(stats.norm.cdf(np.concatenate([[-np.inf], edges, [np.inf]]) / sigma))
    seen = np.bincount(np.searchsorted(edges, x), minlength=len(share))
    found["chi-squared"] = stats.chisquare(seen, share * n).pvalue
    values, counts = np.unique(x, return_counts=True)
    gap = np.abs(np.cumsum(counts) / n - stats.norm.cdf((values + 0.5) / sigma)).max()
    found["KS"] = stats.kstwobign.sf(gap * math.sqrt(n))  # of a discrete law: never too small
    far = int(4 * sigma)
    found["4 sigma"] = stats.binomtest(int((np.abs(x) > far).sum()), n, survival(sigma, far)).pvalue
    return found


def failed(x, sigma):
    return {name for name, p in verdicts(x, sigma).items() if p < SURE}


@pytest.mark.parametrize("sigma", SIGMAS)
def test_rounded_gaussian(sigma):
    x = rounded_gaussian(sigma, FEW, Secret())
    assert x.dtype == np.int64 and np.abs(x).max() <= math.ceil(12 * sigma)
    assert failed(x, sigma) == set()


@pytest.mark.slow
@pytest.mark.parametrize("sigma", SIGMAS)
def test_rounded_gaussian_on_sixteen_million_draws(sigma):
    x = rounded_gaussian(sigma, MANY, Secret())
    assert np.abs(x).max() <= math.ceil(12 * sigma)
    assert failed(x, sigma) == set()
    # what 16M draws resolve: two thousandths of the scale
    assert failed(rounded_gaussian(1.002 * sigma, MANY, Secret()), sigma) & {"variance", "chi-squared"}
    # bits: every value as often as its mirror, and neighbouring draws do not know of each other
    y = x.astype(np.float64)
    together = float((y[1:] * y[:-1]).mean()) / law(sigma)[1]
    assert abs(together) * math.sqrt(MANY) < 5


WRONG = {
    "2 % too small": lambda sigma: rounded_gaussian(0.98 * sigma, FEW, Secret()),
    "2 % too large": lambda sigma: rounded_gaussian(1.02 * sigma, FEW, Secret()),
    "floor instead of round": lambda sigma: np.floor(np.random.default_rng(1).normal(0, sigma, FEW)).astype(np.int64),
    "no sign": lambda sigma: np.abs(rounded_gaussian(sigma, FEW, Secret())),
    "cut at 3 sigma": lambda sigma: np.clip(rounded_gaussian(sigma, FEW, Secret()), -int(3 * sigma), int(3 * sigma)),
    "uniform": lambda sigma: np.random.default_rng(1).integers(-int(1.7 * sigma), int(1.7 * sigma) + 1, FEW),
    "Laplace": lambda sigma: np.rint(np.random.default_rng(1).laplace(0, sigma / 2**0.5, FEW)).astype(np.int64),
}


@pytest.mark.parametrize("sigma", [0.7, 4.0])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_sampler_is_found(wrong, sigma):
    assert failed(WRONG[wrong](sigma), sigma)


@pytest.mark.parametrize("wrong", ["2 % too small", "2 % too large", "no sign", "cut at 3 sigma", "Laplace"])
def test_a_wrong_sampler_is_found_at_the_size_in_use(wrong):
    assert failed(WRONG[wrong](26214.4), 26214.4)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_thresholds_are_those_of_the_normal_distribution_to_the_last_bits(sigma):
    """P(|X| > k) at 0 to 12 sigma against 40 digits; the table keeps 63 bits of it."""
    t = table(sigma)
    with mpmath.workdps(40):
        for k in sorted({int(s * sigma) for s in (0, 0.5, 1, 2, 4, 6, 6.1, 8, 9, 11.9)}):
            exact = mpmath.erfc((k + mpmath.mpf(1) / 2) / (mpmath.mpf(sigma) * mpmath.sqrt(2)))
            assert survival(sigma, k) == pytest.approx(float(exact), rel=1e-12)
            kept = int(t.rising[t.most - 1 - k])
            assert abs(kept - exact * 2**63) <= 1 + exact * 2**63 * mpmath.mpf("1e-13")


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_tail_beyond_6_sigma_is_drawn_as_often_as_it_should_be(sigma):
    """2e-9 of all draws: reached by giving only bits that lie there. 6 -> 6.5 sigma has its conditional share."""
    k, further = int(6 * sigma), int(6.5 * sigma)
    t = table(sigma)
    most = int(t.rising[t.most - 1 - k])
    assert most / 2**63 == pytest.approx(survival(sigma, k), rel=1e-6)
    u = np.random.default_rng(2).integers(0, most, 100_000, dtype=np.uint64)
    x = magnitude(t, u, Secret())
    assert x.min() > k
    share = survival(sigma, further) / survival(sigma, k)
    assert stats.binomtest(int((x > further).sum()), len(x), share).pvalue > SURE
    # a tail cut at 6.5 sigma, or of noise 2 % smaller, is found by the same count
    assert stats.binomtest(0, len(x), share).pvalue < SURE
    smaller = survival(0.98 * sigma, further) / survival(0.98 * sigma, k)
    assert sigma < 1 or stats.binomtest(round(len(x) * smaller), len(x), share).pvalue < SURE


@pytest.mark.parametrize("sigma", SIGMAS)
def test_nothing_lies_beyond_12_sigma_and_little_is_lost_there(sigma):
    t = table(sigma)
    assert t.most == math.ceil(12 * sigma)
    last = magnitude(t, np.zeros(3, np.uint64), Injected(bytes))
    assert last.tolist() == [t.most] * 3  # the least bits there are give the largest value
    assert survival(sigma, t.most) < LOST
    # a table that ended at 8 sigma would lose more than 7 of privacy.md §2.5 counts
    assert survival(sigma, math.ceil(8 * sigma)) > LOST


def test_a_2_percent_error_in_the_noise_of_a_release_is_found():
    """The same statistics on the released mean: noise for z = 1.96 instead of 2 does not pass for z = 2."""
    z, scale, n = 2.0, 2**10, 100.0
    for used, found in ((2.0, False), (1.96, True)):
        released = decode(noised(np.zeros(FEW, np.int64), used * scale), 0.5, scale, n)
        on_grid = np.rint(released * scale * n / 0.5).astype(np.int64)
        assert np.allclose(on_grid * 0.5 / (scale * n), released, rtol=1e-12, atol=0)  # no low bits of a float
        assert bool(failed(on_grid, z * scale)) is found


def rounding_bias(q, x):
    """z-score of sum(q - x) for independent roundings of x, up with probability frac(x)."""
    part = x - np.floor(x)
    return float((q - x).sum()) / math.sqrt(float((part * (1 - part)).sum()))


BIASED = {
    "nearest": lambda x: np.floor(x + 0.5),
    "down": np.floor,
    "toward zero": np.trunc,
    "4 bits": lambda x: np.floor(x) + (np.random.default_rng(3).integers(0, 16, x.shape) <= (x - np.floor(x)) * 16),
    "up at 0.02 more": lambda x: np.floor(x) + (np.random.default_rng(3).random(x.shape) < x - np.floor(x) + 0.02),
}


def positions():
    """Fractions on both sides of a half, away from it, of either sign."""
    return np.random.default_rng(4).uniform(-50, 50, 1_000_000) // 1 + np.tile([0.1, 0.3, 0.35, 0.8], 250_000)


def test_rounding_is_unbiased():
    x = positions()
    assert abs(rounding_bias(stochastic_round(x, Secret()), x)) < 5
    for part in (0.1, 0.3, 0.35, 0.8):
        at = np.full(200_000, part)
        assert stats.binomtest(int(stochastic_round(at, Secret()).sum()), at.size, part).pvalue > SURE
    tiny = stochastic_round(np.full(1_000_000, 2.0**-20), Secret())  # about one in a million, not never
    assert stats.binomtest(int(tiny.sum()), tiny.size, 2.0**-20).pvalue > SURE


@pytest.mark.parametrize("wrong", BIASED)
def test_a_biased_rounding_is_found(wrong):
    x = positions()
    assert abs(rounding_bias(BIASED[wrong](x), x)) > 5


def test_an_encoded_update_is_right_on_average():
    """The mean of many encodings is the clipped update; what the rounding adds is noise, never a direction."""
    d, scale, clip, n = 5, 64, 2.0, 20_000
    update = np.array([0.3, -0.011, 1.0, 0.0, -0.77])
    total = sum(encode(update, clip, scale, Secret()).q for _ in range(n))
    size = float(np.linalg.norm(update))
    expected = update * min(1.0, clip * shrink(d, scale) / size) * scale / clip
    part = expected - np.floor(expected)
    error = np.sqrt(np.maximum(part * (1 - part), 1e-9) / n)
    assert (np.abs(total / n - expected) < 5 * error).all()
    biased = np.rint(expected)
    assert (np.abs(biased - expected) > 5 * error).any()


def test_the_sampler_gives_integers_to_the_end():
    x = rounded_gaussian(26214.4, 1000, Secret())
    total = noised(x, 4.0)
    assert x.dtype == total.dtype == np.int64 and sampler.table(4.0).rising.dtype == np.uint64
