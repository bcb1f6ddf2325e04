"""Files under a data directory: where they should be, and whether they are what was expected."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from manyloom.core.errors import bad
from manyloom.data.sources.info import File, SourceInfo

VARIABLE = "MANYLOOM_DATA"


def find(info: SourceInfo, data_dir: str | None, kind: str, *, instead: str) -> list[bytes]:
    """The contents of a source's files, after their checksums were compared.

    Looks in data_dir (else in the directory that MANYLOOM_DATA names) under the source's own folder. Raises
    `data-missing` or `data-corrupt`; `kind` says what the files are ("four IDX files"), `instead` what needs
    none.
    """
    mend = f'get them as docs/data.md says, or try: [data] source = "{instead}"'
    first = "first one " if len(info.files) != 1 else ""
    rule = f"{kind}, {first}sha256 {next(iter(info.files)).sha256[:16]}..."
    return [open_checked(info, file, data_dir, rule, mend) for file in info.files]


def open_checked(info: SourceInfo, file: File, data_dir: str | None, rule: str, mend: str) -> bytes:
    """The content of one file of a source; a gzipped one may lie there unpacked, or packed by another gzip."""
    base = data_dir or os.environ.get(VARIABLE)
    what = f"{info.name} is not here: {file.name} is missing"
    if not base:
        raise bad("data-missing", what, got="neither --data-dir nor MANYLOOM_DATA is set", rule=rule, mend=mend)
    path = Path(base) / (info.folder or "") / file.name
    plain = path.with_suffix("")
    if not path.is_file() and not (file.unpacked and plain.is_file()):
        where = "(--data-dir)" if data_dir else f"({VARIABLE})"
        raise bad("data-missing", what, got=f"looked in {path.parent}", where=where, rule=rule, mend=mend)
    return _checked(path if path.is_file() else plain, file)


def _checked(path: Path, file: File) -> bytes:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest in (file.sha256, file.unpacked) or (file.unpacked and _content(data) == file.unpacked):
        return data
    size = f"{len(data):,}".replace(",", " ")
    raise bad(
        "data-corrupt",
        f"{path.name} is not the file that was expected",
        got=f"sha256 {digest[:16]}...  ({size} bytes)",
        rule=f"sha256 {file.sha256[:16]}...",
        mend="delete it and get it again; docs/data.md says where",
    )


def _content(data: bytes) -> str | None:
    try:
        return hashlib.sha256(gzip.decompress(data)).hexdigest()
    except (OSError, EOFError, zlib.error):
        return None
