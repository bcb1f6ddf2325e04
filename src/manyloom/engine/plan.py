"""Which rows each client reads at which step: a whole cohort at once, in numpy, before anything trains.

A step reads `Batches.size` rows of a shuffle; epochs follow each other without gaps. Clients are sorted by
(steps descending, index), so that those who still have steps are always the first rows of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core.exchange import Ids
from manyloom.core.parts import Batches
from manyloom.core.seeds import U64, key, permutations
from manyloom.core.task import Task
from manyloom.core.tensors import from_numpy
from manyloom.data.store import Slab

Int = npt.NDArray[np.int64]
MOST = 1 << 21  # entries of one stretch's index (16 MB); a longer cohort is planned stretch by stretch
BLOCK = 1 << 24  # rows that one packed shuffle can hold


class Schedule(NamedTuple):
    """Who trains, in order, and how much: each array has a number a client, [n]."""

    clients: Ids
    sizes: Int  # rows
    batches: Int  # minibatches of one epoch
    steps: Int

    def part(self, lo: int, hi: int) -> Schedule:
        return Schedule(*(a[lo:hi] for a in self))


class Plan(NamedTuple):
    """The minibatches of one stretch of a schedule: m = 0 .. M-1, clients in the schedule's order.

    Batch m of client j is x[places[m, j, :real[m, j]]]; what follows repeats a row of its own with weight 0.
    """

    places: Tensor  # [M, n, B] int64, rows of the slab's x and y
    weights: Tensor  # [M, n, B], 1/b on the b real rows (or size_i / sum of sizes)
    real: Int  # [M, n], b; 0 where the client is done
    samples: Tensor  # [n] float64, the sum of sizes


class Stretch(NamedTuple):
    """Clients whose rows and minibatches are at hand together."""

    who: Schedule
    plan: Plan
    slab: Slab
    ids: U64  # [n], stable


def steps_of(sizes: Int, batches: Batches, per_step: int = 1, pairs: bool = False) -> tuple[Int, Int]:
    """Minibatches of one epoch, and steps, of clients with so many rows [n]."""
    size = batches.size
    a_epoch = -(-sizes // size) - (sizes % size == 1 if pairs else 0)
    if batches.steps is not None:
        total = np.where(a_epoch > 0, batches.steps * per_step, 0)
    else:
        total = np.ceil(np.round(batches.epochs * a_epoch, 9)).astype(np.int64)
    steps = -(-total // per_step)
    steps[a_epoch <= 0] = 0
    return a_epoch, steps


def schedule(
    clients: Ids, sizes: Int, batches: Batches, per_step: int = 1, pairs: bool = False, most: Int | None = None
) -> Schedule:
    """Steps of each client; those without any are left out.

    T_i = ceil(epochs ceil(n_i / B)) minibatches, or `steps` exactly; `per_step` of them make a step.

    Args:
        clients, sizes: [n], in any order.
        batches: size B, epochs or steps.
        per_step: fresh minibatches that one step reads (`Drive.batches`).
        pairs: drop batches of one row (BatchNorm has no variance there).
        most: steps that each has time for [n].

    >>> s = schedule(np.array([0, 1, 2, 3]), np.array([3, 0, 7, 4]), Batches(size=3, epochs=1.5))
    >>> s.clients.tolist(), s.batches.tolist(), s.steps.tolist()
    ([2, 3, 0], [3, 2, 1], [5, 3, 2])
    """
    a_epoch, steps = steps_of(sizes, batches, per_step, pairs)
    steps = steps if most is None else np.minimum(steps, most)
    order = np.lexsort((clients, -steps))
    order = order[steps[order] > 0]
    return Schedule(clients[order], sizes[order], a_epoch[order], steps[order])


def stretches(s: Schedule, batches: Batches, per_step: int, group: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Cut a schedule into spans [lo, hi) of whole groups, so that no index and no slab grows too large."""
    n, lo = len(s.clients), 0
    rows = longest = shuffles = 0
    epochs = -(-(s.steps * per_step) // np.maximum(s.batches, 1))
    for at in range(0, n, group):
        end = min(at + group, n)
        rows += int(s.sizes[at:end].sum())
        shuffles += int(epochs[at:end].sum())
        longest = max(longest, int(s.sizes[at:end].max()))
        index = int(s.steps[lo]) * per_step * (end - lo) * batches.size
        if at > lo and (index + shuffles * longest > MOST or rows * row_bytes > 32 * MOST):
            yield lo, at
            lo, rows, longest = at, int(s.sizes[at:end].sum()), int(s.sizes[at:end].max())
            shuffles = int(epochs[at:end].sum())
    if n:
        yield lo, n


def spans(sizes: Int, most: int) -> Iterator[tuple[int, int]]:
    """Cut clients [k] into spans [lo, hi) of at most `most` rows (one client, however large, is a span).

    >>> list(spans(np.array([3, 3, 9, 1]), 6))
    [(0, 2), (2, 3), (3, 4)]
    """
    lo = rows = 0
    for i, n in enumerate(sizes.tolist()):
        if i > lo and rows + n > most:
            yield lo, i
            lo, rows = i, 0
        rows += n
    if len(sizes):
        yield lo, len(sizes)


def plan(
    s: Schedule, ids: U64, slab: Slab, batches: Batches, per_step: int, seed: int, round: int, task: Task,
    dtype: torch.dtype,
) -> Plan:  # fmt: skip
    """The minibatches of all clients of `s`, whose rows are those of `slab`, in the same order.

    The shuffle of epoch e is a function of (seed, round, ids[j], e) alone: no draw depends on the grouping.
    """
    n, size = len(s.clients), batches.size
    minis = s.steps * per_step  # [n]
    epochs = -(-minis // s.batches)
    owner = np.repeat(np.arange(n), epochs)
    first = np.cumsum(epochs) - epochs
    epoch = np.arange(len(owner)) - first[owner]
    shuffle = _shuffles(key(seed, round, ids[owner], "shuffle", epoch), s.sizes[owner])  # [all epochs, rows]

    m = np.arange(int(minis.max(initial=0)))[:, None]
    e, batch = np.divmod(m, s.batches[None, :])  # [M, n]
    real = np.where(m < minis, np.minimum(size, s.sizes - batch * size), 0)
    wide = int(real.max(initial=0))
    place = batch[:, :, None] * size + np.arange(wide)
    np.minimum(place, (s.sizes - 1)[:, None], out=place)  # padding: the client's own last row
    pair = first + np.minimum(e, epochs - 1)
    at = slab.off[:-1][:, None] + shuffle[pair[:, :, None], place]
    index = slab.rows[at]
    mask = np.arange(wide) < real[:, :, None]
    rows = from_numpy(index)
    if task.size is None:
        weights = from_numpy(mask / np.maximum(real, 1)[:, :, None]).to(dtype)
        return Plan(rows, weights, real, from_numpy(s.sizes.astype(np.float64)))
    own = sizes_of(task, slab)
    counted = own[from_numpy(at)] * from_numpy(mask)
    weights = counted / counted.sum(-1, keepdim=True).clamp_min(1e-300)
    return Plan(rows, weights.to(dtype), real, sums_of(own, slab.off))


def sizes_of(task: Task, slab: Slab) -> Tensor:
    """What each of the slab's rows counts, [m] float64: one, or the task's size (tokens)."""
    if task.size is None:
        return torch.ones(len(slab.rows), dtype=torch.float64)
    return task.size(slab.y[from_numpy(slab.rows)]).double()


def owners(off: Int) -> Tensor:
    """Which of the slab's clients each of its rows belongs to, [m]."""
    return from_numpy(np.repeat(np.arange(len(off) - 1), np.diff(off)))


def sums_of(values: Tensor, off: Int) -> Tensor:
    """Sums [k, ...] over each client's rows of [m, ...]."""
    out = torch.zeros(len(off) - 1, *values.shape[1:], dtype=values.dtype)
    return out.index_add_(0, owners(off), values)


def _shuffles(keys: U64, sizes: Int) -> Int:
    if int(sizes.max(initial=0)) < BLOCK:
        return permutations(keys, sizes)
    found = np.zeros((len(keys), int(sizes.max())), np.int64)
    for j, (k, n) in enumerate(zip(keys, sizes)):  # a client of 17 million rows: it has its own generator
        found[j, :n] = np.random.Generator(np.random.Philox(key=int(k))).permutation(int(n))
    return found
