"""What is done to raw rows before a model sees them: a record of tensors, stored with the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from manyloom.core.errors import bad
from manyloom.core.slots import Slots, pack_json, unpack_json
from manyloom.core.tensors import from_numpy
from manyloom.data.table import F64, Column, Table, TableSchema

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Preprocess:
    """Numbers as (x - mean) / sd, gaps as the mean (0 after scaling); categories one-hot, unseen ones all zero.

    mean, sd [a] in the order of `schema.numbers`; vocabulary: the values of each of `schema.categories`.
    Without `fill` numbers pass unchanged and a gap is an error. `notes` are for people ("Switzerland has no
    value of chol").
    """

    schema: TableSchema
    mean: F64
    sd: F64
    vocabulary: tuple[tuple[str, ...], ...] = ()
    fill: bool = True
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Numbers in one encoded row."""
        return len(self.mean) + sum(len(v) for v in self.vocabulary)

    @property
    def columns(self) -> tuple[str, ...]:
        """A name for each number of an encoded row: "age", "sex=male"."""
        words = iter(self.vocabulary)
        named = (
            [c.name] if c.kind == "number" else [f"{c.name}={v}" for v in next(words)] for c in self.schema.columns
        )
        return tuple(name for names in named for name in names)

    def encode(self, table: Table) -> F32:
        """Rows as float32 [n, width], in the order of the schema's columns.

        Raises `not-finite` for a gap without `fill`, and for an infinite number.
        """
        scaled = (table.numbers - self.mean) / self.sd
        if self.fill:
            scaled = np.where(np.isnan(table.numbers), 0.0, scaled)
        x = np.zeros((len(table), self.width), np.float32)
        at, a, b = 0, 0, 0
        for column in self.schema.columns:
            if column.kind == "number":
                x[:, at] = scaled[:, a]
                if not np.isfinite(x[:, at]).all():
                    _refuse(x[:, at], column)
                at, a = at + 1, a + 1
            else:
                place = {v: i for i, v in enumerate(self.vocabulary[b])}
                codes = np.array([place.get(v, -1) for v in table.values[b]] + [-1], np.int64)[table.codes[:, b]]
                seen = np.flatnonzero(codes >= 0)
                x[seen, at + codes[seen]] = 1.0
                at, b = at + len(self.vocabulary[b]), b + 1
        return x

    def filled(self, table: Table) -> dict[str, int]:
        """How many missing values of each column would be filled (only columns with any)."""
        gaps = table.gaps().tolist()
        return {c.name: n for c, n in zip(self.schema.columns, gaps, strict=True) if n}

    def unseen(self, table: Table) -> dict[str, int]:
        """How many values of each categorical column are in no vocabulary (only columns with any)."""
        found: dict[str, int] = {}
        for b, name in enumerate(self.schema.categories):
            known = np.array([v in set(self.vocabulary[b]) for v in table.values[b]] + [True], np.bool_)
            if n := int((~known[table.codes[:, b]]).sum()):
                found[name] = n
        return found

    def to_slots(self) -> Slots:
        """The record as named tensors; the schema travels in the job."""
        return {
            "mean": from_numpy(self.mean),
            "sd": from_numpy(self.sd),
            "fill": torch.tensor(self.fill),
            "vocabulary": pack_json([list(v) for v in self.vocabulary]),
        }

    @classmethod
    def from_slots(cls, schema: TableSchema, slots: Slots) -> Preprocess:
        """The record of `to_slots`, for the same schema."""
        words = cast("list[list[str]]", unpack_json(slots["vocabulary"]))
        return cls(
            schema,
            slots["mean"].double().numpy(),
            slots["sd"].double().numpy(),
            tuple(tuple(v) for v in words),
            bool(slots["fill"]),
        )

    def to_json(self) -> dict[str, object]:
        """The record as JSON, schema included: what stands beside a model that predicts on raw rows."""
        numbers, words = iter(range(len(self.mean))), iter(self.vocabulary)
        columns: list[dict[str, object]] = []
        for c in self.schema.columns:
            if c.kind == "number":
                i = next(numbers)
                columns.append({"name": c.name, "kind": c.kind, "mean": float(self.mean[i]), "sd": float(self.sd[i])})
            else:
                columns.append({"name": c.name, "kind": c.kind, "vocabulary": list(next(words))})
        return {
            "columns": columns,
            "label": self.schema.label,
            "target": self.schema.target,
            "labels": list(self.schema.labels),
            "missing": list(self.schema.missing),
            "fill": self.fill,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocess:
        """The record of `to_json`."""
        columns: Sequence[Mapping[str, Any]] = value["columns"]
        schema = TableSchema(
            tuple(Column(c["name"], c["kind"]) for c in columns),
            value["label"],
            value["target"],
            tuple(value["labels"]),
            tuple(value["missing"]),
        )
        numbers = [c for c in columns if c["kind"] == "number"]
        return cls(
            schema,
            np.array([c["mean"] for c in numbers], np.float64),
            np.array([c["sd"] for c in numbers], np.float64),
            tuple(tuple(c["vocabulary"]) for c in columns if c["kind"] == "category"),
            value["fill"],
            tuple(value["notes"]),
        )


def _refuse(values: F32, column: Column) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    kind = "NaN" if np.isnan(values[wrong]).all() else "infinite"
    raise bad(
        "not-finite",
        "features hold values that are not numbers",
        got=f'{len(wrong)} {kind} in column "{column.name}", first in row {wrong[0] + 1}',
        rule="the model takes finite numbers only",
        mend="[data] standardise = true fills them with federated means; or clean it" if kind == "NaN" else "clean it",
    )
