"""Judging a run: evaluations as events, the best round, and whether the last one ends it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from manyloom.algorithms import evaluation, sample
from manyloom.core.exchange import Ids, Runtime, play
from manyloom.core.metrics import better
from manyloom.core.slots import Slots
from manyloom.core.validate import share_of
from manyloom.job import events as ev
from manyloom.job.job import Job
from manyloom.job.prepare import Prepared
from manyloom.job.tell import evaluated
from manyloom.secure.channel import over


class Watching(Protocol):
    """What a job of any kind says of how it is watched."""

    @property
    def watched(self) -> str: ...
    @property
    def stop_at(self) -> float | None: ...
    @property
    def patience(self) -> int | None: ...


def taken(
    job: Job, runtime: Runtime, before: Slots, after: Slots, number: int, record: dict[str, Any]
) -> ev.Event | None:
    """Whether the hub takes a round's model: None, or the event that says why not.

    A model that is worse by more than the tolerance on the hub's own rows, or no number at all, is rejected.
    """
    v = job.validation
    if v is None:
        return None
    metric = v.metric or job.watched
    if "validated" not in record:
        record["validated"] = _held(job, runtime, before, number, metric)
    was, now = float(record["validated"]), _held(job, runtime, after, number, metric)
    loss = was - now if better(metric) == "max" else now - was
    if now == now and (was != was or loss <= v.tolerance):
        record["validated"] = now
        return None
    return ev.RoundRejected(number, metric, was, now, v.tolerance, v.rows, v.path)


def _held(job: Job, runtime: Runtime, server: Slots, number: int, metric: str) -> float:
    """A metric of the model on the rows that the hub holds."""
    model = {"theta": job.algorithm.server.model(server)} | {k: v for k, v in server.items() if k == "buffers"}
    asked = evaluation.evaluate(evaluation.HELD, model, job.metrics, round=number, deadline_s=job.deadline_s)
    return float(play(asked, runtime.ask).metrics.get(metric, float("nan")))


def judge(
    job: Job, runtime: Runtime, ready: Prepared, server: Slots, number: int, record: dict[str, Any]
) -> Iterator[ev.Event]:
    """Evaluate on the clients' held-out rows, and on the source's own test set where the hub has one."""
    fed = job.federation
    model = {"theta": job.algorithm.server.model(server)} | {k: v for k, v in server.items() if k == "buffers"}
    judges = np.flatnonzero(fed.tests > 0).astype(np.int64)
    if job.eval_cohort is not None and len(judges):
        judges = sample.cohort(
            judges,
            share_of(job.eval_cohort, len(judges)),
            sampling="uniform",
            rate=1.0,
            seed=job.seed,
            round=number,
            purpose="judges",
        )
    sets: list[tuple[str, Ids]] = [("test", judges)] * bool(len(judges))
    if fed.own_test and job.task.buffers != "local" and not job.algorithm.local:
        sets.append(("own", evaluation.HUB))
    for split, clients in sets:
        mark = time.perf_counter()
        alone = job.alone or split == "own"
        asked = evaluation.evaluate(clients, model, job.metrics, round=number, deadline_s=job.deadline_s, alone=alone)
        found = play(asked if alone or ready.channel is None else over(asked, ready.channel), runtime.ask)
        yield evaluated(job, found, number, split, time.perf_counter() - mark)
        if not found.metrics:
            told = found.lost[0].text if found.lost else "nobody answered"
            yield ev.Note("warning", "no-metrics", f"round {number} has no metrics: {told}")
        if split == "test" or fed.test_mode == "own":
            record["final"] = {k: float(v) for k, v in found.metrics.items()}
    keep_best(job, number, record)


def keep_best(job: Watching, number: int, record: dict[str, Any]) -> None:
    """Remember the best evaluation so far: "best", "best_round", "since_best"."""
    value = record["final"].get(job.watched)
    if value is None or number == 0:
        return
    ahead = value == value and (
        record["best"] is None or (value > record["best"] if better(job.watched) == "max" else value < record["best"])
    )
    if ahead:
        record.update(best=value, best_round=number, since_best=0)
    else:
        record["since_best"] += 1


def verdict(job: Watching, record: dict[str, Any]) -> tuple[str, str | None]:
    """Whether the last evaluation ends the run."""
    value = record["final"].get(job.watched)
    if job.stop_at is not None and value is not None:
        if value >= job.stop_at if better(job.watched) == "max" else value <= job.stop_at:
            return "stopped", f"{job.watched} {value:.3f} reached the target {job.stop_at:g}"
    if job.patience is not None and record["since_best"] >= job.patience:
        times = "evaluation" if job.patience == 1 else "evaluations"
        return "stopped", f"no better {job.watched} in {job.patience} {times}; best in round {record['best_round']}"
    return "done", None
