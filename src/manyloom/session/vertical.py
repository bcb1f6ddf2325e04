"""A vertical job in a session: each party keeps its own part of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from manyloom.job.events import Event
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.loop import loop, start
from manyloom.job.vertical.makers import maker_of
from manyloom.job.vertical.plan import plan
from manyloom.job.vertical.prepare import Line, Prepared, prepare
from manyloom.runtime.parties import LocalParties
from manyloom.session.kinds import Kind
from manyloom.track.parts import load_parts, save_parts


def _planned(job: Vertical, ready: Prepared) -> Iterator[Event]:
    yield from ()  # the loop tells it, once the parties know how many rows they share


def _about(job: Vertical) -> Mapping[str, Any]:
    return {"model": job.model.table["name"], "algorithm": maker_of(job).name}


VERTICAL = Kind(
    runtime=LocalParties,
    prepare=prepare,
    start=start,
    loop=lambda job, runtime, ready, state, run, stop, account: loop(
        job, Line(runtime), ready, state, run=run, stop=stop
    ),
    plan=lambda job, runtime, tried: plan(job, runtime, tried=tried),
    planned=_planned,
    save=lambda folder, job, ready, state: save_parts(folder, job, state),
    model=lambda folder, job, ready, state: load_parts(folder) if state.round else None,
    account=lambda job, folder, mark: None,
    about=_about,
)
