"""Columns of a file as they are: texts or numbers, with gaps. Reading CSV and Parquet, and guessing kinds."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from manyloom.core.errors import bad
from manyloom.data.arrays import F64

Kind = Literal["text", "bool", "int", "float"]


@dataclass(frozen=True, eq=False)
class Cells:
    """One column. Texts ("" where missing), or numbers (NaN where missing; booleans are 0 and 1)."""

    kind: Kind
    texts: Sequence[str] = ()
    numbers: F64 | None = None

    def __len__(self) -> int:
        return len(self.texts) if self.numbers is None else len(self.numbers)

    def as_texts(self) -> Sequence[str]:
        """The column as texts: 3.0 is "3", true is "true"."""
        if self.numbers is None:
            return self.texts
        if self.kind == "bool":
            return ["" if x != x else "true" if x else "false" for x in self.numbers.tolist()]
        return [write(x) for x in self.numbers.tolist()]


@dataclass(frozen=True, eq=False)
class Frame:
    """The columns of a file, by name, and what to call the file."""

    name: str
    columns: Mapping[str, Cells]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def write(x: float) -> str:
    """A number as a label: "3", "2.5"; "" for NaN.

    >>> write(3.0), write(2.5), write(float("nan"))
    ('3', '2.5', '')
    """
    return "" if x != x else str(int(x)) if float(x).is_integer() else repr(x)


def read_csv(
    path: Path,
    missing: Sequence[str],
    header: bool = True,
    separator: str = ",",
    content: bytes | None = None,
) -> dict[str, list[str]]:
    """A CSV file's columns as stripped texts, "" where the text means that nothing is there.

    Without a header columns are called "0", "1", ... Raises `data-corrupt` with the line for a row of another
    length, as the last one of a file that was cut.
    """
    raw = path.read_bytes() if content is None else content
    try:
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise bad(
            "data-corrupt",
            f"{path.name} is no CSV file",
            got=str(error),
            rule="text in UTF-8",
            mend="save it as UTF-8",
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    gone = {m.strip() for m in missing}
    names: list[str] | None = None
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip() and (names is None or len(names) > 1)):
                continue
            cells = [c.strip() for c in row]
            if names is None:
                names = cells if header else [str(i) for i in range(len(cells))]
                if len(set(names)) < len(names):
                    twice = next(n for n in names if names.count(n) > 1)
                    raise bad(
                        "data-corrupt",
                        f'{path.name} has two columns called "{twice}"',
                        got="its first line",
                        rule="column names differ",
                        mend="rename one, or header = false in [data]",
                    )
                if header:
                    continue
            if len(cells) != len(names):
                raise bad(
                    "data-corrupt",
                    f"{path.name} has rows of different lengths",
                    got=f"line {reader.line_num} has {len(cells)} values, the first {len(names)}",
                    rule="every row has a value for each column",
                    mend="was the file cut? Is the separator right? It is "
                    f"separator = {'tab' if separator == chr(9) else repr(separator)} now",
                )
            rows.append(["" if c in gone else c for c in cells])
    except csv.Error as error:
        raise bad("data-corrupt", f"{path.name} is no CSV file", got=f"line {reader.line_num}: {error}") from error
    if names is None or not rows:
        raise bad(
            "data-corrupt",
            f"{path.name} has no rows",
            got=f"{len(raw)} bytes",
            rule="a header and rows" if header else "rows",
        )
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def infer(texts: Sequence[str]) -> Cells:
    """A column of texts as what it holds: booleans, whole numbers, numbers, or texts.

    >>> infer(["1", "", "2.5"]).kind, infer(["1.0", "2"]).kind, infer(["True", "false"]).kind, infer(["a"]).kind
    ('float', 'int', 'bool', 'text')
    """
    here = {t for t in texts if t}
    if here and {t.casefold() for t in here} <= {"true", "false"}:
        values = [np.nan if not t else float(t.casefold() == "true") for t in texts]
        return Cells("bool", numbers=np.array(values))
    number: dict[str, float] = {"": np.nan}
    for t in here:
        try:
            number[t] = float(t) if "_" not in t else _no_number(t)
        except ValueError:
            return Cells("text", texts)
    values = np.array([number[t] for t in texts], np.float64)
    return Cells(_kind(values), numbers=values)


def _no_number(text: str) -> float:
    raise ValueError(text)  # Python reads "1_000" as a number; a file means something else by it


def _kind(values: F64) -> Kind:
    here = values[~np.isnan(values)]
    return "int" if bool((np.isfinite(here) & (here == np.floor(here))).all()) else "float"


def read_parquet(path: Path, needs: str, categorical: Sequence[str] = ()) -> dict[str, Cells]:
    """A Parquet file's columns; those of names are texts, whatever their type."""
    try:
        from pyarrow import parquet as arrow  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError as error:
        raise extra_missing("parquet", needs) from error
    try:
        table = cast(Any, arrow).read_table(path)
    except (OSError, ValueError) as error:
        raise bad(
            "data-corrupt",
            f"{path.name} is no Parquet file",
            got=str(error).splitlines()[0],
            mend="was it cut? Write it again",
        ) from error
    names = [n for n in table.column_names if not n.startswith("__index_level_")]  # pandas' own row numbers
    return {n: arrow_cells(table.column(n), n, path.name, n in categorical) for n in names}


def arrow_cells(column: Any, name: str, file: str, names: bool = False) -> Cells:
    """A pyarrow column: numbers and booleans as they are, everything that is text or a dictionary as texts."""
    from pyarrow import types  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    if names:
        return Cells("text", ["" if v is None else str(v).strip() for v in column.to_pylist()])
    is_: Any = types
    typ = column.type
    if is_.is_boolean(typ) or is_.is_integer(typ) or is_.is_floating(typ) or is_.is_decimal(typ):
        values = np.array([np.nan if v is None else float(v) for v in column.to_pylist()], np.float64)
        return Cells("bool" if is_.is_boolean(typ) else _kind(values), numbers=values)
    if is_.is_dictionary(typ):
        typ = typ.value_type
    if is_.is_string(typ) or is_.is_large_string(typ):
        return Cells("text", ["" if v is None else str(v).strip() for v in column.to_pylist()])
    if is_.is_null(typ):
        return Cells("float", numbers=np.full(len(column), np.nan))
    raise bad(
        "wrong-type",
        f'column "{name}" of {file} is neither numbers nor text',
        got=f"type {typ}",
        rule="numbers, booleans and texts are read",
        mend=f'leave it out: drop = ["{name}"], or convert it',
    )


def join(parts: Sequence[Cells]) -> Cells:
    """One column of several files; numbers and texts together are texts."""
    if len(parts) == 1:
        return parts[0]
    if any(p.numbers is None for p in parts) or len({p.kind == "bool" for p in parts}) > 1:
        return Cells("text", [t for p in parts for t in p.as_texts()])
    values = np.concatenate([p.numbers for p in parts if p.numbers is not None])
    return Cells(parts[0].kind if parts[0].kind == "bool" else _kind(values), numbers=values)


def extra_missing(extra: str, needs: str) -> Exception:
    """The error of an optional package that is not installed."""
    return bad(
        "extra-missing",
        f'this needs the extra "{extra}", which is not installed',
        got=needs,
        mend=f'pip install "manyloom[{extra}]"',
    )
