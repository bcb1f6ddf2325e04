"""Lines of what a run tells of the language model it tunes; and how an aggregation error is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from manyloom.core.names import cut, slug
from manyloom.core.numbers import finite

Event = Mapping[str, Any]
MOST = 3  # targets that are named in a line


def error(value: object, exact: bool = False) -> str:
    """An aggregation error, relative to a round's update; None: it can't be seen.

    >>> error(0.00433), error(0.0, exact=True), error(None)
    ('0.0043', 'exact', 'unseen')
    """
    v = finite(value)
    return "exact" if exact else "unseen" if v is None else f"{v:.2g}"


def adapter(e: Event) -> str:
    """Which matrices of which base get adapters, and how these are combined."""
    targets = [str(t) for t in cast("list[object]", e.get("targets") or [])]
    named = ",".join(targets) if len(targets) <= MOST else f"targets={len(targets)}"
    words = (("matrices", "matched"), ("rank", "r"), ("numbers", "d"), ("combine", "combine"))
    told = [f"{word}={e.get(key)}" for word, key in words]
    lines = [" ".join(["adapter ", slug(str(e.get("base"))), *which, *told]) for which in ([named], [])]
    return lines[0] if len(lines[0]) <= 80 else lines[1]


def _tokens(e: Event) -> str:
    """What a client's texts came to."""
    told = [f"{k}={e[k]}" for k in ("rows", "supervised", "dropped", "shortened") if e.get(k) is not None]
    name = e.get("name")
    return " ".join(["tokens  ", slug(name) if isinstance(name, str) else str(e.get("client", "?")), *told])


def _combined(e: Event) -> str:
    """The aggregation error of a round: mean over matrices, largest."""
    found = [error(e.get(f"agg_error_{k}"), bool(e.get("exact"))) for k in ("mean", "max")]
    told = found[:1] if found[0] in ("exact", "unseen") else ["/".join(found)]
    return " ".join(["combined", _at(e), str(e.get("rule")), *told])


def _sample(e: Event) -> str:
    """A prompt and what the model says to it, shortened."""
    return f'sample   {_at(e)} "{cut(str(e.get("prompt") or ""), 30)}" "{cut(str(e.get("text") or ""), 60)}"'


def _at(e: Event) -> str:
    return f"{e.get('round')}/{e['rounds']}" if e.get("rounds") else str(e.get("round"))


LINES: Mapping[str, Callable[[Event], str]] = {"tokens": _tokens, "combined": _combined, "sample": _sample}
