"""The runs of a sweep: one after the other in this process, or several at a time in processes beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from manyloom.cli.out import Out
from manyloom.cli.process import Stop, settle
from manyloom.core.errors import ManyloomError, Problem

if TYPE_CHECKING:
    from manyloom.job.sweep import Member, Outcome, Settings
    from manyloom.track.folder import Folder

DONE = ("done", "stopped")


@dataclass(frozen=True)
class Work:
    """How one member is run: here, or in a process beside."""

    path: Path
    out: Out
    data_dir: str | None
    sweep: str
    fixed: Mapping[str, object]

    def here(self, member: Member, stop: Callable[[], bool]) -> Outcome | Problem | None:
        """In this process; None if it was interrupted."""
        settings = {**self.fixed, **member.settings}
        return run_member(str(self.path), settings, str(self.out.home), self.data_dir, self.sweep, stop)

    def beside(self, member: Member, stop: Callable[[], bool]) -> Outcome | Problem | None:
        """In a process of its own, which is asked to stop as this one is."""
        ask = {"path": str(self.path), "settings": {**self.fixed, **member.settings}, "home": str(self.out.home),
               "data_dir": self.data_dir, "sweep": self.sweep}  # fmt: skip
        code = "from manyloom.cli.members import worker; worker()"
        asked = False
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              start_new_session=True) as process:  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(ask))
            process.stdin.close()
            while process.poll() is None:
                if stop() and not asked:
                    process.terminate()
                    asked = True
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
            said = process.stdout.read()
        return _answer(said, process.returncode, asked)


def _answer(text: str, code: int, asked: bool) -> Outcome | Problem | None:
    from manyloom.job.sweep import Outcome

    try:
        told = cast("dict[str, Any]", json.loads(text))
    except ValueError:
        return None if asked else Problem("run-failed", f"its process ended with code {code}")
    if told.get("problem"):
        return Problem(**told["problem"])
    return Outcome(told["run"], told["final"], told["seconds"]) if told.get("run") else None


def worker() -> None:
    """The process beside: one member from standard input, its outcome as JSON to standard output."""
    ask = json.loads(sys.stdin.read())
    settle()
    try:
        with Stop(lambda _: None) as stop:
            stop.begun = True  # what is saved of a run can go on
            found = run_member(ask["path"], ask["settings"], ask["home"], ask["data_dir"], ask["sweep"], stop)
    except KeyboardInterrupt:
        found = None
    told: dict[str, Any] = {}
    if isinstance(found, Problem):
        told = {"problem": found.to_json()}
    elif found is not None:
        told = {"run": found.run, "final": found.final, "seconds": found.seconds}
    print(json.dumps(told), flush=True)


def run_member(
    path: str, settings: Settings, home: str, data_dir: str | None, sweep: str, stop: Callable[[], bool]
) -> Outcome | Problem | None:
    """Run one job of a sweep to its end, going on with what is there of it; None if it was interrupted."""
    from manyloom import session
    from manyloom.job.job import Job
    from manyloom.track.store import Store

    job = Job.from_toml(path, settings, data_dir)
    with Store.open(home) as store:
        begun = [f.name for f in store.children(sweep) if f.record().get("job_digest") == job.digest]
    name, status, error = begun[-1] if begun else "", "interrupted", None
    try:
        events = session.run(job, home=home, resume=name or None, parent=None if name else sweep, stop=stop)
        for event in events:
            told = event.to_json()
            name = told["run"] if told["type"] == "run_started" else name
            if told["type"] == "run_done":
                status, error = told["status"], told["error"]
    except ManyloomError as problem:
        return problem.problems[0]
    if status in DONE:
        with Store.open(home) as store:
            return outcome(store.resolve(name))
    if status == "failed":
        return Problem(**error) if error else Problem("run-failed", f"{name} failed")
    return None


def results(
    todo: Sequence[Member],
    run: Callable[[Member, Callable[[], bool]], Outcome | Problem | None],
    jobs: int,
    stop: Stop,
) -> Iterator[tuple[Member, Outcome | Problem]]:
    """Members as they end, at most `jobs` at a time; no new one begins after a stop."""
    if jobs == 1:
        for member in todo:
            if stop():
                return
            found = run(member, stop)
            if found is not None:
                yield member, found
        return
    with ThreadPoolExecutor(jobs) as pool:
        waiting = list(todo)
        going: dict[Future[Outcome | Problem | None], Member] = {}
        while going or (waiting and not stop()):
            while waiting and len(going) < jobs and not stop():
                member = waiting.pop(0)
                going[pool.submit(run, member, stop)] = member
            for ended in wait(going, timeout=0.2, return_when=FIRST_COMPLETED).done:
                member, found = going.pop(ended), ended.result()
                if found is not None:
                    yield member, found


def outcome(folder: Folder) -> Outcome:
    """What a finished run came to."""
    from manyloom.job.sweep import Outcome
    from manyloom.track.document import summary

    told = summary(folder)
    return Outcome(folder.name, told["final"] or {}, told["seconds"]["total"])
