"""Robust rules on the waist: screening, the condition on the survivors, the rule, and who was filtered.

A rule's `Aggregator` has `needs = "each"`: its `reduce` takes a row a client, {slot: [n, ...]} in the order of the
replies, and is unweighted: a weight of 0 says that this row can't be used (it stood in for a message of a wrong shape,
say), any other weight that it can. It is a `Robust`, a record that calls itself: `aggregator.reduce.f`, `.table` and
`planned(aggregator, n)` are read before a job runs.

**Who was filtered.** Beside the slots, the aggregate of a robust rule holds `"kept"` [n], float64, in the same order:
how much of row i went in, 1 as much as into a plain mean, 0 nothing. A round takes it out (`aggregate.pop("kept",
None)`) and names the clients with `filtered(kept)`: below a tenth. By rule it is

    krum, multi-krum, geometric median    n w_i, the row's weight in the aggregate; krum keeps one row by design
    centred and norm clipping             the factor min(1, tau / length) that shortened the row
    median, trimmed mean                  the share of (1024 evenly spaced) coordinates at which the row's value lay
                                          within the kept ranks, over the mean share

and with nearest-neighbour mixing that of the mixtures times how much of the row is in each.

**Slots.** A message may hold more than the update `u` (SCAFFOLD's `dc`, running statistics). Rules that choose or
weigh clients do so once, by the distances of all slots as one vector in which each slot weighs alike (`gram.joint`),
and use the same weights for every slot: an attacker who is honest in `u` alone is still far away. Median and trimmed
mean are per coordinate, so per slot; clipping clips each slot to its own length, a given `tau` or `max_norm` counting
for `u`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.aggregate.cohort import F64, I64, Cohort
from manyloom.aggregate.condition import Condition, TooFew
from manyloom.aggregate.gram import plainly
from manyloom.aggregate.nnm import mixed
from manyloom.aggregate.order import Block
from manyloom.aggregate.screen import flattened, row_norms, screen
from manyloom.core.errors import Problem, bad
from manyloom.core.parts import Aggregator
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy

SOME = 16384  # columns whose norms are enough to choose a centre by: a bad choice is found and mended
LITTLE = 0.1  # of an equal share: a client below it was filtered
SKEWED = ("median", "trimmed-mean", "krum")  # lose 27 to 44 points of accuracy under label skew with no attack


class Outcome(NamedTuple):
    """What a rule came to: the aggregate {slot: [d]}, how much of each row is in it [n], the next state."""

    aggregate: Mapping[str, Block]
    kept: F64
    state: Slots = {}


@dataclass(frozen=True, eq=False)
class Robust:
    """The `reduce` of a robust rule.

    Args:
        name: of the rule.
        condition: n against f.
        act: the rule itself, on the usable rows.
        f: faults tolerated; None: nothing is claimed.
        pre: "nnm" mixes nearest neighbours before the rule.
        keep_f: a row that was dropped does not count as a fault.
        table: the [aggregate] table that makes it again.
        distances: whether the rule weighs clients by the distances of all slots.
    """

    name: str
    condition: Condition
    act: Callable[[Cohort, Slots], Outcome]
    f: int | None
    pre: str | None
    keep_f: bool
    table: Mapping[str, object]
    distances: bool = False

    def __call__(self, rows: Slots, weights: Tensor, state: Slots) -> tuple[Slots, Slots]:
        """The aggregate, with `"kept"`, and the next state; `TooFew` if the condition is not met by the usable rows."""
        flat = {name: flattened(v) for name, v in rows.items()}
        usable = (weights != 0).cpu().numpy()
        cohort = self._plain(flat, np.flatnonzero(usable).astype(np.int64))
        if cohort is None:
            seen = screen(rows)
            usable = usable & seen.ok.numpy()
            index = np.flatnonzero(usable).astype(np.int64)
            cohort = Cohort(flat, index, {name: seen.norms[name][index] for name in rows}, 0)
        index, dropped = cohort.index, len(usable) - cohort.n
        f = max(0, (self.f or 0) - (0 if self.keep_f else dropped))
        if problem := self.condition.broken(self.name, len(index), f, "usable "):
            raise TooFew(problem)
        cohort = replace(cohort, f=f)
        if self.pre == "nnm" and len(index) > 1:
            cohort = mixed(cohort)
        got = self.act(cohort, state)
        kept = torch.zeros(len(usable), dtype=torch.float64)
        kept[torch.as_tensor(index)] = torch.as_tensor(got.kept if cohort.mix is None else cohort.mix.T @ got.kept)
        aggregate = {
            name: from_numpy(v).reshape(rows[name].shape[1:]).to(rows[name].device) for name, v in got.aggregate.items()
        }
        return aggregate | {"kept": kept}, got.state or state

    def _plain(self, flat: Slots, index: I64) -> Cohort | None:
        """The usable rows without a screening, where distances are computed anyway and show that all is well."""
        if len(index) < 3 or not (self.distances or self.pre == "nnm"):
            return None
        return plainly(Cohort(flat, index, {name: row_norms(v[:, :SOME])[index] for name, v in flat.items()}, 0))


def robust(
    name: str,
    condition: Condition,
    act: Callable[[Cohort, Slots], Outcome],
    *,
    f: int | None,
    pre: str | None,
    keep_f: bool,
    own: Mapping[str, object] | None = None,
    distances: bool = False,
) -> Aggregator:
    """A robust rule as an `Aggregator`; `bad-value` if mixing is asked for and f is not said."""
    if pre is not None and f is None:
        raise bad(
            "missing-key",
            'pre = "nnm" needs f, the faults it tolerates',
            got='pre = "nnm" without f in [aggregate]',
            rule="a row is mixed with its n - f nearest",
            mend="add f = 1 to [aggregate], or as many as may lie",
        )
    keys = {"rule": name, "f": f, "pre": pre, "keep_f": keep_f, **(own or {})}
    table = {key: value for key, value in keys.items() if value is not None}
    return Aggregator(name, "each", Robust(name, condition, act, f, pre, keep_f, table, distances), table=table)


def planned(aggregator: Aggregator, n: int) -> Problem | None:
    """The problem of a rule with n updates, asked before a job runs: n is the least that a round may get (its quorum).

    >>> from manyloom.aggregate import krum
    >>> planned(krum(f=2), 7), planned(krum(f=3), 8).mend
    (None, 'f = 2 at most with 8 updates, or at least 9 updates with f = 3')
    """
    rule = aggregator.reduce
    return rule.condition.broken(rule.name, n, rule.f or 0) if isinstance(rule, Robust) else None


def remarks(aggregator: Aggregator, n: int, skewed: bool = False) -> list[str]:
    """What a plan and a report should say of a rule with a cohort of n, in whole sentences.

    Args:
        aggregator: the rule.
        n: of the cohort.
        skewed: whether clients' labels differ much.
    """
    rule = aggregator.reduce
    if not isinstance(rule, Robust):
        return []
    said: list[str] = []
    f = rule.f or 0
    m = rule.table.get("m", n - f)
    if rule.name == "multi-krum" and isinstance(m, int) and m > n - f - 2:
        said.append(f"multi-krum takes the mean of m = {m}; the theorem asks m <= n - f - 2 = {n - f - 2}.")
    if rule.name == "centred-clipping" and f > 0.1 * n:
        said.append(f"centred clipping is proved for f/n below about 0.1 to 0.15; here it is {f / n:.2f}.")
    if skewed and rule.name in SKEWED and rule.pre is None:
        said.append(
            f'{rule.name} loses much accuracy where labels differ between clients, even unattacked; pre = "nnm" helps.'
        )
    return said


def filtered(kept: Tensor) -> Tensor:
    """Who was filtered [n], booleans: those of whom less than a tenth of an equal share went in.

    >>> filtered(torch.tensor([1.2, 0.0, 0.05, 0.4])).tolist()
    [False, True, True, False]
    """
    return kept < LITTLE
