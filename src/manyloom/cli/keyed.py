"""Id columns as a command names them: which, of what type, and the keys that a party's file holds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.text import listed, plural
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.data.sources.frame import Cells
    from manyloom.vertical.ids import Keys

Repeated = Literal["reject", "first"]
Type = Literal["int", "text", "bytes"]
EXACT = 2**53  # a float from here on may be another whole number


@dataclass(frozen=True)
class Side:
    """One party: its file, the columns of the key as texts, the canonical keys."""

    file: Path
    name: str
    columns: tuple[str, ...]
    texts: tuple[Sequence[str], ...]
    keys: Keys

    @property
    def rows(self) -> int:
        return len(self.texts[0])

    @property
    def ids(self) -> int:
        return len(self.keys.keys)

    @property
    def repeated(self) -> int:
        """Rows with an id that an earlier row has."""
        return self.rows - self.keys.left_out - self.ids


def one_of(flag: str, given: str, known: Sequence[str]) -> str:
    """What a flag was given, if it is one of what it takes."""
    if given not in known:
        near = nearest(given, known)
        raise bad("unknown-name", f'{flag} can\'t be "{given}"', got=f"{flag} {given}", rule=listed(known, "or"),
                  mend=f"did you mean {near}?" if near else None)  # fmt: skip
    return given


def pairs_of(key: str) -> list[tuple[str, str]]:
    """The key's columns, by name in LEFT and in RIGHT.

    >>> pairs_of("id, name=surname")
    [('id', 'id'), ('name', 'surname')]
    """
    found: list[tuple[str, str]] = []
    for word in key.split(","):
        a, equals, b = (part.strip() for part in word.partition("="))
        found.append((a, b if equals else a))
    twice = any(len({p[i] for p in found}) < len(found) for i in (0, 1))
    if twice or not all(a and b for a, b in found):
        raise bad("bad-argument", "a column stands twice" if twice else "a column has no name", got=f"--key {key}",
                  rule="names with commas between; LEFT=RIGHT where they differ",
                  mend="as in --key id=kunde,born")  # fmt: skip
    return found


def columns_of(columns: Mapping[str, Cells], names: Sequence[str], file: Path) -> list[Cells]:
    for name in names:
        if name not in columns:
            near = nearest(name, columns)
            raise bad("unknown-name", f'{file.name} has no column "{name}"', got=f"--key ... {name}",
                      rule="it has " + listed(columns, most=10),
                      mend=f'did you mean "{near}"?' if near else None)  # fmt: skip
        numbers = columns[name].numbers
        if columns[name].kind == "bool":
            raise bad("bad-id", f'column "{name}" of {file.name} holds true and false', rule="ids are numbers or text")
        if numbers is not None and bool((abs(numbers) >= EXACT).any()):
            raise bad("bad-id", f'column "{name}" of {file.name} holds numbers that were read inexactly',
                      rule="whole numbers below 2^53", mend="write this column as text")  # fmt: skip
    return [columns[name] for name in names]


def types_of(given: str | None, pairs: Sequence[tuple[str, str]], cells: Sequence[Sequence[Cells]]) -> list[Type]:
    """Of each column: as told, or int where both files hold whole numbers alone, else text."""
    if given is None:
        return ["int" if all(_whole(c) for c in both) else "text" for both in zip(*cells)]
    words = [one_of("--type", word.strip(), get_args(Type)) for word in given.split(",")]
    if len(words) != len(pairs):
        raise bad("bad-argument", f"{plural(len(words), ('type', 'types'))} for "
                  f"{plural(len(pairs), ('id column', 'id columns'))}", got=f"--type {given}",
                  mend="one for each, as in --type int,text")  # fmt: skip
    return cast("list[Type]", words)


def _whole(cells: Cells) -> bool:
    return all(re.fullmatch(r"[+-]?[0-9]+", text) for text in cells.as_texts() if text)


def side_of(file: Path, other: Path, names: Sequence[str], cells: Sequence[Cells], kinds: Sequence[Type],
            casefold: bool, duplicates: Repeated) -> Side:  # fmt: skip
    """One party's file as keys; problems name the file."""
    from manyloom.vertical.ids import canonical

    texts = tuple(c.as_texts() for c in cells)
    try:
        keys = canonical(texts, kinds, casefold=casefold, duplicates=duplicates, names=names)
    except BadInput as error:
        raise BadInput(*(_here(p, file) for p in error.problems)) from None
    name = file.name if file.name != other.name else str(file)
    return Side(file, name, tuple(names), texts, keys)


def _here(problem: Problem, file: Path) -> Problem:
    """A problem with ids as this verb tells it: in which file, and with its own flags."""
    mend = problem.mend and problem.mend.replace('set [align] duplicates = "first"', "add --duplicates first")
    return replace(problem, what=f"{file.name}: {problem.what}", mend=mend)
