"""A vertical run: passes over the aligned rows as events. The label party drives; a lost party ends it, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from manyloom.core.errors import ManyloomError, Problem
from manyloom.core.exchange import Exchange, Lost
from manyloom.job import events as ev
from manyloom.job.state import State
from manyloom.job.vertical import tell
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.prepare import Line, Prepared, meet, passes_of, too_few
from manyloom.job.watch import keep_best, verdict
from manyloom.vertical.passes import Passes

T = TypeVar("T")
Told = Generator[ev.Event, None, T]


class Trouble(NamedTuple):
    """Why a run can't go on now."""

    problem: Problem
    lost: Sequence[Lost] = ()


def start(job: Vertical, ready: Prepared) -> State:
    """The state before the parties have met."""
    return State(0, {}, record={"has": dict(ready.has)}, execution=dict(ready.execution))


def loop(
    job: Vertical,
    line: Line,
    ready: Prepared,
    state: State,
    *,
    run: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[ev.Event]:
    """All events of a vertical job from `state` on; the last is `RunDone`, and every `RoundDone` carries the state.

    Args:
        job: the job.
        line: to the other parties; `prepare` has opened it.
        ready: what `prepare` found.
        state: where to begin: `start`, or a checkpoint.
        run: the run's name, for the events.
        stop: asked after each pass; True ends the run as interrupted, resumable.
    """
    fresh: dict[str, Any] = {"best": None, "best_round": 0, "since_best": 0, "final": {}}
    record = fresh | state.record
    yield tell.run_started(job, ready, run) if state.round == 0 else ev.Resumed(state.round, job.rounds)
    status, reason = record.get("ended") or ("done", None)  # a resumed run may have come to its end already
    passes: Passes | None = None
    if status == "done" and state.round < job.rounds:
        line.runtime.restore(state.clients)
        found = yield from _met(job, line, state, run)
        if isinstance(found, Trouble):
            yield from _failed(job, line, state, record, state.round, found)
            return
        passes, state = found
        if state.round == 0 and job.eval_every == 1:
            trouble = yield from _judged(job, passes, line, state, 0, run, record)
            if trouble:
                yield from _failed(job, line, state, record, 0, trouble)
                return
    while passes is not None and status == "done" and state.round < job.rounds:
        number, before, began = state.round + 1, state, time.perf_counter()
        everybody = range(len(job.parties.features))
        yield ev.RoundStarted(number, 0, list(everybody), len(everybody), least(job))
        yield ev.Phase(number, "train")
        done = _played(job, line, passes.one(state.server, number))
        phases = {"train": time.perf_counter() - began}
        if isinstance(done, Trouble) or not done.enough:
            gone = done if isinstance(done, Trouble) else _lost(job, f"pass {number}", done.lost, before, run)
            yield from _failed(job, line, before, record, number, gone)
            return
        gone = tell.once(done.lost)
        yield from tell.clients_lost(job, number, gone)
        yield from tell.clients_done(number, done, line, gone)
        yield from tell.leaks(job, number, done)
        state = replace(state, round=number, server=done.state)
        judged = number % job.eval_every == 0 or number == job.rounds
        if judged:
            mark = time.perf_counter()
            trouble = yield from _judged(job, passes, line, state, number, run, record)
            if trouble:
                yield from _failed(job, line, before, record, number, trouble)
                return
            phases["evaluate"] = time.perf_counter() - mark
            status, reason = verdict(job, record)
        if status == "done" and number < job.rounds and stop():
            status, reason = "interrupted", "asked to stop"
        if status == "stopped":
            record["ended"] = [status, reason]
        state = replace(state, record=dict(record), clients=line.runtime.snapshot())
        yield ev.RoundDone(
            number,
            job.rounds,
            0,
            len(everybody),
            len(everybody) - len(gone),
            len(gone),
            done.loss,
            dict(record["final"]) if judged else None,
            job.watched,
            time.perf_counter() - began,
            phases,
            done.sent_up,
            done.sent_down,
            state=state,
        )
    yield ev.RunDone(status, reason, dict(record["final"]), state=state)


def _met(job: Vertical, line: Line, state: State, run: str) -> Told[tuple[Passes, State] | Trouble]:
    """Opening, and alignment unless the state has the rows already; then the algorithm and its first state."""
    known = state.preprocess.get("rows")
    phase = "opening" if known is not None else "alignment"
    yield ev.Phase(state.round, "open" if known is not None else "align")
    began = time.perf_counter()
    met = _played(job, line, meet(job, line.runtime, align=known is None))
    if isinstance(met, Trouble):
        return _lost(job, f"the {line.phase or phase}", line.lost, state, run) if line.lost else met
    if known is not None:
        return passes_of(job, known), state
    assert met is not None
    yield tell.aligned(job, met, line, time.perf_counter() - began)
    if problem := too_few(job, len(met.rows)):
        return Trouble(problem)
    passes = passes_of(job, met.rows)
    yield tell.planned(job, passes, len(met.rows))
    state = replace(state, server=passes.start(), preprocess={"rows": met.rows}, clients=line.runtime.snapshot())
    return passes, state


def _judged(
    job: Vertical, passes: Passes, line: Line, state: State, number: int, run: str, record: dict[str, Any]
) -> Told[Trouble | None]:
    """The joint model on the held-out rows: all that is computed of them is at the label party."""
    if not tell.split(job, len(state.preprocess["rows"]))[1]:
        return None
    yield ev.Phase(number, "evaluate")
    began = time.perf_counter()
    found = _played(job, line, passes.judge(state.server, number))
    if isinstance(found, Trouble):
        return found
    if found.lost and not len(found.y):
        where = f"the evaluation after pass {number}" if number else "the evaluation before pass 1"
        return _lost(job, where, found.lost, replace(state, round=max(0, number - 1)), run)
    told = tell.evaluated(job, found, number, time.perf_counter() - began)
    yield from tell.clients_lost(job, number, tell.once(found.lost))
    yield told
    record["final"] = dict(told.metrics)
    keep_best(job, number, record)
    return None


def least(job: Vertical) -> int:
    """How many parties a pass needs: all, unless the network learns to do without some."""
    return 1 if job.cut.on_missing == "impute" and job.cut.dropped else len(job.parties.features)


def _played(job: Vertical, line: Line, exchange: Exchange[T]) -> T | Trouble:
    """A conversation to its end, or what it raised on the way; a party is told by its name."""
    try:
        return line.play(exchange)
    except ManyloomError as error:
        [problem, *_] = error.problems
        for i, party in enumerate(job.parties.features):
            problem = replace(problem, what=problem.what.replace(f"feature party {i}:", f"{party.name}:"))
        return Trouble(problem)


def _lost(job: Vertical, where: str, lost: Sequence[Lost], state: State, run: str) -> Trouble:
    """A party that is gone, by name, with what it was doing."""
    one = tell.once(lost)
    names = " and ".join(job.parties.features[x.client].name for x in one)
    saved = f"pass {state.round} is saved" if state.round else "no pass was done"
    needs = "" if job.cut.on_missing == "error" else " but those that others are left to make up for"
    problem = Problem(
        "party-lost",
        f"{names} {'was' if len(one) == 1 else 'were'} lost in {where}",
        got="; ".join(f"{job.parties.features[x.client].name}: {x.text}" for x in one),
        rule=f"every party is needed{needs}; {saved}",
        mend=f"mend what it says, then:\nmanyloom resume {run or 'RUN'}",
    )
    return Trouble(problem, one)


def _failed(
    job: Vertical, line: Line, state: State, record: dict[str, Any], number: int, trouble: Trouble
) -> Iterator[ev.Event]:
    """The end of a run that can go on from `state`: nothing of the failed pass is left at any party."""
    line.runtime.restore(state.clients)
    yield from tell.clients_lost(job, number, trouble.lost)
    yield ev.RoundFailed(number, 0, trouble.problem.what)
    error = trouble.problem.to_json()
    yield ev.RunDone("failed", trouble.problem.what, dict(record["final"]), error=error, state=state)
