"""`module:function`: the place of somebody's own source, model, algorithm or rule."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

from manyloom.core.errors import bad


def load(place: str, key: str, table: str) -> Callable[..., Any]:
    """The function that `module:function` names; `key` and `table` say where it was written.

    >>> load("math:hypot", "name", "[model]")(3, 4)
    5.0
    """
    module, _, name = place.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise bad(
            "unknown-name",
            f'can\'t import "{place}"',
            got=f'{key} = "{place}" in {table}',
            rule=str(error) or type(error).__name__,
            mend="module:function, of a module that Python finds from here (PYTHONPATH)",
        ) from error
    if not callable(found):
        raise bad("wrong-type", f'"{place}" is no function', got=type(found).__name__, rule="module:function")
    return cast("Callable[..., Any]", found)
