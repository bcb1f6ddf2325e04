"""The run: rounds as events. It asks the runtime and yields what happened; nothing that reads can change it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from manyloom.algorithms import turns
from manyloom.core.exchange import Runtime
from manyloom.job import attempts
from manyloom.job import events as ev
from manyloom.job.buffered import versioned
from manyloom.job.job import Job
from manyloom.job.prepare import Prepared
from manyloom.job.spend import account_of, promised, spending
from manyloom.job.state import State
from manyloom.job.tell import SHOWN, adapters_told, cohort_summary, run_started, spoken
from manyloom.job.watch import judge, taken, verdict
from manyloom.privacy.account import Account


def start(job: Job, ready: Prepared) -> State:
    """The state before round 1."""
    server = job.algorithm.server.init(ready.theta) | ready.buffers
    record = {"session": ready.session} if job.secure else {}
    rule = turns.rules(job.algorithm.aggregate, server["theta"], ready.turns)
    return State(0, server, rule, preprocess=ready.slots, record=record, execution=dict(ready.execution))


def loop(
    job: Job,
    runtime: Runtime,
    ready: Prepared,
    state: State,
    *,
    run: str = "",
    stop: Callable[[], bool] = lambda: False,
    account: Account | None = None,
) -> Iterator[ev.Event]:
    """All events of a job from `state` on; the last is `RunDone`, and every `RoundDone` carries the state.

    Args:
        job: the job.
        runtime: who answers; `prepare` has opened it.
        ready: what `prepare` found.
        state: where to begin: `start`, or a checkpoint.
        run: the run's name, for the events.
        stop: asked after each round; True ends the run as interrupted, resumable.
        account: of a private run, which whoever opened it closes; a trial opens one that vanishes.
    """
    own = account_of(job) if account is None else None
    try:
        yield from _rounds(job, runtime, ready, state, run, stop, account or own)
    finally:
        if own is not None:
            own.close(done=True)


def _rounds(
    job: Job,
    runtime: Runtime,
    ready: Prepared,
    state: State,
    run: str,
    stop: Callable[[], bool],
    account: Account | None,
) -> Iterator[ev.Event]:
    """`loop`, with the account open."""
    spend = spending(job, runtime, ready, account)
    runtime.restore(state.clients)
    fresh: dict[str, Any] = {"best": None, "best_round": 0, "since_best": 0, "final": {}}
    fresh |= {"turn": 0} if ready.turns else {}  # aggregates that were accepted
    record = fresh | state.record
    if state.round == 0:
        yield run_started(job, ready, run)
        if ready.preprocess is not None:
            yield ev.Statistics(len(ready.preprocess.columns), ready.sent_up, ready.sent_down, ready.seconds)
            for text in ready.preprocess.notes:
                yield ev.Note("warning", "column-empty", text)
        yield from adapters_told(job, ready)
        yield from spoken(job, ready, state)
        for i in job.federation.skipped:
            yield ev.ClientSkipped(i, job.federation.names[i], "no training row")
        if job.eval_every == 1:
            yield from judge(job, runtime, ready, state.server, 0, record)
    else:
        yield ev.Resumed(state.round, job.rounds)

    status, reason = "done", None
    if record.get("ended"):  # a resumed run that had come to its end already
        status, reason = record["ended"]
    while status == "done" and state.round < job.rounds:
        number = state.round + 1
        began = time.perf_counter()
        opens = float(record.get("clock", 0.0))
        if job.algorithm.buffered is not None:
            out = yield from versioned(job, runtime, state, number, run)
        else:
            out = yield from attempts.one(job, runtime, ready, state, number, run, spend, record)
        if out.open is not None or job.simulate.clocked:
            record["clock"] = out.trained.at
        trained, phases = out.trained, out.phases
        if out.dear is not None:
            status, reason = "stopped", out.dear
            record["ended"] = [status, reason]
            state = replace(state, record=dict(record))
            break
        if out.problem is not None:
            if account is not None:
                record["ledger"] = account.mark()
                state = replace(state, record=dict(record))
            error = out.problem.to_json()
            final = dict(record["final"])
            yield ev.RunDone(
                "failed", out.problem.what, final, error=error, privacy=promised(job, account), state=state
            )
            return
        rejected = taken(job, runtime, state.server, trained.server, number, record) if trained.enough else None
        if rejected is not None:
            yield rejected
            runtime.restore(state.clients)  # what clients remember of it goes with it
            state = replace(state, round=number)
        else:
            state = replace(state, round=number, server=trained.server, rule=trained.rule)
            if trained.agg_error is not None:
                record["agg_error"] = float(trained.agg_error[0])
            if ready.turns and trained.enough:
                record["turn"] += 1
        state = state if out.open is None else replace(state, open=out.open)
        judged = number % job.eval_every == 0 or number == job.rounds
        if judged:
            yield ev.Phase(number, "evaluate")
            mark = time.perf_counter()
            yield from judge(job, runtime, ready, state.server, number, record)
            phases["evaluate"] = time.perf_counter() - mark
            status, reason = verdict(job, record)
        if status == "done" and number < job.rounds and stop():
            status, reason = "interrupted", "asked to stop"
        if status == "stopped":
            record["ended"] = [status, reason]
        if account is not None:
            record["ledger"] = account.mark()
        state = replace(state, record=dict(record), clients=runtime.snapshot())
        loss = float(trained.loss.double().mean()) if len(trained.back) else float("nan")
        yield ev.RoundDone(
            number,
            job.rounds,
            out.attempt,
            len(trained.back) + len(trained.lost),
            len(trained.back),
            len(trained.lost),
            loss,
            dict(record["final"]) if judged else None,
            job.watched,
            time.perf_counter() - began,
            phases,
            out.sent_up,
            out.sent_down,
            cohort_summary(trained) if len(trained.back) > SHOWN and len(trained.samples) else None,
            {"up": trained.channel[0], "down": trained.channel[1]} if job.secure else None,
            out.guard,
            record["clock"] - opens if "clock" in record else None,
            state,
        )
    if status in ("done", "stopped"):
        yield from spoken(job, ready, state)
    yield ev.RunDone(status, reason, dict(record["final"]), privacy=promised(job, account), state=state)
