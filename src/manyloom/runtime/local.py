"""Everything in this process: a population of simulated clients, one engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.errors import bad
from manyloom.core.exchange import Ask, Ids, Lost, Reply
from manyloom.core.slots import Slots, unpack_json
from manyloom.core.tensors import from_numpy
from manyloom.data.names import client_index
from manyloom.data.preprocess import Preprocess
from manyloom.data.store import Slab
from manyloom.engine.build import build
from manyloom.job.job import Job, shape_of
from manyloom.runtime.clients import Clients, without
from manyloom.runtime.clock import clock_of
from manyloom.runtime.memory import Memory
from manyloom.runtime.sites import Sites
from manyloom.runtime.timing import Timed, timed
from manyloom.secure import wire
from manyloom.secure.params import number_of, round_of

LOG = "log/"  # before the names of what clients keep of secure sums


class Local:
    """A runtime for simulation: it hands each ask to the clients, and takes away who is lost by `[simulate]`."""

    def open(self, job: Job, session: str = "") -> None:
        self.job = job
        self.clock = clock_of(job)
        self._open: list[Waiting] = []
        self._known: set[tuple[int, int]] = set()  # number and client of what is open
        if (job.over_provision > 1 or job.partial) and not job.simulate.clocked:
            raise bad("needs-clock", "nobody is fast or slow in this simulation",
                      got="partial = true" if job.partial else f"over_provision = {job.over_provision:g}",
                      rule="who answers first, or at all, is a question of time: [simulate] speed or trace",
                      mend='set speed = "lognormal" in [simulate]')  # fmt: skip
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
                found: list[Reply | Lost] = self._keep(ask) if ask.late == "keep" else self._train(ask)
            case "reachable":
                here, at = self.clock.reachable(ask.to, ask.quorum, ask.at, ask.at + ask.deadline_s)
                found = [Reply(here, {}, ask.number, at=at)]
            case "evaluate":
                found = clients.evaluate(ask)
            case "moments":
                found = clients.moments(ask)
            case "scores":
                found = clients.scores(ask)
            case "prepare":
                found = self._prepare(ask)
            case verb if verb in wire.VERBS:
                found = self._stage(ask)
            case _:
                found = clients.handled(ask)
        return found

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
            cohort=job.cohort_size if job.algorithm.buffered is None else 1,
            name=run.name,
            provider=run.provider,
            device=run.device,
            group=run.group,
            memory=run.memory,
            probe=(x, y),
            recorded=recorded,
        )
        uplink = job.algorithm.uplink.memory
        own = {n: torch.zeros(engine.shared.d if size == "d" else 1) for n, size in uplink.items()}
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
            Lost(c, "simulated", "lost by [simulate]", None, ask.number, ask.at)
            for c, hit in zip(ask.to.tolist(), drawn.tolist())
            if hit or (ask.round, c) in self._drops
        ]

    def _train(self, ask: Ask) -> list[Reply | Lost]:
        """Train a cohort; on the clock, those who are in time, and of them the first so many (`take`)."""
        clients = self.clients
        # under a secure sum, who is lost trained, shared its keys, and only then is gone
        gone = [] if clients.hidden(ask) else self._faults(ask)
        if not self.job.simulate.clocked:
            return clients.train(ask, gone)
        on = self._timed(ask, without(ask.to, gone))
        when = dict(zip(on.clients.tolist(), on.at.tolist()))
        found: list[Reply | Lost] = [*gone, *on.lost]
        tried, missing = 0, len(on.clients) if ask.take is None else ask.take
        while missing > 0 and tried < len(on.clients):  # where one of the first fails, the next is among them
            some = slice(tried, tried + missing)
            tried = some.stop
            got = clients.train(replace(ask, to=on.clients[some]), [], on.most[some])
            found += [replace(a, at=max(when[c] for c in _who(a))) for a in got]
            missing -= sum(len(a.clients) for a in got if isinstance(a, Reply))
        return _closed(ask, found, on.clients[tried:])

    def _keep(self, ask: Ask) -> list[Reply | Lost]:
        """Put an ask beside those that are open, and wait for `take` answers to any of them, up to its deadline.

        A client trains when its answer is due: what it sends is a function of its ask, its memory and the seed.
        """
        fresh = ask.to[[(ask.number, c) not in self._known for c in ask.to.tolist()]] if len(ask.to) else ask.to
        names = self.job.federation.names
        if len(fresh):
            self._known |= {(ask.number, c) for c in fresh.tolist()}
            fate = {x.client: x for x in self._faults(replace(ask, to=fresh))}
            on = self._timed(ask, fresh)
            self._open += [Waiting(x.at, str(names[x.client]), x.client, ask, x) for x in on.lost]
            for client, at in zip(on.clients.tolist(), on.at.tolist()):
                lost = replace(fate[client], at=at) if client in fate else None
                self._open.append(Waiting(at, str(names[client]), client, ask, lost))
            self._open.sort(key=lambda w: (w.at, w.name))
        found: list[Reply | Lost] = []
        until = ask.at + ask.deadline_s
        while self._open and self._open[0].at <= until and (ask.take is None or len(found) < ask.take):
            due = self._open.pop(0)
            self._known.discard((due.ask.number, due.client))
            alone = replace(due.ask, to=np.array([due.client], np.int64))
            got = [due.lost] if due.lost is not None else self.clients.train(alone, [])
            found += [replace(a, at=due.at, asked=due.ask.number) for a in got]
        return found

    def _timed(self, ask: Ask, clients: Ids) -> Timed:
        steps = self.clients.ready().steps(self.clients.federation, clients)
        names, job = self.job.federation.names, self.job
        return timed(self.clock, ask, clients, steps, names, partial=job.partial, counts=job.simulate.clocked)


class Waiting(NamedTuple):
    """A client that was asked and has not answered yet."""

    at: float  # when it will
    name: str
    client: int
    ask: Ask
    lost: Lost | None  # it won't


def _who(answer: Reply | Lost) -> list[int]:
    return answer.clients.tolist() if isinstance(answer, Reply) else [answer.client]


def _closed(ask: Ask, found: list[Reply | Lost], rest: Ids) -> list[Reply | Lost]:
    """The answers of an ask that had its first so many; what the others send is refused, though it travelled.

    It ends when it has them, whatever becomes of the others after that.
    """
    came = [a for a in found if isinstance(a, Reply)]
    if ask.take is None or sum(len(a.clients) for a in came) < ask.take:
        return found
    end = max(a.at for a in came)
    found = [replace(a, at=min(a.at, end)) for a in found]
    if not len(rest):
        return found
    came = [a for a in found if isinstance(a, Reply)]
    one = came[0].sent // len(came[0].clients)
    refused = replace(came[0], sent=came[0].sent + one * len(rest))
    text = f"came after the first {ask.take}"
    late = [Lost(c, "late", text, None, ask.number, end) for c in rest.tolist()]
    return [refused if a is came[0] else a for a in found] + late


def _rows(slab: Slab, n: int) -> tuple[Tensor, Tensor]:
    """The first rows of a slab, as a model takes them."""
    index = from_numpy(slab.rows[:n])
    x = slab.x.index_select(0, index)
    return (slab.cast(x) if slab.cast else x), slab.y.index_select(0, index)
