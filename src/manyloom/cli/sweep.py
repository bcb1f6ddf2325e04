"""`sweep`: a grid of runs, their table, the best. What is done already is not done again."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from manyloom.cli.members import DONE, Work, outcome, results
from manyloom.cli.out import WIDTH, Out, complete_jobs, fields
from manyloom.cli.parse import grid as read_grid
from manyloom.cli.parse import job_path
from manyloom.cli.process import Stop, settle
from manyloom.core.errors import Problem, bad
from manyloom.core.text import bar, clock, columns, metric, metrics_line, number, plural
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.job.kinds import AnyJob
    from manyloom.job.sweep import Member, Outcome, Row, Settings
    from manyloom.track.store import Store, Writer


STOPPING = "stopping after this round; Ctrl-C again stops now. Called again it goes on"


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

    def make(settings: Settings) -> AnyJob:
        return Job.from_toml(str(path), fixed | settings, folder)

    grids.check(lists)
    base = make({})
    members = grids.members(lists, make)
    if sort is not None:
        _known_metric(sort, ("loss", *base.metrics))
        members = [grids.Member(m.settings, m.digest, sort) for m in members]
    from manyloom.track.store import Store

    identity = {"job": base.digest, "keys": sorted(lists)}
    with (
        Store.open(out.home) as store,
        _writer(store, base, identity) as writer,
        Stop(lambda _: out.note(STOPPING)) as stop,
    ):
        stop.begun = True  # from here on what is done stays done
        done = _finished(store, writer.run_id, members)
        began = time.monotonic()
        todo = [m for m in members if m.digest not in done]
        again = f", {len(done)} done before" if done else ""
        at_once = f", {jobs} at a time" if jobs > 1 else ""
        out.note(f"sweep    {writer.run_id}  {plural(len(members), ('run', 'runs'))}{at_once}{again}")
        failed: list[tuple[Member, Problem]] = []
        work = Work(path, out, folder, writer.run_id, fixed)
        run = work.here if jobs == 1 else work.beside
        for n, (member, ended) in enumerate(results(todo, run, jobs, stop), len(done) + 1):
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
    more = shlex.join(["manyloom", "sweep", job, *(values or [])])
    ahead = [more] if code else [f"manyloom compare {name}"]
    out.emit(document, _human(name, members, rows, done, took), made=name, next=ahead, ok=code == 0)
    return code


# ---- its folder


def _writer(store: Store, job: AnyJob, identity: Mapping[str, object]) -> Writer:
    """The folder of the sweep of this job over these keys: the newest there is, or a new one."""
    from manyloom.session import UNNAMED

    for row in store.runs():
        if row["kind"] != "sweep":
            continue
        folder = store.resolve(str(row["id"]))
        if folder.record().get("sweep") == identity and folder.holder() is None:
            writer = store.resume(folder)
            writer.append({"type": "resumed", "from_round": 0})
            return writer
    writer = store.create(f"{job.name}-sweep", kind="sweep", toml=f"{UNNAMED}: a sweep of it\n{job.to_toml()}",
                          digest=job.digest, record={"sweep": dict(identity), "rounds_planned": 0})  # fmt: skip
    writer.append({
        "type": "run_started", "run": writer.run_id, "name": f"{job.name}-sweep", "job_digest": job.digest,
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


# ---- what it prints


def _human(name: str, members: Sequence[Member], rows: Sequence[Row], done: Mapping[str, Outcome], took: float) -> str:
    from manyloom.job.sweep import best

    n, of = sum(m.digest in done for m in members), len(members)
    ascii = not (sys.stdout.encoding or "").lower().startswith("utf")
    lines = [
        fields(("sweep", f"{name}  {plural(of, ('run', 'runs'))}")),
        fields(("runs", f"{n}/{of}  {bar(n / of, 38, ascii)}  {clock(took)}")),
    ]
    if (first := best(rows)) is not None:
        watch = members[0].watched
        lines += [_table(rows, watch, first), fields(("best", _best(rows, watch, first)))]
    return "\n".join([*lines, fields(("privacy", "none spent"))])


def _table(rows: Sequence[Row], watch: str, first: Row) -> str:
    from manyloom.job.sweep import plain

    keys = list(rows[0].settings)
    heads = [k.rpartition(".")[2] for k in keys]
    heads = [h if heads.count(h) == 1 else k for h, k in zip(heads, keys, strict=True)] or [""]
    several = max(r.seeds for r in rows) > 1
    head = [*heads, *(["seeds", f"{watch} mean", "spread"] if several else ["runs", watch]), "", "loss", "seconds"]
    cells = [
        [*([plain(r.settings[k])[:24] for k in keys] or ["all"]), str(r.seeds), number(r.mean),
         *([number(r.spread) if r.spread is not None else "-"] if several else []),
         "*" if r is first else "", number(r.loss), f"{r.seconds:.1f}" if r.seconds is not None else "n/a"]
        for r in rows
    ]  # fmt: skip
    body = columns(head, cells, (*range(len(heads)), len(head) - 3))
    return "\n".join(line[:WIDTH] for line in body.split("\n"))


def _best(rows: Sequence[Row], watch: str, first: Row) -> str:
    """Which setting is best, and whether chance could have ordered it so."""
    from manyloom.job.sweep import told, within

    if not first.settings:
        return f"{metric(watch)} {number(first.mean)}, the mean of {plural(first.seeds, ('seed', 'seeds'))}"
    close, others = len(within(rows, first)), sum(r.mean is not None for r in rows) - 1
    which = f"{close} of {others} others"
    if close == others:
        which = {1: "the other", 2: "both others"}.get(others, "all others")
    chance = f"; within the spread of {which}" if close else ""
    return f"{told(first.settings)} (by {metric(watch)}, then loss{chance})"


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
