"""Two of (epsilon, noise multiplier, rounds) give the third, on the accountant that will report (privacy.md §2.3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

from manyloom.core.errors import bad
from manyloom.privacy.accountants import Accountant, Adjacency, Sampling, Spent, default_adjacency, epsilon, exact

GRID = 1e4
"""Noise multipliers are rounded up at the fourth decimal."""
LEAST, MOST = 0.01, 1e4


def default_delta(population: int) -> float:
    """N^-1.1.

    >>> round(default_delta(10_000), 9)
    3.9811e-05
    """
    return float(population) ** -1.1 if population > 1 else 0.1


def check_delta(delta: float, population: int) -> None:
    """Refuse delta >= 1/N: it would allow the release of one client's whole data."""
    if not 0 < delta < 1 / population:
        raise bad(
            "delta-too-large",
            f"delta must be above 0 and below 1/N = {1 / population:.3g}",
            got=f"delta = {delta:g}",
            rule="at 1/N a mechanism that publishes one client's data would pass",
            mend=f"leave delta out: {default_delta(population):.3g}",
        )


def left_of_delta(delta: float, epsilon: float, draws: float) -> float:
    """delta - (1 + e^epsilon) eta, eta = 4e-33 x draws: what the sampler's truncation leaves (privacy.md §2.5, 7).

    Raises `BadInput` where the term exceeds delta/100.

    >>> 1e-5 - left_of_delta(1e-5, 8.0, 1e9) < 1e-19
    True
    """
    from manyloom.privacy.sampler import LOST

    taken = (1 + math.exp(min(epsilon, 700.0))) * LOST * draws
    if taken > delta / 100:
        raise bad(
            "delta-spent-on-sampling",
            "the truncation of the noise would take more than a hundredth of delta",
            got=f"delta = {delta:g}, taken = {taken:.3g}",
            mend="use a larger delta, a smaller epsilon or fewer rounds",
        )
    return delta - taken


def epsilon_for(
    noise_multiplier: float,
    rounds: int,
    sampling: Sampling,
    delta: float,
    accountant: Accountant,
    adjacency: Adjacency | None = None,
) -> float:
    """Epsilon of `rounds` equal releases."""
    side = adjacency or default_adjacency(sampling)
    return epsilon([Spent(noise_multiplier, 1.0, sampling, rounds)], delta, accountant, side)


def noise_for(
    target: float,
    rounds: int,
    sampling: Sampling,
    delta: float,
    accountant: Accountant,
    adjacency: Adjacency | None = None,
) -> float:
    """The least noise multiplier, rounded up at the fourth decimal, whose epsilon is at most `target`.

    Raises `BadInput` for a target that is not positive, or that no multiplier up to 10^4 reaches.

    >>> from manyloom.privacy.accountants import everyone
    >>> noise_for(1.0, 1, everyone(1000), 1e-5, "pld")
    3.7307
    """
    if not 0 < target < math.inf:
        raise bad("out-of-range", "epsilon must be above 0 and finite", got=f"epsilon = {target:g}")

    def excess(z: float) -> float:
        return _log(epsilon_for(z, rounds, sampling, delta, accountant, adjacency) / target)

    z = _root(excess, _guess(target, rounds, sampling, delta), 0.05 / GRID)
    # floats near the root may fall on either side: the grid decides, by the accountant itself
    n = max(1, math.ceil(z * GRID - 0.2))
    while excess(n / GRID) > 0:
        n += 1
    return n / GRID


def _guess(target: float, rounds: int, sampling: Sampling, delta: float) -> float:
    """Where to begin: many rounds are about one Gaussian of mu = q sqrt(T (exp(1/z^2) - 1)) (Bu et al. 2020)."""
    if exact(MOST, delta) > target:
        return 1.0
    mu = 1 / _root(lambda z: _log(exact(z, delta) / target), 1.0, 1e-3)
    q = sampling.expected / sampling.population
    z = math.log1p((mu / q) ** 2 / max(rounds, 1)) ** -0.5
    return min(max(2.5 * z if sampling.kind == "fixed" else z, 10 * LEAST), MOST / 10)


def _log(ratio: float) -> float:
    """log of epsilon over the target: nearly straight in log z; clipped, for epsilon may be 0 or inf."""
    return math.log(min(max(ratio, 1e-9), 1e9))


def _root(excess: Callable[[float], float], guess: float, tolerance: float) -> float:
    """A z within `tolerance` of where a decreasing function of log z crosses zero, LEAST where it does before that.

    Secant steps a little too far until the sign changes, then Brent.
    """
    from scipy import optimize  # pyright: ignore[reportMissingTypeStubs]

    def at(log: float) -> float:
        return excess(math.exp(log))

    here, value, slope = math.log(guess), excess(guess), -2.0
    while True:
        if here == (end := math.log(MOST if value > 0 else LEAST)):
            if value <= 0:
                return LEAST
            raise bad(
                "epsilon-out-of-reach",
                "no noise multiplier up to 10 000 reaches this epsilon",
                mend="use a larger epsilon, a larger delta or fewer rounds",
            )
        # little noise makes long arrays: carefully down, boldly up
        ahead = min(max(1.05 * abs(value / slope), 2e-4), 1.5 if value > 0 else 0.4)
        there = min(here + ahead, end) if value > 0 else max(here - ahead, end)
        following = at(there)
        if (following > 0) != (value > 0):
            break
        # at least as steep as the logarithm's, at most as a cliff: one odd point must not lead astray
        slope = min(max((following - value) / (there - here), -8.0), -0.25)
        here, value = there, following
    xtol = tolerance / max(math.exp(max(here, there)), 1.0)
    return math.exp(float(cast(Any, optimize).brentq(at, min(here, there), max(here, there), xtol=xtol)))


def rounds_for(
    target: float,
    noise_multiplier: float,
    sampling: Sampling,
    delta: float,
    accountant: Accountant,
    adjacency: Adjacency | None = None,
    most: int = 1_000_000,
) -> int:
    """The most rounds, at most `most`, whose epsilon is at most `target`; 0 where the first is too dear.

    >>> from manyloom.privacy.accountants import everyone
    >>> rounds_for(9.9973, 5.0, everyone(1000), 1e-5, "pld")
    100
    """

    def allowed(n: int) -> bool:
        return epsilon_for(noise_multiplier, n, sampling, delta, accountant, adjacency) <= target

    if not allowed(1):
        return 0
    low, high = 1, 2
    while high < most and allowed(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low
