"""How a verb that fails says so: the same words on a terminal and, under --json, as one document."""

from __future__ import annotations

import os
import platform
import re
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manyloom.cli.out import Out, coloured, dumps, shown, write
from manyloom.core.errors import BadInput, Interrupted, ManyloomError, Problem


class Fault(Exception):
    """An exception nobody meant, while a run was going on; `__cause__` is the exception."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.folder = folder


def guarded(out: Out, act: Callable[[], int]) -> int:
    """Do it; whatever goes wrong is told, and becomes an exit code."""
    try:
        return act()
    except ManyloomError as error:
        return told(out, error)
    except KeyboardInterrupt:
        return told(out, Interrupted(Problem("interrupted", "interrupted before it was done")))
    except BrokenPipeError:
        _hush()
        return 141
    except Exception as error:
        return fault(out, error)


def _hush() -> None:
    """Whoever read us is gone: nothing more can be said, not even at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(null, stream.fileno())


def told(out: Out, error: ManyloomError) -> int:
    """Print every problem, then how many; gives the exit code."""
    if out.verbose:
        traceback.print_exception(error)
    lines = "\n".join(p.text() for p in error.problems)
    if len(error.problems) > 1:
        lines += f"\n{len(error.problems)} errors" + (", nothing was trained" if isinstance(error, BadInput) else "")
    say_problem(out, lines)
    if out.json:
        write(dumps(document(error.problems)))
    return error.exit_code


def document(problems: tuple[Problem, ...]) -> dict[str, Any]:
    """What --json prints instead of a result."""
    found = [p.mend for p in problems if p.mend]
    commands = [c for mend in found for c in re.findall(r"^(?:.*: +|)(manyloom [^,;()]+?)$", mend, re.MULTILINE)]
    return {"schema": "manyloom.error/1", "ok": False, "errors": [p.to_json() for p in problems],
            "next": list(dict.fromkeys(c for c in commands if not re.search(r"\b[A-Z]{3,}\b", c)))}  # fmt: skip


def say_problem(out: Out, text: str) -> None:
    """Problems on standard error, `error:` in red where there are colours."""
    if coloured(sys.stderr, out.no_color):
        text = re.sub(r"^error:", "\x1b[31merror:\x1b[0m", text, flags=re.MULTILINE)
    encoding = sys.stderr.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), file=sys.stderr, flush=True)


def fault(out: Out, error: Exception) -> int:
    """A fault in Manyloom itself: what happened is kept in a file that holds no data, and the file is named."""
    folder, cause = (error.folder, error.__cause__ or error) if isinstance(error, Fault) else (None, error)
    if out.verbose:
        traceback.print_exception(cause)
    saved = _crash(out, folder, cause)
    kind = type(cause).__name__
    said = " ".join(str(cause).split())[:200]
    what = f"this is a fault in Manyloom, not in your job: {kind}" + (f" {said}" if said else "")
    mend = "report it with that file"
    if folder is not None:
        mend += f"; go on with: manyloom resume {folder.name}"
    problem = Problem("internal", what, mend=mend)
    lines = problem.text().split("\n")
    at = next((i for i, line in enumerate(lines) if line.startswith("  mend")), len(lines))
    if saved is not None:
        held = "traceback, versions, job; no data" if folder is not None else "traceback, versions; no data"
        kept = Problem("internal", "", rule=f"{shown(saved)} ({held})").text().split("\n")[1:]
        lines[at:at] = [kept[0].replace("  rule  ", "  saved "), *kept[1:]]
    say_problem(out, "\n".join(lines))
    if out.json:
        write(dumps(document((problem,)) | {"saved": str(saved) if saved else None}))
    return 1


def _crash(out: Out, folder: Path | None, error: BaseException) -> Path | None:
    from manyloom._version import __version__

    parts = [
        f"manyloom {__version__}, python {platform.python_version()}, {platform.platform()}",
        _version("torch"), _version("numpy"), _version("typer"), f"verb: {out.verb or '(none)'}",
        "", "".join(traceback.format_exception(error)),
    ]  # fmt: skip
    if folder is not None and (folder / "job.toml").is_file():
        parts += ["job.toml:", (folder / "job.toml").read_text("utf-8")]
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    places = [folder / "crash.txt"] if folder is not None else []
    places += [out.home / f"crash-{stamp}.txt", Path(f"manyloom-crash-{stamp}.txt")]
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("\n".join(parts) + "\n", "utf-8")
            return place
        except OSError:
            continue
    return None


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} none"
