"""Privacy loss distributions: what a release may reveal, and many together (privacy.md §2.3).

    one release     P(loss > e) from the two Gaussians, on a grid of 1e-4, rounded so that delta never comes out smaller
    k alike         the k-th power of its Fourier transform, cut where a Chernoff bound leaves less than 1e-15
    several kinds   convolved one after another
    epsilon         the least e with sum_i p_i (1 - exp(e - loss_i))_+ <= delta

What `dp-accounting`'s PLD accountant computes, from its mechanism and by its algorithms, with whole arrays instead of
a number at a time, and one release discretised once: a round's answer takes hundredths of a second.
Sources: Koskela et al. 2020 (arXiv 1906.03049); Doroshenko et al. 2022, "Connect the Dots" (arXiv 2207.04380).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

INTERVAL = 1e-4
CUT = 1e-15
"""The mass that one composition may move to infinity."""
_STEP = 2**0.25
_ORDERS: F64 = np.array([sign * _STEP**i for sign in (-1, 1) for i in range(37)])
"""Orders of the Chernoff bound, over the length of the array: up to 512, so that exp can't overflow."""
_DEEP = 200


class Release(NamedTuple):
    """A Gaussian release: noise z over the clip, each client with probability `rate`, at most `cap` of them."""

    z: float
    rate: float = 1.0
    population: int = 0
    cap: int | None = None
    replaced: bool = False  # replace-one: one client's message against another, not against zero


@dataclass(frozen=True, eq=False)
class Losses:
    """P(loss = (low + i) 1e-4) = p[i], [n]; `infinite` is the mass at infinity."""

    low: int
    p: F64
    infinite: float


@dataclass(frozen=True, eq=False)
class Single:
    """One release in one direction, and log E exp(order i / n) for the bounds of its powers."""

    losses: Losses
    logs: F64


def epsilon(releases: tuple[tuple[Release, int], ...], delta: float) -> float:
    """Epsilon at `delta` of so many of each release together, the larger of the two directions.

    >>> round(epsilon(((Release(1.0, 0.01), 1000),), 1e-5), 4)
    1.8282
    """
    if len(releases) <= _DEEP:
        total = _together(releases)
    else:  # too deep for recursion, and so rare that nothing is kept
        total = reduce(_pairs, (_repeated(*r) for r in releases))
    return max(_epsilon(one, delta) for one in total)


@lru_cache(maxsize=4)
def _together(releases: tuple[tuple[Release, int], ...]) -> tuple[Losses, ...]:
    # in a run the last kind grows: what came before it is found here
    last = _repeated(*releases[-1])
    return last if len(releases) == 1 else _pairs(_together(releases[:-1]), last)


@lru_cache(maxsize=4)  # megabytes each, more with little noise
def _repeated(release: Release, count: int) -> tuple[Losses, ...]:
    if release.rate == 1:  # k Gaussians are one, exactly
        return tuple(s.losses for s in _single(release._replace(z=release.z / math.sqrt(count))))
    return tuple(_power(s, count) for s in _single(release))


@lru_cache(maxsize=8)
def _single(release: Release) -> tuple[Single, ...]:
    plain = [_discretised(release.z, release.rate, side) for side in _sides(release)]
    if release.cap is not None:
        plain = _capped(release, plain)
    return tuple(Single(one, _logs(one.p)) for one in plain)


def _sides(release: Release) -> tuple[str, ...]:
    if release.replaced:
        return ("REPLACE",)
    return ("REMOVE",) if release.rate == 1 else ("REMOVE", "ADD")


def _capped(release: Release, plain: list[Losses]) -> list[Losses]:
    """A cut cohort: given a client is drawn, with probability t others fill the cap, and it takes somebody's place."""
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

    beyond = cast(Any, stats).binom.sf
    n, q, cap = release.population, release.rate, cast(int, release.cap)
    t = float(beyond(cap - 1, n - 1, q))
    given = min(1.0, float(beyond(cap, n, q)) * cap / t / n) if t else 0.0
    if not given:  # both so small that floats have no number for them
        return plain
    replaced = _discretised(release.z / 2, given, "REPLACE")
    return [_mixed(replaced, one, t) for one in plain]


