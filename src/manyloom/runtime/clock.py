"""The virtual clock: how fast each simulated client is, and when it can be reached.

Nothing here waits: times are numbers, a function of the job's seed or of a trace.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.core.errors import BadInput, bad
from manyloom.core.exchange import Ids
from manyloom.core.seeds import U64
from manyloom.data.federation import Federation
from manyloom.data.names import client_index
from manyloom.job.job import Job

STRETCH = 600.0  # virtual seconds: [simulate] availability draws who is reachable anew for each such stretch
COLUMNS = ("client", "start", "end", "seconds_per_step")
NORMAL = NormalDist()


class Span(NamedTuple):
    """A time in which a client is reachable, [start, end), and its speed then."""

    start: float
    end: float
    step: float  # seconds


class Worked(NamedTuple):
    """What came of local work: the steps that were done, when it ended, and why it did."""

    steps: int
    at: float
    left: bool = False  # it was away before it was done


Trace = Mapping[int, Sequence[Span]]  # client -> its spans, ascending


@dataclass(frozen=True)
class Clock:
    """Speeds and reachable times of a population.

    Args:
        seed: of the job.
        ids: of the population [N].
        sigma: of log(seconds a step); 0: one second for all.
        availability: share of time that a client is reachable.
        trace: who is reachable when, and how fast; it begins again after its last end.
    """

    seed: int
    ids: U64
    sigma: float = 0.0
    availability: float = 1.0
    trace: Trace | None = None

    def speeds(self, clients: Ids) -> npt.NDArray[np.float64]:
        """Virtual seconds a step, exp(sigma z) with z ~ N(0, 1) a client [n]; under a trace see `work`."""
        if not self.sigma:
            return np.ones(len(clients))
        drawn = seeds.uniform(self.seed, 0, self.ids[clients], "speed") + 2.0**-54  # never 0
        return np.array([math.exp(self.sigma * NORMAL.inv_cdf(u)) for u in drawn.tolist()])

    def work(self, client: int, steps: int, at: float, until: float = math.inf) -> Worked:
        """What a client that begins at `at` has done of so many steps when it is done, away, or the time is over."""
        done, now = 0.0, at
        speed = float(self.speeds(np.array([client], np.int64))[0]) if self.trace is None else 0.0
        while True:
            span = self._span(client, now, speed, now + (steps - done) * speed)
            if span is None:
                return Worked(_whole(done), now, left=True)
            ready = now + (steps - done) * span.step
            stop = min(span.end, until)
            if ready <= stop:
                return Worked(steps, ready)
            done += (stop - now) / span.step
            if stop >= until:
                return Worked(min(steps, _whole(done)), until)
            now = stop

    def there(self, clients: Ids, at: float) -> npt.NDArray[np.bool_]:
        """Who can be reached at a time [n]."""
        if self.trace is not None:
            return np.array([self._span(c, at, 0.0, at) is not None for c in clients.tolist()], bool)
        if self.availability >= 1:
            return np.ones(len(clients), bool)
        return self._there(clients, int(at // STRETCH))

    def reachable(self, clients: Ids, least: int, at: float, until: float) -> tuple[Ids, float]:
        """Who of these can be reached, and when: waits for `least` of them from `at` on, at most to `until`."""
        now = at
        while True:
            here = clients[self.there(clients, now)]
            after = self._next(now)
            if len(here) >= least or now >= until:
                return here, now
            now = min(after, until)

    def _there(self, clients: Ids, stretch: int) -> npt.NDArray[np.bool_]:
        return seeds.uniform(self.seed, stretch, self.ids[clients], "availability") < self.availability

    def _next(self, now: float) -> float:
        """When somebody may next come."""
        if self.trace is None:
            return (now // STRETCH + 1) * STRETCH if self.availability < 1 else math.inf
        turn, whole = self._turn(now)
        starts = sorted({s.start for spans in self.trace.values() for s in spans})
        later = [turn * whole + s for s in starts if turn * whole + s > now]
        return later[0] if later else (turn + 1) * whole + starts[0]

    def _period(self) -> float:
        return max(s.end for spans in (self.trace or {}).values() for s in spans)

    def _turn(self, now: float) -> tuple[int, float]:
        """How often the trace has begun again, k with k P <= now < (k + 1) P as rounded numbers; and P."""
        whole = self._period()
        turn = int(now // whole)
        while turn * whole > now:
            turn -= 1
        while (turn + 1) * whole <= now:
            turn += 1
        return turn, whole

    def _span(self, client: int, now: float, speed: float, wanted: float) -> Span | None:
        """The time around `now` in which a client is reachable, as far as it is `wanted`; None: it is away."""
        if self.trace is not None:
            spans = self.trace.get(client, ())
            turn, whole = self._turn(now)
            base = turn * whole
            k = bisect_right(spans, now, key=lambda s: base + s.start) - 1
            if k < 0:
                return None
            end = (turn + 1) * whole if spans[k].end == whole else base + spans[k].end
            return Span(base + spans[k].start, end, spans[k].step) if now < end else None  # always after now
        if self.availability >= 1:
            return Span(0.0, math.inf, speed)
        who, stretch = np.array([client], np.int64), int(now // STRETCH)
        if not self._there(who, stretch)[0]:
            return None
        end = stretch + 1
        while end * STRETCH < wanted and self._there(who, end)[0]:
            end += 1
        return Span(stretch * STRETCH, end * STRETCH, speed)


def _whole(steps: float) -> int:
    return math.floor(steps + 1e-9)


def clock_of(job: Job) -> Clock:
    """The clock of a job; without [simulate] speed or trace a step takes each client one virtual second."""
    fate = job.simulate
    trace = read(Path(job.base) / fate.trace, job.federation) if fate.trace is not None else None
    sigma = fate.speed_sigma if fate.speed == "lognormal" else 0.0
    return Clock(job.seed, job.federation.ids, sigma, fate.availability, trace)


def read(path: Path, federation: Federation) -> Trace:
    """A trace file: CSV with the columns client (name or number), start, end, seconds_per_step.

    Raises:
        BadInput: `bad-trace`, with the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _wrong(path, f"it can't be read: {error}", "give the path of a CSV file, relative to the job") from error
    found: dict[int, list[Span]] = {}
    for number, line in enumerate(lines, 2):
        if missing := [c for c in COLUMNS if line.get(c) in (None, "")]:
            raise _wrong(path, f"line {number} has no {missing[0]}", "columns: " + ", ".join(COLUMNS))
        client = client_index(federation, line["client"])
        if client is None:
            raise _wrong(
                path, f'line {number}: no client "{line["client"]}"', "clients as the data name or number them"
            )
        try:
            span = Span(*(float(line[c]) for c in COLUMNS[1:]))
        except ValueError as error:
            raise _wrong(path, f"line {number}: {error}", "times and speeds are numbers") from error
        if not (0 <= span.start < span.end < math.inf and 0 < span.step < math.inf):
            raise _wrong(path, f"line {number}: {', '.join(line[c] for c in COLUMNS[1:])}",
                         "0 <= start < end, seconds_per_step > 0")  # fmt: skip
        found.setdefault(client, []).append(span)
    if not found:
        raise _wrong(path, "it has no line", "columns: " + ", ".join(COLUMNS))
    for client, spans in found.items():
        spans.sort()
        for a, b in zip(spans, spans[1:]):
            if b.start < a.end:
                raise _wrong(path, f"client {federation.names[client]} has overlapping times",
                             f"{a.start:g} to {a.end:g}, {b.start:g} to {b.end:g}")  # fmt: skip
    return found


def _wrong(path: Path, got: str, rule: str) -> BadInput:
    return bad("bad-trace", f"the trace {path.name} can't be used", got=got, rule=rule,
               mend="mend the file, or leave trace out of [simulate]")  # fmt: skip
