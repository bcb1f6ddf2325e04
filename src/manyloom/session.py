"""Job, runtime and run store, put together: `run`, `resume`, `train`, `plan`, `load`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from manyloom.core.errors import BadInput, Problem, RunFailed, bad
from manyloom.core.exchange import Runtime
from manyloom.core.text import slug
from manyloom.job import checkpoint
from manyloom.job.events import (
    ClientLost,
    Event,
    Missing,
    Note,
    Planned,
    Resumed,
    RoundDone,
    RunDone,
    RunStarted,
    Saved,
)
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.plan import Plan
from manyloom.job.plan import of as plan_of
from manyloom.job.plan import plan as plan
from manyloom.job.prepare import Prepared, module_of, prepare
from manyloom.job.state import State
from manyloom.runtime.local import Local
from manyloom.track.document import history, summary
from manyloom.track.environment import environment
from manyloom.track.folder import Folder
from manyloom.track.model import SavedModel, load_model, save_model
from manyloom.track.progress import progress as display
from manyloom.track.result import Result
from manyloom.track.store import Store, Writer

Progress = Literal["auto", "live", "plain"] | None
SPARE = 0.05  # the share of a run's time that checkpoints may take
PATIENCE_S = 10.0  # but one is saved at least so often
UNNAMED = "# no job file can hold this job"


def run(
    job: Job,
    runtime: Runtime | None = None,
    *,
    home: str | Path | None = None,
    resume: str | None = None,
    kind: str = "run",
    parent: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Run a job and yield its events; every one is also written to the run's folder.

    Wrong input is refused before the folder exists. The last event is a `RunDone`; its `result` has the model.

    Args:
        job: the job.
        runtime: who answers; in this process by default.
        home: of the run store; default MANYLOOM_HOME, else `.manyloom`.
        resume: a run of this very job that goes on from its last checkpoint.
        kind: run, baseline, sweep.
        parent: the run this one belongs to.
        stop: asked after each round; True ends the run as interrupted, resumable.

    Raises:
        BadInput: the job can't run, or (`digest-changed`) is not the job of the run to resume.
    """
    runtime = runtime or Local()
    if resume is None:
        return _events(job, runtime, prepare(job, runtime), home, kind=kind, parent=parent, stop=stop)
    with Store.open(home) as store:
        folder = store.resolve(resume)
    was = (folder.path / "job.digest").read_text().strip()
    if was != job.digest:
        raise bad(
            "digest-changed",
            f"{folder.name} was another job",
            got=f"here {job.digest[:8]}, there {was[:8]}",
            rule="a run goes on with the job it began with",
            mend="run it as a new job, or resume it by its name",
        )
    return _go_on(job, runtime, folder, home, stop)


