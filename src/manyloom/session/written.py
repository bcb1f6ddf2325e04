"""The loop's events, each written before it is shown; checkpoints and the model beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

from manyloom.core.text import slug
from manyloom.job import checkpoint
from manyloom.job.events import ClientLost, Event, Note, Resumed, RoundDone, RunDone, RunStarted, Saved
from manyloom.job.state import State
from manyloom.privacy.account import Account
from manyloom.privacy.guarantee import Guarantee
from manyloom.session.kinds import Kind, Stop
from manyloom.track.document import history, summary
from manyloom.track.folder import Folder
from manyloom.track.result import Result
from manyloom.track.store import Writer

SPARE = 0.05  # the share of a run's time that checkpoints may take
PATIENCE_S = 10.0  # but one is saved at least so often


def written(
    kind: Kind,
    job: Any,
    runtime: Any,
    ready: Any,
    state: State,
    writer: Writer,
    stop: Stop,
    account: Account | None = None,
) -> Iterator[Event]:
    """The loop's events, each written before it is shown; checkpoints and the model beside them."""
    saved = _Saved(writer, state.round, always=account is not None)
    for event in kind.loop(job, runtime, ready, state, writer.run_id, stop, account):
        if isinstance(event, RunDone):
            yield from saved.now(event.state)
            event = _ended(kind, job, ready, event, writer)
        if isinstance(event, ClientLost) and event.detail:
            writer.write(f"lost/{event.round:03d}-{slug(event.name)}.txt", event.detail)
        writer.append(event.to_json())
        if isinstance(event, RunDone):
            event = replace(event, result=_result(kind, job, ready, event, writer))
        # saved before it is shown: whoever stops listening here has the round, and under a claim it is spent
        kept = list(saved.perhaps(event.state)) if isinstance(event, RoundDone) else []
        yield event
        yield from kept
        if isinstance(event, RunStarted):
            yield from (_put(writer, told) for told in kind.planned(job, ready))
        if isinstance(event, Resumed) and (changed := ready.execution.get("changed")):
            yield _put(writer, _otherwise(changed))


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


def _otherwise(changed: Mapping[str, Any]) -> Note:
    text = f"another {', '.join(changed)} than before: the run goes on equal to tolerance, not bit for bit"
    return Note("warning", "not-bit-identical", text)


def _put(writer: Writer, event: Event) -> Event:
    writer.append(event.to_json())
    return event


def _ended(kind: Kind, job: Any, ready: Any, event: RunDone, writer: Writer) -> RunDone:
    """Save the model and say what can be done next."""
    name = writer.run_id
    if event.state is not None and event.state.round > 0:
        writer.set(model_digest=kind.save(writer.path, job, ready, event.state))
    ahead = {"done": [f"manyloom report {name}"], "stopped": [f"manyloom report {name}"]}
    return replace(event, next=ahead.get(event.status, [f"manyloom resume {name}"]))


def _result(kind: Kind, job: Any, ready: Any, event: RunDone, writer: Writer) -> Result:
    told = summary(Folder(writer.path))
    return Result(
        run_id=writer.run_id,
        status=event.status,
        model=kind.model(writer.path, job, ready, cast(State, event.state)),
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
