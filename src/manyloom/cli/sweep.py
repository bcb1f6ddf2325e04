"""`sweep`: a grid of runs, their table, the best. What is done already is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Argument, Option

from manyloom.cli.out import WIDTH, Out, complete_jobs, fields
from manyloom.cli.parse import grid as read_grid
from manyloom.cli.parse import job_path
from manyloom.cli.process import Stop, settle
from manyloom.core.errors import ManyloomError, Problem, bad
from manyloom.core.text import bar, clock, columns, metric, metrics_line, number, plural, signed
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.job.sweep import Member, Outcome, Row, Settings
    from manyloom.track.folder import Folder
    from manyloom.track.store import Store, Writer

DONE = ("done", "stopped")


def sweep(
    out: Out,
    job: Annotated[
        str, Argument(metavar="JOB", autocompletion=complete_jobs, help="a job file, or a shipped job: heart, digits")
    ],
    values: Annotated[
        list[str] | None,
        Argument(metavar="TABLE.KEY=A,B ...", help="values to try, as in algorithm.lr=0.3,0.1 job.seed=1,2,3"),
    ] = None,
    jobs: Annotated[int, Option("--jobs", metavar="N", min=1, help="runs at a time [1]")] = 1,
    sort: Annotated[
        str | None, Option("--sort", metavar="METRIC", help="what the table is sorted by [what the job watches]")
    ] = None,
) -> int:
    """Run every combination of some values, and say which is best.

    Seeds of one setting are one row. Called again, a sweep goes on where it was: what is done is not run again,
    and further values join it.
    """
    given = read_grid(values or [], job)
    path = job_path(job)
    settle()
    from manyloom.job import sweep as grids
    from manyloom.job.job import Job

    folder = str(out.data_dir) if out.data_dir else None

    fixed = {k: v[0] for k, v in given.items() if len(v) == 1}
    lists = {k: v for k, v in given.items() if len(v) != 1}

    def make(settings: Settings) -> Job:
        return Job.from_toml(str(path), fixed | settings, folder)

    grids.check(lists)
    base = make({})
    members = grids.members(lists, make)
    if sort is not None:
        _known_metric(sort, ("loss", *base.metrics))
        members = [grids.Member(m.settings, m.digest, sort) for m in members]
    from manyloom.track.store import Store

    identity = {"job": base.digest, "keys": sorted(lists)}
    with Store.open(out.home) as store, _writer(store, base.name, identity) as writer, Stop(out.note) as stop:
        done = _finished(store, writer.run_id, members)
        began = time.monotonic()
        todo = [m for m in members if m.digest not in done]
        again = f", {len(done)} done before" if done else ""
        at_once = f", {jobs} at a time" if jobs > 1 else ""
        out.note(f"sweep    {writer.run_id}  {plural(len(members), ('run', 'runs'))}{at_once}{again}")
        failed: list[tuple[Member, Problem]] = []
        work = _Work(path, out, folder, writer.run_id, fixed)
        run = work.here if jobs == 1 else work.beside
        for n, (member, ended) in enumerate(_results(todo, run, jobs, stop), len(done) + 1):
            if isinstance(ended, Problem):
                failed.append((member, ended))
                out.warn(f"failed   {n}/{len(members)} {member.told()}: {ended.what}")
                continue
            done[member.digest] = ended
            told = metrics_line({k: v for k, v in ended.final.items() if k in (member.watched, "loss")}, member.watched)
            out.note(f"run      {n}/{len(members)} {ended.run}  {member.told()}  {told}")
        rows = grids.table(members, done)
        code = _end(writer, members, rows, done, failed, stop)
        name = writer.run_id
    took = time.monotonic() - began
    document: dict[str, Any] = {
        "sweep_id": name,
        "status": "interrupted" if code >= 128 else "failed" if code else "done",
        "watch": members[0].watched,
        "runs": [_run(m, done.get(m.digest), dict(failed_by(failed))) for m in members],
        "table": [_row(r) for r in rows],
        "best": _row(first) if (first := grids.best(rows)) else None,
        "epsilon_total": None,
        "seconds": took,
    }
    more = " ".join(["manyloom sweep", job, *(values or [])])
    ahead = [more] if code else [f"manyloom compare {name}"]
    out.emit(document, _human(name, members, rows, done, took), made=name, next=ahead, ok=code == 0)
    return code


# ---- its folder


def _writer(store: Store, job: str, identity: Mapping[str, object]) -> Writer:
    """The folder of the sweep of this job over these keys: the newest there is, or a new one."""
    for row in store.runs():
        if row["kind"] != "sweep":
            continue
        folder = store.resolve(str(row["id"]))
        if folder.record().get("sweep") == identity and folder.holder() is None:
            writer = store.resume(folder)
            writer.append({"type": "resumed", "from_round": 0})
            return writer
    writer = store.create(f"{job}-sweep", kind="sweep", record={"sweep": dict(identity), "rounds_planned": 0})
    writer.append({
        "type": "run_started", "run": writer.run_id, "name": f"{job}-sweep", "job_digest": identity["job"],
        "rounds": 0, "seed": None, "algorithm": "sweep", "clients": [], "population": {"clients": 0},
        "metrics": [], "watch": None,
    })  # fmt: skip
    return writer


def _finished(store: Store, sweep: str, members: Sequence[Member]) -> dict[str, Outcome]:
    """digest -> outcome of what is done already."""
    wanted = {m.digest for m in members}
    found: dict[str, Outcome] = {}
    for folder in store.children(sweep):
        record = folder.record()
        if record.get("status") in DONE and record.get("job_digest") in wanted:
            found[str(record["job_digest"])] = outcome(folder)
    return found


def outcome(folder: Folder) -> Outcome:
    """What a finished run came to."""
    from manyloom.job.sweep import Outcome
    from manyloom.track.document import summary

    told = summary(folder)
    return Outcome(folder.name, told["final"] or {}, told["seconds"]["total"])


def _end(
    writer: Writer,
    members: Sequence[Member],
    rows: Sequence[Row],
    done: Mapping[str, Outcome],
    failed: Sequence[tuple[Member, Problem]],
    stop: Stop,
) -> int:
    """The sweep's last event, its table beside it, and the exit code."""
    from manyloom.job.sweep import best

    first = best(rows)
    final = {members[0].watched: first.mean, "loss": first.loss} if first else None
    writer.write("sweep.json", json.dumps({"watch": members[0].watched, "table": [_row(r) for r in rows]}) + "\n")
    whole = all(m.digest in done for m in members)
    status = "done" if whole else "failed" if failed and not stop() else "interrupted"
    reason = None if whole else f"{len(failed)} of {len(members)} runs failed" if failed else "asked to stop"
    writer.append({"type": "run_done", "status": status, "reason": reason, "final": final, "next": []})
    return 0 if whole else 1 if status == "failed" else stop.code or 130


