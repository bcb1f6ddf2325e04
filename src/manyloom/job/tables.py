"""Which table of a job file is which factory, and whether what stands in a table fits.

The keys of a table are the arguments of a factory, so this file lists tables and names, never keys: those are read
from signatures. What a later version brings is listed in `later.py`, to be told and not ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Annotated, Any, Literal, TypedDict, Union, cast, get_args, get_origin

from manyloom.aggregate import ATTACKS, RULES
from manyloom.algorithms import RECIPES
from manyloom.algorithms.recipe import CARDS
from manyloom.core.signature import Default, Key, keys, options
from manyloom.core.task import Task
from manyloom.core.validate import AtLeast
from manyloom.data.partition import SCHEMES
from manyloom.data.sources.registry import source, sources
from manyloom.job.job import Execution, Job, Simulate, Validation
from manyloom.llm.adapters import Lora
from manyloom.llm.model import language_model
from manyloom.models import MODELS
from manyloom.privacy.settings import Privacy
from manyloom.secure.settings import Secure
from manyloom.server import SERVERS
from manyloom.transforms import downlink, uplink

Given = dict[str, dict[str, object]]  # table -> key -> value, as read
Factory = Callable[..., object]
Load = Callable[[str, str, str], Factory]  # (module:function, key, table) -> the function


class Outputs(TypedDict, total=False):
    """Keys of `[model]` that are no arguments of `Task`.

    Args:
        classes: how many outputs; more than there are labels leaves room for others.
    """

    classes: Annotated[int | None, AtLeast(2), Default(None)]


class Kind(TypedDict, total=False):
    """Keys of `[job]` that are no arguments of `Job`.

    Args:
        kind: "horizontal": clients differ in rows; "vertical": parties know other columns of the same people.
    """

    kind: Annotated[Literal["horizontal", "vertical"], Default("horizontal")]


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
    switch: bool = False  # its presence switches something on: its keys are required only then
    free: type | None = None  # keys are names of one's own, with such values

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


LINK = ("names", "d", "private", "secure")  # arguments of a link that follow from the rest of the job


def _link(factory: Factory) -> dict[str, Key]:
    return {k: v for k, v in keys(factory).items() if k not in LINK}


def _source(name: str) -> Factory:
    return source(name, "horizontal")


def _task() -> dict[str, Key]:
    code = ("module", "size", "serial", "own", "needs_shape", "name", "table")
    return options(Outputs) | {k: v for k, v in keys(Task).items() if k not in code}


def _model(name: str) -> Factory:
    return language_model if name == "causal-lm" else MODELS[name]


def _job() -> dict[str, Key]:
    found = {k: v for k, v in keys(Job).items() if k not in Job.PARTS}
    return {"name": found["name"], **options(Kind), **found}


TABLES: Mapping[str, Table] = {t.name: t for t in (
    Table("job", common=_job),
    Table("data", "source", "data source", tuple(sources("horizontal")), _source, "All names: manyloom data",
          common=lambda: options(Files), parts=frozenset({"partition", "data_dir"}),
          meaning="where the rows come from; or module:function, which gives a Federation."),
    Table("partition", "scheme", "partition scheme", tuple(SCHEMES), SCHEMES.__getitem__,
          meaning="how rows are dealt to clients."),
    Table("model", "name", "model", (*MODELS, "causal-lm"), _model, common=_task, parts=frozenset({"lora"}),
          meaning="what is trained; or module:function, which is called with (features, classes, further keys)."),
    Table("algorithm", "name", "algorithm", tuple(RECIPES), RECIPES.__getitem__, "All names: manyloom algorithms",
          "fedavg", parts=frozenset({"server"}),
          meaning="how clients learn; or module:function, which gives an Algorithm."),
    Table("server", "name", "server step", tuple(SERVERS), SERVERS.__getitem__,
          meaning="what the server does with the mean."),
    Table("uplink", common=lambda: _link(uplink), switch=True),
    Table("downlink", common=lambda: _link(downlink), switch=True),
    Table("lora", common=lambda: keys(Lora), switch=True),
    Table("aggregate", "rule", "rule", tuple(RULES), RULES.__getitem__, default="mean",
          meaning="how a cohort's updates become one."),
    Table("validation", common=lambda: keys(Validation), switch=True),
    Table("privacy", common=lambda: keys(Privacy), switch=True),
    Table("secure", common=lambda: keys(Secure), switch=True),
    Table("attack", "name", "attack", tuple(ATTACKS), ATTACKS.__getitem__, switch=True,
          meaning="what malicious clients do."),
    Table("simulate", common=lambda: keys(Simulate)),
    Table("runtime", common=lambda: keys(Execution)),
    Table("card", common=lambda: options(About)),
)}  # fmt: skip


@dataclass(frozen=True)
class Book:
    """The tables of one kind of job, and why it has none of the other kind's."""

    kind: str
    tables: Mapping[str, Table]
    rule: str  # what differs between this kind's clients
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])  # (table, key) -> reason


HORIZONTAL = Book("horizontal", TABLES, "clients differ in rows, not in columns")


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


# ---- as data


def real(hint: Any) -> bool:
    """Whether a hint means a number that may have a fraction, so that 1 is 1.0 (in `int | float` they differ)."""
    found = _members(hint)
    return float in found and int not in found


def _members(hint: Any) -> set[Any]:
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return {m for a in get_args(hint) for m in _members(a)}
    return {hint}


def canonical(tables: Mapping[str, Mapping[str, object]], book: Book = HORIZONTAL) -> Given:
    """Tables with one spelling of each value: 1 is 1.0 where a fraction is meant; keys in the order of signatures.

    >>> canonical({"algorithm": {"lr": 1, "name": "fedavg"}})
    {'algorithm': {'name': 'fedavg', 'lr': 1.0}}
    """
    out: Given = {}
    for name, given in tables.items():
        table = book.tables.get(name)
        choice = chosen(table, tables) if table and table.choice else None
        foreign = choice is not None and ":" in choice
        known: dict[str, Key] = table.known(None if foreign else choice) if table else {}
        order = {k: i for i, k in enumerate(known)}
        keys = sorted(given, key=lambda k: order.get(k, len(order)))
        whole = {k for k in keys if k in known and real(known[k].hint) and type(given[k]) is int}
        out[name] = {k: float(cast(int, given[k])) if k in whole else given[k] for k in keys}
    return out