def _mixed(a: Losses, b: Losses, weight: float) -> Losses:
    low = min(a.low, b.low)
    p = np.zeros(max(a.low + a.p.size, b.low + b.p.size) - low)
    for one, share in ((a, weight), (b, 1 - weight)):
        at = one.low - low
        p[at : at + one.p.size] += share * one.p
    return Losses(low, p, weight * a.infinite + (1 - weight) * b.infinite)


def _discretised(z: float, rate: float, side: str) -> Losses:
    """Connect the dots: from delta_i at each grid point,

    p_i = ((delta_{i+1} - delta_i) - e^h (delta_i - delta_{i-1})) / (e^h - 1), h = 1e-4, the rest at the ends.
    """
    from dp_accounting.pld import privacy_loss_mechanism as library  # pyright: ignore[reportMissingTypeStubs]

    mechanism = cast(Any, library)
    gaussian = mechanism.GaussianPrivacyLoss(
        z, sampling_prob=rate, adjacency_type=getattr(mechanism.AdjacencyType, side)
    )
    ends = gaussian.connect_dots_bounds()
    low, high = math.floor(ends.epsilon_lower / INTERVAL), math.ceil(ends.epsilon_upper / INTERVAL)
    grid: F64 = np.arange(low, high + 1, dtype=np.float64) * INTERVAL
    deltas = np.minimum.accumulate(_deltas(gaussian, z, rate, side, grid))
    if low == high:
        return Losses(low, 1 - deltas, float(deltas[0]))
    steps = np.diff(deltas)
    p = np.empty_like(deltas)
    p[0] = (1 - deltas[0]) + steps[0] / math.expm1(INTERVAL)
    p[1:-1] = (steps[1:] - math.exp(INTERVAL) * steps[:-1]) / math.expm1(INTERVAL)
    p[-1] = steps[-1] / math.expm1(-INTERVAL)
    return Losses(low, np.maximum(p, 0.0), float(deltas[-1]))


def _deltas(gaussian: Any, z: float, rate: float, side: str, e: F64) -> F64:
    """delta(e) = P_upper(x <= x_e) - exp(e) P_lower(x <= x_e), x_e where the loss falls to e."""
    out = np.zeros_like(e)
    if rate == 1 or side == "REPLACE":
        inside = np.ones(e.shape, bool)
    elif side == "ADD":  # the loss never exceeds -log(1 - q)
        inside = e < -math.log1p(-rate)
    else:  # ... nor falls below log(1 - q)
        inside = e > math.log1p(-rate)
        out[~inside] = -np.expm1(e[~inside])
    e = e[inside]
    if side == "REPLACE":
        x = _inverse_replaced(e, z, rate)
    elif side == "ADD" and rate < 1:
        x = -_inverse(-e, z, rate)
    else:
        x = _inverse(e, z, rate)
    out[inside] = gaussian.mu_upper_cdf(x) - np.exp(e + gaussian.mu_lower_log_cdf(x))
    return np.clip(out, 0.0, 1.0)


def _inverse(e: F64, z: float, rate: float) -> F64:
    """x with log(1 - q + q exp((-1/2 - x) / z^2)) = e."""
    if rate < 1:
        whole = e - math.log(rate)
        e = whole + np.log1p(-np.exp(math.log((1 - rate) / rate) - whole))
    return -0.5 - e * z**2


def _inverse_replaced(e: F64, z: float, rate: float) -> F64:
    """x = z^2 (asinh(-a sinh(e/2)) - e/2), a = exp(1/(2 z^2)) (1 - q)/q; by logarithms, for sinh overflows."""
    if rate == 1:
        return -e * z**2 / 2
    half = np.abs(e) / 2
    with np.errstate(divide="ignore"):  # at e = 0 the logarithm is -inf, and the result is 0
        log = 0.5 / z**2 + math.log1p(-rate) - math.log(rate) + half + np.log(-np.expm1(-2 * half)) - math.log(2)
    size = np.logaddexp(0.5 * np.logaddexp(0.0, 2 * log), log)
    return z**2 * (-np.sign(e) * size - e / 2)


