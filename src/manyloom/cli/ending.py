"""How a run ended, in words: what `run`, `resume` and `baseline` print when it is over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from manyloom.cli.out import fields
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
        return interrupted(run, saved(Path(folder)) if now else None)
    report = f"{folder}/report.html" if Path(folder, "report.html").is_file() else ""
    if run.status == "failed":
        return fields(("report", report))
    if not plain or run.baselines:
        return ending(run, report or None, [])
    event = {"type": "run_done", "status": run.status, "rounds": run.rounds_done, "final": run.final,
             "seconds": run.seconds}  # fmt: skip
    more = fields(("reason", run.reason or ""), ("lost", lost_line(run) if run.lost_total else ""), ("report", report))
    return "\n".join(part for part in (text.plain_line(event), more) if part)


def interrupted(run: Run, saved: int | None = None) -> str:
    """What is kept of a run that was asked to stop; `saved` is the last checkpoint of one that stopped at once."""
    of = f" of {run.rounds_planned}" if run.rounds_planned else ""
    if saved is None:
        return f"interrupted after round {run.rounds_done}{of}. Nothing is lost."
    kept = f"Round {saved} is saved." if saved else "No round was saved yet."
    return f"interrupted in round {run.rounds_done + 1}{of}. {kept}"


def saved(folder: Path) -> int:
    """The round of a run's last checkpoint; 0 if there is none."""
    found = folder / "checkpoints"
    return max((int(p.name) for p in found.iterdir() if p.name.isdigit()), default=0) if found.is_dir() else 0


def failed(problem: Problem, run: Run) -> str:
    """Why a run ended, with who was lost in its last round and what is saved."""
    lines = problem.text().split("\n")
    if problem.got and problem.got.startswith("lost "):
        told = replace(problem, got=problem.got.removeprefix("lost ")).text()
        lines = told.replace("  got    ", "  lost   ", 1).split("\n")
    if " is saved" in (problem.rule or ""):
        return "\n".join(lines)
    kept = f"round {run.rounds_done}" if run.rounds_done else "nothing yet: no round was done"
    at = next((i for i, line in enumerate(lines) if line[:6] in ("  rule", "  mend")), len(lines))
    return "\n".join([*lines[:at], f"  saved  {kept}", *lines[at:]])
