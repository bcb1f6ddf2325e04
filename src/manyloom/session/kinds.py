"""What differs between kinds of jobs when they are run, saved and loaded: a record of functions a kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyloom.job.events import Event
from manyloom.job.job import Job
from manyloom.job.state import State
from manyloom.privacy.account import Account

Stop = Callable[[], bool]


@dataclass(frozen=True)
class Kind:
    """One kind of job. `job`, `runtime` and `ready` are the kind's own types; nobody else looks into them.

    Args:
        runtime: who answers where nobody was named: in this process.
        prepare: (job, runtime, state of a run that goes on) -> ready; refuses what can't run.
        start: (job, ready) -> the state before round 1.
        loop: (job, runtime, ready, state, run's name, stop, account) -> all events.
        plan: (job, runtime, rounds to try) -> what it will do.
        planned: (job, ready) -> what is told once a run is there.
        save: (run's folder, job, ready, state) -> the models' SHA-256.
        model: (run's folder, job, ready, state) -> what Python gets.
        account: (job, run's folder, its mark in the state) -> where spending is written; None: nothing is spent.
        about: (job) -> what the run's record says of it.
    """

    runtime: Callable[[], Any]
    prepare: Callable[[Any, Any, State | None], Any]
    start: Callable[[Any, Any], State]
    loop: Callable[[Any, Any, Any, State, str, Stop, Account | None], Iterator[Event]]
    plan: Callable[[Any, Any, int], Any]
    planned: Callable[[Any, Any], Iterator[Event]]
    save: Callable[[Path, Any, Any, State], str]
    model: Callable[[Path, Any, Any, State], Any]
    account: Callable[[Any, Path, Any], Account | None]
    about: Callable[[Any], Mapping[str, Any]]


def kind_of(job: Any) -> Kind:
    """How a job of this type is run; a horizontal one loads nothing of the other."""
    if isinstance(job, Job):
        from manyloom.session.horizontal import HORIZONTAL

        return HORIZONTAL
    from manyloom.session.vertical import VERTICAL

    return VERTICAL
