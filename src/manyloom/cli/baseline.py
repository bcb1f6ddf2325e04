"""`baseline`: the job with all records pooled, or each client alone, as runs of their own."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from manyloom.cli.out import Next, Out, complete_jobs, fields
from manyloom.cli.parse import job_path, overrides
from manyloom.cli.process import Stop, settle
from manyloom.core.errors import Problem, bad
from manyloom.core.text import finite, listed, metric, metrics_line, number, ordered, plural, seconds
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.job.baseline import Baseline
    from manyloom.job.job import Job
    from manyloom.track.store import Writer

KINDS = ("central", "local")


def baseline(
    out: Out,
    kind: Annotated[str, Argument(metavar="KIND", help="central: all records pooled; local: each client alone")],
    job: Annotated[
        str, Argument(metavar="JOB", autocompletion=complete_jobs, help="a job file, or a shipped job: heart, digits")
    ],
    changes: Annotated[
        list[str] | None, Argument(metavar="TABLE.KEY=VALUE ...", help="changes to it, as in algorithm.lr=0.1")
    ] = None,
    of: Annotated[
        str | None, Option("--of", metavar="RUN", help="a run of this job, whose report then shows the baseline")
    ] = None,
) -> int:
    """Train a job without federation, to compare it with.

    The same model, rate and rounds, judged on the same held-out rows: with all records in one place, or at each
    client alone with its own records and statistics. In simulation only.
    """
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        raise bad("unknown-name", f'there is no baseline "{kind}"', got=kind, rule="central or local",
                  mend=f"did you mean {near}?" if near else "manyloom baseline central " + job)  # fmt: skip
    given = overrides(changes or [], job)
    path = job_path(job)
    settle()
    from manyloom.job.job import Job as Record
    from manyloom.job.kinds import horizontal
    from manyloom.track.store import Store

    made = horizontal(Record.from_toml(str(path), given, str(out.data_dir) if out.data_dir else None), "a baseline")
    parent = None
    if of is not None:
        with Store.open(out.home) as store:
            parent = store.resolve(of).name
    typed = shlex.join([job, *(changes or [])])
    return _central(out, made, typed, parent) if kind == "central" else _local(out, made, typed, parent)


def _central(out: Out, job: Job, typed: str, of: str | None) -> int:
    """An ordinary run over one client that holds everything, then judged client by client."""
    from manyloom import session
    from manyloom.cli.run import execute, finish
    from manyloom.job import baseline as jobs
    from manyloom.runtime.local import Local

    began = time.perf_counter()
    word = job.federation.client_word[1]
    out.note(f"note     this pools all {word}' records in one process: simulation only")
    ran = execute(
        out, lambda stop: session.run(jobs.central(job), home=out.home, kind="baseline", parent=of, stop=stop)
    )
    if ran.folder is None or not ran.folder.is_dir():
        return finish(out, ran, again=f"manyloom baseline central {typed}")
    if ran.status not in ("done", "stopped"):
        document = _document(out, ran.run, of, "central")
        error = document["error"]
        out.warn(Problem(**error).text() if error else f"interrupted after round {document['rounds']} of {job.rounds}")
        ahead = [f"manyloom baseline central {typed}"]
        out.emit(document, "", made=ran.run, next=ahead, ok=False)
        return ran.code
    judged = jobs.judge(job, _fitted(ran.folder, job), Local())
    found = jobs.of_central(judged, ran.run, time.perf_counter() - began)
    _tell(out, ran.run, of, found, _toml(job, "all records pooled"))
    return _end(out, ran.run, found, job, of, typed)


def _fitted(folder: Path, job: Job) -> Any:
    """What `judge` takes, of a finished central run: its last checkpoint."""
    from manyloom.data.preprocess import Preprocess
    from manyloom.job import baseline as jobs
    from manyloom.job import checkpoint

    state = checkpoint.latest(folder / "checkpoints")
    assert state is not None  # a finished run has saved its last round
    schema = job.federation.schema
    pre = Preprocess.from_slots(schema, state.preprocess) if schema is not None else None
    return jobs.fitted(jobs.central(job), state, pre)


def _local(out: Out, job: Job, typed: str, of: str | None) -> int:
    """One folder for all models that were trained alone: its final metrics are means over the clients."""
    from manyloom.core.slots import to_bytes
    from manyloom.job import baseline as jobs
    from manyloom.runtime.local import Local
    from manyloom.track.environment import environment
    from manyloom.track.store import Store

    fed = job.federation
    clients = jobs.everyone(job)
    one, many = fed.client_word
    if len(clients) < len(job.eligible):
        out.note(f"note     {len(clients)} of {len(job.eligible)} {many}, drawn by the seed, are trained alone")
    began = time.perf_counter()
    about = {"model": job.task.name or "module", "rounds_planned": job.rounds, "seed": job.seed,
             "algorithm": jobs.plain(job.algorithm).name}  # fmt: skip
    name = f"{job.name}-local"
    with (
        Store.open(out.home) as store,
        store.create(name, toml=_toml(job, "each client alone"), digest="~" + job.digest[1:], env=environment(),
                     kind="baseline", parent=of, record=about) as writer,
        Stop(lambda _: out.note(f"stopping after this {one}; Ctrl-C again stops now")) as stop,
    ):  # fmt: skip
        stop.begun = True
        writer.append(_started(replace(job, name=name), writer, len(clients)))
        judged: dict[int, Any] = {}
        for i, found, metrics in jobs.each_alone(job, Local, clients.tolist()):
            judged[i] = metrics
            writer.write(f"clients/{i:05d}.safetensors", to_bytes(found.model | found.slots))
            own = metrics.clients.get(i, metrics.metrics)
            few = "positives" in own and min(own["positives"], own["rows"] - own["positives"]) < jobs.FEW
            shown = {k: v for k, v in own.items() if k in ("loss", *job.metrics) and not (few and k == "auc")}
            out.note(f"alone    {len(judged)}/{len(clients)} {fed.names[i]}: {metrics_line(shown, job.watched)}")
            if stop():
                break
        whole = jobs.of_local(judged, writer.run_id, time.perf_counter() - began)
        done = len(judged) == len(clients)
        for event in _outcome(job, whole, done):
            writer.append(event)
    if not done:
        out.warn(f"interrupted after {plural(len(judged), (one, many))}: there is nothing to compare with yet")
        out.emit(_document(out, writer.run_id, of, "local"), "", made=writer.run_id,
                 next=[f"manyloom baseline local {typed}"], ok=False)  # fmt: skip
        return stop.code or 130
    if of is not None:
        _tell(out, of, None, whole)
    return _end(out, whole.run or "", whole, job, of, typed)


def _started(job: Job, writer: Writer, trained: int) -> dict[str, Any]:
    fed = job.federation
    info = fed.info
    few = len(fed) <= 1000
    sizes = zip(fed.names, fed.sizes.tolist(), fed.tests.tolist(), strict=True)
    clients = [{"client": i, "name": name, "train": train, "test": test, "labels": None}
               for i, (name, train, test) in enumerate(sizes)] if few else None  # fmt: skip
    return {
        "type": "run_started", "run": writer.run_id, "name": job.name, "job_digest": "~" + job.digest[1:],
        "rounds": job.rounds,
        "seed": job.seed, "algorithm": "fedavg", "paper": "", "model": {"name": job.task.name, "parameters": None},
        "clients": clients, "population": {"clients": len(fed), "alone": trained}, "runtime": "sequential",
        "execution": {}, "source": {"name": info.name, "title": info.title, "licence": info.licence,
                                    "attribution": info.attribution},
        "client_word": list(fed.client_word), "row_word": list(fed.row_word), "target": fed.target,
        "classes": list(fed.labels), "metrics": ["loss", *job.metrics], "watch": job.watched,
    }  # fmt: skip


def _outcome(job: Job, found: Baseline, done: bool) -> list[dict[str, Any]]:
    """The last events: all rounds at once, how the models do, the end."""
    if not done:
        return [{"type": "run_done", "status": "interrupted", "reason": "asked to stop", "final": None, "next": []}]
    free = {"bytes_up": 0, "bytes_down": 0}
    rows = int(sum(m["rows"] for m in found.clients.values()))
    return [
        {"type": "evaluated", "round": job.rounds, "split": "test", "metrics": found.metrics, "clients": found.clients,
         "rows": rows, "positives": None, "spread": {}, "seconds": 0.0, "covered": False, **free},
        {"type": "round_done", "round": job.rounds, "attempt": 0, "asked": len(found.alone_on_all),
         "back": len(found.alone_on_all), "lost": 0, "loss_train": None, "seconds": found.seconds,
         "phases": {"train": found.seconds}, **free},
        found.to_json(),
        {"type": "run_done", "status": "done", "reason": None, "final": found.metrics, "next": []},
    ]  # fmt: skip


def _toml(job: Job, how: str) -> str:
    """The job that it is the baseline of, marked as what `resume` can't take."""
    from manyloom.session import UNNAMED

    return f"{UNNAMED}: {job.name}, {how}\n{job.to_toml()}"


