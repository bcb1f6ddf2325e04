"""Parties that know different columns of the same people: each one's rows, encoded by its own statistics.

Nothing here crosses from one party to another: ids are raw columns still, and no party's means or vocabulary are
made of another's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.exchange import Ask, Lost, Reply, play
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import nearest, show
from manyloom.data.federation import Client
from manyloom.data.preprocess import Preprocess
from manyloom.data.rows import columns_of, encode, read_file
from manyloom.data.sources.frame import Cells
from manyloom.data.sources.info import SourceInfo
from manyloom.data.statistics import HANDLERS, statistics
from manyloom.data.table import Table, Target

IdType = Literal["int", "text", "bytes"]
Labels = npt.NDArray[np.int64] | npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reader:
    """How one party reads new rows: its id columns, and its own preprocessing, which no other party has.

    Args:
        name: of the party.
        ids: id columns, in the agreed order.
        preprocess: means, scales and vocabulary of this party's rows.
        separator: between values of a CSV file.
        header: whether its first line names the columns.
    """

    name: str
    ids: tuple[str, ...]
    preprocess: Preprocess
    separator: str = ","
    header: bool = True

    def read(self, rows: str | Path | Mapping[str, Any] | Any) -> Holding:
        """New rows of this party: a CSV or Parquet file, or what `data.rows.columns_of` takes.

        Raises BadInput where an id column or a column of training lacks, or holds text for numbers.
        """
        missing = self.preprocess.schema.missing
        if isinstance(rows, str | Path):
            source = Path(rows).name
            columns = read_file(rows, missing=missing, separator=self.separator, header=self.header)
        else:
            source, columns = "the rows", columns_of(rows, missing)
        if wrong := lacking(columns, self.ids, source, self.name):
            raise BadInput(*wrong)
        raw = encode(self.preprocess, columns, source)
        if not self.preprocess.schema.columns:  # a party that has ids alone
            n = len(columns[self.ids[0]])
            raw = raw.__class__(Table(raw.table.schema, np.zeros((n, 0)), np.zeros((n, 0), np.int32), ()), raw.y)
        y = None if raw.y is None else labels_of(raw.y)
        return Holding(self, texts_of(columns, self.ids), from_numpy(self.preprocess.encode(raw.table)), y)

    def to_json(self) -> dict[str, object]:
        """The record as JSON: what a party keeps beside its part of the model."""
        return {
            "name": self.name,
            "ids": list(self.ids),
            "separator": self.separator,
            "header": self.header,
            "preprocess": self.preprocess.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reader:
        """The record of `to_json`."""
        made = Preprocess.from_json(value["preprocess"])
        return cls(value["name"], tuple(value["ids"]), made, value["separator"], value["header"])


@dataclass(frozen=True, eq=False)
class Holding:
    """One party's rows: all that it has, and nobody else.

    Args:
        reader: its name, its id columns and its own preprocessing.
        ids: the id columns as texts, "" where missing, [columns][n].
        x: [n, F] float32, encoded; F = 0 for a label party without features.
        y: [n] labels, int64 classes (-1: none) or float32 numbers (NaN: none); only where the label is.
    """

    reader: Reader
    ids: tuple[Sequence[str], ...]
    x: Tensor
    y: Tensor | None = None

    @property
    def name(self) -> str:
        return self.reader.name

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the F columns; they never travel."""
        return self.reader.preprocess.columns

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False, repr=False)
class Parties:
    """A federation whose parties differ in columns: one has the label, one or more have features only.

    Args:
        label: the party that has the label.
        features: the others, in the order in which they are numbered.
        id_types: of the id columns, in the agreed order; the same at all parties.
        target: what is predicted.
        classes: how many, of a class.
        labels: their names.
        test: share of the aligned rows that is held out.
        row_word: what a row is called.
        info: where the rows come from.
        tables: `[data]` and `[parties]` that make it again; None: no job file could.
    """

    label: Holding
    features: tuple[Holding, ...]
    id_types: tuple[IdType, ...]
    target: Target = "class"
    classes: int | None = None
    labels: tuple[str, ...] = ()
    test: float = 0.2
    row_word: tuple[str, str] = ("row", "rows")
    info: SourceInfo | None = None
    tables: Mapping[str, Mapping[str, object]] | None = field(default=None)

    @property
    def holdings(self) -> tuple[Holding, ...]:
        """All of them: the feature parties as numbered, then the label party."""
        return (*self.features, self.label)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(h.name for h in self.holdings)

    def read(self, name: str, rows: str | Path | Any) -> Holding:
        """New rows of one party, for prediction, encoded by its own kept statistics."""
        found = next((h for h in self.holdings if h.name == name), None)
        if found is None:
            near = nearest(name, self.names)
            raise BadInput(
                Problem(
                    "unknown-name",
                    f'there is no party "{name}"',
                    rule="parties: " + ", ".join(self.names),
                    mend=f'did you mean "{near}"?' if near else None,
                )
            )
        return found.reader.read(rows)

    def __repr__(self) -> str:
        """Who has what: `Parties(bank 569 rows x 10 + label, shop 569 x 20)`."""
        first = f"{self.label.name} {len(self.label)} {self.row_word[1]} x {self.label.x.shape[1]} + label"
        return f"Parties({', '.join([first, *(f'{h.name} {len(h)} x {h.x.shape[1]}' for h in self.features)])})"


