"""Judging: all rows of all clients in one pass, and what a client sends is a sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Ids
from manyloom.core.metrics import BINS, METRICS, auc, bins_of, score
from manyloom.core.task import Task
from manyloom.core.tensors import from_numpy
from manyloom.data.store import Slab
from manyloom.engine.autograd import Autograd
from manyloom.engine.loop import Failed
from manyloom.engine.plan import owners, sizes_of, sums_of

Cast = Callable[[Slab, Tensor], Tensor]


class Evaluated(NamedTuple):
    """Sums over each client's rows, float64; a client without rows has zeros (and auc_own nan)."""

    clients: Ids
    rows: Tensor  # [k], rows, or the sum of their sizes (tokens)
    loss_sums: Tensor  # [k]
    sums: Mapping[str, Tensor]  # {metric: [k, s]}, see core.metrics
    auc_own: Tensor  # [k], exact; nan without both classes, or if AUC was not asked for
    positives: Tensor  # [k], rows of class 1
    failed: tuple[Failed, ...] = ()


def judge(
    machine: Autograd,
    task: Task,
    slab: Slab,
    clients: Ids,
    theta: Tensor,
    running: Tensor | None,
    batch: int,
    cast: Cast,
    widths: Mapping[str, int],
) -> Evaluated:
    """Sums for each client of a slab.

    Args:
        machine: the resident module.
        task: losses, metrics, sizes.
        slab: the rows of `clients`, in their order.
        theta: one vector [d] for all, or one a client [k, d].
        running: BatchNorm's statistics, [b] or [k, b], or None.
        batch: rows of a forward pass.
        cast: gathered rows -> what the module takes.
        widths: metric -> how many sums it has.
    """
    if not len(slab.rows):
        return nothing(clients, widths)
    own = sizes_of(task, slab)
    losses = torch.zeros(len(own), dtype=torch.float64)
    parts: dict[str, list[Tensor]] = {m: [] for m in task.metrics}
    scores: list[Tensor] = []
    positive: list[Tensor] = []
    for span, out, y in passes(machine, slab, theta, running, batch, cast):
        losses[span] = task.losses(out, y).double().cpu()
        for m in task.metrics:
            parts[m].append(METRICS[m].sums(out, y).double().cpu())
        if "auc" in parts:
            scores.append(score(out).cpu())
        one = (y == 1).double().cpu()
        positive.append(one.flatten(1).mean(1) if one.dim() > 1 else one)
    sums = {m: sums_of(torch.cat(p) * own[:, None], slab.off) for m, p in parts.items()}
    exact = torch.full((len(clients),), math.nan, dtype=torch.float64)
    if scores:
        s, p = torch.cat(scores), torch.cat(positive) > 0
        exact = torch.tensor([auc(s[a:b], p[a:b]) for a, b in zip(slab.off, slab.off[1:])], dtype=s.dtype)
    pos = sums_of(torch.cat(positive), slab.off)
    return Evaluated(clients, sums_of(own, slab.off), sums_of(losses * own, slab.off), sums, exact, pos)


def nothing(clients: Ids, widths: Mapping[str, int]) -> Evaluated:
    """The sums of clients without rows."""
    zero = torch.zeros(len(clients), dtype=torch.float64)
    sums = {m: torch.zeros(len(clients), s, dtype=torch.float64) for m, s in widths.items()}
    return Evaluated(clients, zero, zero, sums, torch.full_like(zero, math.nan), zero)


def joined(parts: Sequence[Evaluated]) -> Evaluated:
    """Several evaluations as one, in their order."""
    return Evaluated(
        np.concatenate([p.clients for p in parts]),
        torch.cat([p.rows for p in parts]),
        torch.cat([p.loss_sums for p in parts]),
        {m: torch.cat([p.sums[m] for p in parts]) for m in parts[0].sums},
        torch.cat([p.auc_own for p in parts]),
        torch.cat([p.positives for p in parts]),
        tuple(f for p in parts for f in p.failed),
    )


def histograms(
    machine: Autograd,
    slab: Slab,
    theta: Tensor,
    running: Tensor | None,
    batch: int,
    cast: Cast,
    mean: float,
    sd: float,
) -> Tensor:
    """Two histograms of the score a client, [k, 2, 512]: of the negatives, of the positives."""
    k, who = len(slab.off) - 1, owners(slab.off)
    found = torch.zeros(k * 2 * BINS, dtype=torch.float64)
    for span, out, y in passes(machine, slab, theta, running, batch, cast):
        at = (who[span] * 2 + (y == 1).cpu()) * BINS + bins_of(score(out), mean, sd).cpu()
        found += torch.bincount(at, minlength=len(found))
    return found.view(k, 2, BINS)


def passes(
    machine: Autograd, slab: Slab, theta: Tensor, running: Tensor | None, batch: int, cast: Cast
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Forward passes over a slab's rows: (which of its rows, outputs, labels)."""
    machine.program.train(False)
    alone = theta.dim() > 1 or (running is not None and running.dim() > 1)
    edges = slab.off.tolist() if alone else [0, len(slab.rows)]
    index = from_numpy(slab.rows)
    for j, (lo, hi) in enumerate(zip(edges, edges[1:])):
        if lo == hi:
            continue
        machine.show(theta[j] if theta.dim() > 1 else theta)
        if running is not None:
            machine.start(running[j] if running.dim() > 1 else running)
        for at in range(lo, hi, batch):
            span = slice(at, min(at + batch, hi))
            y = slab.y[index[span]].to(machine.device)
            with torch.inference_mode():
                out = machine.program.module(cast(slab, slab.x[index[span]]))
            yield span, out, y
