"""Raw tables, before preprocessing: numbers with gaps as NaN, categories as codes of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Target = Literal["class", "number", "text"]  # text: the next token, at the places that a row's labels name
MISSING = ("", "?", "NA", "NaN")


@dataclass(frozen=True)
class Column:
    """One feature of a table: its name, and whether its values are numbers or categories."""

    name: str
    kind: Literal["number", "category"] = "number"


@dataclass(frozen=True)
class TableSchema:
    """The columns a model reads, what it predicts, and which texts mean that a value is missing."""

    columns: tuple[Column, ...]
    label: str
    target: Target = "class"
    labels: tuple[str, ...] = ()  # class names, in the order of the codes
    missing: tuple[str, ...] = MISSING

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.kind == "number")

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.columns if c.kind == "category")


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one schema.

    numbers [n, a] float64, NaN where missing; codes [n, b] int32 into `values`, -1 where missing; y [n] int64
    classes or float64 numbers (empty where the rows have no label, as new rows to predict).
    """

    schema: TableSchema
    numbers: F64
    codes: npt.NDArray[np.int32]
    values: tuple[tuple[str, ...], ...]
    y: npt.NDArray[np.int64] | F64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: I64) -> Table:
        """The table of these rows."""
        return Table(self.schema, self.numbers[rows], self.codes[rows], self.values, self.y[rows])

    def gaps(self) -> I64:
        """Missing values of each column, in the order of the schema, [columns]."""
        a = iter(np.isnan(self.numbers).sum(axis=0).tolist())
        b = iter((self.codes < 0).sum(axis=0).tolist())
        return np.array([next(a if c.kind == "number" else b) for c in self.schema.columns], np.int64)


def encode_labels(texts: Sequence[str]) -> tuple[I64, tuple[str, ...]]:
    """Class codes and class names: sorted as numbers where all are numbers, else as texts.

    >>> encode_labels(["10", "9", "10"])
    (array([1, 0, 1]), ('9', '10'))
    """
    names = sorted(set(texts), key=_order)
    code = {name: i for i, name in enumerate(names)}
    return np.array([code[t] for t in texts], np.int64), tuple(names)


def _order(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