def resume(
    run: str,
    runtime: Runtime | None = None,
    *,
    home: str | Path | None = None,
    rounds: int | None = None,
    data_dir: str | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Go on with a run from its last checkpoint: bit for bit as if it had not stopped.

    Args:
        run: its name, a unique prefix, or "last".
        runtime: who answers; in this process by default.
        home: of the run store.
        rounds: more rounds than planned; the job's digest changes.
        data_dir: where the data lies now.
        stop: as of `run`.

    Raises:
        BadInput: no such run, or its job was made in Python of parts without names (`unnamed-part`).
        RunFailed: another process is writing it (`run-in-use`).
    """
    with Store.open(home) as store:
        folder = store.resolve(run)
    path = folder.path / "job.toml"
    if path.read_text().startswith(UNNAMED):
        raise bad(
            "unnamed-part",
            "this run's job was made in Python, of parts without names",
            got=folder.name,
            mend=f'ml.run(job, resume="{folder.name}") with the job that made it',
        )
    job = Job.from_toml(str(path), {}, data_dir=data_dir, base=folder.record().get("base"))
    if rounds is not None and rounds < job.rounds:
        raise bad("out-of-range", "rounds can only grow", got=f"--rounds {rounds}, planned {job.rounds}")
    extended = rounds is not None and rounds > job.rounds
    return _go_on(replace(job, rounds=rounds or job.rounds), runtime or Local(), folder, home, stop, extended)


def _go_on(
    job: Job,
    runtime: Runtime,
    folder: Folder,
    home: str | Path | None,
    stop: Callable[[], bool],
    extended: bool = False,
) -> Iterator[Event]:
    state = checkpoint.latest(folder.path / "checkpoints")
    if state is not None and extended:  # it may have come to an end that more rounds lift
        state = replace(state, record={k: v for k, v in state.record.items() if k != "ended"})
    saved, execution = (state.preprocess, state.execution) if state else (None, None)
    ready = prepare(job, runtime, saved, execution)
    return _events(job, runtime, ready, home, folder=folder, state=state, stop=stop, extended=extended)


def train(
    job: Job,
    runtime: Runtime | None = None,
    *,
    progress: Progress = "auto",
    home: str | Path | None = None,
) -> Result:
    """`run` to its end, with a progress display on a terminal; its result.

    Raises:
        RunFailed: the run failed; what was saved is kept.
    """
    done: RunDone | None = None
    shown = display(progress)
    try:
        for event in run(job, runtime, home=home):
            if shown is not None:
                shown.feed(event.to_json())
            if isinstance(event, RunDone):
                done = event
    finally:
        if shown is not None:
            shown.close()
    assert done is not None  # every run ends with it
    if done.status == "failed":
        raise RunFailed(Problem(**cast("dict[str, Any]", done.error)))
    return cast(Result, done.result)


def load(run: str | Path, home: str | Path | None = None) -> SavedModel:
    """The model of a finished run, by its name, or of a folder with model.safetensors and model.json."""
    if (Path(run) / "model.json").is_file():
        return load_model(Path(run))
    with Store.open(home) as store:
        return load_model(store.resolve(str(run)).path)


def _events(
    job: Job,
    runtime: Runtime,
    ready: Prepared,
    home: str | Path | None,
    *,
    folder: Folder | None = None,
    state: State | None = None,
    kind: str = "run",
    parent: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    extended: bool = False,
) -> Iterator[Event]:
    with Store.open(home) as store, _writer(store, job, folder, kind, parent) as writer:
        if extended:
            writer.write("job.toml", job.to_toml())
            writer.write("job.digest", job.digest + "\n")
            writer.set(job_digest=job.digest, rounds_planned=job.rounds)
        try:
            yield from _written(job, runtime, ready, state or start(job, ready), writer, stop)
        finally:
            runtime.close()


def _writer(store: Store, job: Job, folder: Folder | None, kind: str, parent: str | None) -> Writer:
    if folder is not None:
        return store.resume(folder)
    try:
        toml = job.to_toml()
    except BadInput as error:
        toml = f"{UNNAMED}: {error.what}\n"
    about = {
        "model": job.task.name or "module",
        "rounds_planned": job.rounds,
        "seed": job.seed,
        "algorithm": job.algorithm.name,
        "base": job.base or None,
    }
    return store.create(
        job.name, toml=toml, digest=job.digest, env=environment(), kind=kind, parent=parent, record=about
    )


def _written(
    job: Job, runtime: Runtime, ready: Prepared, state: State, writer: Writer, stop: Callable[[], bool]
) -> Iterator[Event]:
    """The loop's events, each written before it is shown; checkpoints and the model beside them."""
    saved = _Saved(writer, state.round)
    for event in loop(job, runtime, ready, state, run=writer.run_id, stop=stop):
        if isinstance(event, RunDone):
            yield from saved.now(event.state)
            event = _ended(job, ready, event, writer)
        if isinstance(event, ClientLost) and event.detail:
            writer.write(f"lost/{event.round:03d}-{slug(event.name)}.txt", event.detail)
        writer.append(event.to_json())
        if isinstance(event, RunDone):
            event = replace(event, result=_result(job, ready, event, writer))
        yield event
        if isinstance(event, (RunStarted, Resumed)):
            yield from _opening(job, ready, writer, isinstance(event, Resumed))
        if isinstance(event, RoundDone):
            yield from saved.perhaps(event.state)


class _Saved:
    """Saves states: each if that is cheap, else at most a few seconds apart, and always the best."""

    def __init__(self, writer: Writer, round: int) -> None:
        self.writer, self.round = writer, round
        self.began = self.last = time.perf_counter()
        self.spent = 0.0

    def perhaps(self, state: State | None) -> Iterator[Event]:
        now = time.perf_counter()
        cheap = self.spent <= SPARE * (now - self.began) or now - self.last > PATIENCE_S
        if state is not None and (cheap or state.record.get("best_round") == state.round):
            yield from self.now(state)

    def now(self, state: State | None) -> Iterator[Event]:
        if state is None or state.round <= self.round:
            return
        mark = time.perf_counter()
        path, digest = checkpoint.save(state, self.writer.path / "checkpoints")
        self.round, self.last = state.round, time.perf_counter()
        self.spent += self.last - mark
        yield _put(self.writer, Saved(state.round, f"checkpoints/{path.name}", digest))


def _opening(job: Job, ready: Prepared, writer: Writer, resumed: bool) -> Iterator[Event]:
    if resumed:
        changed = ready.execution.get("changed")
        if changed:
            names = ", ".join(cast("dict[str, Any]", changed))
            yield _put(
                writer,
                Note(
                    "warning",
                    "not-bit-identical",
                    f"another {names} than before: the run goes on equal to tolerance, not bit for bit",
                ),
            )
        return
    p = plan_of(job, ready)
    yield _put(writer, Planned(p.bytes["up_round"], p.bytes["down_round"], p.seconds_estimate))
    gaps = job.federation.gaps() if len(job.federation) <= 50 else None
    if gaps is not None and job.federation.schema is not None:
        sizes = job.federation.sizes
        share = {i: [float(x) / max(1, int(sizes[i])) for x in row] for i, row in enumerate(gaps.tolist())}
        yield _put(writer, Missing([c.name for c in job.federation.schema.columns], share))


def _put(writer: Writer, event: Event) -> Event:
    writer.append(event.to_json())
    return event


def _ended(job: Job, ready: Prepared, event: RunDone, writer: Writer) -> RunDone:
    """Save the model and say what can be done next."""
    name = writer.run_id
    if event.state is not None and event.state.round > 0:
        writer.set(model_digest=save_model(writer.path, job, event.state, ready.preprocess))
    ahead = {"done": [f"manyloom report {name}"], "stopped": [f"manyloom report {name}"]}
    return replace(event, next=ahead.get(event.status, [f"manyloom resume {name}"]))


def _result(job: Job, ready: Prepared, event: RunDone, writer: Writer) -> Result:
    state = cast(State, event.state)
    model = module_of(job.task, ready.shape, job.seed, state.server, job.algorithm.server.model(state.server))
    told = summary(Folder(writer.path))
    return Result(
        run_id=writer.run_id,
        status=event.status,
        model=model,
        history=history(Folder(writer.path).events()),
        final=dict(event.final),
        clients=told["clients"],
        lost=told["lost"],
        bytes_up=told["bytes_up"],
        bytes_down=told["bytes_down"],
        seconds=told["seconds"]["total"],
        folder=writer.path,
        error=event.error,
    )


__all__ = ["Plan", "Result", "load", "plan", "resume", "run", "train"]
