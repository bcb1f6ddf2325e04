"""The guarantee: an epsilon with all that gives it a meaning, derived and never typed in (privacy.md §2.5, 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from manyloom.core.errors import bad
from manyloom.privacy.accountants import (
    GRIDS,
    Accountant,
    Adjacency,
    Sampling,
    Spent,
    epsilon,
    everyone,
)
from manyloom.privacy.calibration import check_delta

READERS = "whoever sees only the released models and the metrics in the ledger"
WATCHERS = "whoever also knows which clients took part in which round"


@dataclass(frozen=True)
class Guarantee:
    """One claim against one adversary. Every field is there, or there is no guarantee.

    >>> g = Guarantee(2.0, 1e-5, "client", "zero-out", "m", "s", "a", "readers", ("the roster",), ("sizes",))
    >>> Guarantee.from_json(g.to_json()) == g
    True
    """

    epsilon: float
    delta: float
    unit: str
    adjacency: str
    mechanism: str
    sampling: str
    accountant: str
    against: str
    assumes: tuple[str, ...]
    uncovered: tuple[str, ...]

    def __post_init__(self) -> None:
        words = (self.unit, self.adjacency, self.mechanism, self.sampling, self.accountant, self.against)
        if not (self.epsilon >= 0 and math.isfinite(self.epsilon) and 0 < self.delta < 1 and all(words)):
            raise bad(
                "no-guarantee",
                "an epsilon needs delta, unit, adjacency, mechanism, sampling, accountant and adversary",
                got=repr(self),
                rule="a number without them means nothing",
            )

    def text(self) -> str:
        """The guarantee as `plan` and the report show it.

        >>> print(Guarantee(2.0, 1e-5, "client", "zero-out", "m", "s", "a", "b", (), ("sizes",)).text())
        epsilon     2.0000 at delta 1e-05
        unit        client, zero-out
        mechanism   m
        sampling    s
        accountant  a
        against     b
        assumes     nothing further
        uncovered   sizes
        """
        rows = [
            ("epsilon", f"{self.epsilon:.4f} at delta {self.delta:.4g}"),
            ("unit", f"{self.unit}, {self.adjacency}"),
            ("mechanism", self.mechanism),
            ("sampling", self.sampling),
            ("accountant", self.accountant),
            ("against", self.against),
            *_many("assumes", self.assumes, "nothing further"),
            *_many("uncovered", self.uncovered, "nothing"),
        ]
        return "\n".join(f"{name:<12}{value}" for name, value in rows)

    def to_json(self) -> dict[str, Any]:
        """A dict of plain values, one a field."""
        found: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**found, "assumes": list(self.assumes), "uncovered": list(self.uncovered)}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Guarantee:
        """The record again; `others` is left aside, a field that lacks is an error."""
        names = [f.name for f in fields(cls)]
        if lacking := [n for n in names if n not in given]:
            raise bad("no-guarantee", f"a guarantee lacks {', '.join(lacking)}", rule="no field is optional")
        plain: dict[str, Any] = {n: given[n] for n in names}
        plain |= {n: tuple(given[n]) for n in ("assumes", "uncovered")}
        return cls(**plain)


def _many(name: str, lines: Sequence[str], none: str) -> list[tuple[str, str]]:
    return [(name if i == 0 else "", line) for i, line in enumerate(lines or (none,))]


@dataclass(frozen=True)
class Facts:
    """What a guarantee is derived from: the job, or the ledger and the job."""

    spent: tuple[Spent, ...]  # in a plan: as many as rounds are planned
    population: int
    delta: float
    left: float  # delta less what truncated noise and the like took of it
    unit: str
    accountant: Accountant
    adjacency: Adjacency
    mechanism: str
    secret_noise: bool  # False in test mode: no guarantee
    secret_cohort: bool  # drawn under a key of the operating system, shown to nobody, no top-up
    assumes: tuple[str, ...]
    uncovered: tuple[str, ...]
    participations: int | None = None  # the most a client enforces for itself


def derive(facts: Facts) -> tuple[Guarantee, ...]:
    """The guarantees of a run, the one that the budget counts first; none where noise was not secret or not there.

    Against readers of what is released: amplified, if the cohort is secret. Against those who know who took part:
    min(T, participations) Gaussian releases without amplification. Without a secret cohort only the second exists.
    Raises `BadInput` for delta >= 1/N, or an accountant that does not cover the sampling.
    """
    if not facts.secret_noise or not facts.spent or any(s.sigma == 0 for s in facts.spent):
        return ()
    check_delta(facts.delta, facts.population)
    if facts.left > facts.delta:
        raise bad("out-of-range", "what is left of delta exceeds delta", got=f"{facts.left:g} > {facts.delta:g}")
    watched = _watched(facts)
    if not facts.secret_cohort or all(s.sampling.kind == "none" for s in facts.spent):
        return (watched,)
    value = epsilon(facts.spent, facts.left, facts.accountant, facts.adjacency)
    kinds = dict.fromkeys(s.sampling.text() for s in facts.spent)
    assumes = ("nobody but the server learns which clients take part in which round", *facts.assumes)
    name = f"{facts.accountant.upper()} (dp-accounting, {GRIDS[facts.accountant]})"
    return (_guarantee(facts, value, "; ".join(kinds), name, READERS, assumes), watched)


def _watched(facts: Facts) -> Guarantee:
    plain = everyone(facts.population)
    spent = [Spent(s.sigma, s.clip, plain, s.count) for s in facts.spent]
    total = sum(s.count for s in spent)
    most = min(total, facts.participations) if facts.participations is not None else total
    if most < total:  # which rounds a client was in is not known: its dearest ones
        least = min(spent, key=lambda s: s.z)
        spent = [Spent(least.sigma, least.clip, plain, most)]
    value = epsilon(spent, facts.left, "pld", facts.adjacency)
    sampling = f"{most} releases without amplification"
    assumes = facts.assumes
    if most < total:
        assumes = (f"each client takes part at most {most} times, and holds to it itself", *assumes)
    return _guarantee(facts, value, sampling, "exact Gaussian composition", WATCHERS, assumes)


def _guarantee(
    facts: Facts, value: float, sampling: str, accountant: str, against: str, assumes: tuple[str, ...]
) -> Guarantee:
    return Guarantee(
        value, facts.delta, facts.unit, facts.adjacency, facts.mechanism, sampling, accountant, against, assumes,
        facts.uncovered,
    )  # fmt: skip


def shown(guarantees: Sequence[Guarantee]) -> dict[str, Any] | None:
    """The value of `privacy` in JSON: the guarantee that the budget counts, with `others`; None without any.

    >>> shown(()) is None
    True
    """
    if not guarantees:
        return None
    return {**guarantees[0].to_json(), "others": [g.to_json() for g in guarantees[1:]]}


def planned(sampling: Sampling, noise_multiplier: float, clip: float, rounds: int) -> tuple[Spent, ...]:
    """The releases of a plan: `rounds` equal ones, each the one sampled event of a round.

    >>> planned(everyone(10), 2.0, 0.5, 3)[0].sigma
    1.0
    """
    return (Spent(noise_multiplier * clip, clip, sampling, rounds),)
