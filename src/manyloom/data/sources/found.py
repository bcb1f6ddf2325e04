"""Files under a data directory: where they should be, and whether they are what was expected."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from manyloom.core.errors import bad
from manyloom.data.sources.info import SourceInfo

VARIABLE = "MANYLOOM_DATA"


def find(info: SourceInfo, data_dir: str | None, kind: str, *, instead: str) -> list[bytes]:
    """The contents of a source's files, after their checksums were compared.

    Looks in data_dir (else in the directory that MANYLOOM_DATA names) under the source's own folder. Raises
    `data-missing` or `data-corrupt`; `kind` says what the files are ("four IDX files"), `instead` what needs
    none.
    """
    base = data_dir or os.environ.get(VARIABLE)
    names = [name for name, _ in info.files]
    if not base:
        raise missing(
            info,
            names[0],
            "no data directory: neither data_dir, --data-dir nor MANYLOOM_DATA",
            None,
            kind,
            instead,
        )
    folder = Path(base) / (info.folder or "")
    place = "(--data-dir)" if data_dir else f"({VARIABLE})"
    for name in names:
        if not (folder / name).is_file():
            raise missing(info, name, f"looked in {folder}", place, kind, instead)
    return [_checked(folder / name, sha256) for name, sha256 in info.files]


def missing(info: SourceInfo, name: str, got: str, where: str | None, kind: str, instead: str) -> Exception:
    """The error of a file that is not there."""
    return bad(
        "data-missing",
        f"{info.name} is not here: {name} is missing",
        got=got,
        where=where,
        rule=f"{kind}, first one sha256 {info.files[0][1][:16]}...",
        mend=f'get them as docs/data.md says, or try: [data] source = "{instead}"',
    )


def _checked(path: Path, sha256: str) -> bytes:
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        size = f"{len(data):,}".replace(",", " ")
        raise bad(
            "data-corrupt",
            f"{path.name} is not the file that was expected",
            got=f"sha256 {digest[:16]}...  ({size} bytes)",
            rule=f"sha256 {sha256[:16]}...",
            mend="delete it and get it again; docs/data.md says where",
        )
    return data
