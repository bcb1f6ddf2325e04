"""Job, runtime and run store, put together: `run`, `resume`, `train`, `plan`, `load`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from manyloom.core.errors import BadInput, Problem, RunFailed, bad
from manyloom.core.exchange import Runtime
from manyloom.job import checkpoint
from manyloom.job.events import Event, RunDone
from manyloom.job.job import Job
from manyloom.job.plan import Plan
from manyloom.job.state import State
from manyloom.session.kinds import kind_of
from manyloom.session.written import written
from manyloom.track.adapter import SavedAdapter
from manyloom.track.environment import environment
from manyloom.track.folder import Folder
from manyloom.track.model import SavedModel, load_model
from manyloom.track.progress import progress as display
from manyloom.track.result import Result
from manyloom.track.store import Store, Writer

if TYPE_CHECKING:
    from manyloom.job.kinds import AnyJob
    from manyloom.job.vertical.plan import Plan as VerticalPlan
    from manyloom.track.parts import JointModel

Progress = Literal["auto", "live", "plain"] | None
UNNAMED = "# no job file can hold this job"


def run(
    job: AnyJob,
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
        job: the job, of either kind.
        runtime: who answers; in this process by default.
        home: of the run store; default MANYLOOM_HOME, else `.manyloom`.
        resume: a run of this very job that goes on from its last checkpoint.
        kind: run, baseline, sweep.
        parent: the run this one belongs to.
        stop: asked after each round; True ends the run as interrupted, resumable.

    Raises:
        BadInput: the job can't run, or (`digest-changed`) is not the job of the run to resume.
    """
    if resume is None:
        how = kind_of(job)
        answers = runtime or how.runtime()
        return _events(job, answers, how.prepare(job, answers, None), home, kind=kind, parent=parent, stop=stop)
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


def plan(job: AnyJob, runtime: Runtime | None = None, *, tried: int = 0) -> Plan | VerticalPlan:
    """What a job will do: bytes, clients, skew, time, refusals. Nothing is trained.

    Args:
        job: the job.
        runtime: who would answer; in this process by default.
        tried: so many rounds are run on throw-away state and timed.

    Raises:
        BadInput: everything that a run would refuse.
    """
    how = kind_of(job)
    return how.plan(job, runtime or how.runtime(), tried)


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
    path, kind = folder.path / "job.toml", str(folder.record().get("kind") or "run")
    if kind != "run":
        raise bad(
            "not-a-run",
            f"{folder.name} is a {kind}, which goes on when its own command is given again",
            got=folder.name,
            mend=f"manyloom {kind} ... as before; what is done is kept",
        )
    if path.read_text().startswith(UNNAMED):
        raise bad(
            "unnamed-part",
            "this run's job was made in Python, of parts without names",
            got=folder.name,
            mend=f'ml.run(job, resume="{folder.name}") with the job that made it',
        )
    job = Job.from_toml(str(path), {}, data_dir=data_dir, base=folder.record().get("base"))
    if rounds is not None and rounds < job.rounds:
        raise bad(
            "out-of-range",
            "rounds can only grow",
            got=f"--rounds {rounds}, planned {job.rounds}",
            mend=f"--rounds {2 * job.rounds}",
        )
    extended = rounds is not None and rounds > job.rounds
    return _go_on(replace(job, rounds=rounds or job.rounds), runtime, folder, home, stop, extended)


def _go_on(
    job: AnyJob,
    runtime: Runtime | None,
    folder: Folder,
    home: str | Path | None,
    stop: Callable[[], bool],
    extended: bool = False,
) -> Iterator[Event]:
    state = checkpoint.latest(folder.path / "checkpoints")
    if state is not None and extended:  # it may have come to an end that more rounds lift
        state = replace(state, record={k: v for k, v in state.record.items() if k != "ended"})
    how = kind_of(job)
    answers = runtime or how.runtime()
    ready = how.prepare(job, answers, state)
    return _events(job, answers, ready, home, folder=folder, state=state, stop=stop, extended=extended)


def train(
    job: AnyJob,
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


def load(run: str | Path, home: str | Path | None = None) -> SavedModel | SavedAdapter | JointModel:
    """The model of a finished run, by its name or its folder: of a vertical run the parties' parts together, of a tuned
    language model its adapter."""
    path = Path(run)
    if not (path / "model.json").is_file() and not (path / "parts").is_dir():
        with Store.open(home) as store:
            path = store.resolve(str(run)).path
    if (path / "parts").is_dir():
        from manyloom.track.parts import load_parts

        return load_parts(path)
    return load_model(path)


def _events(
    job: AnyJob,
    runtime: Runtime,
    ready: Any,
    home: str | Path | None,
    *,
    folder: Folder | None = None,
    state: State | None = None,
    kind: str = "run",
    parent: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    extended: bool = False,
) -> Iterator[Event]:
    how, account, ended = kind_of(job), None, False
    with Store.open(home) as store, _writer(store, job, folder, kind, parent) as writer:
        if extended:
            writer.write("job.toml", job.to_toml())
            writer.write("job.digest", job.digest + "\n")
            writer.set(job_digest=job.digest, rounds_planned=job.rounds)
        try:
            mark = state.record.get("ledger") if state is not None else None
            account = how.account(job, writer.path, mark)
            for event in written(how, job, runtime, ready, state or how.start(job, ready), writer, stop, account):
                ended = isinstance(event, RunDone) and event.status in ("done", "stopped")
                yield event
        finally:
            runtime.close()
            if account is not None:
                account.close(ended)


def _writer(store: Store, job: AnyJob, folder: Folder | None, kind: str, parent: str | None) -> Writer:
    if folder is not None:
        return store.resume(folder)
    try:
        toml = job.to_toml()
    except BadInput as error:
        toml = f"{UNNAMED}: {error.what}\n"
    told = kind_of(job).about(job)
    about = {**told, "rounds_planned": job.rounds, "seed": job.seed, "base": job.base or None}
    return store.create(
        job.name, toml=toml, digest=job.digest, env=environment(), kind=kind, parent=parent, record=about
    )


__all__ = ["Plan", "Result", "load", "plan", "resume", "run", "train"]
