"""Which table of a job file is which factory, and whether what stands in a table fits.

The keys of a table are the arguments of a factory, so this file lists tables and names, never keys: those are read
from signatures. What a later version brings is listed in `later.py`, to be told and not ignored.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypedDict, Union, cast, get_args, get_origin

from manyloom.aggregate import RULES
from manyloom.algorithms import RECIPES
from manyloom.algorithms.recipe import CARDS
from manyloom.core.errors import Problem
from manyloom.core.places import load
from manyloom.core.signature import Default, Key, keys, options, wrong
from manyloom.core.task import Task
from manyloom.core.validate import AtLeast, kind, nearest, show
from manyloom.data.partition import SCHEMES
from manyloom.data.sources.registry import source, sources
from manyloom.job import later
from manyloom.job.job import Execution, Job, Simulate
from manyloom.models import MODELS
from manyloom.server import SERVERS

Given = dict[str, dict[str, object]]  # table -> key -> value, as read
Factory = Callable[..., object]
Load = Callable[[str, str, str], Factory]  # (module:function, key, table) -> the function


class Outputs(TypedDict, total=False):
    """Keys of `[model]` that are no arguments of `Task`.

    Args:
        classes: how many outputs; more than there are labels leaves room for others.
    """

    classes: Annotated[int | None, AtLeast(2), Default(None)]


class Files(TypedDict, total=False):
    """Keys of `[data]` that every source takes.

    Args:
        data_dir: folder in which the files of named sources lie.
    """

    data_dir: Annotated[str | None, Default(None)]


class About(TypedDict, total=False):
    """What only a person knows: `[card]`. Not in the digest.

    Args:
        use: what the model is for.
        misuse: what it must not be used for.
        contact: whom to ask.
        licence: of the model.
    """

    use: Annotated[str | None, Default(None)]
    misuse: Annotated[str | None, Default(None)]
    contact: Annotated[str | None, Default(None)]
    licence: Annotated[str | None, Default(None)]


class Found(NamedTuple):
    """A problem, and the table and key it was found in."""

    table: str
    key: str
    problem: Problem


@dataclass(frozen=True)
class Table:
    """One table: the key that names its factory, if it has one, and the keys that every choice takes."""

    name: str
    choice: str | None = None
    word: str = ""  # what a choice is called
    names: tuple[str, ...] = ()
    factory: Callable[[str], Factory] = field(default=lambda name: dict, repr=False)
    listed: str = ""  # where all names are told
    default: str | None = None
    common: Callable[[], Mapping[str, Key]] = field(default=lambda: {}, repr=False)
    parts: frozenset[str] = frozenset()  # arguments that are parts of a job, no keys
    meaning: str = ""

    def own(self, name: str) -> dict[str, Key]:
        """The keys of one choice alone."""
        return {k: v for k, v in keys(self.factory(name)).items() if k not in self.parts and k not in self.common()}

    def known(self, name: str | None = None) -> dict[str, Key]:
        """All keys of the table: those of one choice, or of all of them together."""
        chosen = {} if self.choice is None else {self.choice: Key(self.choice, str, self.default, self.meaning)}
        which = self.names if name is None else (name,)
        own = {k: v for n in reversed(which) for k, v in self.own(n).items()} if self.choice else {}
        return {k: replace(v, hint=writable(v.hint)) for k, v in {**chosen, **own, **self.common()}.items()}


def writable(hint: Any) -> Any:
    """A type hint without what a TOML file can't hold: functions."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kept = tuple(a for a in get_args(hint) if getattr(get_origin(a), "__name__", "") != "Callable")
    return Union[kept]  # noqa: UP007


def _task() -> dict[str, Key]:
    code = ("module", "size", "needs_shape", "name", "table")
    return options(Outputs) | {k: v for k, v in keys(Task).items() if k not in code}


def _job() -> dict[str, Key]:
    found = {k: v for k, v in keys(Job).items() if k not in Job.PARTS}
    return {"name": found["name"], **found}


TABLES: Mapping[str, Table] = {t.name: t for t in (
    Table("job", common=_job),
    Table("data", "source", "data source", tuple(sources()), source, "All names: manyloom data",
          common=lambda: options(Files), parts=frozenset({"partition", "data_dir"}),
          meaning="where the rows come from; or module:function, which gives a Federation."),
    Table("partition", "scheme", "partition scheme", tuple(SCHEMES), SCHEMES.__getitem__,
          meaning="how rows are dealt to clients."),
    Table("model", "name", "model", tuple(MODELS), MODELS.__getitem__, common=_task,
          meaning="what is trained; or module:function, which is called with (features, classes, further keys)."),
    Table("algorithm", "name", "algorithm", tuple(RECIPES), RECIPES.__getitem__, "All names: manyloom algorithms",
          "fedavg", parts=frozenset({"server"}),
          meaning="how clients learn; or module:function, which gives an Algorithm."),
    Table("server", "name", "server step", tuple(SERVERS), SERVERS.__getitem__,
          meaning="what the server does with the mean."),
    Table("aggregate", "rule", "rule", tuple(RULES), RULES.__getitem__, default="mean",
          meaning="how a cohort's updates become one."),
    Table("simulate", common=lambda: keys(Simulate)),
    Table("runtime", common=lambda: keys(Execution)),
    Table("card", common=lambda: options(About)),
)}  # fmt: skip


