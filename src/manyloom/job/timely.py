"""Mixes of a job that come to grief on the clock: each is refused with what, why and the mend."""

from __future__ import annotations

from collections.abc import Iterator

from manyloom.algorithms.recipe import CARDS
from manyloom.core.errors import Problem
from manyloom.core.validate import show
from manyloom.job.job import Job


def untimely(job: Job) -> list[Problem]:
    """What is wrong with a job's over-provisioning, partial work and buffered rounds."""
    return [*_simulate(job), *_over(job), *_partial(job), *(_buffered(job) if job.algorithm.buffered else ())]


def remarks(job: Job) -> list[str]:
    """What will work on the clock but should be known."""
    told: list[str] = []
    if job.partial and uneven(job) == "warns":
        told.append(
            f"{job.algorithm.name} takes unequal work but does not correct for it: the model leans towards fast "
            "clients; fednova, scaffold and feddyn keep its optimum"
        )
    if job.over_provision > 1:
        told.append("who is slow is often left out: look at what the model is worth to slow clients")
    return told


def uneven(job: Job) -> str:
    """What unequal steps do to the fixed point of a job's algorithm: "keeps", "warns", "shifts"."""
    card = CARDS.get(job.algorithm.name)
    return card.uneven if card is not None else "warns"


def _simulate(job: Job) -> Iterator[Problem]:
    fate = job.simulate
    if fate.trace is None:
        return
    for key, given in (("speed", fate.speed is not None), ("availability", fate.availability < 1)):
        if given:
            yield Problem("contradiction", f"trace and {key} contradict each other",
                          f"trace = {show(fate.trace)}, {key} = {show(getattr(fate, key))} in [simulate]",
                          rule="the trace says who is reachable when, and how fast",
                          mend=f"leave {key} out")  # fmt: skip


def _over(job: Job) -> Iterator[Problem]:
    if job.over_provision <= 1:
        return
    got = f"over_provision = {job.over_provision:g}"
    if job.privacy is not None:
        yield Problem("over-provision", "over-provisioning can't stand under a privacy claim", got,
                      rule="who is fast would decide who is in the sum; the claim is of a drawn cohort",
                      mend="leave over_provision out, or leave [privacy] out")  # fmt: skip
    if job.algorithm.buffered is not None:
        yield Problem("over-provision", f"{job.algorithm.name} has no round to close early", got,
                      rule="no client waits for another", mend="leave over_provision out")  # fmt: skip
    elif job.sampling == "poisson":
        yield Problem("over-provision", "over-provisioning needs a cohort of fixed size", got,
                      rule="a poisson cohort has any size", mend='set sampling = "uniform"')  # fmt: skip
    elif job.cohort_size >= len(job.eligible):
        yield Problem("over-provision", "there is nobody more to ask", f"{got}, cohort {job.cohort_size}, clients "
                      f"{len(job.eligible)}", rule="a round asks over_provision times the cohort",
                      mend="set a smaller cohort, or leave over_provision out")  # fmt: skip


def _partial(job: Job) -> Iterator[Problem]:
    if not job.partial:
        return
    name = job.algorithm.name
    if job.algorithm.buffered is not None:
        yield Problem("partial", f"{name} has no deadline that work could be cut at", "partial = true",
                      rule="no client waits for another", mend="leave partial out")  # fmt: skip
    elif uneven(job) == "shifts":
        yield Problem("partial", f"partial work would move the model of {name}", "partial = true",
                      rule="who does more steps weighs more: the optimum shifts towards fast clients",
                      mend='algorithm.name = "fednova" (or scaffold, feddyn), or partial = false')  # fmt: skip


def _buffered(job: Job) -> Iterator[Problem]:
    """What does not go with updates that start from different models."""
    a, name = job.algorithm, job.algorithm.name
    if job.secure is not None:
        yield Problem("buffered-secure", f"{name} can't stand beside [secure]", "[secure]",
                      rule="a secure sum is of one round's cohort; a buffer mixes clients of several",
                      mend="take fedavg, or leave [secure] out")  # fmt: skip
    if job.privacy is not None:
        yield Problem("buffered-private", f"{name} can't stand beside [privacy]", "[privacy]",
                      rule="the guarantee is of drawn cohorts: here speed decides who is in a sum, and how often",
                      mend="take fedavg, or leave [privacy] out")  # fmt: skip
    if a.aggregate.needs == "each":
        yield Problem("buffered-rule", f"{name} can't stand beside the rule {a.aggregate.name}",
                      f"rule = {show(a.aggregate.name)} in [aggregate]",
                      rule="rules compare updates of one model; these start from several and count by their age",
                      mend="leave [aggregate] out, or take fedavg")  # fmt: skip
    if job.attack is not None and job.attack.name in ("alie", "ipm"):
        yield Problem("buffered-attack", f"{job.attack.name} needs the updates of a whole cohort",
                      f"name = {show(job.attack.name)} in [attack]", rule=f"under {name} clients answer one by one",
                      mend='name = "sign-flip", or take fedavg')  # fmt: skip
    if job.sampling == "poisson":
        yield Problem("buffered-sampling", f"{name} draws no cohorts", 'sampling = "poisson"',
                      rule="cohort says how many clients are at work at a time", mend="leave sampling out")  # fmt: skip
