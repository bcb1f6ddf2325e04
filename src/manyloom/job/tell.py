"""What the loop says of a job, a round, an evaluation: values into events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from manyloom.aggregate import filtered
from manyloom.algorithms.evaluation import Evaluation
from manyloom.algorithms.round import Round
from manyloom.core.errors import Problem
from manyloom.core.metrics import better
from manyloom.core.slots import Slots
from manyloom.core.tensors import floats, ints
from manyloom.job import events as ev
from manyloom.job.job import Job
from manyloom.job.prepare import Prepared, module_of
from manyloom.job.state import State

SHOWN = 256  # cohorts up to this size get an event a client
NAMED = 1000  # federations up to this size are told client by client


class Outcome(NamedTuple):
    """A round with all its attempts; `problem` is why the run can't go on."""

    trained: Round
    attempt: int
    phases: dict[str, float]
    sent_up: int
    sent_down: int
    problem: Problem | None = None
    guard: dict[str, Any] | None = None
    dear: str | None = None  # why the budget allows no further attempt
    open: Slots | None = None  # of asynchronous rounds, what is open now


def run_started(job: Job, ready: Prepared, run: str) -> ev.RunStarted:
    """The first event: what the run is about."""
    fed = job.federation
    sizes = np.quantile(fed.sizes, [0, 0.25, 0.5, 0.75, 1]).astype(int).tolist()
    population = {
        "clients": len(fed),
        "train": int(fed.sizes.sum()),
        "test": int(fed.tests.sum()),
        "sizes": sizes,
        "moved": fed.moved,
    }
    clients: list[dict[str, Any]] | None = None
    if len(fed) <= NAMED:
        labels = fed.label_counts()
        clients = [
            {
                "client": i,
                "name": fed.names[i],
                "train": int(fed.sizes[i]),
                "test": int(fed.tests[i]),
                "labels": labels[i].tolist(),
            }
            for i in range(len(fed))
        ]
    info = fed.info
    return ev.RunStarted(
        run=run,
        name=job.name,
        job_digest=job.digest,
        rounds=job.rounds,
        seed=job.seed,
        algorithm=job.algorithm.name,
        paper=job.algorithm.paper,
        model={"name": job.task.name or "module", "parameters": ready.layout.d},
        clients=clients,
        population=population,
        runtime="sequential" if ready.execution.get("group", 1) == 1 else "vectorised",
        execution=dict(ready.execution),
        source={"name": info.name, "title": info.title, "licence": info.licence, "attribution": info.attribution},
        client_word=fed.client_word,
        row_word=fed.row_word,
        target=fed.target,
        classes=list(fed.labels),
        metrics=["loss", *job.metrics],
        watch=job.watched,
    )


