"""What a source says of itself: for listings, reports and attribution. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class File(NamedTuple):
    """A file of a source: its name, its SHA-256, and that of its content where it may be packed otherwise."""

    name: str
    sha256: str
    unpacked: str | None = None


@dataclass(frozen=True)
class SourceInfo:
    """A source's name, title, licence and attribution; what `manyloom data` lists of it.

    `natural` says which clients it has of its own ("4 hospitals"), `samples` how many rows, `where` what it
    needs; `standardise` is the default of that key; `own_test` whether it has a test set of its own.
    """

    name: str
    title: str
    licence: str | None = None
    attribution: str | None = None
    paper: str | None = None
    natural: str | None = None
    samples: int | None = None
    task: str = ""
    where: str = ""
    standardise: bool = False
    own_test: bool = False
    folder: str | None = None  # under the data directory
    files: tuple[File, ...] = ()
    writers: File | None = None  # one more, needed where its natural clients are
    kinds: tuple[str, ...] = ("horizontal",)  # of jobs: clients that differ in rows, parties that differ in columns
