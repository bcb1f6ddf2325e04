"""What a job will do, before anything is trained: bytes, clients, skew, steps, time, refusals."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from manyloom.aggregate import remarks as robust_remarks
from manyloom.algorithms.round import COUNTS, begins
from manyloom.algorithms.turns import part_of
from manyloom.core import text as say
from manyloom.core.exchange import Runtime
from manyloom.core.slots import size_bytes
from manyloom.job import promise, tuned
from manyloom.job.events import RoundDone
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.prepare import Prepared, prepare, width
from manyloom.job.timely import remarks
from manyloom.secure.costs import costs

COUNT_BYTES = 4 * len(COUNTS)  # samples, steps, loss: a float32 each
DIMS_BYTES = 8  # of a message that waits, only its length is told


@dataclass(frozen=True)
class Plan:
    """A dry run: every field is known before round 1; `str()` is what `manyloom plan` prints.

    Args:
        job: name, digest, toml (None for a job that no file can hold).
        model: name and number of parameters; of a language model its adapter.
        clients: name, train and test rows, label counts (of small federations).
        population: clients, rows, quantiles of sizes.
        skew: total variation of each client's labels to the whole, and their entropy in bits.
        bytes: up_round, down_round, up, down; of training, tensors as serialised, of an expected cohort.
        steps: local steps of an average client a round.
        seconds_estimate: from rounds that were tried on throw-away state, or None.
        memory_bytes: of state, rows in work and client memory.
        execution: what the runtime chose.
        privacy: the guarantee; None: no claim.
        secure: the secure sum; None: the hub sees each update.
        warnings: what will work but should be known.
    """

    job: Mapping[str, Any]
    model: Mapping[str, Any]
    clients: list[dict[str, Any]] | None
    population: Mapping[str, Any]
    skew: Mapping[str, list[float]]
    bytes: Mapping[str, int]
    steps: float
    seconds_estimate: float | None
    memory_bytes: int
    execution: Mapping[str, Any]
    does: str
    rounds: int
    privacy: Mapping[str, Any] | None = None
    secure: Mapping[str, Any] | None = None
    warnings: list[str] = field(default_factory=list[str])
    words: tuple[str, str] = ("client", "clients")
    labels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The body of `manyloom plan --json`."""
        return {
            "job": dict(self.job),
            "model": dict(self.model),
            "clients": self.clients,
            "population": dict(self.population),
            "skew": dict(self.skew),
            "bytes": dict(self.bytes),
            "seconds_estimate": self.seconds_estimate,
            "memory_bytes": self.memory_bytes,
            "execution": dict(self.execution),
            "privacy": self.privacy,
            "secure": self.secure,
            "refusals": [],
            "warnings": list(self.warnings),
            "sites": None,
        }

    def __str__(self) -> str:
        from manyloom.job.shown import lines  # it reads plans

        return "\n".join(lines(self))


def plan(job: Job, runtime: Runtime, *, tried: int = 0) -> Plan:
    """What a job will do; `tried` rounds are run on throw-away state and timed.

    Raises:
        BadInput: everything that a run would refuse.
    """
    ready = prepare(job, runtime)
    seconds = _try(job, runtime, ready, tried) if tried else None
    runtime.close()
    return of(job, ready, seconds)