def own_statistics(table: Table, name: str, *, standardise: bool = True) -> Preprocess:
    """The preprocessing of one party's table, from its own rows alone: a federation of one client.

    All its rows count, held-out ones too: which rows are common, and of them held out, is known only later.
    """
    client = Client(0, name, table)

    def answer(ask: Ask) -> list[Reply | Lost]:
        return [Reply(ask.to, HANDLERS[ask.verb].run(ask.body, {}, client)[0])]

    return play(statistics(table.schema, np.zeros(1, np.int64), [name], standardise=standardise), answer)


def holding(
    table: Table,
    name: str,
    ids: Mapping[str, Sequence[str]],
    *,
    standardise: bool = True,
    y: Labels | None = None,
    separator: str = ",",
    header: bool = True,
) -> Holding:
    """A party of a raw table of its rows and of the texts of its id columns, a value a row.

    Raises `not-finite` for an infinite number, which would make its column's mean one.
    """
    infinite = np.isinf(table.numbers)
    if infinite.any():
        column = int(infinite.any(axis=0).argmax())
        raise bad("not-finite", "features hold values that are not numbers",
                  got=f'{int(infinite[:, column].sum())} infinite in column "{table.schema.numbers[column]}" of party '
                      f'"{name}", first in row {int(infinite[:, column].argmax()) + 1}',
                  rule="the model takes finite numbers only",
                  mend="clean the data, or name the value in [data] missing")  # fmt: skip
    pre = own_statistics(table, name, standardise=standardise)
    reader = Reader(name, tuple(ids), pre, separator, header)
    return Holding(reader, tuple(ids.values()), from_numpy(pre.encode(table)), None if y is None else labels_of(y))


def labels_of(y: Labels) -> Tensor:
    """Labels as a loss takes them: int64 codes, or float32 numbers."""
    found = from_numpy(np.ascontiguousarray(y))
    return found.float() if found.is_floating_point() else found.to(torch.int64)


EXACT = 2**53  # a float from here on may be another whole number


def texts_of(columns: Mapping[str, Cells], names: Sequence[str]) -> tuple[Sequence[str], ...]:
    """Id columns as texts: 7.0 of a Parquet file is "7"; numbers that a float can't tell apart are refused."""
    for name in names:
        numbers = columns[name].numbers
        if numbers is not None and bool((np.abs(numbers) >= EXACT).any()):
            raise bad("bad-id", f'id column "{name}" holds numbers that were read inexactly',
                      rule="whole numbers below 2^53", mend="write this column as text")  # fmt: skip
    return tuple(columns[n].as_texts() for n in names)


def lacking(columns: Mapping[str, Cells], ids: Sequence[str], source: str, party: str) -> list[Problem]:
    """A problem for each id column that a party's rows lack."""
    found: list[Problem] = []
    for name in ids:
        if name not in columns:
            near = nearest(name, columns)
            some = ", ".join(list(columns)[:12]) + (", ..." if len(columns) > 12 else "")
            found.append(
                Problem(
                    "unknown-name",
                    f'{source} of party "{party}" has no id column "{name}"',
                    f"ids = {show(list(ids))} in [data]",
                    rule=f"it has {some}",
                    mend=f'did you mean "{near}"? The id columns are called alike at all parties' if near else None,
                )
            )
    return found