def _logs(p: F64) -> F64:
    """log E exp(order i / n) or a little more: over blocks, each at the end that makes it larger."""
    block = -(-p.size // 2048)
    first = np.arange(0, p.size, block)
    mass = np.add.reduceat(p, first)
    last = np.minimum(first + block, p.size) - 1
    at = np.where(_ORDERS[:, None] < 0, first, last) / p.size
    return np.log(np.exp(_ORDERS[:, None] * at) @ mass)


def _power(single: Single, count: int) -> Losses:
    """The sum of `count` independent losses."""
    one, n = single.losses, single.losses.p.size
    if count == 1:
        return one
    ends = (count * single.logs + math.log(2 / CUT)) * n / _ORDERS
    ends = np.where(np.isfinite(ends), ends, np.where(_ORDERS > 0, math.inf, -math.inf))
    low = max(0, math.floor(ends[_ORDERS < 0].max()))
    high = min((n - 1) * count, math.ceil(ends[_ORDERS > 0].min()))
    size = _fast(max(high - low + 1, n))
    wave = _to_waves(one.p, size)
    total: npt.NDArray[np.complex128] | None = None
    left = count
    while True:
        if left & 1:
            total = wave.copy() if total is None else total * wave
        left >>= 1
        if not left:
            break
        wave = wave * wave
        # what is far below the rounding error only makes slow denormal numbers
        wave[np.abs(wave) < 1e-100] = 0
    p = np.roll(_from_waves(total, size), -low)[: high - low + 1]
    return Losses(one.low * count + low, p, CUT - math.expm1(count * math.log1p(-one.infinite)))


def _pairs(a: tuple[Losses, ...], b: tuple[Losses, ...]) -> tuple[Losses, ...]:
    sides = max(len(a), len(b))  # one that is the same in both directions stands for both
    return tuple(_convolved(a[min(i, len(a) - 1)], b[min(i, len(b) - 1)]) for i in range(sides))


def _convolved(a: Losses, b: Losses) -> Losses:
    n = a.p.size + b.p.size - 1
    size = _fast(n)
    p = _from_waves(_to_waves(a.p, size) * _to_waves(b.p, size), size)[:n]
    start = _within(p, CUT / 2)
    stop = max(n - _within(p[::-1], CUT / 2), start + 1)
    kept = p[start:stop].copy()
    kept[0] += p[:start].sum()
    gone = float(p[stop:].sum())
    return Losses(a.low + b.low + start, kept, a.infinite + b.infinite - a.infinite * b.infinite + gone)


def _within(p: F64, most: float) -> int:
    """The longest beginning whose sum stays at most `most`."""
    over = np.cumsum(p) > most
    return int(over.argmax()) if over.any() else p.size


def _fast(n: int) -> int:
    from scipy import fft  # pyright: ignore[reportMissingTypeStubs]

    return int(cast(Any, fft).next_fast_len(n, real=True))


def _to_waves(p: F64, size: int) -> npt.NDArray[np.complex128]:
    from scipy import fft  # pyright: ignore[reportMissingTypeStubs]

    return cast(Any, fft).rfft(p, size)


def _from_waves(waves: Any, size: int) -> F64:
    from scipy import fft  # pyright: ignore[reportMissingTypeStubs]

    return cast(Any, fft).irfft(waves, size)


def _epsilon(losses: Losses, delta: float) -> float:
    """From the largest loss down: U = infinite + sum p, L = sum p exp(-loss); at the grid point where
    delta(loss) = U - L exp(loss) first exceeds delta, e = log((U - delta)/L).
    """
    if losses.infinite > delta:
        return math.inf
    first = max(0, 1 - losses.low)  # losses above 0
    loss = (losses.low + np.arange(losses.p.size - 1, first - 1, -1)) * INTERVAL
    p = losses.p[first:][::-1]
    upper = losses.infinite + np.concatenate([[0.0], np.cumsum(p)])
    lower = np.concatenate([[0.0], np.cumsum(p * np.exp(-loss))])
    if loss.size:
        # so large a loss that its exp(-loss) is 0
        flat = (upper[1:] >= delta) & (lower[1:] <= 0)
        ready = (upper[:-1] > delta) & (lower[:-1] > 0)
        excess = np.log(np.where(ready, upper[:-1] - delta, 1.0)) - np.log(np.where(ready, lower[:-1], 1.0))
        at = int(np.argmax(flat | (ready & (excess >= loss))))
        if ready[at] and excess[at] >= loss[at]:
            return float(excess[at])
        if flat[at]:
            return float(loss[at])
    if upper[-1] <= lower[-1] + delta:
        return 0.0
    return math.log((upper[-1] - delta) / lower[-1])
