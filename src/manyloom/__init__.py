"""Manyloom trains one PyTorch model across parties whose data must not move."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from manyloom._version import __version__

if TYPE_CHECKING:
    from manyloom import aggregate, algorithms, data, llm, models, runtime, server, transforms
    from manyloom.core.flat import Layout
    from manyloom.core.task import Task
    from manyloom.data import Federation
    from manyloom.job.job import Job
    from manyloom.session import Plan, Result, load, plan, resume, run, train

__all__ = [
    "Federation",
    "Job",
    "Layout",
    "Plan",
    "Result",
    "Task",
    "__version__",
    "aggregate",
    "algorithms",
    "data",
    "llm",
    "load",
    "models",
    "plan",
    "resume",
    "run",
    "runtime",
    "server",
    "train",
    "transforms",
]

# Where the flat names lie. They are fetched when they are asked for, so that the command line answers
# `--help` and completion without torch.
_HOMES = {
    "Federation": "manyloom.data",
    "Job": "manyloom.job.job",
    "Layout": "manyloom.core.flat",
    "Task": "manyloom.core.task",
} | dict.fromkeys(("Plan", "Result", "load", "plan", "resume", "run", "train"), "manyloom.session")


def __getattr__(name: str) -> object:
    if name in _HOMES:
        found = getattr(import_module(_HOMES[name]), name)
    elif name in __all__:
        found = import_module(f"manyloom.{name}")
    else:
        raise AttributeError(f"module 'manyloom' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
