"""Whether the tables of a job file fit: every problem, as far as it can be told without data."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

from manyloom.core.errors import Problem
from manyloom.core.places import load
from manyloom.core.signature import Key, wrong
from manyloom.core.validate import kind, listed, nearest, show
from manyloom.job import later
from manyloom.job.tables import HORIZONTAL, Book, Factory, Given, Load, Table, chosen


class Found(NamedTuple):
    """A problem, and the table and key it was found in."""

    table: str
    key: str
    problem: Problem


def problems(
    given: Mapping[str, object], load: Load = load, book: Book = HORIZONTAL, other: Book | None = None
) -> Iterator[Found]:
    """Everything that is wrong with the tables, as far as it can be told without data.

    Args:
        given: the tables as read.
        load: finds `module:function`.
        book: the tables of this kind of job.
        other: those of the other kind: what belongs there is told as such.
    """
    tables: Given = {}
    for name, content in given.items():
        if not isinstance(content, dict):
            yield Found(name, "", _outside(name, content, book))
        elif name in book.tables:
            tables[name] = cast("dict[str, object]", content)
        elif name in later.TABLES:
            yield Found(name, "", later.table(name))
        elif other is not None and name in other.tables:
            yield Found(name, "", foreign(book, other, f"[{name}]", f"[{name}]", book.absent.get((name, ""))))
        else:
            yield Found(name, "", _unknown_table(name, book))
    for table in book.tables.values():
        yield from _table(table, tables, load, book, other)


def foreign(book: Book, other: Book, what: str, got: str, why: str | None = None) -> Problem:
    """Something that belongs to the other kind of job."""
    rule = why or f"in a {book.kind} job {book.rule}"
    return Problem("other-kind", f"{what} is for {other.kind} jobs", got, rule=rule,
                   mend=f'leave it out, or set kind = "{other.kind}" in [job]')  # fmt: skip


def _table(table: Table, tables: Given, load: Load, book: Book, other: Book | None) -> Iterator[Found]:
    given = tables.get(table.name, {})
    theirs = other.tables.get(table.name) if other is not None else None
    known, name, problem = _known(table, tables, load)
    if problem is not None and problem.code == "unknown-name" and theirs is not None and other is not None:
        word = given.get(table.choice or "")
        if word in theirs.names:
            got = f"{table.choice} = {show(word)} in [{table.name}]"
            problem = foreign(book, other, f'{table.word} "{word}"', got, book.absent.get((table.name, str(word))))
    if problem is not None:
        yield Found(table.name, table.choice or "", problem)
    meant: set[str | None] = set()
    for key, value in given.items():
        if key == table.choice:
            continue
        if key in known:
            found = later.value(table.name, key, value)
            found = [found] if found else wrong({key: known[key]}, {key: value}, table.name)
        elif later.neutral(table.name, key, value):
            continue
        elif later_key := later.key(table.name, key, value):
            found = [later_key]
        elif table.free is not None:
            own = Key(key, table.free, None, "")
            found = wrong({key: own}, {key: value}, table.name)
        elif other is not None and theirs is not None and key in theirs.known() and key not in table.known():
            why = book.absent.get((table.name, key))
            found = [foreign(book, other, f"{key} in [{table.name}]", f"{key} = {show(value)} in [{table.name}]", why)]
        else:
            meant.add(nearest(key, known))
            found = [_unknown_key(table, name, key, value, known, book)]
        yield from (Found(table.name, key, p) for p in found)
    if problem is None and (not table.switch or table.name in tables):
        needed = (k for k in known.values() if k.required and k.name not in given and k.name not in meant)
        yield from (Found(table.name, "", missing(table, k, table.name in tables)) for k in needed)


def _known(table: Table, tables: Given, load: Load) -> tuple[Mapping[str, Key], str | None, Problem | None]:
    """The keys a table takes, the factory it names, and the problem with that name."""
    if table.choice is None:
        return table.known(), None, None
    given = tables.get(table.name, {})
    if table.choice in given and (problem := _choice(table, given[table.choice])):
        return table.known(), None, problem  # the keys of all choices: only what fits none is told
    name = chosen(table, tables)
    if name is None and table.switch and table.name not in tables:
        return {}, None, None
    if name is None:
        every = table.known()
        return every, None, missing(table, every[table.choice], table.name in tables)
    if ":" not in name:
        return table.known(name), name, None
    try:
        return _of_function(table, load(name, table.choice, table.name)), name, None
    except Exception:  # told when the function is called for
        return _Anything(), name, None


def _of_function(table: Table, function: Factory) -> Mapping[str, Key]:
    """The keys of somebody's own function: its arguments, unchecked; with **options, whatever is given."""
    arguments = inspect.signature(function).parameters.values()
    own = [p for p in arguments if p.name not in table.parts and p.name not in ("features", "classes")]
    open = any(p.kind is p.VAR_KEYWORD for p in own)
    first = {str(table.choice): Key(str(table.choice), str, table.default, table.meaning)}
    named = first | {p.name: Key(p.name, Any, p.default, "") for p in own if p.kind is not p.VAR_KEYWORD}
    return (_Anything if open else dict)(named | dict(table.common()))


