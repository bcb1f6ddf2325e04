"""Help: the overview of all verbs, and the page of one, from its function's signature."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, get_args

from typer.models import ArgumentInfo, OptionInfo

WIDTH = 80
_TITLE = "Manyloom trains one model across parties whose data must not move."
_GROUPS = ("start", "look", "measure", "federate", "find")


def overview(groups: Mapping[str, str]) -> str:
    """What `manyloom` alone prints: the verbs there are, by what they are for."""
    rows = [(g, "  ".join(v for v, of in groups.items() if of == g)) for g in _GROUPS]
    verbs = [f"  {group.ljust(10)} {names}" for group, names in rows if names]
    return "\n".join([
        _TITLE, "", *verbs, "",
        "First time? manyloom run heart          four real hospitals, a few seconds",
        "Help on a verb: manyloom run --help     All verbs take --json.",
    ])  # fmt: skip


def help_text(name: str, function: Callable[..., Any], common: Callable[..., Any]) -> str:
    """The help page of one verb.

    Its parts: how it is typed, what it does, its arguments, its flags, the common flags.
    """
    arguments, options = _arguments(function), _options(function)
    usage = " ".join(["manyloom", name, *(_usage(info, default) for _, info, default in arguments), "[FLAGS]"])
    first, _, rest = (inspect.getdoc(function) or "").partition("\n")
    parts = [usage, *_paragraphs(first), *_paragraphs(rest.strip())]
    blocks = [[(_metavar(p, info), info.help or "") for p, info, _ in arguments],
              [(_decls(info), info.help or "") for _, info, _ in options],
              [(_decls(info), info.help or "") for _, info, _ in _options(common)]
              + [("--schema", "the JSON Schema of what --json prints"), ("--help", "this page")]]  # fmt: skip
    wide = min(26, max(len(left) for block in blocks for left, _ in block))
    return "\n\n".join([*parts, *("\n".join(_row(*row, wide) for row in block) for block in blocks if block)])


def flags(function: Callable[..., Any]) -> list[str]:
    """Every flag of a verb, as it is typed."""
    return [d for _, info, _ in _options(function) for d in _declared(info)]


def _paragraphs(text: str) -> list[str]:
    found = [p for p in text.split("\n\n") if p.strip()]
    return [p if p.startswith("  ") else textwrap.fill(" ".join(p.split()), WIDTH) for p in found]


def _row(left: str, right: str, wide: int) -> str:
    lines = textwrap.wrap(right, WIDTH - wide - 4, break_long_words=False, break_on_hyphens=False) or [""]
    if len(left) > wide:
        return "\n".join(["  " + left, *(" " * (wide + 4) + line for line in lines)])
    starts = ["  " + left.ljust(wide) + "  ", *[" " * (wide + 4)] * len(lines)]
    return "\n".join(start + line for start, line in zip(starts, lines)).rstrip()


def _arguments(function: Callable[..., Any]) -> list[tuple[str, ArgumentInfo, Any]]:
    return [(p, i, d) for p, i, d in _infos(function) if isinstance(i, ArgumentInfo)]


def _options(function: Callable[..., Any]) -> list[tuple[str, OptionInfo, Any]]:
    return [(p, i, d) for p, i, d in _infos(function) if isinstance(i, OptionInfo)]


def _infos(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = []
    for p in inspect.signature(function, eval_str=True).parameters.values():
        info = next((a for a in get_args(p.annotation)[1:] if isinstance(a, (ArgumentInfo, OptionInfo))), None)
        if info is not None and not info.hidden:
            found.append((p.name, info, p.default))
    return found


def _metavar(name: str, info: ArgumentInfo) -> str:
    return info.metavar or name.upper()


def _usage(info: ArgumentInfo, default: Any) -> str:
    word = info.metavar or "..."
    return word if default is inspect.Parameter.empty else f"[{word}]"


def _declared(info: OptionInfo) -> list[str]:
    first = info.default if isinstance(info.default, str) else None
    return [d for d in (first, *(info.param_decls or ())) if d]


def _decls(info: OptionInfo) -> str:
    names = _declared(info)
    short = next((n for n in names if not n.startswith("--")), None)
    name = short or names[0]
    return f"{name} {info.metavar}" if info.metavar else name
