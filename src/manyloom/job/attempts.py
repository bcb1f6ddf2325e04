"""One round with all its attempts: who is asked, what comes back, and what is told of it."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from manyloom.algorithms import round as rounds
from manyloom.algorithms import sample, turns
from manyloom.algorithms.buffered import reached
from manyloom.algorithms.coral import beforehand
from manyloom.core.exchange import Ids, Runtime, play
from manyloom.job import events as ev
from manyloom.job.job import Job
from manyloom.job.prepare import Prepared
from manyloom.job.spend import Spend
from manyloom.job.state import State
from manyloom.job.tell import SHOWN, Outcome, adapters_combined, below_quorum, clients_done, clients_filtered
from manyloom.privacy.source import Secret


def one(
    job: Job,
    runtime: Runtime,
    ready: Prepared,
    state: State,
    number: int,
    run: str,
    spend: Spend | None,
    record: dict[str, Any],
) -> Generator[ev.Event, None, Outcome]:
    """One round; of parts that are trained in turn, the one whose turn it is; or after all were asked for more."""
    if job.algorithm.before is not None and not job.algorithm.before.idle:
        return (yield from _beside(job, runtime, state, number, run, record))
    if not ready.turns:
        return (yield from _round(job, runtime, state, number, run, spend, record))
    at = record["turn"] % len(ready.turns)
    server, rule = turns.part_of(state.server, state.rule, ready.turns, at)
    part = replace(state, server=server, rule=rule)
    out = yield from _round(job, runtime, part, number, run, spend, record)
    server, rule = turns.whole(state.server, state.rule, ready.turns, at, out.trained.server, out.trained.rule)
    return out._replace(trained=out.trained._replace(server=server, rule=rule))


def _beside(
    job: Job, runtime: Runtime, state: State, number: int, run: str, record: dict[str, Any]
) -> Generator[ev.Event, None, Outcome]:
    """A round before which all clients are asked: what they send goes down beside the model."""
    before = job.algorithm.before
    assert before is not None and job.apart is not None
    yield ev.Phase(number, before.verb)
    mark = time.perf_counter()
    body = rounds.begins(job.algorithm, state.server, job.draws.hub(number))
    asked = beforehand(before, job.eligible, job.apart, body, number, job.deadline_s)
    found = play(asked, runtime.ask)
    phases = {before.verb: time.perf_counter() - mark}
    for lost in found.lost:
        yield ev.ClientLost(
            number, lost.client, job.federation.names[lost.client], lost.reason, lost.text, lost.traceback
        )
    if not found.down:
        name = job.federation.names[job.apart]
        gone = [x for x in found.lost if x.client == job.apart]
        why = f"{name} is lost: {gone[0].text}" if gone else f"all but {name} are lost"
        yield ev.RoundFailed(number, 0, why)
        nobody = _nobody(state, float(record.get("clock", 0.0)))._replace(lost=found.lost)
        problem = None if job.failed_round == "skip" else below_quorum(job, number, nobody, 2, run, why)
        return Outcome(nobody, 0, phases, found.sent_up, found.sent_down, problem)
    own = replace(state, server={**state.server, **found.down})
    out = yield from _round(job, runtime, own, number, run, None, record)
    server = {n: t for n, t in out.trained.server.items() if n not in found.down}
    return out._replace(
        trained=out.trained._replace(server=server),
        sent_up=out.sent_up + found.sent_up,
        sent_down=out.sent_down + found.sent_down,
        phases={**phases, **out.phases},
    )


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