def chosen(table: Table, given: Mapping[str, Mapping[str, object]]) -> str | None:
    """The name of the factory that a table asks for, given or by default; None where it must be given."""
    assert table.choice is not None
    name = given.get(table.name, {}).get(table.choice)
    if name is not None:
        return str(name)
    if table.name == "server":
        recipe = str(chosen(TABLES["algorithm"], given))
        return CARDS[recipe].server if recipe in CARDS else "sgd"
    if table.name == "partition":
        info = sources().get(str(chosen(TABLES["data"], given)))
        return "natural" if info is None or info.natural else None
    return table.default


# ---- what is wrong


def problems(given: Mapping[str, object], load: Load = load) -> Iterator[Found]:
    """Everything that is wrong with the tables, as far as it can be told without data."""
    tables: Given = {}
    for name, content in given.items():
        if not isinstance(content, dict):
            yield Found("", name, _outside(name, content))
        elif name in TABLES:
            tables[name] = cast("dict[str, object]", content)
        elif name in later.TABLES:
            yield Found(name, "", later.table(name))
        else:
            yield Found(name, "", _unknown_table(name))
    for table in TABLES.values():
        yield from _table(table, tables, load)


def _table(table: Table, tables: Given, load: Load) -> Iterator[Found]:
    given = tables.get(table.name, {})
    known, name = table.known() if table.choice is None else {}, None
    if table.choice is not None:
        if table.choice in given and (found := _choice(table, given[table.choice])):
            yield Found(table.name, table.choice, found)
            known = table.known()  # the keys of all choices, so that only what fits none is told
        elif (name := chosen(table, tables)) is None:
            if table.name != "partition" or "data" in tables:
                yield Found(table.name, "", missing(table, table.known()[table.choice]))
            known = table.known()
        elif ":" in name:
            try:
                known = _of_function(table, name, load)
            except Exception:  # told when it is called
                known = dict.fromkeys(given, Key("", Any, None, ""))
        else:
            known = table.known(name)
    for key, value in given.items():
        if key not in known:
            if found := later.key(table.name, key, value):
                yield Found(table.name, key, found)
            elif not later.neutral(table.name, key, value):
                yield Found(table.name, key, _unknown_key(table, name, key, value, known))
    for key, value in given.items():
        if key in known and key != table.choice:
            if found := later.value(table.name, key, value):
                yield Found(table.name, key, found)
            else:
                yield from (Found(table.name, key, p) for p in wrong({key: known[key]}, {key: value}, table.name))
    if name is not None or table.choice is None:
        needed = (k for k in known.values() if k.required and k.name not in given)
        if table.name == "job" or table.name in tables or table.choice in ("source", "name"):
            yield from (Found(table.name, "", missing(table, k)) for k in needed if k.name)


def _of_function(table: Table, place: str, load: Load) -> dict[str, Key]:
    """The keys of somebody's own function: its arguments, unchecked; with **options, whatever is given."""
    function = load(place, str(table.choice), table.name)
    arguments = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in arguments):
        return _Anything(table.known())
    own = [p for p in arguments if p.name not in table.parts and p.name not in ("features", "classes")]
    first = {str(table.choice): Key(str(table.choice), str, table.default, table.meaning)}
    return first | {p.name: Key(p.name, Any, p.default, "") for p in own} | dict(table.common())


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
        return Problem("wrong-type", f"{table.choice} must be text", f"{table.choice} = {show(name)} ({kind(name)}) in [{table.name}]")
    if name in table.names or ":" in name:
        return None
    if found := later.name(table.name, name, table.word, table.names):
        return found
    near = nearest(name, table.names)
    every = table.listed or "one of " + ", ".join(table.names)
    mend = f'did you mean "{near}"? {table.listed}'.strip() if near else every
    return Problem("unknown-name", f'there is no {table.word} "{name}"', got, mend=mend)


def _outside(key: str, value: object) -> Problem:
    home = [t.name for t in TABLES.values() if key in t.known()]
    return Problem("unknown-key", f'unknown key "{key}" outside of a table', f"{key} = {show(value)}",
                   rule="a job file has tables: " + ", ".join(f"[{t}]" for t in TABLES),
                   mend=f"put it below [{home[0]}]" if home else None)  # fmt: skip


def _unknown_table(name: str) -> Problem:
    near = nearest(name, [*TABLES, *later.TABLES])
    rule = None if near else "a job file has " + ", ".join(f"[{t}]" for t in TABLES)
    return Problem("unknown-table", f"unknown table [{name}]", f"[{name}]", rule=rule,
                   mend=f"did you mean [{near}]?" if near else None)  # fmt: skip


def _unknown_key(table: Table, name: str | None, key: str, value: object, known: Mapping[str, Key]) -> Problem:
    asked = f' with {table.choice} = "{name}"' if name is not None else ""
    near = nearest(key, known)
    others = [n for n in table.names if key in table.own(n)]
    homes = [f"[{t.name}]" for t in TABLES.values() if t is not table and key in t.known()]
    if others:
        mend = f"{key} belongs to {table.choice} = " + " or ".join(show(n) for n in others)
    elif homes and not near:
        mend = f"{key} belongs to {' or '.join(homes)}"
    else:
        mend = f'did you mean "{near}"?' if near else None
    rule = some(f"[{table.name}]{asked} takes ", list(known)) if known else f"[{table.name}]{asked} takes no further keys"
    return Problem("unknown-key", f'unknown key "{key}" in [{table.name}]', f"{key} = {show(value)}", rule=rule, mend=mend)


def missing(table: Table, key: Key) -> Problem:
    """A key that must be given and isn't."""
    mend = later.EXAMPLES.get((table.name, key.name)) or f"add {key.name} = ... to [{table.name}]"
    return Problem("missing-key", f"[{table.name}] needs {key.name}", f"no {key.name} in [{table.name}]",
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
