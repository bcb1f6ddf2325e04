"""Who answers an ask when, on the virtual clock: deadlines, absences, the first so many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.core.exchange import Ask, Ids, Lost
from manyloom.core.seeds import U64
from manyloom.data.store import Part, Slab
from manyloom.engine.engine import Rows
from manyloom.runtime.clock import Clock


class Timed(NamedTuple):
    """An ask on the clock, before anything is trained."""

    clients: Ids  # who will answer, by (time, name)
    at: npt.NDArray[np.float64]  # when [n]
    most: npt.NDArray[np.int64]  # the steps that each has time for [n]
    lost: list[Lost]


def timed(
    clock: Clock, ask: Ask, clients: Ids, steps: npt.NDArray[np.int64], names: Sequence[str], *, partial: bool,
    counts: bool = True,
) -> Timed:  # fmt: skip
    """When each client will have answered: steps times its seconds a step after `ask.at`.

    Args:
        clock: speeds and absences.
        ask: the question, with its deadline.
        clients: who is there [n].
        steps: that each would take [n].
        names: of the population.
        partial: at the deadline a client sends what it has, if that is a step at least.
        counts: the deadline counts on the clock.
    """
    until = ask.at + ask.deadline_s if counts else math.inf
    there = clock.there(clients, ask.at).tolist()
    found: list[tuple[float, str, int, int]] = []
    lost: list[Lost] = []
    for client, wanted, here in zip(clients.tolist(), steps.tolist(), there):
        if not here:
            lost.append(Lost(client, "away", "not reachable", None, ask.number, ask.at))
            continue
        got = clock.work(client, wanted, ask.at, until)
        if got.left:
            text = f"gone after {got.steps} of {wanted} steps"
            lost.append(Lost(client, "away", text, None, ask.number, got.at))
        elif got.steps == wanted or (partial and got.steps > 0):
            found.append((got.at, str(names[client]), client, got.steps))
        else:
            text = f"{got.steps} of {wanted} steps within {ask.deadline_s:g} virtual s"
            lost.append(Lost(client, "deadline", text, None, ask.number, until))
    found.sort()
    return Timed(
        np.array([f[2] for f in found], np.int64),
        np.array([f[0] for f in found], np.float64),
        np.array([f[3] for f in found], np.int64),
        lost,
    )


@dataclass(frozen=True)
class Again:
    """Clients that train once more from the same model: what they draw is drawn anew.

    Args:
        rows: the population.
        number: how often each was asked before, from this model.
    """

    rows: Rows
    number: int

    @property
    def ids(self) -> U64:
        with np.errstate(over="ignore"):
            return seeds.mix(self.rows.ids + np.uint64(self.number) * seeds.PHI)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return self.rows.sizes

    def slab(self, clients: Ids, part: Part = "train") -> Slab:
        return self.rows.slab(clients, part)
