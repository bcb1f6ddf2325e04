"""What a job is compared with: all records pooled in one place, and each client alone.

Both are the job itself over another federation: same model, rate and rounds, plain local SGD, a mean of one.
In simulation only: between organisations nobody may hold all records, or judge a model on everybody's rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from manyloom.algorithms import evaluation
from manyloom.algorithms.fedavg import fedavg
from manyloom.core.errors import Problem, RunFailed
from manyloom.core.exchange import Ask, Ids, Runtime, play
from manyloom.core.parts import Algorithm
from manyloom.core.seeds import generator
from manyloom.core.signature import options
from manyloom.core.slots import Slots
from manyloom.core.task import Task
from manyloom.data.federation import Federation
from manyloom.data.preprocess import Preprocess
from manyloom.job.events import Event, RunDone
from manyloom.job.job import Job, Simulate
from manyloom.job.loop import loop, start
from manyloom.job.prepare import prepare
from manyloom.job.state import State
from manyloom.work.local import LocalOptions

FEW = 5  # an AUC from fewer rows of a class is left out of a mean
MOST = 100  # above so many clients, so many of them are drawn to be trained alone
Metrics = dict[str, float]


class Fitted(NamedTuple):
    """A trained model and what raw rows need before it sees them."""

    model: Slots  # theta [d], perhaps buffers: what an evaluation asks with
    preprocess: Preprocess | None
    final: Mapping[str, float]

    @property
    def slots(self) -> Slots:
        """Preprocessing as named tensors, to be saved beside the model."""
        found = self.preprocess.to_slots() if self.preprocess else {}
        return {f"preprocess/{name}": t for name, t in found.items()}


class Judged(NamedTuple):
    """Metrics over all rows, and of each client with `rows` and, for two classes, `positives`."""

    metrics: Metrics
    clients: dict[int, Metrics]


@dataclass(frozen=True)
class Baseline(Event):
    """A baseline's outcome, also as the event `baseline` of the run it belongs to.

    Args:
        kind: "central" or "local".
        run: the baseline's own run.
        metrics: central: over all held-out rows; local: the mean over clients, each judged on its own rows.
        clients: of each client's held-out rows: central: the pooled model; local: the client's own model.
        alone_on_all: local: each client's model on the held-out rows of all.
        few: clients with fewer than five held-out rows of a class: their AUC is in no mean.
        seconds: to train and judge.
    """

    type: ClassVar[str] = "baseline"
    kind: str
    run: str | None
    metrics: Metrics
    clients: dict[int, Metrics]
    alone_on_all: dict[int, Metrics] = field(default_factory=dict[int, Metrics])
    few: Sequence[int] = ()
    seconds: float = 0.0

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The lowest and highest value over the clients' models, each judged on all rows."""
        names = list(dict.fromkeys(m for found in self.alone_on_all.values() for m in found if m not in COUNTS))
        out: dict[str, tuple[float, float]] = {}
        for name in names:
            known = [v for v in (found.get(name, math.nan) for found in self.alone_on_all.values()) if v == v]
            if known:
                out[name] = (min(known), max(known))
        return out


COUNTS = ("rows", "positives")


# ---- the jobs


def central(job: Job) -> Job:
    """The job over all records pooled as one client: plain SGD, as many passes over them as the job makes.

    A round of the job trains on the rows of its cohort: here on as many rows of all.
    """
    share = job.rate if job.sampling == "poisson" else job.cohort_size / max(1, len(job.eligible))
    asked = max(1.0, share * len(job.eligible))
    algorithm = plain(job.algorithm, share, round(asked))
    return _over(job, job.federation.pooled(), "central", algorithm=algorithm)


def alone(job: Job, client: int) -> Job:
    """The job over one client's records, with that client's own statistics; it trains in every round."""
    job = _over(job, job.federation.only(client), "alone", algorithm=plain(job.algorithm))
    return replace(job, eval_every=job.rounds)


def local(job: Job, clients: Sequence[int] | None = None) -> dict[int, Job]:
    """`alone` for each client that has rows; of a large population for `MOST` clients, drawn by the seed."""
    return {int(i): alone(job, int(i)) for i in (everyone(job) if clients is None else clients)}


