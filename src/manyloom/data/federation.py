"""Federation: a population of clients whose metadata are a few flat arrays; a million clients cost megabytes.

Clients are numbers 0 .. N-1. Their rows lie in shared tensors, in objects that are loaded when asked, or are made when
asked (`store.py`); `slab` gives the rows of some clients, and whoever trains gathers batches from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import Below
from manyloom.data.arrays import I64, any_of_row
from manyloom.data.sources.info import SourceInfo
from manyloom.data.store import All, Numbered, Part, Raw, Shared, Slab, Some, Store
from manyloom.data.table import Table, TableSchema, Target

if TYPE_CHECKING:
    from manyloom.data.partition import Partition
    from manyloom.data.preprocess import Preprocess

TestMode = Literal["own"] | float
TestKey = Annotated[float, Below(1)] | Literal["own"] | None  # `[data] test`
OWN = SourceInfo("own data", "own data")


@dataclass(frozen=True, eq=False)
class Client:
    """One client as a handler sees it: its number, its name, its raw training rows (tables only)."""

    index: int
    name: str
    table: Table | None


@dataclass(frozen=True, eq=False, repr=False)
class Federation:
    """A population of clients.

    ids [N] are stable: the hash of a client's key where clients have names, else its number. `names` are
    shown to people, `keys` name clients in files and between organisations. sizes [N] are rows to train on,
    tests [N] rows held out. Make one with a source (`manyloom.data.digits(...)`) or from what you have
    (`Federation.of_tensors`).
    """

    store: Store
    ids: seeds.U64
    names: Sequence[str]
    keys: Sequence[str]
    sizes: I64
    tests: I64
    target: Target = "class"
    classes: int | None = None
    labels: tuple[str, ...] = ()
    features: tuple[int, ...] | None = None
    schema: TableSchema | None = None
    standardise: bool = False
    vocabulary: Mapping[str, Sequence[str]] | None = None  # declared values of categorical columns
    client_word: tuple[str, str] = ("client", "clients")
    row_word: tuple[str, str] = ("row", "rows")
    info: SourceInfo = OWN
    tables: Mapping[str, Mapping[str, object]] | None = None
    moved: int = 0
    skipped: tuple[int, ...] = ()
    told: Sequence[Mapping[str, Any]] = ()  # what reading texts as tokens came to, a client
    test_mode: TestMode = 0.2
    own: Slab | None = None
    origins: I64 | None = None  # of a pooled federation: the client that each test row came from
    held: I64 | str | None = None  # rows that the hub holds, to judge a round by, or their file (`data.held`)
    judged: Slab | None = None  # those of the file, encoded

    @classmethod
    def of_tensors(
        cls,
        x: Tensor | npt.NDArray[Any],
        y: Tensor | npt.NDArray[Any],
        parts: Sequence[npt.NDArray[Any] | Tensor | Sequence[int]] | I64 | Partition,
        *,
        own: tuple[Tensor, Tensor] | None = None,
        names: Sequence[str] | None = None,
        test: float = 0.2,
        seed: int = 0,
        target: Target | None = None,
        classes: int | None = None,
        labels: Sequence[str] = (),
    ) -> Federation:
        """A federation over tensors that all clients share.

        Args:
            x: [n, ...] float32, uint8 (divided by 255 when gathered) or int64; a memory map is not read here.
            y: [n] classes (integers) or numbers (floats), or [n, T] classes.
            parts: the row numbers of each client; or offsets [N + 1]: client i owns rows off[i] to off[i + 1]; or a way
                to deal them, `dirichlet(clients=50)`.
            own: a test set of its own, (x, y), judged at the hub; with test=0 nothing else is.
            names: of the clients; by default they are numbered.
            test: share of each client's rows held out, of each class alike.
            seed: of the held-out rows.
            target: "class", "number" or "text" (y holds token labels, -100 where there is none); by default from y.
            classes: by default the largest label and one more.
            labels: names of the classes.

        >>> x, y = torch.zeros(10, 3), torch.tensor([0, 1] * 5)
        >>> Federation.of_tensors(x, y, [range(4), range(4, 10)], test=0.5)
        Federation(own data, 2 clients, 6 rows + 4 held out, 2 classes)
        """
        from manyloom.data import owned

        return owned.of_tensors(x, y, parts, own, names, test, seed, target, classes, labels)

    @classmethod
    def of_datasets(
        cls,
        datasets: Mapping[str, Any] | Sequence[Any],
        *,
        test: float = 0.2,
        seed: int = 0,
        target: Target = "class",
        classes: int | None = None,
    ) -> Federation:
        """A federation of `torch.utils.data.Dataset`s, one a client, each read when its client is first asked.

        Args:
            datasets: by name, or a list; an item is (x, y).
            test: share of each client's rows held out (not by class: labels are not known before reading).
            seed: of the held-out rows.
            target: "class" or "number".
            classes: how many; read from all datasets where it is left out.
        """
        from manyloom.data import owned

        return owned.of_datasets(datasets, test, seed, target, classes)

    @classmethod
    def of_callables(
        cls,
        load: Callable[[int], tuple[Tensor, Tensor]],
        sizes: Sequence[int] | I64,
        *,
        names: Sequence[str] | None = None,
        test: float = 0.2,
        seed: int = 0,
        target: Target = "class",
        classes: int | None = None,
        features: Sequence[int] | None = None,
    ) -> Federation:
        """A federation whose clients `load(i) -> (x, y)` gives when they are asked.

        Args:
            load: all rows of client i; called again when the client has left the small cache.
            sizes: rows of each client, [N].
            names: of the clients; by default they are numbered.
            test: share of each client's rows held out (not by class: labels are not known before loading).
            seed: of the held-out rows.
            target: "class" or "number".
            classes: how many; read from all clients where it is left out.
            features: shape of one row of x; read from the first client where it is left out.
        """
        from manyloom.data import owned

        return owned.of_callables(load, np.asarray(sizes, np.int64), names, test, seed, target, classes, features)

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        what = {"number": "a number", "text": "the next token"}.get(self.target, f"{self.classes} classes")
        one, many = self.client_word
        return (
            f"Federation({self.info.name}, {len(self)} {one if len(self) == 1 else many}, "
            f"{int(self.sizes.sum())} {self.row_word[1]} + {int(self.tests.sum())} held out, {what})"
        )

    def _repr_html_(self) -> str:
        from manyloom.data.show import html

        return html(self)

    @property
    def own_test(self) -> bool:
        """Whether the source has a test set of its own, judged at the hub."""
        return self.own is not None

    def slab(self, clients: npt.NDArray[Any] | Sequence[int], part: Part = "train") -> Slab:
        """The rows of some clients as tensors, in the order asked; of a table only after `prepare`."""
        return self.store.slab(np.asarray(clients, np.int64), part)

    def central(self) -> Slab | None:
        """The source's own test set, or None."""
        return self.own

    def validation(self) -> Slab | None:
        """The rows that the hub holds to judge a round by, or None."""
        if self.judged is not None or isinstance(self.held, str):
            return self.judged
        if self.held is None or not isinstance(self.store, Shared):
            return None
        store = self.store
        return Slab(store.x, store.y, self.held, np.array([0, len(self.held)], np.int64), store.cast)

    def client(self, i: int) -> Client:
        """One client, as a handler sees it."""
        return Client(i, self.names[i], self.store.table(np.array([i], np.int64), "train"))

    def table(self, clients: npt.NDArray[Any] | Sequence[int], part: Part = "train") -> Table | None:
        """The raw rows of some clients, one after the other; None where rows were tensors from the start."""
        return self.store.table(np.asarray(clients, np.int64), part)

    def prepare(self, pre: Preprocess) -> Federation:
        """The federation with its tables encoded as float32 [n, width]; itself where rows are tensors already."""
        if self.schema is None:
            return self
        made = replace(self, store=_encoded(self.store, pre, self.target), features=(pre.width,))
        if not isinstance(self.held, str):
            return made
        from manyloom.data.held import of_file

        return replace(made, judged=of_file(self.held, pre))

    def pooled(self) -> Federation:
        """One client, "all", with every row; `origins` says which client each of its test rows came from."""
        origins = np.repeat(np.arange(len(self)), self.tests)
        total = [np.array([a.sum()], np.int64) for a in (self.sizes, self.tests)]
        return replace(
            self,
            store=All(self.store, len(self)),
            ids=np.array([seeds.name_id("all")], np.uint64),
            names=["all"],
            keys=["all"],
            sizes=total[0],
            tests=total[1],
            tables=None,
            skipped=(),
            origins=origins,
        )

    def only(self, i: int) -> Federation:
        """The federation of client i alone."""
        return self.subset([i])

    def subset(self, clients: Sequence[int] | npt.NDArray[Any]) -> Federation:
        """The federation of these clients, with the rows, ids and names they have here."""
        index = np.asarray(clients, np.int64)
        if len(index) and not (0 <= index.min() and index.max() < len(self)):
            raise IndexError(f"clients 0 to {len(self) - 1}, got {index.min()} to {index.max()}")
        inner = (
            Some(self.store.inner, self.store.index[index]) if isinstance(self.store, Some) else Some(self.store, index)
        )
        empty = tuple(np.flatnonzero(self.sizes[index] == 0).tolist())
        return replace(
            self,
            store=inner,
            ids=self.ids[index],
            names=[self.names[i] for i in index.tolist()],
            keys=[self.keys[i] for i in index.tolist()],
            sizes=self.sizes[index],
            tests=self.tests[index],
            tables=None,
            skipped=empty,
            origins=None,
        )

    def label_counts(self, clients: Sequence[int] | npt.NDArray[Any] | None = None, part: Part = "train") -> I64:
        """Rows of each class, [k, C]; [k, 0] where a number or text is predicted."""
        index = np.arange(len(self)) if clients is None else np.asarray(clients, np.int64)
        classes = self.classes or 0 if self.target == "class" else 0
        counts = np.zeros((len(index), classes), np.int64)
        if not classes:
            return counts
        for a in range(0, len(index), 10_000):  # a million made clients are counted in pieces
            y, off = self.store.labels(index[a : a + 10_000], part)
            width = int(np.prod(y.shape[1:], dtype=np.int64))
            client = np.repeat(np.arange(len(off) - 1), np.diff(off) * width)
            flat = np.bincount(client * classes + y.reshape(-1).numpy(), minlength=(len(off) - 1) * classes)
            counts[a : a + 10_000] = flat.reshape(-1, classes)
        return counts

    def gaps(self) -> I64 | None:
        """Missing values of each client and column in the training rows, [N, columns]; None without a table."""
        if self.schema is None:
            return None
        tables = [self.store.table(np.array([i]), "train") for i in range(len(self))]
        return np.array([t.gaps() for t in tables if t is not None], np.int64)

    def check_labels(self, classes: int) -> None:
        """Refuse labels outside 0 .. classes - 1 (`label-range`)."""
        if self.target != "class" or (self.classes is not None and self.classes <= classes):
            return  # its own labels were checked when it was made
        parts: tuple[Part, ...] = ("train", "test")
        for part in parts:
            check_range(*self.store.labels(np.arange(len(self)), part), self.keys, classes)