def _tell(out: Out, run: str, of: str | None, found: Baseline, toml: str | None = None) -> None:
    """The baseline as an event of its own run (which gets its job), and of the run that it is compared with."""
    from manyloom.track.store import Store

    for name in [run, *([of] if of else [])]:
        with Store.open(out.home) as store, store.resume(store.resolve(name)) as writer:
            writer.append(found.to_json())
            if toml is not None and name == run:
                writer.write("job.toml", toml)


def _end(out: Out, run: str, found: Baseline, job: Job, of: str | None, typed: str) -> int:
    fed = job.federation
    done = _sentence(found, job)
    few = ""
    if found.few:
        few = (f"AUC without {listed(fed.names[i] for i in found.few)}: "
               f"fewer than 5 held-out {fed.row_word[1]} of a class")  # fmt: skip
    human = fields(("done", done), ("on all", _ranges(found, job)), ("left out", few), ("run", run))
    ahead: list[Next] = [f"manyloom compare {of} {run}"] if of else [f"manyloom run {typed} --baselines"]
    out.emit(_document(out, run, of, found.kind), human, made=run, next=ahead)
    return 0


def _sentence(found: Baseline, job: Job) -> str:
    fed = job.federation
    told = metrics_line({k: v for k, v in found.metrics.items() if k != "loss"} or found.metrics, job.watched)
    took = f", {seconds(found.seconds)}" if found.seconds else ""
    if found.kind == "central":
        rows = int(sum(m["rows"] for m in found.clients.values())) or (len(fed.own.rows) if fed.own else 0)
        one, many = ("token", "tokens") if fed.target == "text" else fed.row_word
        return f"{told} on {plural(rows, ('held-out ' + one, 'held-out ' + many))}{took}"
    one, many = fed.client_word
    return f"{told}: mean of {plural(len(found.alone_on_all), (one, many))}, each on its own {fed.row_word[1]}{took}"


def _ranges(found: Baseline, job: Job) -> str:
    known = found.ranges()
    names = [n for n in ordered(known, job.watched) if n != "loss" and finite(known[n][0]) is not None]
    told = [f"{metric(n)} {number(known[n][0])} to {number(known[n][1])}" for n in names]
    rows = job.federation.row_word[1]
    return f"{', '.join(told)}: each model on the held-out {rows} of all" if told else ""


def _document(out: Out, run: str, of: str | None, kind: str) -> dict[str, Any]:
    """As the document of a run, and what it is the baseline of."""
    from manyloom.track import record
    from manyloom.track.document import summary
    from manyloom.track.store import Store

    with Store.open(out.home) as store:
        folder = store.resolve(run)
    return {**summary(folder), "error": record.read(folder).error, "of": of, "kind": kind}
