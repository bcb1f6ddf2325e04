"""A grid of jobs: every combination of the values given, judged by what the job watches, then by its loss."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.metrics import better

Settings = dict[str, object]  # "algorithm.lr" -> 0.1
SEED = "job.seed"


@dataclass(frozen=True)
class Member:
    """One job of a grid.

    Args:
        settings: what it changes.
        digest: of the job; two runs of one digest are the same run.
        watched: the metric that the job watches.
    """

    settings: Settings
    digest: str
    watched: str

    @property
    def key(self) -> tuple[tuple[str, str], ...]:
        """Its settings without the seed, as what a row of the table stands for."""
        return key_of({k: v for k, v in self.settings.items() if k != SEED})

    def told(self) -> str:
        """`algorithm.lr=0.1 job.seed=2`."""
        return told(self.settings)


class Row(NamedTuple):
    """One row of the table: all seeds of one setting.

    Args:
        settings: without the seed.
        runs: of its members that are done.
        seeds: how many are done.
        mean, spread: of the watched metric: mean, and standard deviation (n - 1; None of one seed).
        loss: mean.
        seconds: mean.
    """

    settings: Settings
    runs: tuple[str, ...]
    seeds: int
    mean: float | None
    spread: float | None
    loss: float | None
    seconds: float | None


class Outcome(NamedTuple):
    """What a finished member came to."""

    run: str
    final: Mapping[str, Any]
    seconds: float | None


def combinations(grid: Mapping[str, Sequence[object]]) -> list[Settings]:
    """Every combination, the last key fastest.

    >>> combinations({"algorithm.lr": [0.1, 0.3], "job.seed": [1, 2]})[1]
    {'algorithm.lr': 0.1, 'job.seed': 2}
    """
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def check(grid: Mapping[str, Sequence[object]]) -> None:
    """Refuse an empty grid, an empty list, and a value given twice."""
    wrong = [
        Problem("bad-override", f"{k} has no value", f"{k}=", mend=f"{k}=0.1,0.03")
        for k, values in grid.items()
        if not values
    ]
    wrong += [
        Problem("bad-override", f"{k} names a value twice", f"{k}={','.join(map(plain, values))}")
        for k, values in grid.items()
        if len({plain(v) for v in values}) < len(values)
    ]
    if wrong:
        raise BadInput(*wrong)
    if not grid:
        raise bad(
            "bad-override",
            "a sweep needs something to vary",
            rule="table.key=value,value",
            mend="manyloom sweep heart algorithm.lr=0.3,0.1,0.03 job.seed=1,2,3",
        )


def members(grid: Mapping[str, Sequence[object]], make: Callable[[Settings], Any]) -> list[Member]:
    """The members of a grid; every wrong job is told before one of them runs.

    Args:
        grid: key -> its values.
        make: from settings to the job (`Job.from_toml` with these overrides).

    Raises:
        BadInput: what is wrong with any of the jobs, each problem once.
    """
    found: list[Member] = []
    wrong: list[Problem] = []
    for settings in combinations(grid):
        try:
            job = make(settings)
        except BadInput as error:
            wrong += error.problems
            continue
        found.append(Member(settings, job.digest, job.watched))
    if wrong:
        raise BadInput(*dict.fromkeys(wrong))
    return found


def table(members: Sequence[Member], outcomes: Mapping[str, Outcome]) -> list[Row]:
    """A row a setting, the best first: by the watched metric, then by loss; unfinished ones last.

    Args:
        members: of the grid.
        outcomes: digest -> outcome of those that are done.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Member]] = {}
    for m in members:
        groups.setdefault(m.key, []).append(m)
    rows = [_row(group, [outcomes[m.digest] for m in group if m.digest in outcomes]) for group in groups.values()]
    watched = members[0].watched if members else "loss"
    return sorted(rows, key=lambda row: _rank(row, watched))


def best(rows: Sequence[Row]) -> Row | None:
    """The first row that has a value."""
    return next((r for r in rows if r.mean is not None or r.loss is not None), None)


def within(rows: Sequence[Row], first: Row) -> list[Row]:
    """The rows whose mean is no further from the best than the larger of both spreads: chance could order them."""
    close: list[Row] = []
    for r in rows:
        if r is first or r.mean is None or first.mean is None or r.spread is None or first.spread is None:
            continue
        if abs(r.mean - first.mean) <= max(r.spread, first.spread):
            close.append(r)
    return close


def _row(group: Sequence[Member], done: Sequence[Outcome]) -> Row:
    settings = {k: v for k, v in group[0].settings.items() if k != SEED}
    values = _known(o.final.get(group[0].watched) for o in done)
    return Row(
        settings,
        tuple(o.run for o in done),
        len(done),
        _mean(values),
        statistics.stdev(values) if len(values) > 1 else None,
        _mean(_known(o.final.get("loss") for o in done)),
        _mean(_known(o.seconds for o in done)),
    )


def _rank(row: Row, watched: str) -> tuple[bool, float, float]:
    sign = -1.0 if better(watched) == "max" else 1.0
    value = row.mean if row.mean is not None else math.inf
    # equal at the three digits that are shown: then the loss decides
    return row.mean is None, sign * round(value, 3), row.loss if row.loss is not None else math.inf


def _known(values: Any) -> list[float]:
    return [float(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def plain(value: object) -> str:
    """A value as it is typed: bare words, numbers, lists.

    >>> plain("fedprox"), plain(0.1), plain([64, 32]), plain(True)
    ('fedprox', '0.1', '[64, 32]', 'true')
    """
    return value if isinstance(value, str) else json.dumps(value)


def told(settings: Mapping[str, object]) -> str:
    """Settings as they are typed.

    >>> told({"algorithm.lr": 0.1, "job.seed": 2})
    'algorithm.lr=0.1 job.seed=2'
    """
    return " ".join(f"{k}={plain(v)}" for k, v in settings.items())


def key_of(settings: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Settings as something to compare."""
    return tuple(sorted((k, plain(v)) for k, v in settings.items()))
