"""Everything in this process: a population of simulated clients, one engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.core.slots import Slots, unpack_json
from manyloom.core.tensors import from_numpy
from manyloom.data.preprocess import Preprocess
from manyloom.data.store import Slab
from manyloom.engine.build import build
from manyloom.job.check import client_index
from manyloom.job.job import Job, shape_of
from manyloom.runtime.clients import Clients, without
from manyloom.runtime.memory import Memory
from manyloom.runtime.sites import Sites
from manyloom.secure import wire
from manyloom.secure.params import number_of, round_of

LOG = "log/"  # before the names of what clients keep of secure sums


class Local:
    """A runtime for simulation: it hands each ask to the clients, and takes away who is lost by `[simulate]`."""

    def __init__(self) -> None:
        self._late: list[Reply | Lost] = []

    def open(self, job: Job, session: str = "") -> None:
        self.job = job
        everybody = np.arange(len(job.federation), dtype=np.int64)
        sites = Sites(job.secure, job.digest, session, everybody) if job.secure else None
        self.clients = Clients(job, job.federation, sites=sites)
        drops = [pair.split(":", 1) for pair in job.simulate.drop]
        self._drops = {(int(r), client_index(job.federation, c)) for r, c in drops}

    def close(self) -> None:
        self.clients.engine = None
        if self.clients.sites is not None:
            self.clients.sites.forget()

    def roster(self) -> tuple[bytes, ...] | None:
        return self.clients.sites.roster if self.clients.sites else None

    def describe(self) -> Mapping[str, Any]:
        return self.clients.engine.record if self.clients.engine else {}

    def snapshot(self) -> Slots:
        log = self.clients.sites.log.snapshot() if self.clients.sites else {}
        return self.clients.memory.snapshot() | {LOG + n: t for n, t in log.items()}

    def restore(self, memory: Slots) -> None:
        """Give clients back what they remembered; which sums they answered they never forget."""
        self.clients.memory.restore({n: t for n, t in memory.items() if not n.startswith(LOG)})
        log = {n.removeprefix(LOG): t for n, t in memory.items() if n.startswith(LOG)}
        sites = self.clients.sites
        if sites is not None and log and not sites.log.snapshot():
            sites.log.restore(log)

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        clients = self.clients
        match ask.verb:
            case "train":
                hidden = clients.hidden(ask)  # then who is lost trained, shared its keys, and only then is gone
                found = clients.train(ask, [] if hidden else self._faults(ask))
            case "evaluate":
                found = clients.evaluate(ask)
            case "scores":
                found = clients.scores(ask)
            case "prepare":
                found = self._prepare(ask)
            case verb if verb in wire.VERBS:
                found = self._stage(ask)
            case _:
                found = clients.handled(ask)
        return self._take(ask, found)

    def _prepare(self, ask: Ask) -> list[Reply | Lost]:
        """Encode the clients' tables with the federated statistics and get the engine ready."""
        job, fed = self.job, self.clients.federation
        body = dict(ask.body)
        recorded = cast("dict[str, Any] | None", unpack_json(body.pop("execution"))) if "execution" in body else None
        if fed.schema is not None:
            self.clients.federation = fed = fed.prepare(Preprocess.from_slots(fed.schema, body))
        x, y = _rows(fed.slab(ask.to[:1]), 8)
        run = job.execution
        engine = build(
            job.task,
            shape_of(fed),
            job.algorithm,
            seed=job.seed,
            rounds=job.rounds,
            cohort=job.cohort_size,
            name=run.name,
            provider=run.provider,
            device=run.device,
            group=run.group,
            memory=run.memory,
            probe=(x, y),
            recorded=recorded,
        )
        uplink = job.algorithm.uplink.memory
        own = {n: torch.zeros(engine.layout.d if size == "d" else 1) for n, size in uplink.items()}
        self.clients.engine = engine
        self.clients.memory = Memory({**engine.strangers, **own})
        return [Reply(ask.to, {})]

    def _stage(self, ask: Ask) -> list[Reply | Lost]:
        """One stage of a secure sum."""
        if self.clients.sites is None:
            raise RuntimeError("a secure sum was asked for, and the job has none")
        lost: list[Lost] = []
        if ask.verb == wire.VERBS[2] and ask.round == number_of(round_of(ask.round), "train"):
            lost = self._faults(replace(ask, round=round_of(ask.round)))
        return [*self.clients.sites.answer(replace(ask, to=without(ask.to, lost))), *lost]

    def _faults(self, ask: Ask) -> list[Lost]:
        """Which clients of a cohort are lost by `[simulate]`, from the seed."""
        fate = self.job.simulate
        drawn = np.zeros(len(ask.to), bool)
        if fate.dropout:
            ids = self.clients.federation.ids[ask.to]
            drawn = seeds.uniform(self.job.seed, ask.round, ids, f"dropout/{ask.attempt}") < fate.dropout
        return [
            Lost(c, "simulated", "lost by [simulate]", None, ask.number)
            for c, hit in zip(ask.to.tolist(), drawn.tolist())
            if hit or (ask.round, c) in self._drops
        ]

    def _take(self, ask: Ask, found: list[Reply | Lost]) -> list[Reply | Lost]:
        """`take`: the first so many replies; the rest is dropped, or joins a later ask's answers."""
        if ask.take is None:
            return found
        waiting, self._late = self._late + found, []
        came = [r for r in waiting if isinstance(r, Reply)]
        if ask.late == "keep":
            self._late = list(came[ask.take :])
        return [*came[: ask.take], *(x for x in waiting if isinstance(x, Lost))]


def _rows(slab: Slab, n: int) -> tuple[Tensor, Tensor]:
    """The first rows of a slab, as a model takes them."""
    index = from_numpy(slab.rows[:n])
    x = slab.x.index_select(0, index)
    return (slab.cast(x) if slab.cast else x), slab.y.index_select(0, index)