def everyone(job: Job) -> Ids:
    """The clients whose models are trained alone, sorted."""
    eligible = job.eligible
    if len(eligible) <= MOST:
        return eligible
    return np.sort(generator(job.seed, 0, "baseline").choice(eligible, MOST, replace=False))


def leave_one_out(job: Job, client: int) -> Job:
    """The job without one client, which can then be judged on rows that no statistic has seen."""
    rest = [i for i in range(len(job.federation)) if i != client]
    fed = job.federation.subset(rest)
    n = int((fed.sizes > 0).sum())

    def at_most(value: int | float) -> int | float:
        return min(value, n) if isinstance(value, int) else value

    return replace(
        job,
        federation=fed,
        name=f"{job.name}-without-{job.federation.keys[client]}",
        simulate=Simulate(),
        cohort=None if job.cohort is None else at_most(job.cohort),
        quorum=at_most(job.quorum),
        eval_cohort=None if job.eval_cohort is None else at_most(job.eval_cohort),
        min_available=None,
    )


def plain(algorithm: Algorithm, share: float = 1.0, asked: int = 1) -> Algorithm:
    """Local SGD (or Adam) as in the algorithm, without what a federation adds to it.

    Args:
        algorithm: whose local options count; one without any is taken as it is.
        share: of an epoch that a round makes.
        asked: clients that make `steps` each, where the options count steps.
    """
    table = algorithm.tables.get("algorithm", {})
    if "lr" not in table:
        return algorithm
    own: dict[str, Any] = {k: v for k, v in table.items() if k in options(LocalOptions)}
    if own.get("steps") is not None:
        own["steps"] *= asked
    else:
        own["epochs"] = own.get("epochs", 1.0) * share
    return fedavg(**own)


def _over(job: Job, federation: Federation, word: str, **more: Any) -> Job:
    return replace(
        job,
        task=_averaged(job.task),
        federation=federation,
        name=f"{job.name}-{word}",
        cohort=None,
        sampling="uniform",
        privacy=None,
        secure=None,
        attack=None,
        validation=None,
        quorum=2 / 3,
        min_available=None,
        eval_cohort=None,
        stop_at=None,
        patience=None,
        simulate=Simulate(),
        **more,
    )


def _averaged(task: Task) -> Task:
    """One client's running statistics are their own average."""
    return replace(task, buffers="average") if task.buffers == "local" else task


# ---- training and judging


def fit(job: Job, runtime: Runtime) -> Fitted:
    """Train a job to its end without a run folder; the runtime is closed.

    Raises:
        RunFailed: `baseline-failed` if its clients could not train.
    """
    last: Event | None = None
    try:
        ready = prepare(job, runtime)
        for event in loop(job, runtime, ready, start(job, ready)):
            last = event
    finally:
        runtime.close()
    if not isinstance(last, RunDone) or last.state is None or last.status == "failed":
        why = last.reason if isinstance(last, RunDone) else "it did not start"
        raise RunFailed(Problem("baseline-failed", f"the baseline {job.name} could not be trained", why))
    return fitted(job, last.state, ready.preprocess)


def fitted(job: Job, state: State, preprocess: Preprocess | None) -> Fitted:
    """The model of a run's last state."""
    model = {"theta": job.algorithm.server.model(state.server)}
    if "buffers" in state.server:
        model["buffers"] = state.server["buffers"]
    return Fitted(model, preprocess, dict(state.record.get("final", {})))


