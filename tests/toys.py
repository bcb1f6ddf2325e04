"""Small jobs that many tests share."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from manyloom.algorithms import fedavg
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.core.parts import Algorithm
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.prepare import prepare
from manyloom.privacy.settings import Privacy
from manyloom.runtime.local import Local
from manyloom.secure.settings import Secure


class ThreeNumbers(nn.Module):
    """Linear regression without a bias on three features, from zero: theta [3]."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.w).sum(-1, keepdim=True)


def classes(sizes=(30, 7, 18, 1, 25), features=6, n_classes=3, seed=0, test=0.2) -> Federation:
    """Clients of different sizes, Gaussian classes."""
    rng = np.random.default_rng(seed)
    n = int(sum(sizes))
    y = rng.integers(0, n_classes, n)
    x = rng.normal(size=(n, features)).astype(np.float32) + y[:, None].astype(np.float32)
    off = np.concatenate([[0], np.cumsum(sizes)])
    parts = [np.arange(a, b) for a, b in zip(off[:-1], off[1:])]
    return Federation.of_tensors(torch.from_numpy(x), torch.from_numpy(y), parts, test=test, classes=n_classes)


def task(features=6, n_classes=3) -> Task:
    return Task(lambda: nn.Sequential(nn.Linear(features, 8), nn.Tanh(), nn.Linear(8, n_classes)), metrics=["accuracy"])


def job(algorithm: Algorithm | None = None, federation: Federation | None = None, **settings) -> Job:
    """A job over `classes`, three rounds of FedAvg unless said otherwise."""
    chosen = algorithm or fedavg(lr=0.1, batch_size=5, epochs=2)
    return Job(task(), chosen, federation or classes(), **{"rounds": 3, "seed": 1, **settings})


def play(job: Job, runtime=None, state=None):
    """All events of a job in memory, without a store."""
    runtime = runtime or Local()
    ready = prepare(job, runtime, state.preprocess if state else None, state.execution if state else None)
    return list(loop(job, runtime, ready, state or start(job, ready)))


def theta(job: Job, **more) -> torch.Tensor:
    """The model of a finished job."""
    return job.algorithm.server.model(play(job, **more)[-1].state.server)


def history(events) -> list[dict]:
    """What must repeat: everything in the rounds but the clock."""
    clock = {"seconds", "phases"}
    kept = [e.to_json() for e in events if e.type in ("round_done", "evaluated", "client_done", "client_lost")]
    return [{k: v for k, v in e.items() if k not in clock} for e in kept]


def of(events, kind: str) -> list:
    """The events of one kind."""
    return [e for e in events if e.type == kind]


def hospitals(**more) -> Federation:
    """Five clients, all of which hold rows out: enough for secure sums of metrics."""
    return classes(**{"sizes": (30, 15, 20, 10, 25), "test": 0.3, **more})


def writers(n=40, rows=4, **more) -> Federation:
    """Many small clients of one size, nothing held out."""
    return classes(**{"sizes": (rows,) * n, "test": 0.0, **more})


def secured(algorithm: Algorithm | None = None, federation: Federation | None = None, *, table=None, **settings) -> Job:
    """A job with secure sums; `table` is what [secure] says beyond the cheap fidelity."""
    return job(
        algorithm, federation or hospitals(), secure=Secure(**{"fidelity": "ideal", **(table or {})}), **settings
    )


def private(algorithm: Algorithm | None = None, federation: Federation | None = None, *, table=None, **settings) -> Job:
    """A job with a privacy claim over `writers`; `table` is what [privacy] says beyond clip 1 and z 1."""
    said = {"clip": 1.0, **(table if table is not None else {"noise_multiplier": 1.0})}
    chosen = algorithm or fedavg(lr=0.1, batch_size=5)
    return job(
        chosen, federation or writers(), privacy=Privacy(**said), **{"cohort": 1.0, "eval_every": 99, **settings}
    )


class Listening(Local):
    """A runtime that keeps what was asked and answered, and lets a test change either.

    `before(ask)` may give the answers itself; `after(ask, answers)` may change them; None: leave it.
    """

    def __init__(self, before=None, after=None) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.heard: list[tuple[Ask, list[Reply | Lost]]] = []

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        answers = self.before(ask) if self.before else None
        answers = super().ask(ask) if answers is None else answers
        changed = self.after(ask, answers) if self.after else None
        answers = answers if changed is None else changed
        self.heard.append((ask, answers))
        return answers

    def of(self, verb: str) -> list[tuple[Ask, list[Reply | Lost]]]:
        return [(ask, answers) for ask, answers in self.heard if ask.verb == verb]