class _Anything(dict[str, Key]):
    """Keys of a function that takes all."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Key:
        return Key(key, Any, None, "")


def _choice(table: Table, name: object) -> Problem | None:
    """The problem with the name of a factory."""
    got = f"{table.choice} = {show(name)} in [{table.name}]"
    if not isinstance(name, str):
        return Problem(
            "wrong-type",
            f"{table.choice} must be text",
            f"{table.choice} = {show(name)} ({kind(name)}) in [{table.name}]",
        )
    if name in table.names or ":" in name:
        return None
    if found := later.name(table.name, name, table.word, table.names):
        return found
    near = nearest(name, table.names)
    every = table.listed or "one of " + ", ".join(table.names)
    mend = f'did you mean "{near}"? {table.listed}'.strip() if near else every
    return Problem("unknown-name", f'there is no {table.word} "{name}"', got, mend=mend)


def _outside(key: str, value: object, book: Book) -> Problem:
    home = [t.name for t in book.tables.values() if key in t.known()]
    return Problem("unknown-key", f'unknown key "{key}" outside of a table', f"{key} = {show(value)}",
                   rule="a job file has tables: " + ", ".join(f"[{t}]" for t in book.tables),
                   mend=f"put it below [{home[0]}]" if home else None)  # fmt: skip


def _unknown_table(name: str, book: Book) -> Problem:
    near = nearest(name, [*book.tables, *later.TABLES])
    rule = None if near else "a job file has " + ", ".join(f"[{t}]" for t in book.tables)
    return Problem("unknown-table", f"unknown table [{name}]", f"[{name}]", rule=rule,
                   mend=f"did you mean [{near}]?" if near else None)  # fmt: skip


def _unknown_key(
    table: Table, name: str | None, key: str, value: object, known: Mapping[str, Key], book: Book
) -> Problem:
    asked = f' with {table.choice} = "{name}"' if name is not None else ""
    near = nearest(key, known)
    others = [n for n in table.names if key in table.own(n)]
    homes = [f"[{t.name}]" for t in book.tables.values() if t is not table and key in t.known()]
    if others:
        mend = f"{key} belongs to {table.choice} = " + listed([show(n) for n in others])
    elif homes and not near:
        mend = f"{key} belongs to {listed(homes)}"
    else:
        mend = f'did you mean "{near}"?' if near else None
    rule = (
        some(f"[{table.name}]{asked} takes ", list(known)) if known else f"[{table.name}]{asked} takes no further keys"
    )
    return Problem(
        "unknown-key", f'unknown key "{key}" in [{table.name}]', f"{key} = {show(value)}", rule=rule, mend=mend
    )


def missing(table: Table, key: Key, there: bool) -> Problem:
    """A key that must be given and isn't."""
    mend = later.EXAMPLES.get((table.name, key.name)) or f"add {key.name} = ... to [{table.name}]"
    got = f"no {key.name} in [{table.name}]" if there else f"no [{table.name}]"
    return Problem("missing-key", f"[{table.name}] needs {key.name}", got,
                   rule=f"{key.name}: {key.meaning.rstrip('.')}" if key.meaning else None, mend=mend)  # fmt: skip


def some(head: str, words: list[str], width: int = 71) -> str:
    """As many words as fit in a line, then three dots."""
    if len(head + ", ".join(words)) <= width:
        return head + ", ".join(words)
    kept: list[str] = []
    for word in words:
        if len(head + ", ".join([*kept, word, "..."])) > width:
            break
        kept.append(word)
    return head + ", ".join([*kept, "..."])