def judge(job: Job, found: Fitted, runtime: Runtime, clients: Sequence[int] | Ids | None = None) -> Judged:
    """A model on the held-out rows of the job's clients (by default all), asked and computed as in the run.

    Where the source has a test set of its own that counts, metrics are of that set. The runtime is closed.
    """
    fed = job.federation
    asked = np.flatnonzero(fed.tests > 0) if clients is None else np.asarray(clients, np.int64)
    job = replace(job, task=_averaged(job.task))
    try:
        runtime.open(job)
        everybody = np.flatnonzero(fed.sizes > 0).astype(np.int64)
        runtime.ask(Ask(everybody, "prepare", found.preprocess.to_slots() if found.preprocess else {}))
        whole: Metrics | None = None
        if clients is None and fed.own_test and (fed.test_mode == "own" or not len(asked)):
            whole = dict(_evaluate(job, found, runtime, evaluation.HUB).metrics)
        if not len(asked):
            return Judged(whole or {}, {})
        judged = _evaluate(job, found, runtime, asked)
        return Judged(dict(judged.metrics) if whole is None else whole, _each(judged))
    finally:
        runtime.close()


def _evaluate(job: Job, found: Fitted, runtime: Runtime, clients: Ids) -> evaluation.Evaluation:
    return play(evaluation.evaluate(clients, found.model, job.metrics, round=job.rounds), runtime.ask)


def pooled(job: Job, runtime: Callable[[], Runtime]) -> Baseline:
    """Train `central` and judge it on each client's held-out rows."""
    began = time.perf_counter()
    once = replace(central(job), eval_every=job.rounds)
    found = judge(job, fit(once, runtime()), runtime())
    return of_central(found, seconds=time.perf_counter() - began)


def of_central(judged: Judged, run: str | None = None, seconds: float = 0.0) -> Baseline:
    """The baseline of a pooled model, judged already."""
    return Baseline("central", run, judged.metrics, judged.clients, seconds=seconds)


def each_alone(
    job: Job, runtime: Callable[[], Runtime], clients: Sequence[int] | None = None
) -> Iterator[tuple[int, Fitted, Judged]]:
    """Train clients alone, one after the other: number, model, that model on everybody's held-out rows.

    Args:
        job: the federated job.
        runtime: makes a runtime for one training.
        clients: whose models; by default `everyone`.
    """
    for i, one in local(job, clients).items():
        found = fit(one, runtime())
        yield i, found, judge(job, found, runtime())


def all_alone(job: Job, runtime: Callable[[], Runtime], clients: Sequence[int] | None = None) -> Baseline:
    """`each_alone` to its end."""
    began = time.perf_counter()
    judged = {i: found for i, _, found in each_alone(job, runtime, clients)}
    return of_local(judged, seconds=time.perf_counter() - began)


def of_local(judged: Mapping[int, Judged], run: str | None = None, seconds: float = 0.0) -> Baseline:
    """The baseline of models trained alone, from what `each_alone` gave."""
    own = {i: found.clients[i] for i, found in judged.items() if i in found.clients}
    few = [i for i, m in own.items() if "positives" in m and min(m["positives"], m["rows"] - m["positives"]) < FEW]
    on_all = {i: found.metrics for i, found in judged.items()}
    return Baseline("local", run, _mean(own, few) or _mean(on_all, []), own, on_all, few, seconds)


def left_out(job: Job, runtime: Callable[[], Runtime]) -> dict[int, Judged]:
    """`leave_one_out` of each client with held-out rows: on them, the model that never saw it."""
    clients = np.flatnonzero((job.federation.tests > 0) & (job.federation.sizes > 0)).tolist()
    return {i: judge(job, fit(leave_one_out(job, i), runtime()), runtime(), [i]) for i in clients}


def _mean(each: Mapping[int, Metrics], few: Sequence[int]) -> Metrics:
    """Means over clients; of AUC without those in `few`."""
    names = dict.fromkeys(m for found in each.values() for m in found if m not in COUNTS)
    out: Metrics = {}
    for name in names:
        known = [m[name] for i, m in each.items() if name in m and not (name == "auc" and i in few)]
        known = [v for v in known if v == v]
        out[name] = sum(known) / len(known) if known else math.nan
    return out


def _each(found: evaluation.Evaluation) -> dict[int, Metrics]:
    out: dict[int, Metrics] = {}
    for j, client in enumerate(found.clients.tolist()):
        out[client] = {name: float(v[j]) for name, v in found.each.items()} | {"rows": int(found.rows[j])}
        if found.positives is not None:
            out[client]["positives"] = int(found.positives[j])
    return out
