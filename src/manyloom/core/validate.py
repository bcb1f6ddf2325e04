"""The rules that values must keep, and how a wrong one is told: one place for all parts.

A factory's signature carries the rule of each argument, `lr: Annotated[float, Above(0)] = 0.1`; `check` reads it
there. So a job file, a Python call and the documentation can't disagree.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from manyloom.core.errors import BadInput, Problem

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Above:
    """x > low."""

    low: float

    def __call__(self, x: float) -> bool:
        return x > self.low

    def __str__(self) -> str:
        return f"above {self.low:g}"


@dataclass(frozen=True)
class AtLeast:
    """x >= low."""

    low: float

    def __call__(self, x: float) -> bool:
        return x >= self.low

    def __str__(self) -> str:
        return f"at least {self.low:g}"


@dataclass(frozen=True)
class Within:
    """low <= x <= high."""

    low: float
    high: float

    def __call__(self, x: float) -> bool:
        return self.low <= x <= self.high

    def __str__(self) -> str:
        return f"between {self.low:g} and {self.high:g}"


@dataclass(frozen=True)
class Below:
    """0 <= x < high."""

    high: float

    def __call__(self, x: float) -> bool:
        return 0 <= x < self.high

    def __str__(self) -> str:
        return f"at least 0 and below {self.high:g}"


@dataclass(frozen=True)
class Share:
    """`IntOrShare`: a whole number >= 1, or a share in (0, 1]."""

    def __call__(self, x: float) -> bool:
        return x >= 1 if isinstance(x, int) else 0 < x <= 1

    def __str__(self) -> str:
        return "a whole number of at least 1, or a share above 0 and at most 1.0"


Rule = Above | AtLeast | Within | Below | Share
IntOrShare = Annotated[int | float, Share()]


def share_of(value: int | float, n: int) -> int:
    """How many of n: 10 is ten, 0.1 a tenth (rounded up), 1.0 all, 1 one.

    >>> share_of(10, 50), share_of(0.1, 55), share_of(1.0, 55), share_of(1, 55), share_of(2 / 3, 4)
    (10, 6, 55, 1, 3)
    """
    if isinstance(value, int):
        return value
    return min(n, math.ceil(round(value * n, 9)))


def distance(a: str, b: str) -> int:
    """Damerau-Levenshtein distance (optimal string alignment) of two words.

    >>> distance("roundz", "rounds"), distance("haert", "heart"), distance("", "ab")
    (1, 1, 2)
    """
    d = {(i, -1): i + 1 for i in range(-1, len(a))} | {(-1, j): j + 1 for j in range(-1, len(b))}
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (x != y))
            if i and j and x == b[j - 1] and a[i - 1] == y:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return d[len(a) - 1, len(b) - 1]


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The name that was probably meant: a distance of at most 2, or a unique prefix; else None.

    >>> nearest("fedprxo", ["fedavg", "fedprox"]), nearest("scaf", ["scaffold", "fedavg"]), nearest("zzz", ["fedavg"])
    ('fedprox', 'scaffold', None)
    """
    names = list(words)
    ranked = sorted((distance(word, name), name) for name in names)
    if ranked and ranked[0][0] <= min(2, max(1, len(word) - 2)):
        return ranked[0][1]
    starts = [name for name in names if name.startswith(word)] if word else []
    return starts[0] if len(starts) == 1 else None


def show(value: object) -> str:
    """A value as one would type it in TOML.

    >>> show("a"), show(True), show([1, 2]), show(0.1)
    ('"a"', 'true', '[1, 2]', '0.1')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(show(v) for v in cast("list[object]", value)) + "]"
    return str(value)


def kind(value: object) -> str:
    """What a value is, in a user's words."""
    names: list[tuple[type, str]] = [
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        (str, "text"),
        (list, "a list"),
        (tuple, "a list"),
        (dict, "a table"),
    ]
    return next((name for typ, name in names if isinstance(value, typ)), type(value).__name__)


