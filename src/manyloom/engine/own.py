"""What clients are judged by: one model for all, or each its own, a few clients at a time.

v_i = personal(theta, memory_i), after `adapt` further local steps
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from manyloom.core.exchange import Ids
from manyloom.core.parts import Batches, Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.data.federation import Federation
from manyloom.engine.loop import Failed

if TYPE_CHECKING:
    from manyloom.engine.engine import Engine, Recall

HELD = 64 << 20  # bytes of vectors at once


class Own(NamedTuple):
    """What some clients are judged by."""

    clients: Ids
    theta: Tensor  # [k, d], or [d] for all
    running: Tensor | None  # [k, b], or [b] for all
    failed: tuple[Failed, ...] = ()


def own(
    engine: Engine,
    federation: Federation,
    clients: Ids,
    down: Slots,
    recall: Recall,
    round: int,
    most: int | None = None,
) -> Iterator[Own]:
    """What clients are judged by, in their order; those that could not adapt are in `failed` too.

    Args:
        engine: whose work it is.
        federation: who they are and their rows.
        clients: by index [n].
        down: what the server sent: theta, perhaps buffers.
        recall: clients -> what they remember.
        round: whose rate and order of rows `adapt` takes.
        most: clients at once.
    """
    down = {n: t.to(engine.loop.device) for n, t in down.items()}
    here = engine.buffers.d > 0 and "buffers" not in down  # running statistics that stay at the clients
    many = HELD // (engine.layout.d * engine.layout.dtype.itemsize) if engine.owned else len(clients)
    many = max(1, min(many, most or many))
    for lo in range(0, max(1, len(clients)), many):
        some = clients[lo : lo + many]
        kept = recall(some) if engine.owned or here else {}
        theta = engine.personal(some, down, lambda _, kept=kept: kept) if engine.owned else down["theta"]
        running = kept["buffers"] if here else down.get("buffers")
        found = Own(some, theta, running)
        yield _adapted(engine, federation, found, down, recall, round) if engine.algorithm.adapt else found


def _adapted(engine: Engine, federation: Federation, start: Own, down: Slots, recall: Recall, round: int) -> Own:
    """`adapt` steps further; who has no row to train on stays where it was."""
    a, n = engine.algorithm, len(start.clients)
    work = _adapting(engine.loop.work)
    steps = replace(a, work=work, batches=Batches(a.batches.size, steps=a.adapt))
    further = replace(engine, algorithm=steps, loop=replace(engine.loop, work=work))
    theta = start.theta.clone()
    running = None if start.running is None else start.running.expand(n, -1).clone()
    place = {c: j for j, c in enumerate(start.clients.tolist())}
    failed: list[Failed] = []
    for group in further.train(federation, start.clients, down, recall, max(1, round)):
        if isinstance(group, Failed):
            failed.append(group)
            continue
        at = torch.tensor([place[c] for c in group.clients.tolist()])
        theta[at] = group.up["w"]
        if running is not None:
            running[at] = group.up["buffers"] + down["buffers"] if "buffers" in group.up else group.memory["buffers"]
    return Own(start.clients, theta, running, tuple(failed))


def _adapting(work: Work) -> Work:
    """The same local steps from what a client is judged by; they come to `w`, and nothing is remembered."""

    def begin(down: Slots, kept: Slots, seen: Seen) -> tuple[Tensor, State]:
        w, state = work.begin(down, kept, seen)
        return work.personal(down, kept) if work.personal else w, state

    def finish(w: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        return {"w": w}, {}

    return work._replace(begin=begin, finish=finish, memory={}, sends={"w": "d"})
