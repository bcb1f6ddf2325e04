"""Raw rows to predict on: from a file, a data frame or a mapping of columns, as a `Table`."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.numbers import count
from manyloom.data.table import Table, TableSchema

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Raw:
    """What was read: rows in the trained schema, labels where the rows have any.

    y [n] holds class codes or numbers, -1 or NaN where a row has none; None where there is no such column.
    """

    table: Table
    y: np.ndarray[Any, np.dtype[Any]] | None
    ignored: tuple[str, ...] = ()


def read_file(path: str | Path, *, separator: str = ",", header: bool = True) -> dict[str, list[Any]]:
    """The columns of a CSV or Parquet file, in its order.

    Raises:
        BadInput: `file-not-found`, `file-format` (unknown ending, a file cut in half), `extra-missing`.
    """
    path = Path(path)
    if not path.is_file():
        raise bad(
            "file-not-found", f'there is no file "{path}"', mend="check the path; CSV and Parquet are read"
        )
    if path.suffix.lower() in (".parquet", ".pq"):
        return _parquet(path)
    if path.suffix.lower() not in (".csv", ".tsv", ".txt", ".data"):
        raise bad(
            "file-format",
            f"can't tell what {path.name} is",
            got=f'ending "{path.suffix}"',
            rule=".csv, .tsv and .txt are read as text, .parquet as Parquet",
            mend="rename the file",
        )
    return _csv(path, "\t" if path.suffix.lower() == ".tsv" else separator, header)


def columns_of(rows: Any) -> dict[str, list[Any]]:
    """The columns of a data frame, a mapping of columns, or a list of mappings."""
    if isinstance(rows, Mapping):
        return {str(k): list(v) for k, v in cast("Mapping[object, Sequence[Any]]", rows).items()}
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):  # a pandas frame, without importing pandas
        return {str(c): rows[c].tolist() for c in rows.columns}
    if (
        isinstance(rows, Sequence)
        and rows
        and all(isinstance(r, Mapping) for r in cast("Sequence[object]", rows))
    ):
        records = cast("Sequence[Mapping[str, Any]]", rows)
        names = dict.fromkeys(k for r in records for k in r)
        return {n: [r.get(n) for r in records] for n in names}
    raise bad(
        "wrong-type",
        "these are no rows",
        got=type(rows).__name__,
        rule="a path, a pandas frame, a mapping of columns, a list of mappings, or a tensor",
    )


def encode(schema: TableSchema, columns: Columns, source: str = "the rows") -> Raw:
    """Columns as a table: order and further columns don't matter.

    Raises:
        BadInput: `columns-missing`, `not-a-number` (text in a number column, the first place of each column).
    """
    known = [c.name for c in schema.columns]
    lacking = [c for c in known if c not in columns]
    if lacking:
        told = ", ".join(f'"{c}"' for c in lacking[:6]) + (
            f" and {len(lacking) - 6} more" if len(lacking) > 6 else ""
        )
        word = "column" if len(lacking) == 1 else "columns"
        raise bad(
            "columns-missing",
            f"{source} lacks {len(lacking)} {word} that the model was trained on",
            got=f"{len(known) - len(lacking)} of {len(known)} columns; missing {told}",
            rule="names as in training; order and further columns don't matter",
            mend=f"rename or add them; all {len(known)} are in the run's model.json",
        )
    missing = frozenset(schema.missing)
    wrong: list[Problem] = []
    numbers = [_numbers(columns[c], c, missing, source, wrong) for c in schema.numbers]
    if wrong:
        raise BadInput(*wrong)
    n = len(columns[known[0]]) if known else 0
    coded = [_codes(columns[c], missing) for c in schema.categories]
    table = Table(
        schema,
        np.stack(numbers, axis=1) if numbers else np.zeros((n, 0)),
        np.stack([c for c, _ in coded], axis=1) if coded else np.zeros((n, 0), np.int32),
        tuple(values for _, values in coded),
    )
    y = labels(schema, columns[schema.label], source) if schema.label in columns else None
    return Raw(table, y, tuple(c for c in columns if c not in known and c != schema.label))


def labels(schema: TableSchema, values: Sequence[Any], source: str) -> np.ndarray[Any, np.dtype[Any]]:
    """The label column: class codes (-1: none), or numbers (NaN: none). Class names count, then numbers.

    Raises:
        BadInput: `label-range` for a label that the model does not know.
    """
    missing = frozenset(schema.missing)
    if schema.target == "number":
        wrong: list[Problem] = []
        found = _numbers(values, schema.label, missing, source, wrong)
        if wrong:
            raise BadInput(*wrong)
        return found
    named = {name: i for i, name in enumerate(schema.labels)}
    by_value = {f: i for name, i in named.items() if (f := _float(name)) is not None}
    out = np.full(len(values), -1, np.int64)
    for row, value in enumerate(values):
        text = _text(value)
        if value is None or text in missing:
            continue
        number = _float(text)
        code = named.get(text)
        if code is None and number is not None:
            code = by_value.get(number) if by_value else int(number) if number.is_integer() else None
        if code is None or not 0 <= code < len(schema.labels):
            raise bad(
                "label-range",
                "a label is outside the classes the model has",
                got=f'{schema.label} = "{text}" in row {row + 1} of {source}',
                rule="the model knows " + ", ".join(schema.labels[:8]),
                mend=f'leave the column "{schema.label}" out to predict without a comparison',
            )
        out[row] = code
    return out


def _numbers(
    values: Sequence[Any], name: str, missing: frozenset[str], source: str, wrong: list[Problem]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    out = np.full(len(values), math.nan)
    bad_rows: list[int] = []
    for row, value in enumerate(values):
        if value is None or (isinstance(value, str) and value.strip() in missing):
            continue
        number = _float(value)
        if number is None:
            bad_rows.append(row)
        else:
            out[row] = number
    if bad_rows:
        first = bad_rows[0]
        rows = "1 row" if len(bad_rows) == 1 else f"{count(len(bad_rows))} rows"
        wrong.append(
            Problem(
                "not-a-number",
                f'column "{name}" of {source} holds text where numbers were in training',
                f'"{_text(values[first])}" in row {first + 1}; {rows} in all',
                rule="missing values: " + (", ".join(f'"{m}"' for m in sorted(missing)) or "none"),
                mend="write numbers, or leave the value empty",
            )
        )
    return out


def _codes(
    values: Sequence[Any], missing: frozenset[str]
) -> tuple[np.ndarray[Any, np.dtype[np.int32]], tuple[str, ...]]:
    code: dict[str, int] = {}
    out = np.full(len(values), -1, np.int32)
    for row, value in enumerate(values):
        text = _text(value)
        if value is not None and text not in missing and not (isinstance(value, float) and math.isnan(value)):
            out[row] = code.setdefault(text, len(code))
    return out, tuple(code)


def _float(value: object) -> float | None:
    if isinstance(value, str):
        low = value.strip().lower()
        if low in ("true", "false"):
            return float(low == "true")
    try:
        return float(cast(Any, value))
    except (TypeError, ValueError):
        return None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else str(value)


def _csv(path: Path, separator: str, header: bool) -> dict[str, list[Any]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [
                line
                for line in csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
                if line
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise bad(
            "file-format",
            f"{path.name} is no CSV file",
            got=str(error),
            mend="UTF-8 text, one row a line, values in quotes where they hold the separator",
        ) from error
    if not lines:
        raise bad("file-format", f"{path.name} is empty", rule="a header with the columns' names, then rows")
    names = [c.strip() for c in lines.pop(0)] if header else [str(i) for i in range(len(lines[0]))]
    twice = sorted({c for c in names if names.count(c) > 1})
    if twice:
        raise bad("file-format", f'{path.name} names a column twice: "{twice[0]}"', mend="rename one of them")
    for number, line in enumerate(lines, 2 if header else 1):
        if len(line) != len(names):
            raise bad(
                "file-format",
                f"a row of {path.name} has {len(line)} values",
                where=f"{path.name}, line {number}",
                got=f"{len(names)} columns in the header",
                mend="is the file whole?",
            )
    return {name: [line[i] for line in lines] for i, name in enumerate(names)}


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs, reportMissingImports]
    except ImportError:
        raise bad(
            "extra-missing",
            'this needs the extra "parquet", which is not installed',
            got=path.name,
            mend='pip install "manyloom[parquet]"',
        ) from None
    reader = cast(Any, pq)
    try:
        return cast("dict[str, list[Any]]", reader.read_table(path).to_pydict())
    except Exception as error:  # pyarrow has its own types, by the kind of damage
        raise bad(
            "file-format",
            f"{path.name} is no Parquet file",
            got=str(error).splitlines()[0],
            mend="is the file whole?",
        ) from error


def write_file(path: Path, columns: Columns) -> None:
    """Columns as a CSV or, by the ending, a Parquet file; replaced in one step."""
    from manyloom.track.folder import write_atomic

    if path.suffix.lower() in (".parquet", ".pq"):
        write_atomic(path, _parquet_bytes(columns))
        return
    import io

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    write_atomic(path, text.getvalue())


def _parquet_bytes(columns: Columns) -> bytes:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs, reportMissingImports]
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs, reportMissingImports]

    arrow, out = cast(Any, pa), cast(Any, pa).BufferOutputStream()
    cast(Any, pq).write_table(arrow.table({k: list(v) for k, v in columns.items()}), out)
    return out.getvalue().to_pybytes()


def without(raw: Raw) -> Raw:
    """The same rows, their labels forgotten."""
    return replace(raw, y=None)
