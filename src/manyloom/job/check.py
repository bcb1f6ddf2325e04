"""What can only be judged with the population at hand: a job against its federation."""

from __future__ import annotations

from dataclasses import replace

from manyloom.aggregate import planned
from manyloom.core.errors import Problem
from manyloom.core.metrics import METRICS
from manyloom.core.validate import nearest, show
from manyloom.data.names import client_index
from manyloom.job.job import Job


def against_population(job: Job) -> list[Problem]:
    """What can only be judged with the population at hand."""
    n = len(job.eligible)
    word = job.federation.client_word[1]
    found: list[Problem] = []
    if n == 0:
        found.append(
            Problem(
                "empty-client",
                f"none of {len(job.federation)} {word} has a training row",
                mend="check [data] and [partition]",
            )
        )
    for key in ("cohort", "eval_cohort"):
        value = getattr(job, key)
        if isinstance(value, int) and n and value > n:
            what = (
                "the cohort is larger than the population"
                if key == "cohort"
                else f"{key} is larger than the population"
            )
            found.append(
                Problem(
                    "cohort-too-large",
                    what,
                    f"{key} = {value}, clients {n}",
                    mend=f"set {key} = {n}, or leave it out to ask everyone",
                )
            )
    if isinstance(job.quorum, int) and n and job.quorum > job.cohort_size:
        found.append(
            Problem(
                "out-of-range",
                "the quorum is larger than the cohort",
                f"quorum = {job.quorum}, cohort {job.cohort_size}",
                mend=f"set quorum = {job.cohort_size}",
            )
        )
    if job.min_available is not None and n and job.min_available > n:
        found.append(
            Problem(
                "out-of-range",
                "min_available is larger than the population",
                f"min_available = {job.min_available}, clients {n}",
            )
        )
    if job.sampling == "poisson" and job.cohort is None:
        found.append(
            Problem(
                "out-of-range",
                "poisson sampling needs a cohort",
                'sampling = "poisson"',
                rule="cohort = 0.1 asks each client with probability 0.1",
                mend="set cohort",
            )
        )
    found += _rule(job) if n else []
    if job.algorithm.before is not None and job.apart is None:
        name = job.algorithm.before.client
        near = nearest(name, job.federation.names) if len(job.federation) <= 1000 else None
        found.append(
            Problem(
                "unknown-client",
                f'there is no {job.federation.client_word[0]} "{name}"',
                f"target_client = {show(name)} in [algorithm]",
                rule="a name or number of the federation",
                mend=f'did you mean "{near}"?' if near else None,
            )
        )
    measured = ("loss", *job.metrics)
    if job.watch is not None and job.watch not in measured:
        near = nearest(job.watch, measured)
        found.append(
            Problem(
                "unknown-name",
                f'"{job.watch}" is not measured',
                f"watch = {show(job.watch)} in [job]",
                rule="measured: " + ", ".join(measured),
                mend=f'did you mean "{near}"?' if near else None,
            )
        )
    if job.validation is not None and job.algorithm.local:
        found.append(
            Problem(
                "validation-beside-local",
                "the hub can't judge a model whose parts stay at the clients",
                f"{job.algorithm.name} beside [validation]",
                rule="it has no such part of its own",
                mend="leave [validation] out, or take fedavg",
            )
        )
    seen = job.validation.metric if job.validation is not None else None
    if seen is not None and seen not in measured:
        near = nearest(seen, measured)
        found.append(
            Problem(
                "unknown-name",
                f'"{seen}" is not measured',
                f"metric = {show(seen)} in [validation]",
                rule="measured: " + ", ".join(measured),
                mend=f'did you mean "{near}"?' if near else None,
            )
        )
    for m in job.metrics:
        if METRICS[m].target != job.federation.target:
            found.append(
                Problem(
                    "metric-target",
                    f"{m} does not fit what is predicted",
                    f"metrics = {show(list(job.metrics))}, target = {show(job.federation.target)}",
                    mend="classes: accuracy, auc, f1; a number: rmse, mae, r2",
                )
            )
    if "auc" in job.metrics and job.federation.classes is not None and job.federation.classes != 2:
        found.append(
            Problem(
                "metric-target",
                "auc needs two classes",
                f"{job.federation.classes} classes",
                mend='use metrics = ["accuracy", "f1"]',
            )
        )
    return found + [p for p in (_fault(job, pair) for pair in job.simulate.drop) if p]


def _rule(job: Job) -> list[Problem]:
    """A rule against the least that a round may get, and what its mean can't do."""
    rule = job.algorithm.aggregate
    found: list[Problem] = []
    if rule.needs == "each" and not rule.weighed and job.algorithm.weights == "samples":
        found.append(
            Problem(
                "weights-beside-rule",
                f"{rule.name} counts all updates alike",
                'weights = "samples" in [algorithm]',
                rule="an update that weighs more by its own word could not be told from one that lies about it",
                mend='set weights = "uniform", or leave it out',
            )
        )
    problem = planned(rule, job.quorum_of(job.cohort_size))
    if problem is not None:
        least = f"quorum {job.quorum_of(job.cohort_size)} of {job.cohort_size}"
        found.append(replace(problem, rule=f"the least that a round may get: {least} ([job] quorum)"))
    return found


def _fault(job: Job, pair: str) -> Problem | None:
    round, _, client = pair.partition(":")
    if round.isdigit() and client_index(job.federation, client) is not None:
        return None
    return Problem(
        "out-of-range",
        f'can\'t read the fault "{pair}"',
        f"drop = {show(list(job.simulate.drop))} in [simulate]",
        rule='"round:client", the client by name or number',
        mend='drop = ["3:0"]',
    )
