"""Manyloom trains one PyTorch model across parties whose data must not move."""

from manyloom import aggregate, algorithms, data, models, runtime, server, transforms
from manyloom._version import __version__
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
