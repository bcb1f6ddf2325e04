"""The job file in words: each key with type, default, rule and meaning, read from signatures; makes docs/job.md."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import cleandoc
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from manyloom.algorithms import RECIPES
from manyloom.algorithms.recipe import CARDS
from manyloom.core.parts import Algorithm
from manyloom.core.signature import Key
from manyloom.core.validate import Share, rules_of, show
from manyloom.job.tables import TABLES, Table

# What a default of "nothing" means, where something follows from the rest of the job.
FOLLOWS: Mapping[tuple[str, str], str] = {
    ("job", "name"): "the file's name",
    ("job", "cohort"): "all",
    ("job", "min_available"): "the quorum",
    ("job", "eval_cohort"): "all",
    ("job", "watch"): "auc, accuracy or rmse",
    ("data", "test"): '"own" where the source has a test set, else 0.2',
    ("data", "seed"): "that of [job]",
    ("data", "overlap"): "all",
    ("cut", "dropout"): '0.0; 0.25 with on_missing = "impute"',
    ("data", "data_dir"): "`--data-dir`, `MANYLOOM_DATA`",
    ("data", "target"): "class for text, booleans, integers of at most 20 values",
    ("data", "features"): "all others",
    ("partition", "clients"): "the source's own",
    ("partition", "scheme"): '"natural" where the source has clients',
    ("model", "classes"): "from the labels",
    ("model", "loss"): "from target and classes",
    ("model", "metrics"): "classes: accuracy, and auc (two) or f1; a number: rmse, mae, r2",
    ("server", "name"): "the recipe's",
    ("runtime", "provider"): "by rule",
    ("runtime", "group"): "by rule",
}
ALWAYS = {("job", "name"), ("data", "seed"), ("model", "loss"), ("model", "metrics")}  # whatever the signature says
FRACTIONS = {2 / 3: "2/3"}


class Row(NamedTuple):
    """One key as a reader sees it."""

    key: str
    type: str
    default: str
    rule: str
    meaning: str


def rows(table: Table, name: str | None = None) -> list[Row]:
    """The keys that all choices of a table take; or those that only this one takes."""
    if name is None:
        found = list(table.common().values())
        if table.choice is not None:
            found = [
                Key(table.choice, Literal[table.names], table.default, table.meaning),
                *found,
                *shared(table).values(),
            ]
    else:
        found = [k for k in table.own(name).values() if k.name not in shared(table)]
    return [row(table.name, key) for key in found]


def shared(table: Table) -> dict[str, Key]:
    """The keys that stand in the signature of every choice, with the same default."""
    owns = [table.own(name) for name in table.names]
    first = owns[0] if owns else {}
    return {k: key for k, key in first.items() if all(k in own and own[k].default == key.default for own in owns)}


def row(table: str, key: Key) -> Row:
    """A key in words."""
    at = (table, key.name)
    choice = TABLES[table].choice if table in TABLES else None  # both kinds of jobs call it alike
    if key.required or (key.default is None and key.name == choice and at not in FOLLOWS):
        default = "required"
    elif at in FOLLOWS and (key.default is None or at in ALWAYS):
        default = FOLLOWS[at]
    elif key.default is None:
        default = "none"
    else:
        default = (
            FRACTIONS[key.default] if isinstance(key.default, float) and key.default in FRACTIONS else show(key.default)
        )
    rules = [str(r) for r in rules_of(key.hint) if not isinstance(r, Share)]
    return Row(key.name, typed(key.hint), default, ", ".join(dict.fromkeys(rules)), key.meaning.rstrip("."))


def typed(hint: Any) -> str:
    """A type in words.

    >>> typed(int | None), typed(Literal["a", "b"]), typed(list[str]), typed(Annotated[int | float, Share()])
    ('int', '"a", "b"', 'list of text', 'int or share')
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return "int or share" if any(isinstance(a, Share) for a in args) else typed(args[0])
    if origin is Literal:
        return ", ".join(show(a) for a in args)
    if origin in (Union, UnionType):
        words = [typed(a) for a in args if a is not type(None)]
        return " or ".join(w for i, w in enumerate(words) if w and w not in words[:i])
    if getattr(origin, "__name__", "") == "Callable":
        return ""
    if args:
        return f"list of {typed(args[0])}"
    return {int: "int", float: "number", str: "text", bool: "bool"}.get(hint, "any")


def deviations(name: str) -> dict[str, object]:
    """The keys of a recipe whose default is another than its signature says."""
    example = CARDS[name].example
    made: Algorithm = RECIPES[name](**example)
    table, known = made.tables["algorithm"], TABLES["algorithm"].own(name)
    return {k: v for k, v in table.items() if k in known and k not in example and known[k].default != v}


def told(table: Table, name: str) -> str:
    """The text of a factory's docstring, without arguments and examples."""
    text = cleandoc(table.factory(name).__doc__ or "")
    kept: list[str] = []
    for part in text.split("\n\n"):
        if part.startswith(">>>"):
            break
        if not part.startswith("Args:"):
            kept.append(" ".join(line.strip() for line in part.splitlines()))
    return "\n\n".join(kept)
