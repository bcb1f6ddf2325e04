"""Asynchronous rounds of a run: each makes one server version, from what is open to what is open after it."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator

from manyloom.algorithms import buffered
from manyloom.algorithms.buffered import Open, Version
from manyloom.core.exchange import Runtime, play
from manyloom.core.tensors import floats, ints
from manyloom.job import events as ev
from manyloom.job.job import Job
from manyloom.job.state import State
from manyloom.job.tell import SHOWN, Outcome, below_quorum


def versioned(job: Job, runtime: Runtime, state: State, number: int, run: str) -> Generator[ev.Event, None, Outcome]:
    """One server version, with a further attempt where too many were lost.

    The quorum is a share of the cohort here as elsewhere: of K + spare answers, K must be updates.
    """
    assert job.algorithm.buffered is not None
    size = job.algorithm.buffered.size
    flying = job.cohort_size
    spare = size * flying // job.quorum_of(flying) - size
    opened = Open.of(state.open)
    phases: dict[str, float] = {"train": 0.0}
    up = down = 0
    made = None
    for attempt in range(job.retries + 1):
        yield ev.RoundStarted(number, attempt, None, flying, size)
        yield ev.Phase(number, "train")
        mark = time.perf_counter()
        made = play(
            buffered.version(
                job.algorithm,
                state.server,
                state.rule,
                opened,
                eligible=job.eligible,
                flying=flying,
                spare=spare,
                absent=job.simulate.absent,
                draws=job.draws,
                round=number,
                deadline_s=job.deadline_s,
            ),
            runtime.ask,
        )
        trained, opened = made.trained, made.open
        phases["train"] += time.perf_counter() - mark
        up, down = up + trained.sent_up, down + trained.sent_down
        for lost in trained.lost:
            name = job.federation.names[lost.client]
            yield ev.ClientLost(number, lost.client, name, lost.reason, lost.text, lost.traceback)
        if trained.enough:
            yield from _done(number, made)
            return Outcome(trained, attempt, phases, up, down, open=opened.slots())
        runtime.restore(state.clients)  # its updates are given up, and what their clients keep of them
        yield ev.RoundFailed(number, attempt, trained.why)
    assert made is not None
    problem = None
    if job.failed_round == "stop":
        problem = below_quorum(job, number, made.trained, size, run, made.trained.why)
    else:
        yield ev.Note("warning", "round-skipped", f"version {number} is skipped; the model stays as it is")
    return Outcome(made.trained, job.retries, phases, up, down, problem, open=opened.slots())


def _done(number: int, made: Version) -> Iterator[ev.ClientDone]:
    """Each update in the version, in the order they were applied."""
    t = made.trained
    if len(t.back) > SHOWN:
        return
    share = t.sent_up // len(t.back)
    rows = zip(t.back.tolist(), ints(t.samples), ints(t.steps), floats(t.loss), made.staleness)
    for client, samples, steps, loss, tau in rows:
        yield ev.ClientDone(number, client, samples, steps, loss, share, tau)
