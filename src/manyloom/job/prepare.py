"""What must be known before the first round: the data's shape, the first model, what the runtime chose.

`plan` and the run itself share this, so that every wrong input is told before a run exists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.algorithms.guarded import lengths
from manyloom.algorithms.turns import Turn, turns_of
from manyloom.core.exchange import Ask, Lost, Reply, Runtime, play
from manyloom.core.flat import Layout, shared
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.task import Shape, Task
from manyloom.data import statistics
from manyloom.data.preprocess import Preprocess
from manyloom.engine.build import fresh
from manyloom.job.job import Job, shape_of
from manyloom.secure.channel import Channel, over


class Prepared(NamedTuple):
    """The start of a run: theta_0 [d], its layout, preprocessing, and what it cost to learn them."""

    shape: Shape
    layout: Layout
    theta: Tensor
    buffers: Slots  # {"buffers": [b]} if running statistics are averaged
    preprocess: Preprocess | None
    sent_up: int
    sent_down: int
    seconds: float
    execution: Mapping[str, Any]
    session: str = ""  # what this run's secure sums are bound to
    channel: Channel | None = None
    turns: tuple[Turn, ...] = ()

    @property
    def slots(self) -> Slots:
        """Preprocessing as it travels and is saved."""
        return self.preprocess.to_slots() if self.preprocess else {}

    @property
    def server(self) -> Slots:
        """What the server starts with, before its optimiser adds its own."""
        return {"theta": self.theta, **self.buffers}


def prepare(
    job: Job,
    runtime: Runtime,
    saved: Slots | None = None,
    execution: Mapping[str, Any] | None = None,
    session: str | None = None,
) -> Prepared:
    """Open the runtime, learn the federation's statistics, make the first model.

    Args:
        job: the job.
        runtime: who answers.
        saved: preprocessing of a run that goes on; its statistics are not asked for again.
        execution: what the run's runtime chose; kept.
        session: what a run that goes on bound its secure sums to.

    Raises:
        BadInput: whatever is wrong with data or model, before anything trains.
    """
    fed = job.federation
    session = session or os.urandom(8).hex()
    runtime.open(job, session)
    channel = job.protection.channel(1, job.digest, session, runtime.roster()) if job.protection else None
    began = time.perf_counter()
    up = down = 0

    def answer(ask: Ask) -> list[Reply | Lost]:
        nonlocal up, down
        replies = runtime.ask(ask)
        up += sum(r.sent for r in replies if isinstance(r, Reply))
        down += size_bytes(ask.body) * len(ask.to) + sum(size_bytes(own) for own in ask.each.values())
        return replies

    pre: Preprocess | None = None
    if fed.schema is not None:
        asked = statistics.of(fed)
        asked = over(asked, channel) if channel is not None else asked
        pre = Preprocess.from_slots(fed.schema, saved) if saved else play(asked, answer)
    seconds = time.perf_counter() - began
    shape = Shape((pre.width,), fed.classes if fed.target == "class" else None) if pre else shape_of(fed)
    everybody = np.flatnonzero(fed.sizes > 0).astype(np.int64)
    body = (pre.to_slots() if pre else {}) | ({"execution": _pack(execution)} if execution else {})
    answer(Ask(everybody, "prepare", body))
    layout, theta, buffers = first_model(job.task, shape, job.seed, job.algorithm.local)
    buffers = buffers if job.task.buffers == "average" else {}
    turns = turns_of(layout, job.algorithm.turns)
    if job.protection is not None:  # refuses a scale without room for so many parameters
        for part in [t.layout for t in turns] or [layout]:
            job.protection.guard(width(job, part, buffers), job.privacy.clip if job.privacy else None)
    return Prepared(
        shape,
        layout,
        theta,
        buffers,
        pre,
        up,
        down,
        seconds,
        runtime.describe(),
        session,
        channel,
        turns,
    )


def width(job: Job, layout: Layout, buffers: Slots) -> int:
    """How many numbers a client's message holds."""
    state = {"theta": torch.empty(layout.d, device="meta"), **buffers}
    return sum(lengths(job.algorithm, state).values())


def first_model(task: Task, shape: Shape, seed: int, local: Sequence[str] | str = ()) -> tuple[Layout, Tensor, Slots]:
    """theta_0 [d] from the seed, its layout, the first running statistics; torch's own generator stays as it was.

    Of what is `local` the hub knows nothing: its theta is the rest.
    """
    module = fresh(task, shape, seed)
    layout, running = shared(module, Layout.of(module, task.freeze), local)[0], Layout.of_buffers(module)
    return layout, layout.flatten(module), {"buffers": running.flatten(module)} if running.d else {}


def module_of(
    task: Task, shape: Shape, seed: int, server: Slots, theta: Tensor, local: Sequence[str] | str = ()
) -> torch.nn.Module:
    """The trained module: built as at the start (frozen and local parts too), with theta and running statistics."""
    module = fresh(task, shape, seed)
    shared(module, Layout.of(module, task.freeze), local)[0].load(module, theta)
    if "buffers" in server:
        Layout.of_buffers(module).load(module, server["buffers"])
    return module.eval()


def _pack(value: Mapping[str, Any]) -> Tensor:
    from manyloom.core.slots import pack_json

    return pack_json(dict(value))
