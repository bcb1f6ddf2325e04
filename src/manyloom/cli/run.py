"""`run` and `resume`: a job to its end, shown while it goes on, and what it leaves behind."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Argument, Option

from manyloom.cli.complain import Fault, say_problem
from manyloom.cli.out import Next, Out, complete_jobs, complete_overrides, complete_runs, dumps, shown, write
from manyloom.cli.parse import job_path, overrides
from manyloom.cli.process import Stop, settle
from manyloom.core.errors import ManyloomError, Problem, bad
from manyloom.core.text import digest

if TYPE_CHECKING:
    from manyloom.job.events import Event
    from manyloom.job.kinds import AnyJob
    from manyloom.track.folder import Folder
    from manyloom.track.record import Run

EVENTS = Option("--events", metavar="FILE", help="write each event there too, a JSON line each")
Start = Callable[[Callable[[], bool]], "Iterator[Event]"]
"""Begins a run; the argument is asked after each round whether to stop."""


@dataclass(frozen=True)
class Ran:
    """How a run ended, as far as this process saw it.

    Args:
        status: done, stopped, interrupted or failed.
        run: its name; empty if it never began.
        folder: where it lies.
        code: the exit code.
        now: whether a second signal ended it in the middle of a round.
        result: what Python gets, None after an interruption.
    """

    status: str
    run: str
    folder: Path | None
    code: int
    now: bool = False
    result: Any = None


def run(
    out: Out,
    job: Annotated[str, Argument(metavar="JOB", autocompletion=complete_jobs,
                                 help="a job file, or a shipped job: heart, digits")],
    changes: Annotated[list[str] | None, Argument(metavar="TABLE.KEY=VALUE ...", autocompletion=complete_overrides,
                                                  help="changes to it, as in algorithm.lr=0.1")] = None,
    baselines: Annotated[bool, Option("--baselines",
                                      help="compare with each client alone and with all records pooled")] = False,
    name: Annotated[str | None, Option("--name", metavar="NAME", help="call the run so, not after the job")] = None,
    events: Annotated[Path | None, EVENTS] = None,
    fast: Annotated[bool, Option("--fast", help="only try it: one round, one batch a client")] = False,
) -> int:  # fmt: skip
    """Run a job, show how it goes, and keep what it leaves behind.

    Ctrl-C finishes the round and keeps the run resumable; a second one stops at once.
    """
    given = overrides(changes or [], job)
    path = job_path(job)
    settle()
    from manyloom import session
    from manyloom.job.job import Job as Record
    from manyloom.job.kinds import horizontal

    if name is not None:
        given["job.name"] = name
    made = Record.from_toml(str(path), given, str(out.data_dir) if out.data_dir else None)
    if baselines:
        horizontal(made, "a baseline")
    made = _quick(made) if fast else made
    ran = execute(out, lambda stop: session.run(made, home=out.home, stop=stop), events=events)
    if baselines and ran.status in ("done", "stopped") and ran.folder is not None:
        from manyloom.cli.beside import with_baselines

        ran = with_baselines(out, horizontal(made, "a baseline"), ran)
    return finish(out, ran, again=f"manyloom run {job}")


def resume(
    out: Out,
    run: Annotated[str, Argument(metavar="RUN", autocompletion=complete_runs,
                                 help='a run\'s name, a unique prefix of it, or "last"')],
    rounds: Annotated[int | None, Option("--rounds", metavar="N", min=1,
                                         help="go on to round N; this changes the job and its digest")] = None,
    events: Annotated[Path | None, EVENTS] = None,
) -> int:  # fmt: skip
    """Go on with a run from its last checkpoint, bit for bit as if it had not stopped."""
    from manyloom.track.store import Store

    with Store.open(out.home) as store:
        folder = store.resolve(run)
    settle()
    from manyloom import session

    data_dir = str(out.data_dir) if out.data_dir else None
    ran = execute(
        out,
        lambda stop: session.resume(folder.name, home=out.home, rounds=rounds, data_dir=data_dir, stop=stop),
        events=events,
        before=folder,
    )
    return finish(out, ran, again="", resumed=True)


def _quick(job: AnyJob) -> AnyJob:
    """The job with one round and one batch a client, or one pass over the aligned rows: through every hop."""
    from manyloom.job.job import Job

    if not isinstance(job, Job):
        return replace(job, rounds=1)
    told = {k: v for k, v in job.algorithm.tables.get("algorithm", {}).items() if k != "epochs"} | {"steps": 1}
    algorithm = replace(job.algorithm, batches=job.algorithm.batches._replace(steps=1),
                        tables={**job.algorithm.tables, "algorithm": told})  # fmt: skip
    return replace(job, algorithm=algorithm, rounds=1)


# ---- while it goes on


def execute(out: Out, start: Start, *, events: Path | None = None, before: Folder | None = None) -> Ran:
    """Go through a run's events and show them on standard error.

    Args:
        out: the flags.
        start: begins the run.
        events: a file that gets every event too.
        before: the folder of a run that goes on, so that its past is shown.
    """
    from manyloom.track.progress import progress

    mode = "quiet" if out.quiet else "plain" if out.plain else "auto"
    display = progress(mode, otherwise="plain", ending=False, color=not out.no_color)
    assert display is not None
    stop = Stop(lambda text: _above(display, text))
    copy = _opened(events)
    name, status, result, now = before.name if before else "", "interrupted", None, False
    if before is not None:
        _past(display, before)
    try:
        with display, stop:
            try:
                for event in start(stop):
                    told = event.to_json()
                    name = told.get("run") or name if told["type"] == "run_started" else name
                    stop.begun = True
                    if told["type"] == "round_started":
                        stop.round = told["round"]
                    if told["type"] == "resumed" and hasattr(display, "console"):
                        _goes_on(display, name, told)
                    else:
                        display.feed(told)
                    if copy is not None:
                        copy.write(json.dumps(told, ensure_ascii=False) + "\n")
                        copy.flush()
                    if told["type"] == "run_done":
                        status, result = told["status"], getattr(event, "result", None)
                    elif stop.now:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                now = True
        if hasattr(display, "console"):
            out.note("")  # a live display ends in the middle of the screen
    except (ManyloomError, BrokenPipeError):
        raise
    except Exception as error:
        if name:
            raise Fault(out.home / "runs" / name) from error
        raise
    finally:
        if copy is not None:
            copy.close()
    code = {"failed": 1, "interrupted": stop.code or 130}.get(status, 0)
    return Ran(status, name, out.home / "runs" / name if name else None, code, now, result)


def _opened(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        what = f"can't write events to {path}"
        raise bad("unwritable", what, got=error.strerror, mend="give another file") from error


def _above(display: Any, text: str) -> None:
    """A line that stays, above a live display."""
    console = getattr(display, "console", None)
    if console is not None:
        console.print(text, markup=False, soft_wrap=True)
    else:
        print(text, file=sys.stderr, flush=True)


def _past(display: Any, folder: Folder) -> None:
    """Tell a display what a run did before, without printing it."""
    for event in folder.events():
        if event.get("type") in ("run_started", "planned", "evaluated", "round_done"):
            display.view.feed(event, time.monotonic())


def _goes_on(display: Any, name: str, event: Mapping[str, Any]) -> None:
    """From where a run goes on, above its live display."""
    display.view.feed(event, time.monotonic())
    of = f" of {display.view.rounds}" if display.view.rounds else ""
    job = digest(display.view.started.get("job_digest"), 3)
    _above(display, f"{name}  from round {event['from_round']}{of}, job {job}, bit for bit as unstopped")


# ---- when it is over


def finish(out: Out, ran: Ran, *, again: str, resumed: bool = False) -> int:
    """Say how a run ended, on standard output, and give the exit code."""
    from manyloom.track import record
    from manyloom.track.document import summary
    from manyloom.track.folder import Folder

    if ran.folder is None or not (ran.folder / "run.json").is_file():
        out.warn("interrupted before the run began; nothing was saved")
        if out.json:
            problem = Problem("interrupted", "interrupted before the run began", mend=again or None)
            write(dumps({"schema": "manyloom.error/1", "ok": False, "errors": [problem.to_json()],
                         "next": [again] if again else []}))  # fmt: skip
        return ran.code
    from manyloom.cli import ending

    folder = Folder(ran.folder)
    found = record.read(folder)
    if found.status != "interrupted":  # who stops a run wants to be gone; `report` writes it when asked
        _report(out, folder)
    error = _error(found)
    commands = _next(found)
    document: dict[str, Any] = {**summary(folder), "error": error.to_json() if error else None}
    if resumed:
        document["resumed_from"] = found.resumed[-1] if found.resumed else 0
    if error is not None:
        say_problem(out, ending.failed(error, found))
    human = ending.human(found, shown(ran.folder), plain=out.plain or not sys.stderr.isatty(), now=ran.now)
    out.emit(document, human, made=ran.run, next=commands, ok=ran.code == 0)
    return ran.code


def _report(out: Out, folder: Folder) -> None:
    """The report beside the run. That it can't be drawn is no failure of the run."""
    from manyloom.track.report import write as written

    try:
        written(folder)
    except Exception as error:
        if out.verbose:
            traceback.print_exception(error)
        said = str(error).split("\n")[0]
        out.note(f"note     the report could not be written ({type(error).__name__}: {said})")


def _error(found: Run) -> Problem | None:
    """Why a run failed, as its last event says it."""
    if found.status != "failed":
        return None
    told = cast("dict[str, str | None]", found.error) if found.error else {}
    mend = told.get("mend") or f"go on:\nmanyloom resume {found.id}"
    what = told.get("what") or str(found.reason or "the run failed")
    return Problem(told.get("code") or "failed", what, told.get("got"), told.get("where"), told.get("rule"), mend)


def _next(found: Run) -> list[Next]:
    if found.status in ("interrupted", "failed"):
        return [f"manyloom resume {found.id}"]
    if not found.baselines:
        return [f"manyloom show {found.id}", f"manyloom card {found.id}"]
    return [(f"manyloom show {found.id}", "each client, bytes, time, files"),
            (f"manyloom card {found.id}", "a model card, data protection included"),
            ("manyloom new my-job", "start your own")]  # fmt: skip