def _fits(value: object, hint: Any) -> tuple[bool, str]:
    """Whether a value has the type of a hint, and that type in words."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return True, "anything"
    if origin is Annotated:
        fits, words = _fits(value, args[0])
        return fits, words
    if origin is Literal:
        return any(type(value) is type(a) and value == a for a in args), listed([show(a) for a in args])
    if origin in (Union, types.UnionType):
        options = [_fits(value, a) for a in args if a is not type(None)]
        words = " or ".join(dict.fromkeys(w for _, w in options))
        if {int, float} <= set(args):
            words = "a number"
        return (value is None and type(None) in args) or any(ok for ok, _ in options), words
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool), "a number"
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), "a whole number"
    if hint is bool:
        return isinstance(value, bool), "true or false"
    if hint is str:
        return isinstance(value, str), "text"
    if origin in (list, tuple) or getattr(origin, "__name__", "") == "Sequence":
        inner = args[0] if args else Any
        kinds = {str: "a list of texts", int: "a list of whole numbers"}
        bare = get_args(inner)[0] if get_origin(inner) is Annotated else inner
        items = cast("list[object]", value) if isinstance(value, (list, tuple)) else None
        words = next((words for typ, words in kinds.items() if bare is typ), "a list")
        return items is not None and all(_fits(v, inner)[0] for v in items), words
    if hint is type(None):
        return value is None, "nothing"
    if isinstance(hint, type):
        return isinstance(value, hint), hint.__name__
    return True, "anything"


def rules_of(hint: Any) -> list[Rule]:
    """The constraints inside an `Annotated` hint, also under a union."""
    found = [a for a in get_args(hint)[1:] if isinstance(a, Rule)] if get_origin(hint) is Annotated else []
    for a in get_args(hint):
        if get_origin(a) in (Annotated, Union, types.UnionType):
            found += rules_of(a)
    return found


def check(key: str, value: object, hint: Any, table: str | None = None) -> Problem | None:
    """The problem with one value, or None: its type first, then its rules."""
    place = f" in [{table}]" if table else ""
    fits, words = _fits(value, hint)
    if not fits:
        what = f"{key} must be {words}"
        if isinstance(value, str) and any(isinstance(a, str) for a in _literals(hint)):
            return Problem("out-of-range", what, f"{key} = {show(value)}{place}", mend=_near(key, value, hint))
        got = f"{key} = {show(value)} ({kind(value)}){place}"
        return Problem("wrong-type", what, got, mend=_rewritten(key, value, hint))
    shown = show(value)
    many = cast("list[object]", value) if isinstance(value, (list, tuple)) else [value]
    for x in many:
        if isinstance(x, (int, float)) and not isinstance(x, bool):
            if not math.isfinite(x):
                return Problem("out-of-range", f"{key} must be finite", f"{key} = {x}{place}")
            for rule in rules_of(hint):
                if not rule(x):
                    return Problem("out-of-range", f"{key} must be {rule}", f"{key} = {shown}{place}")
    return None


def _rewritten(key: str, value: object, hint: Any) -> str | None:
    """How to write a value of the wrong type, where the same value of the right one fits."""
    if isinstance(value, str):
        for read, said in ((int, value), (float, value), ({"true": True, "false": False}.__getitem__, value.lower())):
            try:
                fits = _fits(read(said), hint)[0]
            except (ValueError, KeyError):
                continue
            if fits:
                return f"write {key} = {said} without quotes"
    if _fits([value], hint)[0]:
        return f"write {key} = [{show(value)}]"
    if isinstance(value, (int, float)) and _fits(str(value), hint)[0]:
        return f'write {key} = "{show(value)}"'
    return None


def listed(words: list[str]) -> str:
    """Words in a row, the last after "or".

    >>> listed(["a", "b", "c"]), listed(["a", "b"]), listed(["a"])
    ('a, b or c', 'a or b', 'a')
    """
    return " or ".join(([", ".join(words[:-1])] if words[1:] else []) + words[-1:])


def _near(key: str, value: object, hint: Any) -> str | None:
    options = [a for a in _literals(hint) if isinstance(a, str)]
    near = nearest(value, options) if isinstance(value, str) else None
    return f'did you mean "{near}"?' if near else None


def _literals(hint: Any) -> list[object]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [x for a in get_args(hint) for x in _literals(a)]


def hints(factory: Callable[..., object]) -> dict[str, Any]:
    """Argument name -> annotated type of a factory, in the order of its signature."""
    found = get_type_hints(factory, include_extras=True)
    return {name: found.get(name, Any) for name in inspect.signature(factory).parameters}


def problems(factory: Callable[..., object], given: Mapping[str, object], table: str | None = None) -> list[Problem]:
    """Every problem of the given arguments against the factory's signature."""
    known = hints(factory)
    found = [check(k, v, known[k], table) for k, v in given.items() if k in known]
    return [p for p in found if p is not None]


def checked(factory: Callable[P, R]) -> Callable[P, R]:
    """Check a factory's arguments against its own signature whenever it is called.

    >>> @checked
    ... def step(lr: Annotated[float, Above(0)] = 0.1) -> float:
    ...     return lr
    >>> step(lr=-1.0)
    Traceback (most recent call last):
    manyloom.core.errors.BadInput: error: lr must be above 0
      got    lr = -1.0
    """
    signature = inspect.signature(factory)
    known: dict[str, Any] = {}

    @wraps(factory)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not known:
            known.update(hints(factory))
        bound = signature.bind(*args, **kwargs).arguments
        found = [check(k, v, known[k]) for k, v in bound.items()]
        if wrong := [p for p in found if p is not None]:
            raise BadInput(*wrong)
        return factory(*args, **kwargs)

    return call