# ---- its runs


@dataclass(frozen=True)
class _Work:
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
        code = "from manyloom.cli.sweep import worker; worker()"
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
    with Stop(lambda _: None) as stop:
        found = run_member(ask["path"], ask["settings"], ask["home"], ask["data_dir"], ask["sweep"], stop)
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


def _results(
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


# ---- what it prints


def _human(
    name: str, members: Sequence[Member], rows: Sequence[Row], done: Mapping[str, Outcome], took: float
) -> str:
    from manyloom.job.sweep import best, plain, told, within

    n, of = sum(m.digest in done for m in members), len(members)
    watch = members[0].watched
    keys = list(rows[0].settings)
    heads = [k.rpartition(".")[2] for k in keys]
    heads = [h if heads.count(h) == 1 else k for h, k in zip(heads, keys, strict=True)]
    first = best(rows)
    several = max((r.seeds for r in rows), default=0) > 1
    head = [*heads, *(["seeds", f"{watch} mean", "spread"] if several else ["runs", watch]), "", "loss", "seconds"]
    cells = [
        [*(plain(r.settings[k])[:24] for k in keys), str(r.seeds), number(r.mean),
         *([signed(r.spread).lstrip("+") if r.spread is not None else "-"] if several else []),
         "*" if r is first else "", number(r.loss), number(r.seconds)[:-2] if r.seconds is not None else "n/a"]
        for r in rows
    ]  # fmt: skip
    left = (*range(len(keys)), len(head) - 3)
    if not keys:
        head, left = ["", *head], (0, len(head) - 2)
        cells = [["all", *c] for c in cells]
    body = columns(head, cells, left)
    lines = [
        fields(("sweep", f"{name}  {plural(of, ('run', 'runs'))}")),
        fields(("runs", f"{n}/{of}  {bar(n / of, 38)}  {clock(took)}")),
        body if len(body.split("\n")[0]) <= WIDTH else "\n".join(line[:WIDTH] for line in body.split("\n")),
    ]
    if first is not None and keys:
        close = within(rows, first)
        others = len([r for r in rows if r.mean is not None]) - 1
        chance = ""
        if close:
            which = "all others" if len(close) == others > 2 else "both others" if len(close) == others == 2 else (
                "the other" if others == 1 else f"{len(close)} others")  # fmt: skip
            chance = f"; within the spread of {which}"
        lines.append(fields(("best", f"{told(first.settings)} (by {metric(watch)}, then loss{chance})")))
    if first is not None and not keys:
        lines.append(fields(("best", f"{metric(watch)} {number(first.mean)}, the mean of {first.seeds} seeds")))
    lines.append(fields(("privacy", "none spent")))
    return "\n".join(lines)


def failed_by(failed: Sequence[tuple[Member, Problem]]) -> list[tuple[str, Problem]]:
    """By digest."""
    return [(m.digest, p) for m, p in failed]


def _run(member: Member, done: Outcome | None, failed: Mapping[str, Problem]) -> dict[str, Any]:
    problem = failed.get(member.digest)
    return {
        "run_id": done.run if done else None,
        "settings": member.settings,
        "job_digest": member.digest,
        "status": "done" if done else "failed" if problem else "open",
        "final": dict(done.final) if done else None,
        "seconds": done.seconds if done else None,
        "error": problem.to_json() if problem else None,
    }


def _row(row: Row) -> dict[str, Any]:
    return {"settings": row.settings, "runs": list(row.runs), "seeds": row.seeds, "mean": row.mean,
            "spread": row.spread, "loss": row.loss, "seconds": row.seconds}  # fmt: skip


def _known_metric(name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = nearest(name, known)
        raise bad("unknown-name", f'"{name}" is not measured', got=f"--sort {name}",
                  rule="measured: " + ", ".join(known), mend=f"did you mean {near}?" if near else None)  # fmt: skip
