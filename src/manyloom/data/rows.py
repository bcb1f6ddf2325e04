"""Raw rows of a known schema: from a file, a data frame or a mapping of columns, as a `Table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.numbers import count
from manyloom.core.validate import nearest
from manyloom.data.arrays import F64, I64
from manyloom.data.preprocess import Preprocess
from manyloom.data.sources.frame import Cells, infer, read_csv, read_parquet
from manyloom.data.table import MISSING, Table, TableSchema

Columns = Mapping[str, Cells]
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, eq=False)
class Raw:
    """What was read: rows in the trained schema, and labels where the rows have any.

    y [n] holds class codes or numbers, -1 or NaN where a row has none; None where there is no such column.
    """

    table: Table
    y: I64 | F64 | None
    ignored: tuple[str, ...] = ()


def read_file(
    path: str | Path, *, missing: Sequence[str] = MISSING, separator: str = ",", header: bool = True
) -> dict[str, Cells]:
    """The columns of a CSV (also gzipped) or Parquet file, in its order; CSV stays text.

    Raises:
        BadInput: `data-missing`, `data-corrupt` (also a file cut in half), `extra-missing`.
    """
    path = Path(path)
    if not path.is_file():
        near = nearest(path.name, [f.name for f in path.parent.iterdir()]) if path.parent.is_dir() else None
        raise bad(
            "data-missing",
            f'there is no file "{path}"',
            rule="a CSV or Parquet file with the columns of training",
            mend=f"did you mean {path.parent / near}?" if near else None,
        )
    if path.suffix.lower() in PARQUET:
        return read_parquet(path, path.name)
    texts = read_csv(path, missing, header, "\t" if path.suffix.lower() == ".tsv" else separator)
    return {name: Cells("text", column) for name, column in texts.items()}


def columns_of(rows: Any, missing: Sequence[str] = MISSING) -> dict[str, Cells]:
    """The columns of a data frame, a mapping of columns, or a list of mappings.

    Raises:
        BadInput: `wrong-type` for anything else, or columns of different lengths.
    """
    named: dict[str, Sequence[Any]]
    if isinstance(rows, Mapping):
        named = {str(k): v for k, v in cast("Mapping[object, Sequence[Any]]", rows).items()}
    elif hasattr(rows, "columns") and hasattr(rows, "to_dict"):  # a pandas frame, without importing pandas
        named = {str(c): rows[c].tolist() for c in rows.columns}
    elif isinstance(rows, list) and all(isinstance(r, Mapping) for r in cast("list[object]", rows)):
        records = cast("list[Mapping[str, Any]]", rows)
        named = {n: [r.get(n) for r in records] for n in dict.fromkeys(k for r in records for k in r)}
    else:
        raise bad(
            "wrong-type",
            "these are no rows",
            got=type(cast(object, rows)).__name__,
            rule="a path, a pandas frame, a mapping of columns, a list of mappings, or a tensor",
        )
    lengths = {n: len(v) for n, v in named.items()}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f'"{n}" {k}' for n, k in list(lengths.items())[:4])
        raise bad("wrong-type", "the columns have different lengths", got=got)
    gone = {m.strip() for m in missing}
    return {n: Cells("text", [_text(v, gone) for v in values]) for n, values in named.items()}


def encode(pre: Preprocess, columns: Columns, source: str = "the rows") -> Raw:
    """Columns as a table that `pre` takes: order and further columns don't matter.

    Raises:
        BadInput: `columns-missing`; `not-a-number` (text in a number column), for every such column;
            `label-range`.
    """
    schema = pre.schema
    known = [c.name for c in schema.columns]
    lacking = [c for c in known if c not in columns]
    if lacking:
        told = ", ".join(f'"{c}"' for c in lacking[:6])
        told += f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        raise bad(
            "columns-missing",
            f"{source} lacks {len(lacking)} {'column' if len(lacking) == 1 else 'columns'} "
            "that the model was trained on",
            got=f"{len(known) - len(lacking)} of {len(known)} columns; missing {told}",
            rule="names as in training; order and further columns don't matter",
            mend=f"rename or add them; all {len(known)} are in the run's model.json",
        )
    wrong: list[Problem] = []
    a = [numbers(columns[c], c, source, wrong) for c in schema.numbers]
    if wrong:
        raise BadInput(*wrong)
    n = len(columns[known[0]]) if known else 0
    b = [_codes(columns[c], words) for c, words in zip(schema.categories, pre.vocabulary, strict=True)]
    table = Table(
        schema,
        np.stack(a, axis=1) if a else np.zeros((n, 0)),
        np.stack([c for c, _ in b], axis=1) if b else np.zeros((n, 0), np.int32),
        tuple(values for _, values in b),
    )
    y = labels(schema, columns[schema.label], source) if schema.label in columns else None
    return Raw(table, y, tuple(c for c in columns if c not in known and c != schema.label))


def labels(schema: TableSchema, cells: Cells, source: str) -> I64 | F64:
    """The label column: class codes (-1: none), or numbers (NaN: none). Class names count, then their numbers.

    Raises:
        BadInput: `label-range` for a label that the model does not know.
    """
    if schema.target == "number":
        wrong: list[Problem] = []
        found = numbers(cells, schema.label, source, wrong)
        if wrong:
            raise BadInput(*wrong)
        return found
    code = {name: i for i, name in enumerate(schema.labels)}
    if all(infer([name]).numbers is None for name in schema.labels):  # names that are words: 0 and 1 do as well
        code = {str(i): i for i in range(len(schema.labels))} | code
    out = np.full(len(cells), -1, np.int64)
    for row, text in enumerate(cells.as_texts()):
        at = code.get(text, code.get(infer([text]).as_texts()[0])) if text else -1
        if at is None:
            raise bad(
                "label-range",
                "a label is outside the classes the model has",
                got=f'{schema.label} = "{text}" in row {row + 1} of {source}',
                rule="the model knows " + ", ".join(schema.labels[:8]),
                mend=f'leave the column "{schema.label}" out to predict without a comparison',
            )
        out[row] = at
    return out


def numbers(cells: Cells, name: str, source: str, wrong: list[Problem]) -> F64:
    """A column as numbers, NaN where there is none; text in it joins `wrong`."""
    found = cells if cells.numbers is not None else infer(cells.texts)
    if found.numbers is not None:
        return found.numbers
    rows = [row for row, t in enumerate(cells.texts) if t and infer([t]).numbers is None]
    wrong.append(
        Problem(
            "not-a-number",
            f'column "{name}" of {source} holds text where numbers were in training',
            f'"{cells.texts[rows[0]]}" in row {rows[0] + 1}; {count(len(rows))} in all',
            mend="write numbers, or leave the value empty",
        )
    )
    return np.full(len(cells), np.nan)


def _codes(cells: Cells, words: Sequence[str]) -> tuple[np.ndarray[Any, np.dtype[np.int32]], tuple[str, ...]]:
    """Codes of a category column: a text as it stands, or (3.0 for "3") as the number that training had."""
    known, texts = set(words), cells.as_texts()
    same = {t: t if t in known else infer([t]).as_texts()[0] for t in set(texts) if t}
    code = {t: i for i, t in enumerate(dict.fromkeys(same.values()))}
    return np.array([code[same[t]] if t else -1 for t in texts], np.int32), tuple(code)


def _text(value: object, missing: set[str]) -> str:
    """A value of a frame as a file would have it: "" where there is none."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or value != value:
        return ""
    text = repr(value) if type(value) is float else str(value).strip()
    return "" if text in missing else text
