"""A factory's signature, read: which keys it takes, of what type, with which default and meaning.

The job file, its documentation and `manyloom algorithms NAME` are all made from this.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Unpack, get_args, get_origin, get_type_hints

from manyloom.core.errors import Problem
from manyloom.core.validate import check, show


@dataclass(frozen=True)
class Default:
    """The default of a key that is declared in a TypedDict of options."""

    value: object


REQUIRED = inspect.Parameter.empty


@dataclass(frozen=True)
class Key:
    """One argument of a factory: one key of a table."""

    name: str
    hint: Any
    default: object
    meaning: str

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


def keys(factory: Callable[..., object]) -> dict[str, Key]:
    """The keys a factory takes, in order; `**options: Unpack[SomeOptions]` counts as the keys of `SomeOptions`."""
    return dict(_read(factory))


@cache  # evaluating annotations is most of the time that reading a job takes
def _read(factory: Callable[..., object]) -> Mapping[str, Key]:
    found = get_type_hints(factory, include_extras=True)
    doc = meanings(factory.__doc__ or "")
    out: dict[str, Key] = {}
    for name, p in inspect.signature(factory).parameters.items():
        hint = found.get(name, Any)
        if p.kind is inspect.Parameter.VAR_KEYWORD:
            if get_origin(hint) is Unpack:
                out |= options(get_args(hint)[0])
        elif p.kind is not inspect.Parameter.VAR_POSITIONAL:
            out[name] = Key(name, hint, p.default, doc.get(name, ""))
    return out


def options(record: type) -> dict[str, Key]:
    """The keys of a TypedDict whose fields say their `Default`."""
    doc = meanings(record.__doc__ or "")
    out: dict[str, Key] = {}
    for name, hint in get_type_hints(record, include_extras=True).items():
        while get_origin(hint) is not Annotated:  # NotRequired[...]
            hint = get_args(hint)[0]
        default = next((a.value for a in get_args(hint)[1:] if isinstance(a, Default)), REQUIRED)
        out[name] = Key(name, hint, default, doc.get(name, ""))
    return out


def defaults(record: type) -> dict[str, Any]:
    """Name -> default of a TypedDict of options."""
    return {k.name: k.default for k in options(record).values()}


def wrong(known: Mapping[str, Key], given: Mapping[str, object], table: str | None = None) -> list[Problem]:
    """Every problem of the given values, with the default to try; unknown names are not judged here."""
    found = ((known[k], check(k, v, known[k].hint, table)) for k, v in given.items() if k in known)
    return [_tried(key, p) for key, p in found if p is not None]


def _tried(key: Key, problem: Problem) -> Problem:
    if problem.code != "out-of-range" or problem.mend is not None or key.required or key.default is None:
        return problem
    return replace(problem, mend=f"try {key.name} = {show(key.default)}")


def meanings(doc: str) -> dict[str, str]:
    """Argument -> its text in the `Args:` section of a docstring.

    >>> meanings("Do.\\n\\n    Args:\\n        lr: the local\\n            step size.\\n        mu: pull.\\n")
    {'lr': 'the local step size.', 'mu': 'pull.'}
    """
    section = re.search(r"^( *)Args:\n((?:\1 +.*\n|\s*\n)+)", inspect.cleandoc(doc) + "\n", re.M)
    if not section:
        return {}
    out: dict[str, str] = {}
    last: list[str] = []
    for line in section.group(2).splitlines():
        head = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if head:
            last = head.group(1).split(", ")
            out |= dict.fromkeys(last, head.group(2).strip())
        elif line.strip() and last:
            out |= {n: f"{out[n]} {line.strip()}" for n in last}
    return out


def summary(factory: Callable[..., object]) -> str:
    """The first line of a factory's docstring."""
    return inspect.cleandoc(factory.__doc__ or "").split("\n")[0]