def of(job: Job, ready: Prepared, seconds: float | None = None) -> Plan:
    """The plan of a job that is prepared."""
    fed, algorithm = job.federation, job.algorithm
    up, down = (a + b for a, b in zip(message_bytes(job, ready), channel_bytes(job, ready)))
    expected = job.rate * len(job.eligible) if job.sampling == "poisson" else job.cohort_size
    asked, back = (job.asked_size, expected) if job.over_provision > 1 else (expected, expected)
    if algorithm.buffered is not None:  # of a version, once as many are at work as may be
        asked = back = algorithm.buffered.size
    beside = beside_bytes(job, ready)
    made = job.protection
    steps = steps_of(job)
    skew = _skew(job)
    clients = None
    if len(fed) <= 1000:
        labels = fed.label_counts()
        clients = [
            {"name": fed.names[i], "train": int(fed.sizes[i]), "test": int(fed.tests[i]), "labels": labels[i].tolist()}
            for i in range(len(fed))
        ]
    try:
        toml = job.to_toml()
    except Exception:
        toml = None
    d = ready.layout.d
    rows = max(1, int(str(ready.execution.get("group", 1))))
    memory = 4 * d * (2 + 2 * rows) + 8 * 2 * d
    kept = len(algorithm.work.memory) * 4 * d
    visited = len(job.eligible) * (1 - (1 - min(1.0, expected / max(1, len(job.eligible)))) ** job.rounds)
    warnings: list[str] = []
    if kept:
        memory += int(kept * visited)
        if expected < 0.1 * len(job.eligible):
            warnings.append(
                f"{algorithm.name} keeps {say.size(kept)} for each client it has seen, "
                f"{say.size(kept * visited)} in all; of strangers each round fedprox is the stateless choice"
            )
    tv = skew["label_tv"]
    adapter = tuned.told(job, ready, expected)
    warnings += remarks(job) + tuned.warnings(adapter)
    warnings += robust_remarks(algorithm.aggregate, round(expected), skewed=bool(tv) and math.fsum(tv) / len(tv) > 0.3)
    return Plan(
        job={"name": job.name, "digest": job.digest, "toml": toml},
        model={"name": job.task.name or "module", "parameters": d, **({"adapter": adapter} if adapter else {})},
        clients=clients,
        population={
            "clients": len(fed),
            "train": int(fed.sizes.sum()),
            "test": int(fed.tests.sum()),
            "sizes": np.quantile(fed.sizes, [0, 0.5, 1]).astype(int).tolist(),
        },
        skew=skew,
        bytes={
            "up_round": int(up * back) + beside[0],
            "down_round": int(down * asked) + beside[1],
            "up": (int(up * back) + beside[0]) * job.rounds,
            "down": (int(down * asked) + beside[1]) * job.rounds,
        },
        steps=steps,
        seconds_estimate=seconds,
        memory_bytes=memory,
        execution=dict(ready.execution),
        does=_does(job, steps),
        rounds=job.rounds,
        privacy=promise.planned(job, made) if made else None,
        secure=promise.told(made, width(job, ready.layout, ready.buffers)) if made else None,
        warnings=warnings,
        words=fed.client_word,
        labels=tuple(fed.labels),
    )


def message_bytes(job: Job, ready: Prepared) -> tuple[int, int]:
    """Bytes of one client's message up and down, as the tensors are serialised."""
    if ready.turns:  # each turn is as often as any other
        each = [_message(job, ready, at) for at in range(len(ready.turns))]
        up, down = (round(sum(b) / len(each)) for b in zip(*each))
        return up, down
    return _message(job, ready, None)


def _message(job: Job, ready: Prepared, turn: int | None) -> tuple[int, int]:
    algorithm = job.algorithm
    server = algorithm.server.init(ready.theta) | ready.buffers
    layout = ready.layout
    if algorithm.before is not None:
        lengths = algorithm.before.down(int(str(ready.execution["features"])))
        server |= {n: ready.theta.new_empty(k) for n, k in lengths.items()}
    if turn is not None:
        server, layout = part_of(server, {}, ready.turns, turn)[0], ready.turns[turn].layout
    lengths = {n: layout.d if s == "d" else 1 for n, s in algorithm.work.sends.items()}
    shapes = {n: torch.empty(length, dtype=ready.theta.dtype, device="meta") for n, length in lengths.items()}
    sent = algorithm.uplink.size(shapes)
    down = begins(algorithm, server, job.draws.hub(1))
    if job.protection is None:
        return size_bytes(sent) + size_bytes(ready.buffers) + COUNT_BYTES, size_bytes(down)
    d = width(job, layout, ready.buffers)
    params = job.protection.guard(d, job.privacy.clip if job.privacy else None).params
    told = size_bytes(down) + len(params.to_bytes())
    return (DIMS_BYTES if job.secure is not None else 4 * (params.total + d)), told


