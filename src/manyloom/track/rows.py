"""Rows written as a table: predictions, beside what was given."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from manyloom.data.rows import PARQUET
from manyloom.data.sources.frame import extra_missing
from manyloom.track.folder import write_atomic


def write_file(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Columns as a CSV or, by the ending, a Parquet file; replaced in one step."""
    if path.suffix.lower() in PARQUET:
        write_atomic(path, _parquet(columns))
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n", delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())


def _parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
        from pyarrow import parquet as pq  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
    except ImportError as error:
        raise extra_missing("parquet", "a Parquet file") from error
    arrow: Any = pa
    out = arrow.BufferOutputStream()
    cast(Any, pq).write_table(arrow.table({k: list(v) for k, v in columns.items()}), out)
    return cast(bytes, out.getvalue().to_pybytes())
