"""Records of files: JSON lines, a JSON array, or CSV; what is wrong with one names file, line and field."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from manyloom.core.errors import BadInput, bad
from manyloom.core.validate import nearest


class Record(NamedTuple):
    """One object of a file, and where it stands: "line 3" or "record 3"."""

    fields: Mapping[str, Any]
    file: str
    place: str


def records(path: Path) -> Iterator[Record]:
    """The objects of a file: JSON lines, one JSON array (whatever its name), or a CSV with a header."""
    whole = read(path)
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        reader = csv.DictReader(io.StringIO(whole, newline=""))
        for row in reader:
            here = {k: v for k, v in row.items() if isinstance(k, str) and isinstance(v, str)}
            yield Record(here, path.name, f"line {reader.line_num}")
        return
    if whole.lstrip()[:1] == "[":
        items = _parsed(whole, path.name, None)
        for i, item in enumerate(cast("list[object]", items)):
            yield _object(item, path.name, f"record {i + 1}")
        return
    for i, line in enumerate(whole.split("\n")):  # splitlines would also cut at U+2028, which JSON allows in a text
        if line.strip():
            yield _object(_parsed(line, path.name, i + 1), path.name, f"line {i + 1}")


def read(path: Path) -> str:
    """The text of a file, unpacked where it is gzipped."""
    data = path.read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise bad(
            "data-corrupt",
            f"{path.name} can't be read as text",
            got=str(error),
            rule="UTF-8, plain or gzipped",
            mend="write it again as UTF-8",
        ) from error


def _parsed(source: str, file: str, line: int | None) -> object:
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        at = f", line {line or getattr(error, 'lineno', 1)}"
        raise bad(
            "data-corrupt",
            f"{file}{at}: this is no JSON",
            got=f"{str(error).split(': line')[0]}: {source[:40].strip()}..." if line else str(error),
            rule="one JSON object a line, or one array of objects",
            mend="mend or remove this line; was the file cut?",
        ) from error


def _object(value: object, file: str, place: str) -> Record:
    if not isinstance(value, dict):
        raise bad(
            "wrong-type",
            f"{file}, {place} is no JSON object",
            got=f"{type(value).__name__} {json.dumps(value)[:40]}",
            rule='{"prompt": "...", "completion": "..."} or another known format',
        )
    return Record(cast("dict[str, Any]", value), file, place)


def name_of(record: Record, key: str, field: str) -> str:
    """The value of a field that names a client or a topic."""
    value = value_of(record, field, f'{key} = "{field}" in [data]')
    if not isinstance(value, (str, int)) or value == "":
        raise misfit(record, field, value, "a name: text or a whole number")
    return str(value)


def text_of(record: Record, field: str, format: str) -> str:
    """The value of a field that holds text."""
    value = value_of(record, field, format)
    if not isinstance(value, str):
        raise misfit(record, field, value)
    return value


def value_of(record: Record, field: str, format: str) -> object:
    """The value of a field; `format` (or the key that names the field) says who needs it."""
    if field in record.fields:
        return record.fields[field]
    near = nearest(field, record.fields)
    told = format if "=" in format else f'format = "{format}"'
    raise bad(
        "missing-key",
        f'{record.file}, {record.place}: there is no field "{field}"',
        got=f"it has {', '.join(record.fields) or 'none'}",
        rule=f"{told} needs it in every record",
        mend=f'did you mean "{near}"?' if near else "mend or remove this record",
    )


def misfit(record: Record, field: str, value: object, rule: str = "text") -> BadInput:
    """The error of a field that holds something else."""
    return bad(
        "wrong-type",
        f'{record.file}, {record.place}: the field "{field}" is not what it should be',
        got=f"{type(value).__name__} {json.dumps(value, default=str)[:60]}",
        rule=rule,
        mend="mend or remove this record",
    )