def beside_bytes(job: Job, ready: Prepared) -> tuple[int, int]:
    """Bytes up and down, of all clients, of what is asked before a round."""
    before = job.algorithm.before
    if before is None or before.idle:
        return 0, 0
    sent = before.lengths(int(str(ready.execution["features"])))
    server = job.algorithm.server.init(ready.theta) | ready.buffers
    n = len(job.eligible)
    return 4 * n * (sum(sent.values()) + 1), n * size_bytes(begins(job.algorithm, server, job.draws.hub(1)))


def channel_bytes(job: Job, ready: Prepared) -> tuple[int, int]:
    """Bytes of one client's secure sum up and down, beyond the message, where everybody stays."""
    made = job.protection
    if made is None or made.secure is None:
        return 0, 0
    d = width(job, (ready.turns[0].layout if ready.turns else ready.layout), ready.buffers)
    params = replace(made.guard(d, made.privacy.clip if made.privacy else None).params, d=d)
    n = math.ceil(made.expected)
    k = made.secure.neighbours if n >= made.n_max else min(n - 1, made.secure.neighbours or n - 1)
    return costs(params, n, k or n - 1, ready.session)


def steps_of(job: Job) -> float:
    """Local steps of an average client a round."""
    b = job.algorithm.batches
    if b.steps is not None:
        return float(b.steps)
    sizes = job.federation.sizes[job.federation.sizes > 0]
    return float(np.ceil(b.epochs * np.ceil(sizes / b.size)).mean())


def _does(job: Job, steps: float) -> str:
    fed, a = job.federation, job.algorithm
    n = len(job.eligible)
    who = (
        f"all {n} {fed.client_word[1]}"
        if job.cohort_size >= n
        else f"{job.cohort_size} of {say.count(n)} {fed.client_word[1]}"
    )
    if job.sampling == "poisson":
        who = f"each of {say.count(n)} {fed.client_word[1]} with probability {job.rate:.3g}"
    table = a.tables["algorithm"]
    local = f"{say.count(round(steps))} steps of {str(table['optimiser']).upper()} (lr {table['lr']:g})"
    counted = fed.row_word[1] if job.task.size is None else "supervised tokens"
    weigh = "by their " + counted if a.weights == "samples" else "alike"
    gets = "the sum of their updates" if job.secure else "each update"
    if job.privacy is not None:
        gets = f"{gets}, clipped at {job.privacy.clip:g}, and adds noise"
    return f"each round, {who}: {local}; the hub gets {gets}; in the mean the {fed.client_word[1]} count {weigh}"


def _skew(job: Job) -> dict[str, list[float]]:
    fed = job.federation
    if fed.target != "class" or len(fed) > 1000:
        return {"label_tv": [], "entropy": []}
    counts = fed.label_counts().astype(float)
    whole = counts.sum(0) / max(1.0, counts.sum())
    p = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    tv = 0.5 * np.abs(p - whole).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(p > 0, p * np.log2(p), 0).sum(1)
    return {"label_tv": tv.tolist(), "entropy": entropy.tolist()}


def _try(job: Job, runtime: Runtime, ready: Prepared, tried: int) -> float:
    """Seconds of the whole job, from a few rounds on throw-away state."""
    short = replace(job, rounds=min(tried, job.rounds), eval_every=1, patience=None, stop_at=None)
    began = time.perf_counter()
    took = [e.seconds for e in loop(short, runtime, ready, start(job, ready)) if isinstance(e, RoundDone)]
    each = min(took) if took else (time.perf_counter() - began)
    runtime.restore({})
    return each * job.rounds