def evaluated(job: Job, found: Evaluation, number: int, split: str, seconds: float) -> ev.Evaluated:
    """An evaluation: in all, a client (of small federations), mean and worst tenth over clients."""
    each: dict[int, dict[str, Any]] = {}
    if split == "test" and found.each and len(found.clients) <= NAMED:
        columns = {k: floats(v) for k, v in found.each.items()}
        rows = ints(found.rows)
        positives = ints(found.positives) if found.positives is not None else None
        for i, client in enumerate(found.clients.tolist()):
            each[client] = {k: v[i] for k, v in columns.items()} | {"rows": rows[i]}
            if positives is not None:
                each[client]["positives"] = positives[i]
    spread: dict[str, Any] = {}
    for name, values in found.each.items():
        have = values[torch.isfinite(values)]
        if len(have) and split == "test":
            tenth = have.sort(descending=better(name) == "min").values[: -(-len(have) // 10)]
            spread[name] = {"mean": float(have.mean()), "worst_tenth": float(tenth.mean())}
    positives_all = int(found.positives.sum()) if found.positives is not None else None
    return ev.Evaluated(
        number,
        split,
        dict(found.metrics),
        each,
        int(found.rows.sum()),
        positives_all,
        spread,
        found.sent_up + found.channel[0],
        found.sent_down + found.channel[1],
        seconds,
    )


def cohort_summary(trained: Round) -> dict[str, Any]:
    """Quantiles of a large cohort, where an event a client would be too many."""

    def five(values: torch.Tensor) -> list[float]:
        return np.quantile(values.double().numpy(), [0, 0.25, 0.5, 0.75, 1]).tolist()

    return {
        "samples": five(trained.samples),
        "steps": five(trained.steps),
        "loss": five(trained.loss),
        "lost": len(trained.lost),
    }


def below_quorum(job: Job, number: int, trained: Round, quorum: int, run: str, why: str = "") -> Problem:
    """Why a run ends: a round that too few answered, with who was lost and why."""
    names = job.federation.names
    told = [f"{names[x.client]}: {x.text}" for x in trained.lost[:4]]
    more = [f"and {len(trained.lost) - 4} more"] if len(trained.lost) > 4 else []
    saved = f"round {number - 1} is saved" if number > 1 else "no round was done"
    if len(trained.back) >= quorum:
        return Problem("no-sum", f"round {number} came to no secure sum", got=why, rule=saved,
                       mend=f"manyloom resume {run or 'RUN'}")  # fmt: skip
    return Problem(
        "quorum",
        f"round {number} got {len(trained.back)} replies and needs {quorum}",
        got="; ".join(["lost " + told[0], *told[1:], *more]) if told else saved,
        rule=f"quorum {quorum} of {len(trained.back) + len(trained.lost)} ([job] quorum); {saved}",
        mend=f"mend what they say, or lower the quorum, then:\nmanyloom resume {run or 'RUN'}",
    )


def clients_done(number: int, trained: Round) -> Iterator[ev.ClientDone]:
    """Each client that came back, of small cohorts."""
    if len(trained.back) > SHOWN:
        return
    if not len(trained.back):
        return
    share = (trained.sent_up + trained.channel[0]) // len(trained.back)
    if not len(trained.samples):  # only their sum came
        for client in np.sort(trained.back).tolist():
            yield ev.ClientDone(number, client, None, None, None, share)
        return
    for i in np.argsort(trained.back).tolist():
        yield ev.ClientDone(
            number, int(trained.back[i]), int(trained.samples[i]), int(trained.steps[i]), float(trained.loss[i]), share
        )


def clients_filtered(job: Job, number: int, trained: Round) -> Iterator[ev.ClientFiltered]:
    """Whom a robust rule left out; of a rule that keeps one by design nobody is named."""
    rule = job.algorithm.aggregate.name
    if trained.kept is None or rule == "krum":
        return
    gone = {x.client for x in trained.lost}
    for row in ints(filtered(trained.kept).nonzero()):
        client = int(trained.back[row])
        if client not in gone:
            yield ev.ClientFiltered(number, client, job.federation.names[client], rule, float(trained.kept[row]))


EXACT = ("ffa", "rolora")  # linear in what travels: the mean of factors is the mean of products


def adapters_combined(job: Job, number: int, trained: Round) -> Iterator[ev.Combined]:
    """How far combined adapters are from the mean of their products; over a secure sum an inexact rule can't say."""
    rule = job.algorithm.tables.get("lora", {}).get("combine")
    if rule is None:
        return
    exact = rule in EXACT
    found = (0.0, 0.0) if exact else (None, None)
    if trained.agg_error is not None:
        found = tuple(floats(trained.agg_error))
    yield ev.Combined(number, str(rule), found[0], found[1], exact, covered=exact)


def adapters_told(job: Job, ready: Prepared) -> Iterator[ev.Event]:
    """What is trained of a language model, and what each client's texts came to; sizes stay private under a claim."""
    if job.task.own is None:
        return
    about: dict[str, Any] = dict(job.task.own.about)
    for text in about.pop("notes", ()):
        yield ev.Note("info", "base-changed", text)
    yield ev.Adapter(d=ready.layout.d, **about)
    if job.alone and len(job.federation) <= NAMED:
        for found in job.federation.told:
            yield ev.Tokens(**dict(found))


def spoken(job: Job, ready: Prepared, state: State) -> Iterator[ev.Sample]:
    """What a language model says to the job's prompts; nothing for other models, or without prompts."""
    if job.task.own is None or not job.task.own.prompts:
        return
    theta = job.algorithm.server.model(state.server)
    module = module_of(job.task, ready.shape, job.seed, state.server, theta, job.algorithm.local)
    for prompt, text in job.task.own.say(module):
        yield ev.Sample(state.round, prompt, text)
