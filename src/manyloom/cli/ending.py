"""How a run ended, in words: what `run`, `resume` and `baseline` print when it is over."""

from __future__ import annotations

import textwrap
from pathlib import Path

from manyloom.cli.out import WIDTH, fields
from manyloom.core import text
from manyloom.core.errors import Problem
from manyloom.track.record import Run
from manyloom.track.text import ending, lost_line


def human(run: Run, folder: str, *, plain: bool, now: bool = False) -> str:
    """The end of a run for people.

    Args:
        run: as its events tell it.
        folder: where it lies, as it is shown.
        plain: key value pairs instead of a sentence.
        now: whether a second Ctrl-C cut a round short.
    """
    if run.status == "interrupted":
        return interrupted(run, now)
    report = f"{folder}/report.html" if Path(folder, "report.html").is_file() else ""
    if run.status == "failed":
        return fields(("report", report))
    if not plain or run.baselines:
        return ending(run, report or None, [])
    event = {"type": "run_done", "status": run.status, "rounds": run.rounds_done, "final": run.final,
             "seconds": run.seconds}  # fmt: skip
    more = fields(("reason", run.reason or ""), ("lost", lost_line(run) if run.lost_total else ""), ("report", report))
    return "\n".join(part for part in (text.plain_line(event), more) if part)


def interrupted(run: Run, now: bool) -> str:
    """What is kept of a run that was asked to stop."""
    of = f" of {run.rounds_planned}" if run.rounds_planned else ""
    if not now:
        return f"interrupted after round {run.rounds_done}{of}. Nothing is lost."
    saved = f"Round {run.rounds_done} is saved." if run.rounds_done else "No round was done yet."
    return f"interrupted in round {run.rounds_done + 1}{of}. {saved}"


def failed(problem: Problem, run: Run) -> str:
    """Why a run ended, with who was lost in its last round and what is saved."""
    lines = problem.text().split("\n")
    last = [x for x in run.lost if x.round == run.rounds_done + 1]
    told = list(dict.fromkeys(f"{x.name}: {x.text}" for x in last))
    told = told[:4] + ([f"{len(told) - 4} more"] if len(told) > 4 else [])
    kept = f"round {run.rounds_done}" if run.rounds_done else "nothing yet: no round was done"
    own = [] if problem.got else [("lost", "; ".join(told))]
    at = next((i for i, line in enumerate(lines) if line[:6] in ("  rule", "  mend")), len(lines))
    more: list[str] = []
    for word, value in [*own, ("saved", kept)]:
        wrapped = textwrap.wrap(value, WIDTH - 9, break_long_words=False)
        more += [("  " + word.ljust(7) if i == 0 else " " * 9) + line for i, line in enumerate(wrapped)]
    return "\n".join([*lines[:at], *more, *lines[at:]])