def _encoded(store: Store, pre: Preprocess, target: Target) -> Store:
    """The same clients over encoded rows."""
    if isinstance(store, (Some, All)):
        return replace(store, inner=_encoded(store.inner, pre, target))
    if not isinstance(store, (Raw, Shared)) or store.raw is None:
        raise TypeError(f"no table to prepare in {type(store).__name__}")
    y = from_numpy(store.raw.y)
    x = from_numpy(pre.encode(store.raw))
    return Shared(x, y if target == "class" else y.float(), store.train, store.test, raw=store.raw)


def check_range(y: Tensor, off: I64, keys: Sequence[str], classes: int) -> None:
    """Refuse the first label y [n] or [n, T] outside 0 .. classes - 1; client i has y[off[i]:off[i + 1]]."""
    wrong = torch.nonzero(any_of_row((y < 0) | (y >= classes))).flatten()
    if len(wrong):
        row = int(wrong[0])
        client = int(np.searchsorted(off, row, side="right")) - 1
        label = y[row].reshape(-1)
        label = label[(label < 0) | (label >= classes)][0]
        raise label_range(keys[client], row - int(off[client]), int(label), classes)


def label_range(client: str, row: int, label: int, classes: int) -> Exception:
    """The error of a label outside the model's classes; rows count from 1."""
    mend = f'set classes = {label + 1}, or check label = "y" in [data]' if label >= classes else "count classes from 0"
    return bad(
        "label-range",
        "a label is outside the classes the model has",
        got=f"label {label} in client {client}, row {row + 1}",
        rule=f"[model] classes = {classes} takes labels 0 to {classes - 1}",
        mend=mend,
    )


def ids_of(keys: Sequence[str] | None, count: int) -> seeds.U64:
    """Stable ids: hashes of the keys, or numbers where clients have none."""
    if keys is None or isinstance(keys, Numbered):
        return np.arange(count, dtype=np.uint64)
    return np.array([seeds.name_id(k) for k in keys], np.uint64)
