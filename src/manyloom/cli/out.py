"""What a verb writes: its result once to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from manyloom.core.text import field

WIDTH = 80
Next = str | tuple[str, str]
"""A command to type next, or the command and why."""


@dataclass(frozen=True)
class Out:
    """What the common flags say, and the only ways to write."""

    verb: str
    json: bool = False
    quiet: bool = False
    plain: bool = False
    verbose: bool = False
    home: Path = Path(".manyloom")
    data_dir: Path | None = None
    no_color: bool = False

    def emit(
        self,
        document: Mapping[str, Any],
        human: str,
        *,
        made: str = "",
        next: Sequence[Next] = (),
        ok: bool = True,
    ) -> None:
        """Write the result, once: as one JSON document, as the one thing made (--quiet), or for people."""
        commands = [n if isinstance(n, str) else n[0] for n in next]
        if self.json:
            whole = {"schema": f"manyloom.{self.verb}/1", "ok": ok, **document, "next": commands}
            write(dumps(whole))
        elif self.quiet:
            write(made) if made else None
        else:
            lines = [human] if human else []
            lines += [next_lines(next)] if next else []
            write("\n".join(lines))

    def note(self, text: str) -> None:
        """A remark on standard error; silent under --quiet."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning on standard error, also under --quiet."""
        print(text, file=sys.stderr, flush=True)


def coloured(stream: TextIO, no_color: bool = False, env: Mapping[str, str] | None = None) -> bool:
    """Whether a stream may be coloured: NO_COLOR, TERM=dumb and no terminal say no, FORCE_COLOR says yes."""
    known = os.environ if env is None else env
    if no_color or known.get("NO_COLOR"):
        return False
    if known.get("FORCE_COLOR"):
        return True
    return known.get("TERM") != "dumb" and stream.isatty()


def write(text: str) -> None:
    """One text on standard output. Signs that its encoding lacks become question marks, never an error."""
    stream = sys.stdout
    stream.write(text.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8") + "\n")
    stream.flush()


def next_lines(commands: Sequence[Next]) -> str:
    """The commands to type next: in a line if they fit, or with their reasons in a column.

    >>> print(next_lines(["manyloom show a", "manyloom card a"]))
    next     manyloom show a     manyloom card a
    >>> print(next_lines([("manyloom show a", "one run"), ("manyloom compare a b", "two")]))
    next     manyloom show a         one run
             manyloom compare a b    two
    """
    pairs = [(n, "") if isinstance(n, str) else n for n in commands]
    if not any(why for _, why in pairs):
        line = "next     " + "     ".join(command for command, _ in pairs)
        if len(line) <= WIDTH:
            return line
    widest = max(len(command) for command, _ in pairs)
    fits = all(9 + widest + 4 + len(why) <= WIDTH for _, why in pairs)
    lines = [f"{command.ljust(widest)}    {why}".rstrip() if fits else command for command, why in pairs]
    return "\n".join(("next     " if i == 0 else " " * 9) + line for i, line in enumerate(lines))


def dumps(document: Mapping[str, Any]) -> str:
    """Strict JSON; numbers that are not finite are null."""
    return json.dumps(strict(document), ensure_ascii=False, allow_nan=False, indent=2)


def strict(value: Any) -> Any:
    """A value as JSON has it: nan and inf are null, tuples lists, keys and paths text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [strict(v) for v in cast("Sequence[object]", value)]
    return value if isinstance(value, (str, int, type(None))) else str(value)


def fields(*pairs: tuple[str, str]) -> str:
    """Lines of a word and a value each; pairs without a value are left out."""
    return "\n".join(field(word, value, WIDTH) for word, value in pairs if value)


def shown(path: Path) -> str:
    """A path as it is shortest from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# ---- shell completion: no torch, no reading of whole files


def complete_runs(incomplete: str) -> list[str]:
    """Names of runs, and `last`."""
    from manyloom.track.store import names

    return [n for n in ["last", *names()] if n.startswith(incomplete)]


def complete_jobs(incomplete: str) -> list[str]:
    """Job files below here, and the shipped jobs."""
    from manyloom.cli.parse import shipped

    folder, _, stem = incomplete.rpartition("/")
    here = Path(folder or ("/" if incomplete.startswith("/") else "."))
    found = list[str]()
    if here.is_dir():
        for p in sorted(here.iterdir()):
            name = f"{folder}/{p.name}" if folder or incomplete.startswith("/") else p.name
            if p.name.startswith(stem) and p.name[0] != ".":
                found += [name + "/"] if p.is_dir() else [name] if p.suffix == ".toml" else []
    return [n for n in shipped() if n.startswith(incomplete)] + found


def complete_overrides(incomplete: str) -> list[str]:
    """Keys of a job as overrides, `algorithm.lr=`; after `=` the names that a key takes."""
    known: dict[str, list[str]] = json.loads((Path(__file__).parent / "keys.json").read_text("utf-8"))
    key, equals, _ = incomplete.partition("=")
    if equals:
        return [f"{key}={name}" for name in known.get(key, []) if f"{key}={name}".startswith(incomplete)]
    return [f"{k}=" for k in known if k.startswith(incomplete)]
