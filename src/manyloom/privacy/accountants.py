"""Epsilon of what was really done: which accountant may judge which sampling, over `dp-accounting` (privacy.md §2.3).

| what really happens                      | accountants | adjacency                                    |
|---|---|---|
| Poisson: each client with probability q  | pld, rdp    | zero-out, add-or-remove; pld also replace-one |
| Poisson, cut at a cap                    | pld         | zero-out                                     |
| a cohort of fixed size                   | rdp         | replace-one                                  |
| every client every round                 | pld, rdp    | any (pld: the exact Gaussian, in closed form) |

The library doubles the sensitivity for replace-one in its PLD accountant and not in its RDP accountant. Here callers
give sigma and C, and the factor is applied in this file alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from manyloom.core.errors import bad

if TYPE_CHECKING:
    from manyloom.privacy import losses

Accountant = Literal["pld", "rdp"]
Adjacency = Literal["zero-out", "add-or-remove", "replace-one"]
Kind = Literal["poisson", "truncated-poisson", "fixed", "none"]

GRIDS: dict[Accountant, str] = {"pld": "interval 1e-4, pessimistic", "rdp": "dp-accounting default orders"}
"""The discretisation of each accountant, as the ledger names it."""

_VALID: dict[tuple[Kind, Accountant], tuple[Adjacency, ...]] = {
    ("poisson", "pld"): ("zero-out", "add-or-remove", "replace-one"),
    ("poisson", "rdp"): ("zero-out", "add-or-remove"),
    ("truncated-poisson", "pld"): ("zero-out",),
    ("fixed", "rdp"): ("replace-one",),
    ("none", "pld"): ("zero-out", "add-or-remove", "replace-one"),
    ("none", "rdp"): ("zero-out", "add-or-remove", "replace-one"),
}


@dataclass(frozen=True)
class Sampling:
    """How a cohort is drawn, as executed. Make one with `poisson`, `truncated`, `fixed` or `everyone`."""

    kind: Kind
    population: int
    rate: float = 1.0
    cap: int | None = None
    cohort: int | None = None

    @property
    def expected(self) -> float:
        """The expected cohort: the denominator of every round."""
        return float(self.cohort) if self.cohort is not None else self.population * self.rate

    def text(self) -> str:
        """The sampling in words."""
        if self.kind == "fixed":
            return f"{self.cohort} of {self.population} clients, without replacement"
        if self.kind == "none":
            return f"all {self.population} clients every round, no amplification"
        cap = f", at most {self.cap}" if self.cap is not None else ""
        return f"Poisson, q = {self.rate:.6g}, of {self.population} clients{cap}"


def poisson(population: int, rate: float) -> Sampling:
    """Each client takes part with probability `rate`, by itself; at a rate of 1 that is everyone.

    >>> poisson(10_000, 0.01).expected, poisson(50, 1.0).kind
    (100.0, 'none')
    """
    if not 0 < rate <= 1:
        raise bad("out-of-range", "a sampling rate lies above 0 and at most 1", got=f"{rate:g}")
    return everyone(population) if rate == 1 else Sampling("poisson", population, rate)


def truncated(population: int, rate: float, cap: int) -> Sampling:
    """Poisson, of which a uniform subset of `cap` is kept where more came: the sampling under secure sums."""
    plain = poisson(population, rate)
    return plain if plain.kind == "none" or cap >= population else Sampling("truncated-poisson", population, rate, cap)


def fixed(population: int, cohort: int) -> Sampling:
    """So many clients a round, drawn without replacement; all of them is everyone."""
    if not 0 < cohort <= population:
        raise bad("out-of-range", f"a cohort lies between 1 and {population}", got=f"{cohort}")
    return everyone(population) if cohort == population else Sampling("fixed", population, cohort=cohort)


def everyone(population: int) -> Sampling:
    """Every client, every round: also what those may claim who are watched by somebody who knows who took part."""
    return Sampling("none", population)


def safe_cap(population: int, rate: float) -> int:
    """The least cap that costs nothing to speak of: mean + 5 standard deviations, rounded up.

    >>> safe_cap(10_000, 0.01)
    150
    """
    mean = population * rate
    return min(population, math.ceil(mean + 5 * math.sqrt(mean * (1 - rate))))


@dataclass(frozen=True)
class Spent:
    """`count` equal releases: noise of standard deviation `sigma` on a sum, each client bounded by `clip`."""

    sigma: float
    clip: float
    sampling: Sampling
    count: int = 1

    @property
    def z(self) -> float:
        """The noise multiplier sigma / C, to 12 digits: z C / C gives z back, so that equal releases stay equal."""
        return float(f"{self.sigma / self.clip:.12g}")


def default_accountant(sampling: Sampling) -> Accountant:
    """ "rdp" for a cohort of fixed size, else "pld"."""
    return "rdp" if sampling.kind == "fixed" else "pld"


def default_adjacency(sampling: Sampling) -> Adjacency:
    """Replace-one for a cohort of fixed size, else zero-out (a fixed denominator, the message of one is zero)."""
    return "replace-one" if sampling.kind == "fixed" else "zero-out"


def check(sampling: Sampling, accountant: Accountant, adjacency: Adjacency) -> None:
    """Refuse an accountant or an adjacency that is not valid for the sampling.

    >>> check(fixed(100, 10), "pld", "zero-out")
    Traceback (most recent call last):
    manyloom.core.errors.BadInput: error: the pld accountant does not cover a cohort of fixed size
      got    10 of 100 clients, without replacement; zero-out
      rule   a fixed cohort is accounted as such: RDP, replace-one, noise over twice
             the clip
      mend   set privacy.accountant = "rdp", or job.sampling = "poisson"
    """
    allowed = _VALID.get((sampling.kind, accountant), ())
    if adjacency in allowed:
        return
    got = f"{sampling.text()}; {adjacency}"
    if sampling.kind == "fixed":
        raise bad(
            "accountant-invalid",
            f"the {accountant} accountant does not cover a cohort of fixed size"
            + (f" under {adjacency}" if accountant == "rdp" else ""),
            got=got,
            rule="a fixed cohort is accounted as such: RDP, replace-one, noise over twice the clip",
            mend='set privacy.accountant = "rdp", or job.sampling = "poisson"',
        )
    raise bad(
        "accountant-invalid",
        f"the {accountant} accountant does not cover {sampling.kind} sampling under {adjacency}",
        got=got,
        rule=f"valid here: {', '.join(allowed)}" if allowed else "this sampling needs the PLD accountant",
        mend='set privacy.accountant = "pld"',
    )


def epsilon(spent: Sequence[Spent], delta: float, accountant: Accountant, adjacency: Adjacency) -> float:
    """Epsilon at `delta` of all releases together; 0 for none, inf without noise. Raises `BadInput` by `check`.

    >>> row = Spent(1.0, 1.0, poisson(10_000, 0.01), 1000)
    >>> round(epsilon([row], 1e-5, "rdp", "zero-out"), 4)
    2.1014
    """
    if not 0 < delta < 1:
        raise bad("out-of-range", "delta lies between 0 and 1", got=f"delta = {delta:g}")
    for s in spent:
        check(s.sampling, accountant, adjacency)
        if s.count < 0 or s.clip <= 0 or not s.sigma >= 0:
            raise bad("out-of-range", "a release has a clip above 0 and noise of at least 0", got=repr(s))
    real = merged([s for s in spent if s.count])
    if not real:
        return 0.0
    if any(s.sigma == 0 for s in real):
        return math.inf
    if accountant == "pld" and all(s.sampling.kind == "none" for s in real):
        factor = 2.0 if adjacency == "replace-one" else 1.0
        return exact(1 / math.sqrt(sum(s.count * (factor / s.z) ** 2 for s in real)), delta)
    return _composed(tuple(real), delta, accountant, adjacency)


def merged(spent: Sequence[Spent]) -> list[Spent]:
    """Equal releases counted together, in the order of their first: composition does not depend on it."""
    counts: dict[tuple[float, Sampling], int] = {}
    for s in spent:
        counts[s.z, s.sampling] = counts.get((s.z, s.sampling), 0) + s.count
    return [Spent(z, 1.0, sampling, n) for (z, sampling), n in counts.items()]


def exact(z: float, delta: float) -> float:
    """Epsilon of one Gaussian release: delta(e) = Phi(1/(2z) - e z) - exp(e) Phi(-1/(2z) - e z), solved for e.

    T releases are one at z / sqrt(T). Source: Balle and Wang 2018, theorem 8.

    >>> round(exact(1.0, 1e-5), 6), round(exact(0.5, 1e-6), 6), exact(1e6, 1e-5)
    (4.377178, 10.997151, 0.0)
    """
    from scipy import special  # pyright: ignore[reportMissingTypeStubs]

    log_ndtr = cast(Any, special).log_ndtr
    a = 1 / (2 * z)

    def over(e: float) -> bool:
        # the second term as exp(e + log Phi): e alone would overflow
        gap = math.exp(float(log_ndtr(a - e * z))) - math.exp(min(0.0, e + float(log_ndtr(-a - e * z))))
        return gap > delta

    if not over(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while over(high):
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if over(middle) else (low, middle)
    return high


@lru_cache(maxsize=4096)
def _composed(spent: tuple[Spent, ...], delta: float, accountant: Accountant, adjacency: Adjacency) -> float:
    if accountant == "pld":
        from manyloom.privacy import losses

        return losses.epsilon(tuple((_release(s, adjacency), s.count) for s in spent), delta)
    from dp_accounting import rdp  # pyright: ignore[reportMissingTypeStubs]

    curves = [(_curve(s.z, s.sampling, adjacency), s.count) for s in spent]
    orders = curves[0][0][0]
    total = sum(n * curve for (_, curve), n in curves)
    return float(cast(Any, rdp).compute_epsilon(orders, total, delta)[0])


def _release(s: Spent, adjacency: Adjacency) -> losses.Release:
    from manyloom.privacy.losses import Release

    population = s.sampling.population if s.sampling.cap is not None else 0  # so that it is found again
    # everyone: replace-one is half the noise; under sampling it is more than that
    if s.sampling.kind == "none":
        return Release(s.z / 2 if adjacency == "replace-one" else s.z)
    return Release(s.z, s.sampling.rate, population, s.sampling.cap, adjacency == "replace-one")


@lru_cache(maxsize=256)
def _curve(z: float, sampling: Sampling, adjacency: Adjacency) -> tuple[Any, Any]:
    """The orders, and the Renyi divergence of one release at each."""
    import dp_accounting as library  # pyright: ignore[reportMissingTypeStubs]
    from dp_accounting import rdp  # pyright: ignore[reportMissingTypeStubs]

    dp = cast(Any, library)
    relations = dp.NeighboringRelation
    relation = {
        "zero-out": relations.REPLACE_SPECIAL,
        "add-or-remove": relations.ADD_OR_REMOVE_ONE,
        "replace-one": relations.REPLACE_ONE,
    }[adjacency]
    # the library doubles the sensitivity under replace-one in its PLD accountant, and not in this one
    event = dp.GaussianDpEvent(z / 2 if adjacency == "replace-one" else z)
    if sampling.kind == "poisson":
        event = dp.PoissonSampledDpEvent(sampling.rate, event)
    elif sampling.kind == "fixed":
        event = dp.SampledWithoutReplacementDpEvent(sampling.population, sampling.cohort, event)
    with _quiet():
        one = cast(Any, rdp).RdpAccountant(neighboring_relation=relation)
        one.compose(event)
    return one.orders, one.rdp


@contextmanager
def _quiet() -> Generator[None]:
    """The RDP accountant logs each order that does not converge and drops it: harmless."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
