"""What a source says of itself: for listings, reports and attribution. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


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
    files: tuple[tuple[str, str], ...] = ()  # name, SHA-256
    writers: tuple[str, str] | None = None  # one more, needed where its natural clients are
