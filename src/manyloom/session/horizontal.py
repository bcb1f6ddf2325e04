"""A horizontal job in a session: one model, clients with the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from manyloom.core.exchange import Runtime
from manyloom.job.events import Event, Missing, Planned
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.plan import of as plan_of
from manyloom.job.plan import plan
from manyloom.job.prepare import Prepared, module_of, prepare
from manyloom.job.spend import account_of
from manyloom.job.state import State
from manyloom.runtime.local import Local
from manyloom.session.kinds import Kind
from manyloom.track.model import save_model


def _prepare(job: Job, runtime: Runtime, state: State | None) -> Prepared:
    if state is None:
        return prepare(job, runtime)
    return prepare(job, runtime, state.preprocess, state.execution, state.record.get("session"))


def _planned(job: Job, ready: Prepared) -> Iterator[Event]:
    """The plan's figures, and what is missing in the columns of few clients."""
    p = plan_of(job, ready)
    privacy, secure = (None if found is None else dict(found) for found in (p.privacy, p.secure))
    yield Planned(p.bytes["up_round"], p.bytes["down_round"], p.seconds_estimate, privacy, secure)
    gaps = job.federation.gaps() if len(job.federation) <= 50 else None
    if gaps is not None and job.federation.schema is not None:
        sizes = job.federation.sizes
        share = {i: [float(x) / max(1, int(sizes[i])) for x in row] for i, row in enumerate(gaps.tolist())}
        yield Missing([c.name for c in job.federation.schema.columns], share)


def _model(folder: Path, job: Job, ready: Prepared, state: State) -> nn.Module:
    theta, local = job.algorithm.server.model(state.server), job.algorithm.local
    return module_of(job.task, ready.shape, job.seed, state.server, theta, local)


def _about(job: Job) -> Mapping[str, Any]:
    return {"model": job.task.name or "module", "algorithm": job.algorithm.name}


HORIZONTAL = Kind(
    runtime=Local,
    prepare=_prepare,
    start=start,
    loop=lambda job, runtime, ready, state, run, stop, account: loop(
        job, runtime, ready, state, run=run, stop=stop, account=account
    ),
    plan=lambda job, runtime, tried: plan(job, runtime, tried=tried),
    planned=_planned,
    save=lambda folder, job, ready, state: save_model(folder, job, state, ready.preprocess),
    model=_model,
    account=account_of,
    about=_about,
)
