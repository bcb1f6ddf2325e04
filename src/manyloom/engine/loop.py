"""The loop over batches of one group of K clients: the only one there is, for every rule and provider."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Ids
from manyloom.core.flat import Layout
from manyloom.core.parts import Drive, Seen, State, Work, per_client
from manyloom.core.seeds import U64, key
from manyloom.core.slots import Slots
from manyloom.core.task import Task
from manyloom.core.tensors import from_numpy
from manyloom.data.store import Slab
from manyloom.engine.autograd import Autograd
from manyloom.engine.plan import Stretch, sizes_of
from manyloom.engine.provider import Provider


class Group(NamedTuple):
    """What K clients trained together came to; rows stay valid until the next group is asked for."""

    clients: Ids
    up: Slots  # [K, ...], what the Work sends, and "buffers" [K, b] where running statistics are averaged
    memory: Slots  # [K, ...], what each client is to remember
    samples: Tensor  # [K] float64, sum of sizes
    steps: Tensor  # [K] int64
    loss: Tensor  # [K] float64, mean over the steps of the batch's mean loss
    seconds: float


class Failed(NamedTuple):
    """A client whose training or judging raised."""

    client: int
    text: str
    traceback: str


class Batch(NamedTuple):
    """One minibatch of n clients."""

    x: Tensor  # [n, b, ...]
    y: Tensor  # [n, b, ...]
    w: Tensor  # [n, b]
    rng: U64 | None  # [n], for modules that draw random numbers


@dataclass
class Loop:
    """All that groups of one job share; the row buffers are made once and used again.

    Args:
        provider: where gradients come from.
        work: what a client does.
        task: its losses and sizes.
        layout: of theta.
        running: the layout of running statistics, empty unless the task keeps any.
        buffers: "average" or "local" where it does.
        seed, rounds: of the job.
        random: the module draws random numbers: torch is seeded a client and step.
        judged: rows of one forward pass without gradient.
    """

    provider: Provider
    work: Work
    task: Task
    layout: Layout
    running: Layout
    buffers: str
    seed: int
    rounds: int
    random: bool = False
    judged: int = 256
    device: str = "cpu"
    _rows: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    _gathered: dict[tuple[str, int], Tensor] = field(default_factory=dict[tuple[str, int], Tensor])

    @property
    def per_step(self) -> int:
        """Fresh minibatches of one step."""
        return self.work.drive.batches if self.work.drive else 1

    def run(self, a: Stretch, lo: int, hi: int, down: Slots, kept: Slots, round: int) -> Group:
        """Train clients lo .. hi of a stretch.

        Args:
            a: the stretch.
            lo, hi: which of its clients.
            down: what the server sent.
            kept: what each client remembers, [K, ...].
            round: counted from 1.
        """
        began = time.perf_counter()
        k, per, s, p = hi - lo, self.per_step, a.who, a.plan
        self._start(down, kept)
        samples, steps = p.samples[lo:hi], from_numpy(s.steps[lo:hi])
        none = torch.zeros(k, 1, dtype=self.layout.dtype, device=self.device)
        seen = Seen(round, self.rounds, samples[:, None].to(none), steps[:, None].to(none), none, {})
        if self.work.measure and self.work.measure.before:
            start = down["theta"].expand(k, self.layout.d)
            seen = seen._replace(measured=self._measure("before", start, a, lo, hi, round))
        w0, state = self.work.begin(down, kept, seen)
        theta = self._buffer("theta", k)
        theta.copy_(w0)
        loss = torch.zeros(k, dtype=torch.float64, device=self.device)

        self._train_mode(True)
        active = (s.steps[lo:hi, None] > np.arange(int(s.steps[lo]))).sum(0).tolist()
        widths = p.real[: len(active) * per, lo:hi].max(1).tolist()
        live, n, grad, w, sums = state, k, self._buffer("grad", k), theta, loss
        for t, still in enumerate(active):
            if still < n:  # those who are done are the last rows
                live, n = per_client(live, still), still
                grad, w, sums = grad[:n], theta[:n], loss[:n]
            if self.work.drive is not None:
                fetch = partial(self._batch, a, lo, n, round=round)
                sums += self._driven(self.work.drive, w, live, fetch, widths, t * per)
                continue
            b = self._batch(a, lo, n, t, widths[t], round=round)
            sums += self.provider.accumulate(w, b.x, b.y, b.w, grad, rng=b.rng, anchors=self._anchors(live))
            self.work.step(w, grad, live)

        seen = seen._replace(loss=loss[:, None].to(none))
        if self.work.measure and self.work.measure.after:
            after = self._measure("after", theta, a, lo, hi, round)
            seen = seen._replace(measured={**seen.measured, **after})
        up, memory = self.work.finish(theta, down, _whole(state, live), kept, seen)
        memory = {name: memory[name] for name in self.work.memory}
        if self.running.d:
            now = self._autograd().running
            if self.buffers == "average":
                up = up | {"buffers": (now - down["buffers"])[None]}
            else:
                memory["buffers"] = now.clone()[None]
        mean = loss.cpu() / steps
        return Group(s.clients[lo:hi], up, memory, samples, steps, mean, time.perf_counter() - began)

    def _driven(
        self, drive: Drive, theta: Tensor, live: State, fetch: Callable[..., Batch], widths: list[int], first: int
    ) -> Tensor:
        """One step of a `Work` that asks for gradients itself; its loss is that of the first one.

        Args:
            drive: the rule.
            theta: rows of the clients that still have steps, [n, d].
            live: their state.
            fetch: (m, width, place) -> minibatch.
            widths: of all minibatches.
            first: the step's first minibatch.
        """
        n = theta.shape[0]
        losses: list[Tensor] = []
        batches: dict[int, Batch] = {}

        def grad_at(point: Tensor, batch: int = 0) -> Tensor:
            if batch not in batches:
                batches[batch] = fetch(first + batch, widths[first + batch], place=batch)
            x, y, w, rng = batches[batch]
            rows = point.expand(n, -1) if point.dim() == 1 else point.reshape(-1, point.shape[-1])
            anchors = self._anchors(live)
            if (again := rows.shape[0] // n) > 1:
                x, y, w = (v.repeat(again, *[1] * (v.dim() - 1)) for v in (x, y, w))
                rng = None if rng is None else np.tile(rng, again)
                if anchors is not None:
                    anchors = {a: v.repeat(again, 1) if v.dim() >= 2 else v for a, v in anchors.items()}
            out = self._buffer(f"grad {len(losses)}", rows.shape[0])  # each call its own: rules combine several
            with self._statistics(rows, theta):
                loss = self.provider.accumulate(rows, x, y, w, out, rng=rng, anchors=anchors)
            losses.append(loss[:n])
            return out.view(*point.shape[:-2], n, -1)

        drive.step(theta, grad_at, live)
        return losses[0] if losses else theta.new_zeros(n)

    @contextmanager
    def _statistics(self, rows: Tensor, theta: Tensor) -> Generator[None]:
        """Running statistics move only at w: a pass at another point gives them back."""
        before = None
        if self.running.d and rows.data_ptr() != theta.data_ptr():
            before = self._autograd().running.clone()
        yield
        if before is not None:
            self._autograd().running.copy_(before)

    def _measure(self, when: str, theta: Tensor, a: Stretch, lo: int, hi: int, round: int) -> Slots:
        """A pass over each client's rows: `<when>.loss` [K, 1], a mean, and its `<when>.gradient` [K, d]."""
        assert self.work.measure is not None
        what = self.work.measure.before if when == "before" else self.work.measure.after
        slab, k, sizes = a.slab, hi - lo, a.who.sizes[lo:hi]
        own = sizes_of(self.task, slab)
        wide = max(1, self.judged // k)
        total = a.plan.samples[lo:hi, None]
        loss = theta.new_zeros(k, dtype=torch.float64)
        grad = theta.new_zeros(k, self.layout.d) if "gradient" in what else None
        rng = key(self.seed, round, a.ids[lo:hi], "measure") if self.random else None
        before = self._autograd().running.clone() if self.running.d else None  # only training moves them
        for at in range(0, int(sizes.max()), wide):
            place = np.arange(at, min(at + wide, int(sizes.max())))
            local = slab.off[:-1][lo:hi, None] + np.minimum(place, sizes[:, None] - 1)
            w = own[from_numpy(local)] * from_numpy(place < sizes[:, None]) / total
            x, y = self._gather(slab, from_numpy(slab.rows[local]), -1)
            w = w.to(theta)
            if "loss" in what:
                self._train_mode(False)
                loss += (self.provider.losses(theta, x, y) * w).sum(1)
            if grad is not None:
                self._train_mode(True)
                self.provider.accumulate(theta, x, y, w, grad, beta=float(at > 0), rng=rng)
        if before is not None:
            self._autograd().running.copy_(before)
        found = {f"{when}.loss": loss[:, None].to(theta)} if "loss" in what else {}
        return found | ({f"{when}.gradient": grad} if grad is not None else {})

    def _start(self, down: Slots, kept: Slots) -> None:
        if self.running.d:
            self._autograd().start(down["buffers"] if self.buffers == "average" else kept["buffers"][0])

    def _autograd(self) -> Autograd:
        assert isinstance(self.provider, Autograd)  # running statistics are only ever built on it
        return self.provider

    def _train_mode(self, on: bool) -> None:
        self.provider.program.train(on)

    def _anchors(self, live: State) -> Slots | None:
        if self.work.objective is None:
            return None
        return {n: v for n, v in live.items() if isinstance(v, Tensor)}

    def _batch(self, a: Stretch, lo: int, n: int, m: int, width: int, place: int = 0, *, round: int) -> Batch:
        """Minibatch m of the first n clients of the group that begins at lo."""
        x, y = self._gather(a.slab, a.plan.places[m, lo : lo + n, :width], place)
        rng = key(self.seed, round, a.ids[lo : lo + n], "torch", m) if self.random else None
        return Batch(x, y, a.plan.weights[m, lo : lo + n, :width].to(self.device), rng)

    def _gather(self, slab: Slab, index: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """Rows [K, b, ...] of the slab, gathered into memory that is used again, then cast."""
        flat = index.reshape(-1)
        x = torch.index_select(slab.x, 0, flat, out=self._into("x", place, slab.x, len(flat)))
        y = torch.index_select(slab.y, 0, flat, out=self._into("y", place, slab.y, len(flat)))
        shape = index.shape
        return self.cast(slab, x).view(*shape, *x.shape[1:]), y.to(self.device).view(*shape, *y.shape[1:])

    def cast(self, slab: Slab, x: Tensor) -> Tensor:
        """Gathered rows as the module takes them: the source's cast, theta's float type, the device."""
        x = slab.cast(x) if slab.cast else x
        return x.to(self.device, self.layout.dtype) if x.is_floating_point() else x.to(self.device)

    def _into(self, name: str, place: int, like: Tensor, n: int) -> Tensor:
        have = self._gathered.get((name, place))
        if have is None or have.shape[0] < n or have.shape[1:] != like.shape[1:] or have.dtype != like.dtype:
            have = self._gathered[name, place] = torch.empty(n, *like.shape[1:], dtype=like.dtype)
        return have[:n]

    def _buffer(self, name: str, k: int) -> Tensor:
        have = self._rows.get(name)
        if have is None or have.shape[0] < k:
            have = torch.empty(k, self.layout.d, dtype=self.layout.dtype, device=self.device)
            self._rows[name] = have
        return have[:k]


def _whole(state: State, live: State) -> State:
    """The state of all K clients at the end: rows from the full tensors, all else from the last step."""
    return live | {n: v for n, v in state.items() if isinstance(v, Tensor) and v.dim() >= 2}
