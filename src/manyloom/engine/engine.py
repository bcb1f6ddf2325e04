"""The engine of a job: built once, warm for all its rounds."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.algorithms.turns import Turn
from manyloom.core.exchange import Ids
from manyloom.core.flat import Layout
from manyloom.core.parts import Algorithm
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots
from manyloom.data.federation import Federation
from manyloom.data.store import Part, Slab
from manyloom.engine.autograd import Autograd
from manyloom.engine.evaluate import Evaluated, histograms, joined, judge, nothing
from manyloom.engine.loop import Failed, Group, Loop
from manyloom.engine.plan import Int, Schedule, Stretch, plan, schedule, spans, steps_of, stretches
from manyloom.work.part import partly

Recall = Callable[[Ids], Slots]
LOADED = 64 << 20  # bytes of rows that one slab of evaluation may hold


class Rows(Protocol):
    """What training needs of a population: stable ids [N], sizes [N], and rows when they are asked for."""

    @property
    def ids(self) -> U64: ...

    @property
    def sizes(self) -> npt.NDArray[np.int64]: ...

    def slab(self, clients: Ids, part: Part = "train") -> Slab: ...


@dataclass(frozen=True)
class Engine:
    """Trains and judges clients by one choice of provider and group size.

    Args:
        layout: of theta [d].
        shared: of the part of it that travels [p]: all, unless the algorithm keeps some at the client.
        buffers: of the running statistics [b]; empty unless the task keeps them.
        initial: theta [d] of the fresh module, a function of the job's seed.
        strangers: name -> what a client never seen remembers ([d], [1] or [b]).
        record: provider, group, name, device, threads, torch, capability, reasons; kept on resume.
        algorithm: client work and batches.
        loop: the loop over batches, with the chosen provider.
        machine: the resident module; it judges, and trains where it is the provider.
        widths: metric -> how many sums it has.
        row_bytes: of one row of x and y.
        turns: the parts that are trained in turn, if any are.
    """

    layout: Layout
    shared: Layout
    buffers: Layout
    initial: Tensor
    strangers: Slots
    record: Mapping[str, object]
    algorithm: Algorithm
    loop: Loop
    machine: Autograd
    widths: Mapping[str, int]
    group: int
    threads: int
    row_bytes: int
    turns: tuple[Turn, ...] = ()

    @property
    def owned(self) -> bool:
        """Whether clients are judged by models of their own (`engine.own`)."""
        return self.loop.work.personal is not None or self.algorithm.adapt > 0

    def turn(self, number: int) -> Engine:
        """The engine that trains one part alone, from "theta" [p] and "rest" [d - p]."""
        part = self.turns[number]
        work = partly(self.loop.work, part.places, part.rest)
        return replace(self, shared=part.layout, loop=replace(self.loop, work=work))

    def __repr__(self) -> str:
        return f"Engine({self.record['provider']}, {self.group} at once, {self.layout.d} parameters)"

    def train(
        self, federation: Rows, clients: Ids, down: Slots, recall: Recall, round: int, most: Int | None = None
    ) -> Iterator[Group | Failed]:
        """Train a cohort; every client with rows comes out once, in a `Group` or as `Failed`.

        Clients without a step (no rows; a single row, with running statistics) are left out. What is drawn
        depends on (seed, round, the client's id) alone; torch's generator and threads are the caller's again
        at each yield.

        Args:
            federation: who they are and their rows.
            clients: by index, in any order, [n].
            down: what the server sent: "theta" [d] and whatever the rule needs.
            recall: clients [k] -> what they remember, rows [k, ...]; a missing name is a stranger's.
            round: counted from 1.
            most: steps that each has time for [n]; None: all of them.
        """
        down = {n: t.to(self.loop.device) for n, t in down.items()}
        if self.buffers.d and "buffers" not in down:
            down["buffers"] = self.strangers["buffers"]
        clients = np.asarray(clients, np.int64)
        batches, per = self.algorithm.batches, self.loop.per_step
        sizes = np.asarray(federation.sizes[clients], np.int64)
        s = schedule(clients, sizes, batches, per, self.buffers.d > 0, most)
        for lo, hi in stretches(s, batches, per, self.group, self.row_bytes):
            yield from self._stretch(federation, s.part(lo, hi), down, recall, round)

    def steps(self, federation: Rows, clients: Ids) -> Int:
        """The steps that each of these would take [n]."""
        sizes = np.asarray(federation.sizes[clients], np.int64)
        return steps_of(sizes, self.algorithm.batches, self.loop.per_step, self.buffers.d > 0)[1]

    def _stretch(
        self, federation: Rows, s: Schedule, down: Slots, recall: Recall, round: int
    ) -> Iterator[Group | Failed]:
        loop, n = self.loop, len(s.clients)
        ids = federation.ids[s.clients]
        try:
            slab = federation.slab(s.clients)
            p = plan(s, ids, slab, self.algorithm.batches, loop.per_step, loop.seed, round, loop.task,
                     loop.layout.dtype)  # fmt: skip
            stretch = Stretch(s, p, slab, ids)
        except Exception as error:  # some client's data can't be read: find whose
            if n == 1:
                yield failed(int(s.clients[0]), error)
                return
            stretch = None
        if stretch is None:
            for j in range(n):
                yield from self._stretch(federation, s.part(j, j + 1), down, recall, round)
            return

        def attempt(lo: int, hi: int) -> Group | Exception:
            try:
                with quiet(self.threads, loop.random, loop.device), torch.no_grad():
                    kept = self._kept(recall(s.clients[lo:hi]), hi - lo)
                    return loop.run(stretch, lo, hi, down, kept, round)
            except Exception as error:
                return error

        for lo in range(0, n, self.group):
            hi = min(lo + self.group, n)
            found = attempt(lo, hi)
            if isinstance(found, Group):
                yield found
                continue
            for j in range(lo, hi):  # one by one, to find whose it is
                alone = found if hi - lo == 1 else attempt(j, j + 1)
                yield alone if isinstance(alone, Group) else failed(int(s.clients[j]), alone)

    def _kept(self, recalled: Slots, k: int) -> Slots:
        rows = {n: t.expand(k, *t.shape) for n, t in self.strangers.items()}
        return rows | {n: t.to(self.loop.device) for n, t in recalled.items()}

    def evaluate(
        self,
        federation: Federation,
        clients: Ids,
        theta: Tensor,
        running: Tensor | None = None,
        part: Part = "test",
        failed: tuple[Failed, ...] = (),
    ) -> Evaluated:
        """Judge a model on the rows of some clients: sums, a row a client, in the order asked.

        A client whose data raises is in `failed`, with zeros in its row.

        Args:
            federation: who they are and their rows.
            clients: by index, [k].
            theta: one vector for all [d], or one a client [k, d].
            running: BatchNorm's statistics, [b] or [k, b]; default the module's initial ones.
            part: "test" (held-out rows) or "train".
            failed: clients that are so already.
        """
        clients = np.asarray(clients, np.int64)
        sizes = (federation.tests if part == "test" else federation.sizes)[clients]
        found = [nothing(clients[:0], self.widths)._replace(failed=failed)]
        for lo, hi in spans(sizes, max(1, LOADED // self.row_bytes)):
            rows, stats = _rows(theta, lo, hi), _some(running, lo, hi)
            found += self._judged(federation, clients[lo:hi], rows, stats, part)
        return joined(found)

    def _judged(
        self, federation: Federation, clients: Ids, theta: Tensor, running: Tensor | None, part: Part
    ) -> list[Evaluated]:
        try:
            return [self.judge(federation.slab(clients, part), clients, theta, running)]
        except Exception as error:
            if len(clients) == 1:
                why = failed(int(clients[0]), error)
                return [nothing(clients, self.widths)._replace(failed=(why,))]
        found: list[Evaluated] = []
        for j, k in zip(range(len(clients)), range(1, len(clients) + 1)):
            found += self._judged(federation, clients[j:k], _rows(theta, j, k), _some(running, j, k), part)
        return found

    def judge(self, slab: Slab, clients: Ids, theta: Tensor, running: Tensor | None = None) -> Evaluated:
        """Judge a model on a slab, such as a source's own test set: see `evaluate`."""
        with quiet(self.threads, False, self.loop.device):
            theta, running = self._placed(theta, running)
            return judge(self.machine, self.loop.task, slab, clients, theta, running, self.loop.judged,
                         self.loop.cast, self.widths)  # fmt: skip

    def histograms(
        self,
        federation: Federation,
        clients: Ids,
        theta: Tensor,
        mean: float,
        sd: float,
        running: Tensor | None = None,
        part: Part = "test",
    ) -> Tensor:
        """Two histograms of the score a client, [k, 2, 512], over bins that follow from mean and sd."""
        clients = np.asarray(clients, np.int64)
        sizes = (federation.tests if part == "test" else federation.sizes)[clients]
        found = [torch.zeros(0, 2, 512, dtype=torch.float64)]
        for lo, hi in spans(sizes, max(1, LOADED // self.row_bytes)):
            slab = federation.slab(clients[lo:hi], part)
            found.append(self.scores(slab, _rows(theta, lo, hi), mean, sd, _some(running, lo, hi)))
        return torch.cat(found)

    def scores(self, slab: Slab, theta: Tensor, mean: float, sd: float, running: Tensor | None = None) -> Tensor:
        """`histograms` of a slab."""
        with quiet(self.threads, False, self.loop.device):
            theta, running = self._placed(theta, running)
            return histograms(self.machine, slab, theta, running, self.loop.judged, self.loop.cast, mean, sd)

    def personal(self, clients: Ids, down: Slots, recall: Recall) -> Tensor:
        """What each client is judged by, [k, d]: `Work.personal`, or theta."""
        kept = self._kept(recall(clients), len(clients))
        w = self.loop.work.personal(down, kept) if self.loop.work.personal else down["theta"]
        return w.expand(len(clients), self.layout.d)

    def _placed(self, theta: Tensor, running: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if self.buffers.d:
            running = self.strangers["buffers"] if running is None else running.to(self.machine.running)
        return theta.to(self.loop.device, self.layout.dtype), running if self.buffers.d else None


def _rows(t: Tensor, lo: int, hi: int) -> Tensor:
    return t[lo:hi] if t.dim() > 1 else t


def _some(t: Tensor | None, lo: int, hi: int) -> Tensor | None:
    return None if t is None else _rows(t, lo, hi)


def failed(client: int, error: BaseException) -> Failed:
    """What is told of a client whose training raised."""
    line = (str(error).splitlines() or [""])[0]
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return Failed(client, text, "".join(traceback.format_exception(error)))


@contextmanager
def quiet(threads: int, random: bool, device: str) -> Generator[None]:
    """Run on so many intra-op threads and give the caller its own back; its generators too if any is used."""
    before = torch.get_num_threads()
    cuda = [torch.device(device)] if torch.device(device).type == "cuda" else []
    if before != threads:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=cuda, enabled=random):  # pyright: ignore[reportUnknownMemberType]
            yield
    finally:
        if before != threads:
            torch.set_num_threads(before)
