"""Where a federation's rows lie: in shared tensors, in objects loaded when asked, or made when asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, overload

import numpy as np
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.tensors import from_numpy
from manyloom.data.arrays import I64, offsets
from manyloom.data.holdout import hold_out
from manyloom.data.table import Table

Part = Literal["train", "test"]
Rows = tuple[Tensor, Tensor]  # x, y of the same rows


class Slab(NamedTuple):
    """Rows of k clients, to be gathered: client j of those asked owns x[rows[off[j]:off[j + 1]]].

    x [n, ...] float32, uint8 or int64; y [n] int64 classes or float32 numbers, or [n, T]; rows int64 [m];
    off int64 [k + 1]; `cast` is applied to gathered rows of x (uint8 -> float / 255).
    """

    x: Tensor
    y: Tensor
    rows: I64
    off: I64
    cast: Callable[[Tensor], Tensor] | None = None

    def gather(self) -> Rows:
        """All rows asked for, cast, in order: for evaluation and tests; the engine gathers batches itself."""
        index = from_numpy(self.rows)
        x = self.x.index_select(0, index)
        return (self.cast(x) if self.cast else x), self.y.index_select(0, index)


class Store(Protocol):
    """What a federation asks of the place where its rows lie."""

    def slab(self, clients: I64, part: Part) -> Slab: ...
    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]: ...
    def table(self, clients: I64, part: Part) -> Table | None: ...


class Index(Protocol):
    """Which rows a client owns."""

    def __call__(self, clients: I64) -> tuple[I64, I64]: ...


@dataclass(frozen=True)
class Listed:
    """Client i owns rows[off[i]:off[i + 1]]."""

    rows: I64
    off: I64

    def __call__(self, clients: I64) -> tuple[I64, I64]:
        start, sizes = self.off[clients], self.off[clients + 1] - self.off[clients]
        off = offsets(sizes)
        return self.rows[np.repeat(start - off[:-1], sizes) + np.arange(off[-1])], off


@dataclass(frozen=True)
class Regular:
    """Client i owns the `count` rows from i * stride + first: a million clients in no memory."""

    stride: int
    first: int
    count: int

    def __call__(self, clients: I64) -> tuple[I64, I64]:
        rows = (clients * self.stride + self.first)[:, None] + np.arange(self.count)[None, :]
        return rows.reshape(-1), np.arange(len(clients) + 1, dtype=np.int64) * self.count


@dataclass(frozen=True)
class Shared:
    """Rows of tensors that all clients share; clients are index ranges."""

    x: Tensor
    y: Tensor
    train: Index
    test: Index
    cast: Callable[[Tensor], Tensor] | None = None
    raw: Table | None = None  # the table that x was encoded from

    def slab(self, clients: I64, part: Part) -> Slab:
        rows, off = (self.train if part == "train" else self.test)(clients)
        return Slab(self.x, self.y, rows, off, self.cast)

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        rows, off = (self.train if part == "train" else self.test)(clients)
        return self.y[from_numpy(rows)], off

    def table(self, clients: I64, part: Part) -> Table | None:
        rows = (self.train if part == "train" else self.test)(clients)[0]
        return None if self.raw is None else self.raw.take(rows)


@dataclass(frozen=True)
class Made:
    """Rows that a function makes from their numbers when asked."""

    make: Callable[[I64], Rows]
    y_of: Callable[[I64], Tensor]
    train: Index
    test: Index

    def slab(self, clients: I64, part: Part) -> Slab:
        rows, off = (self.train if part == "train" else self.test)(clients)
        return Slab(*self.make(rows), np.arange(len(rows)), off)

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        rows, off = (self.train if part == "train" else self.test)(clients)
        return self.y_of(rows), off

    def table(self, clients: I64, part: Part) -> Table | None:
        return None


@dataclass(frozen=True)
class Lazy:
    """Clients whose rows are loaded when asked; the last `keep` stay in memory.

    The held-out rows are drawn without looking at labels: their number must be known before anything is
    loaded.
    """

    load: Callable[[int], Rows]
    ids: seeds.U64
    share: float
    seed: int
    keep: int = 64
    cache: OrderedDict[int, Rows] = field(default_factory=OrderedDict[int, Rows])

    def slab(self, clients: I64, part: Part) -> Slab:
        loaded = [self._rows(int(i), part) for i in clients]
        off = offsets(np.array([len(y) for _, y in loaded], np.int64))
        if not loaded:
            return Slab(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), np.zeros(0, np.int64), off)
        x, y = torch.cat([x for x, _ in loaded]), torch.cat([y for _, y in loaded])
        return Slab(x, y, np.arange(len(y)), off)

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        slab = self.slab(clients, part)
        return slab.y, slab.off

    def table(self, clients: I64, part: Part) -> Table | None:
        return None

    def _rows(self, client: int, part: Part) -> Rows:
        if client not in self.cache:
            self.cache[client] = self.load(client)
            while len(self.cache) > self.keep:
                self.cache.popitem(last=False)
        self.cache.move_to_end(client)
        x, y = self.cache[client]
        n = len(y)
        id = self.ids[client : client + 1]
        parts = hold_out(np.arange(n), np.array([0, n], np.int64), id, self.share, self.seed)
        rows = from_numpy(parts.train if part == "train" else parts.test)
        return x[rows], y[rows]


@dataclass(frozen=True)
class Raw:
    """A table before preprocessing: it gives tables and labels, and tensors once it is prepared."""

    raw: Table
    train: Index
    test: Index

    def slab(self, clients: I64, part: Part) -> Slab:
        raise RuntimeError("a table has no tensors yet: prepare(preprocess) makes them from federated statistics")

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        rows, off = (self.train if part == "train" else self.test)(clients)
        return from_numpy(self.raw.y[rows]), off

    def table(self, clients: I64, part: Part) -> Table | None:
        return self.raw.take((self.train if part == "train" else self.test)(clients)[0])


@dataclass(frozen=True)
class Some:
    """Some clients of another store, renumbered."""

    inner: Store
    index: I64

    def slab(self, clients: I64, part: Part) -> Slab:
        return self.inner.slab(self.index[clients], part)

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        return self.inner.labels(self.index[clients], part)

    def table(self, clients: I64, part: Part) -> Table | None:
        return self.inner.table(self.index[clients], part)


@dataclass(frozen=True)
class All:
    """One client that owns what `count` clients of another store own."""

    inner: Store
    count: int

    def slab(self, clients: I64, part: Part) -> Slab:
        slab = self.inner.slab(np.arange(self.count), part)
        return (
            slab._replace(off=slab.off[[0, -1]])
            if len(clients)
            else slab._replace(rows=slab.rows[:0], off=slab.off[:1])
        )

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        y, off = self.inner.labels(np.arange(self.count if len(clients) else 0), part)
        return y, off[[0, -1]] if len(clients) else off[:1]

    def table(self, clients: I64, part: Part) -> Table | None:
        return self.inner.table(np.arange(self.count if len(clients) else 0), part)


class Numbered(Sequence[str]):
    """Names made when asked: "client-007"."""

    def __init__(self, count: int, word: str = "client") -> None:
        self.total, self.word, self.width = count, word, len(str(max(count - 1, 0)))

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[str]: ...
    def __getitem__(self, i: int | slice) -> str | Sequence[str]:
        if isinstance(i, slice):
            return [f"{self.word}-{j:0{self.width}d}" for j in range(*i.indices(self.total))]
        if not -self.total <= i < self.total:
            raise IndexError(i)
        return f"{self.word}-{i % self.total:0{self.width}d}"
