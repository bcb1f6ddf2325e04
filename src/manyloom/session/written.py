"""The loop's events, each written before it is shown; checkpoints and the model beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

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
from manyloom.job.loop import loop
from manyloom.job.plan import of as plan_of
from manyloom.job.prepare import Prepared, module_of
from manyloom.job.state import State
from manyloom.privacy.account import Account
from manyloom.privacy.guarantee import Guarantee
from manyloom.track.document import history, summary
from manyloom.track.folder import Folder
from manyloom.track.model import save_model
from manyloom.track.result import Result
from manyloom.track.store import Writer

SPARE = 0.05  # the share of a run's time that checkpoints may take
PATIENCE_S = 10.0  # but one is saved at least so often


def written(
    job: Job,
    runtime: Runtime,
    ready: Prepared,
    state: State,
    writer: Writer,
    stop: Callable[[], bool],
    account: Account | None = None,
) -> Iterator[Event]:
    """The loop's events, each written before it is shown; checkpoints and the model beside them."""
    saved = _Saved(writer, state.round, always=account is not None)
    for event in loop(job, runtime, ready, state, run=writer.run_id, stop=stop, account=account):
        if isinstance(event, RunDone):
            yield from saved.now(event.state)
            event = _ended(job, ready, event, writer)
        if isinstance(event, ClientLost) and event.detail:
            writer.write(f"lost/{event.round:03d}-{slug(event.name)}.txt", event.detail)
        writer.append(event.to_json())
        if isinstance(event, RunDone):
            event = replace(event, result=_result(job, ready, event, writer))
        # saved before it is shown: whoever stops listening here has the round, and under a claim it is spent
        kept = list(saved.perhaps(event.state)) if isinstance(event, RoundDone) else []
        yield event
        yield from kept
        if isinstance(event, (RunStarted, Resumed)):
            yield from _opening(job, ready, writer, isinstance(event, Resumed))


class _Saved:
    """Saves states: each if that is cheap, else at most a few seconds apart, and always the best."""

    def __init__(self, writer: Writer, round: int, always: bool = False) -> None:
        self.writer, self.round, self.always = writer, round, always  # a round done again would be spent again
        self.began = self.last = time.perf_counter()
        self.spent = 0.0

    def perhaps(self, state: State | None) -> Iterator[Event]:
        now = time.perf_counter()
        cheap = self.spent <= SPARE * (now - self.began) or now - self.last > PATIENCE_S
        if state is not None and (cheap or self.always or state.record.get("best_round") == state.round):
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
    yield _put(
        writer,
        Planned(p.bytes["up_round"], p.bytes["down_round"], p.seconds_estimate, _both(p.privacy), _both(p.secure)),
    )
    gaps = job.federation.gaps() if len(job.federation) <= 50 else None
    if gaps is not None and job.federation.schema is not None:
        sizes = job.federation.sizes
        share = {i: [float(x) / max(1, int(sizes[i])) for x in row] for i, row in enumerate(gaps.tolist())}
        yield _put(writer, Missing([c.name for c in job.federation.schema.columns], share))


def _both(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else dict(found)


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
    theta, local = job.algorithm.server.model(state.server), job.algorithm.local
    model = module_of(job.task, ready.shape, job.seed, state.server, theta, local)
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
        guarantee=Guarantee.from_json(event.privacy) if event.privacy else None,
        error=event.error,
    )
