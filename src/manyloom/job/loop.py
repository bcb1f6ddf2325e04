"""The run: rounds as events. It asks the runtime and yields what happened; nothing that reads can change it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from manyloom.algorithms import round as rounds
from manyloom.algorithms import sample, turns
from manyloom.algorithms.buffered import reached
from manyloom.core.exchange import Ids, Runtime, play
from manyloom.job import events as ev
from manyloom.job.buffered import versioned
from manyloom.job.job import Job
from manyloom.job.prepare import Prepared
from manyloom.job.spend import Spend, account_of, promised, spending
from manyloom.job.state import State
from manyloom.job.tell import (
    SHOWN,
    Outcome,
    adapters_combined,
    below_quorum,
    clients_done,
    clients_filtered,
    cohort_summary,
    run_started,
)
from manyloom.job.watch import judge, taken, verdict
from manyloom.privacy.account import Account
from manyloom.privacy.source import Secret


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
            out = yield from _turn(job, runtime, ready, state, number, run, spend, record)
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
    yield ev.RunDone(status, reason, dict(record["final"]), privacy=promised(job, account), state=state)


def _turn(
    job: Job,
    runtime: Runtime,
    ready: Prepared,
    state: State,
    number: int,
    run: str,
    spend: Spend | None,
    record: dict[str, Any],
) -> Generator[ev.Event, None, Outcome]:
    """One round; of parts that are trained in turn, the one whose turn it is."""
    if not ready.turns:
        return (yield from _round(job, runtime, state, number, run, spend, record))
    at = record["turn"] % len(ready.turns)
    server, rule = turns.part_of(state.server, state.rule, ready.turns, at)
    part = replace(state, server=server, rule=rule)
    out = yield from _round(job, runtime, part, number, run, spend, record)
    server, rule = turns.whole(state.server, state.rule, ready.turns, at, out.trained.server, out.trained.rule)
    return out._replace(trained=out.trained._replace(server=server, rule=rule))


def _round(
    job: Job, runtime: Runtime, state: State, number: int, run: str, spend: Spend | None, record: dict[str, Any]
) -> Generator[ev.Event, None, Outcome]:
    """One round with its further attempts."""
    before = state.clients  # what clients remembered: a failed attempt leaves no trace there
    phases: dict[str, float] = {}
    up = down = 0
    trained = _nobody(state, float(record.get("clock", 0.0)))
    quorum, why = 0, ""
    first = spend.attempt(number) if spend else 0
    over_before = job.secure is not None and first > 1  # its two attempts were made in an earlier process
    for attempt in range(first, max(first, job.retries) + 1) if not over_before else ():
        if spend and (dear := spend.refused(state, spend.guard(record), number)):
            return Outcome(trained, attempt, phases, up, down, dear=dear)  # also where the attempt before took the rest
        cohort = spend.cohort(number, attempt) if spend else None
        here, now = job.eligible, trained.at
        if job.simulate.absent:
            least = job.min_available or job.quorum_of(job.cohort_size)
            here, now = play(reached(job.eligible, least, now, job.deadline_s, number), runtime.ask)
            if len(here) < least:
                trained, quorum = _nobody(state, now), least
                why = f"{len(here)} clients could be reached within {job.deadline_s:g} virtual s, {least} are needed"
                yield ev.RoundFailed(number, attempt, why)
                continue
        if cohort is None:
            cohort = sample.cohort(
                job.eligible if job.sampling == "poisson" else here,
                job.asked_size,
                sampling=job.sampling or "uniform",
                rate=job.rate,
                seed=job.seed,
                round=number,
                purpose=f"cohort/{attempt}",
            )
        least = len(cohort) if job.over_provision == 1 else min(len(cohort), job.cohort_size)
        quorum = job.protection.n_min if job.protection and job.secure else job.quorum_of(least)
        yield ev.RoundStarted(number, attempt, cohort.tolist() if len(cohort) <= SHOWN else None, len(cohort), quorum)
        if not len(cohort) and spend is None:
            yield ev.Note("info", "cohort-empty", f"round {number} drew nobody; the model stays as it is")
            return Outcome(trained._replace(at=now), attempt, phases, up, down)
        yield ev.Phase(number, "train")
        mark = time.perf_counter()
        guard: dict[str, Any] | None = None
        if spend is None:
            trained = play(
                rounds.train(
                    job.algorithm,
                    state.server,
                    state.rule,
                    cohort,
                    population=len(job.eligible),
                    draws=job.draws,
                    round=number,
                    attempt=attempt,
                    quorum=quorum,
                    deadline_s=job.deadline_s,
                    take=job.cohort_size if job.over_provision > 1 else None,
                    at=now,
                ),
                runtime.ask,
            )
            why, opened = trained.why or f"{len(trained.back)} replies, quorum {quorum}", False
        else:
            trained, guard, why, opened = yield from _guarded(
                spend, state, cohort, number, attempt, quorum, record, now
            )
        phases["train"] = phases.get("train", 0.0) + time.perf_counter() - mark
        up, down = up + trained.sent_up, down + trained.sent_down
        for lost in trained.lost:
            name = job.federation.names[lost.client]
            yield ev.ClientLost(number, lost.client, name, lost.reason, lost.text, lost.traceback)
        if trained.enough:
            yield from clients_done(number, trained)
            yield from clients_filtered(job, number, trained)
            yield from adapters_combined(job, number, trained)
            return Outcome(trained, attempt, phases, up, down, guard=guard)
        runtime.restore(before)
        yield ev.RoundFailed(number, attempt, why)
        if opened:
            break
    if job.failed_round == "skip" or over_before:
        spent = ": clients answer two attempts at most, and both were made" if over_before else ""
        yield ev.Note("warning", "round-skipped", f"round {number} is skipped; the model stays as it is{spent}")
        return Outcome(trained, job.retries, phases, up, down)
    return Outcome(trained, job.retries, phases, up, down, below_quorum(job, number, trained, quorum, run, why))


def _guarded(
    spend: Spend,
    state: State,
    cohort: Ids,
    number: int,
    attempt: int,
    quorum: int,
    record: dict[str, Any],
    now: float,
) -> Generator[ev.Event, None, tuple[rounds.Round, dict[str, Any] | None, str, bool]]:
    """One attempt under protection: nothing of it leaves before it stands in the ledger."""
    guard, source = spend.guard(record), Secret()
    got = spend.gather(state, guard, cohort, number, attempt, quorum, now)
    for text in got.warnings:
        yield ev.Note("warning", "secure-sum", text)
    least = quorum if len(cohort) else 0
    if got.why is None and len(got.back) >= least:
        if written := spend.released(state, guard, number, attempt, source):
            yield written
        trained, told = spend.conclude(state, guard, got, record, source, number)
        return trained._replace(at=got.at), told, "", got.opened
    if written := spend.released(state, guard, number, attempt, source, "aborted attempt"):
        yield written  # that it came to nothing can be seen
    trained = _nobody(state, got.at)._replace(
        back=got.back, lost=got.lost, sent_up=got.sent_up, sent_down=got.sent_down, channel=got.channel
    )
    return trained, None, got.why or f"{len(got.back)} replies, quorum {quorum}", got.opened


def _nobody(state: State, at: float) -> rounds.Round:
    none = torch.zeros(0)
    return rounds.Round(
        state.server, state.rule, np.zeros(0, np.int64), none, none, none, [], 0, 0, enough=False, at=at
    )
