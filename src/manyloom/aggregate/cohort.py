"""What a robust rule looks at: the usable rows of a cohort, read in blocks of columns, never copied whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.aggregate.order import Block, width
from manyloom.core.slots import Slots

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The usable rows, seen through a mixing matrix where there is one: row i is sum_j mix_ij x_j.

    Args:
        slots: the clients' messages, {slot: [N, d]}; never written to.
        index: the usable rows [n], of N.
        norms: their norms, {slot: [n]}, before any mixing.
        f: how many of them may be faulty.
        mix: [n, n], rows that sum to 1; None: the rows as they are.
        gram: the joint Gram matrix before any mixing [n, n], where it is known already.
    """

    slots: Slots
    index: I64
    norms: Mapping[str, F64]
    f: int
    mix: F64 | None = None
    gram: F64 | None = None

    @property
    def n(self) -> int:
        return len(self.index)

    @property
    def names(self) -> list[str]:
        """The slots' names, the update first: its unit is that of a rule's lengths (tau, nu)."""
        return sorted(self.slots, key=lambda name: (name != "u", name))

    def work(self, name: str) -> npt.DTypeLike:
        """What is computed in: float64 for float64, else float32 (also for half precision)."""
        return np.float64 if self.slots[name].dtype == torch.float64 else np.float32

    def read(self, name: str, columns: slice, *, mixed: bool = True) -> Block:
        """Some columns [n, c], mixed if asked; perhaps a view of the messages, so not to be written to."""
        part = self.slots[name][:, columns]
        if self.n < len(part):
            part = part[torch.as_tensor(self.index)]
        block = array(part, self.work(name))
        if mixed and self.mix is not None:
            block = self.mix.astype(block.dtype) @ block
        return block

    def blocks(self, name: str) -> Iterator[slice]:
        """The columns of a slot, in blocks."""
        d, step = self.slots[name].shape[1], width(self.n)
        return (slice(a, min(a + step, d)) for a in range(0, d, step))


def array(x: Tensor, dtype: npt.DTypeLike) -> Block:
    """A tensor as an array of that type, a view where it can be."""
    wide = x.detach().float() if x.dtype in (torch.float16, torch.bfloat16) else x.detach()
    return np.asarray(wide.cpu().numpy(), dtype=dtype)


def by_block(c: Cohort, name: str, reduce: Callable[[slice], Block]) -> Block:
    """[d] of a slot, a block of columns at a time; on as many threads as torch has."""
    out = np.empty(c.slots[name].shape[1], c.work(name))

    def fill(columns: slice) -> None:
        out[columns] = reduce(columns)

    if torch.get_num_threads() > 1:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(fill, c.blocks(name)))
    else:
        for columns in c.blocks(name):
            fill(columns)
    return out


def linear(c: Cohort, name: str, weights: F64) -> Block:
    """sum_i weights_i x_i [d], of the rows as the rule sees them."""
    own = weights if c.mix is None else c.mix.T @ weights
    used = np.flatnonzero(own)
    if 2 * len(used) > len(c.slots[name]) == c.n:  # nothing to leave out but zeros: no copy
        used = np.arange(c.n)
    few = Cohort(c.slots, c.index[used], {}, c.f)
    if len(used) == 1 and own[used[0]] == 1.0:
        return few.read(name, slice(None))[0].copy()
    w = own[used].astype(c.work(name))
    return by_block(few, name, lambda columns: w @ few.read(name, columns))


def digests(c: Cohort, rows: I64) -> list[bytes]:
    """What ties between rows are broken by: their own content, so that the order of the clients decides nothing."""

    def digest(row: int) -> bytes:
        told = hashlib.blake2b(digest_size=16)
        for name in c.names:
            told.update(c.slots[name][int(c.index[row])].detach().contiguous().cpu().view(torch.uint8).numpy().data)
        return told.digest()

    return [digest(int(i)) for i in rows]
