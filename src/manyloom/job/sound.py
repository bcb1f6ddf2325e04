"""Mixes that would not do what they say: each is refused with what, why and the mend."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from manyloom.core.errors import BadInput, Problem
from manyloom.core.validate import share_of, show
from manyloom.job.job import Job
from manyloom.secure import graph
from manyloom.secure.settings import Secure


def unsound(job: Job) -> list[Problem]:
    """What is wrong with a job's parts beside each other, and beside its [privacy] or [secure]."""
    found = list(_in_turn(job)) if job.algorithm.turns else []
    found += list(_before(job)) if job.algorithm.before else []
    if job.privacy is None and job.secure is None:
        return found
    return [*found, *_either(job), *(_private(job) if job.privacy is not None else ())]


def _before(job: Job) -> Iterator[Problem]:
    """A client that is asked before each round, in the clear and by name."""
    if job.privacy is not None or job.secure is not None or job.algorithm.buffered is not None:
        beside = "[privacy]" if job.privacy is not None else "[secure]" if job.secure is not None else "buffered rounds"
        yield _refuse("moments-in-the-clear", f"{job.algorithm.name} asks one client alone, beside {beside}",
                      f"target_client = {show(job.algorithm.before.client if job.algorithm.before else None)}",
                      "mean and covariance of its features are no sum over clients, and no noise covers them",
                      f"leave {beside} out, or take fedavg")  # fmt: skip


def _in_turn(job: Job) -> Iterator[Problem]:
    """Parts that are trained in turn: what keeps a vector as long as the model has no part to keep it for."""
    a, why = job.algorithm, "each round of this rule moves another part of the model"
    if set(a.server.init(torch.zeros(1))) != {"theta"}:
        yield _refuse("turns-state", f'the server step "{a.server.name}" remembers rounds that trained another part',
                      f"name = {show(a.server.name)} in [server]", why,
                      'leave [server] out, or take combine = "ffa" or "fedavg" in [lora]')  # fmt: skip
    if a.work.memory or a.work.drive or a.work.objective or a.work.measure or a.local or a.buffered:
        yield _refuse("turns-state", f"{a.name} does not work on one part of a model at a time",
                      f"name = {show(a.name)} in [algorithm]", why,
                      'take fedavg or fedprox, or combine = "ffa" in [lora]')  # fmt: skip
    if a.uplink.memory:
        yield _refuse("turns-state", "error feedback carries over what belongs to another part",
                      f"uplink: {a.uplink.name}", why,
                      "set error_feedback = false in [uplink]")  # fmt: skip


def _either(job: Job) -> Iterator[Problem]:
    table = "[privacy]" if job.privacy is not None else "[secure]"
    a = job.algorithm
    if a.aggregate.needs == "each":
        why = "a secure sum shows the hub no single update" if job.secure is not None else \
            "the noise is calibrated for a sum of clipped updates"  # fmt: skip
        yield _refuse("needs-each", f'the rule "{a.aggregate.name}" needs each update, beside {table}',
                      f"rule = {show(a.aggregate.name)} in [aggregate]", why,
                      f'leave [aggregate] out (the mean needs only the sum), or leave {table} out')  # fmt: skip
    if any(length != "d" for length in a.work.sends.values()):
        yield _refuse("numbers-beside-sum", f"{a.name} sends numbers of its own, beside {table}",
                      ", ".join(n for n, s in a.work.sends.items() if s != "d"),
                      "the clip and the range of the sum are those of an update",
                      f"take fedavg, or leave {table} out")  # fmt: skip
    if a.uplink.memory:
        yield _refuse("error-feedback", f"error feedback can't stand beside {table}", f"uplink: {a.uplink.name}",
                      "what a client carries over from earlier rounds is added after the bound, and undoes it",
                      "set error_feedback = false in [uplink]")  # fmt: skip
    elif a.uplink.apply is not None and a.uplink.bound(1.0) == float("inf"):
        yield _refuse("unbounded-message", f"nothing bounds a client's message, beside {table}",
                      f"uplink: {a.uplink.name}", "noise and integer sums need a bound on what one client can change",
                      "leave [uplink] out: the update is clipped and rounded as it is")  # fmt: skip
    elif a.uplink.apply is not None and not a.uplink.summable:
        yield _refuse("compression-beside-sum", f"compressed updates can't be summed as they are, beside {table}",
                      f"uplink: {a.uplink.name}", "the sum is of integers, a coordinate each; the only compressor that "
                      "commutes with it drops the same coordinates of all",
                      "random_k = 0.1 in [uplink], or leave it out")  # fmt: skip
    fed = job.federation
    if job.secure is not None and fed.schema is not None:
        declared = fed.vocabulary or {}
        if open_columns := [c for c in fed.schema.categories if c not in declared]:
            yield _refuse("vocabulary-in-the-clear", "text columns would name their values in the clear",
                          f"columns {', '.join(open_columns[:4])}", "with [secure] only sums leave a client",
                          'declare them: vocabulary = "FILE" in [data], or drop the columns')  # fmt: skip
    if job.secure is not None and not job.alone:
        judges = int((fed.tests > 0).sum())
        asked = share_of(job.eval_cohort, judges) if job.eval_cohort is not None and judges else judges
        if judges and (why := _infeasible(job.secure, asked)):
            yield _refuse("secure-too-few", "too few clients hold rows out for a secure sum of metrics",
                          f"{judges} hold rows out, eval_cohort = {job.eval_cohort}", why,
                          'raise eval_cohort or [data] test, lower delta_drop in [secure], or set '
                          'client_metrics = "release" in [job]')  # fmt: skip


def _infeasible(s: Secure, asked: int) -> str | None:
    """Why so many clients make no secure sum; None if they do."""
    if asked < 3:
        return "the sum of one is no secret, of two each knows the other's"
    try:
        _ = graph.degree(asked, repr(float(s.gamma)), repr(float(s.delta_drop)), s.bits, s.mode)
    except BadInput as error:
        return error.what
    return None


def _refuse(code: str, what: str, got: str, rule: str, mend: str) -> Problem:
    return Problem(code, what, got, rule=rule, mend=mend)


CROWD = 5  # among fewer clients hiding one says nothing


def _private(job: Job) -> Iterator[Problem]:
    n = len(job.eligible)
    if n < CROWD:
        yield Problem(
            "too-few-to-hide",
            f"a claim for one of {n} clients promises nothing",
            f"{n} clients beside [privacy]",
            rule=f"noise that hides one client among fewer than {CROWD} drowns all of them",
            mend="take clients that are people, or leave [privacy] out: [secure] hides updates from the hub",
        )
    if job.algorithm.weights != "uniform":
        yield _refuse("weights-under-noise", "a weighted mean can't stand under a privacy claim",
                      'weights = "samples" in [algorithm]',
                      "a client with a thousandfold weight would move the mean a thousandfold, past its clip",
                      'set weights = "uniform", or leave it out')  # fmt: skip
    if job.task.buffers == "average":
        yield _refuse("buffers-under-noise", "running statistics would leave without a clip or noise",
                      'buffers = "average" in [model]', "they are data of each client, beside the update",
                      'use GroupNorm in the model, or buffers = "local"')  # fmt: skip
