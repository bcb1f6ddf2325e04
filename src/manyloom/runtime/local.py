"""Everything in this process: a population of simulated clients, one engine."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from manyloom.algorithms.evaluation import HUB
from manyloom.algorithms.round import COUNTS
from manyloom.core import seeds
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.core.metrics import BINS
from manyloom.core.slots import Slots, size_bytes, unpack_json
from manyloom.core.tensors import floats, from_numpy
from manyloom.data import statistics
from manyloom.data.federation import Federation
from manyloom.data.preprocess import Preprocess
from manyloom.data.store import Slab
from manyloom.engine.build import Engine, build
from manyloom.engine.loop import Failed
from manyloom.gate import Slot, leave
from manyloom.job.check import client_index
from manyloom.job.job import Job, shape_of
from manyloom.runtime.fold import Messages, folded
from manyloom.runtime.memory import Memory

HANDLERS = statistics.HANDLERS


class Local:
    """A runtime for simulation: clients' data, memory and faults live here; the engine trains them."""

    def __init__(self) -> None:
        self._late: list[Reply | Lost] = []

    def open(self, job: Job) -> None:
        self.job = job
        self.federation: Federation = job.federation
        self.engine: Engine | None = None
        self.memory = Memory({})
        drops = [pair.split(":", 1) for pair in job.simulate.drop]
        self._drops = {(int(r), client_index(job.federation, c)) for r, c in drops}

    def close(self) -> None:
        self.engine = None

    def describe(self) -> Mapping[str, Any]:
        return self.engine.record if self.engine else {}

    def snapshot(self) -> Slots:
        return self.memory.snapshot()

    def restore(self, memory: Slots) -> None:
        self.memory.restore(memory)

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        match ask.verb:
            case "train":
                found = self._train(ask)
            case "evaluate":
                found = self._evaluate(ask)
            case "scores":
                found = self._scores(ask)
            case "prepare":
                found = self._prepare(ask)
            case _:
                found = self._handled(ask)
        return self._take(ask, found)

    # ---- one verb each

    def _prepare(self, ask: Ask) -> list[Reply | Lost]:
        """Encode the clients' tables with the federated statistics and get the engine ready."""
        job, fed = self.job, self.federation
        body = dict(ask.body)
        recorded = cast("dict[str, Any] | None", unpack_json(body.pop("execution"))) if "execution" in body else None
        if fed.schema is not None:
            self.federation = fed = fed.prepare(Preprocess.from_slots(fed.schema, body))
        first = ask.to[:1]
        x, y = _rows(fed.slab(first), 8)
        run = job.execution
        self.engine = build(
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
        own = {
            n: torch.zeros(self.engine.layout.d if size == "d" else 1)
            for n, size in job.algorithm.uplink.memory.items()
        }
        self.memory = Memory({**self.engine.strangers, **own})
        return [Reply(ask.to, {})]

    def _train(self, ask: Ask) -> list[Reply | Lost]:
        began = time.perf_counter()
        algorithm, engine = self.job.algorithm, self._engine()
        uplink = algorithm.uplink
        lost: list[Reply | Lost] = [*self._faults(ask)]
        gone = {x.client for x in lost if isinstance(x, Lost)}
        clients = np.array([c for c in ask.to.tolist() if c not in gone], np.int64) if gone else ask.to
        schema = {n: Slot(()) for n in COUNTS} | dict.fromkeys(uplink.slots or (), Slot())
        if uplink.slots is None:
            schema |= {n: Slot((engine.layout.d,)) for n in algorithm.work.sends}
            if "buffers" in ask.body:
                schema["buffers"] = Slot(tuple(ask.body["buffers"].shape))
        total = Messages(ask.fold)
        for group in engine.train(self.federation, clients, ask.body, self.memory.recall, ask.round):
            if isinstance(group, Failed):
                lost.append(Lost(group.client, "error", group.text, group.traceback, ask.number))
                continue
            message, kept = dict(group.up), dict(group.memory)
            if uplink.apply is not None:
                recalled = self.memory.recall(group.clients)
                message, own = uplink.apply(message, {n: recalled[n] for n in uplink.memory}, ask.body)
                kept |= own
            message |= {"samples": group.samples.float(), "steps": group.steps.float(), "loss": group.loss.float()}
            ok, held = leave(group.clients, message, schema)
            lost += held
            if held:
                rows = ok.nonzero().flatten()
                message = {n: v[rows] for n, v in message.items()}
                kept = {n: v[rows] for n, v in kept.items()}
            there = group.clients[ok.numpy()]
            self.memory.keep(there, kept)
            total.add(there, message)
        reply = total.reply(ask.number, time.perf_counter() - began)
        told = {*reply.clients.tolist(), *(x.client for x in lost if isinstance(x, Lost))}
        idle = "took no step: its rows make no minibatch (running statistics need two)"
        lost += [Lost(c, "error", idle, None, ask.number) for c in ask.to.tolist() if c not in told]
        return [*([reply] if len(reply.clients) else []), *lost]

    def _evaluate(self, ask: Ask) -> list[Reply | Lost]:
        """Sums over each client's held-out rows, a row a client.

        A model that diverged has no finite loss, and an AUC of one class is undefined: both are honest answers, so
        the gate holds back only what is malformed.
        """
        began = time.perf_counter()
        engine, theta = self._engine(), ask.body["theta"]
        if np.array_equal(ask.to, HUB):
            found = engine.judge(self._own(), ask.to, theta, ask.body.get("buffers"))
        else:
            found = engine.evaluate(self.federation, ask.to, theta, self._running(ask))
        gone = {f.client for f in found.failed}
        lost: list[Reply | Lost] = [Lost(f.client, "error", f.text, f.traceback, ask.number) for f in found.failed]
        keep = np.array([c not in gone for c in found.clients.tolist()], bool)
        body: Slots = {"rows": found.rows, "loss": found.loss_sums, **found.sums}
        if "auc" in found.sums:
            body["auc_own"] = found.auc_own
        body = {n: v[from_numpy(keep)] for n, v in body.items()}
        return [Reply(ask.to[keep], body, ask.number, time.perf_counter() - began, size_bytes(body)), *lost]

    def _scores(self, ask: Ask) -> list[Reply | Lost]:
        """Histograms of the score, summed over the clients; only filled bins travel (place and count, 12 bytes)."""
        engine, theta = self._engine(), ask.body["theta"]
        centre, spread = floats(ask.body["at"])
        if np.array_equal(ask.to, HUB):
            each = engine.scores(self._own(), theta, centre, spread, ask.body.get("buffers"))
            return [Reply(ask.to, {"histogram": each.sum(0)[None]}, ask.number, 0.0, 0)]
        total, filled = torch.zeros(2, BINS, dtype=torch.float64), 0
        running = self._running(ask)
        for at in range(0, len(ask.to), 1024):
            some = slice(at, at + 1024)
            stats = running[some] if running is not None and running.dim() > 1 else running
            each = engine.histograms(self.federation, ask.to[some], theta, centre, spread, stats)
            total += each.sum(0)
            filled += int((each > 0).sum())
        return [Reply(ask.to, {"histogram": total[None]}, ask.number, 0.0, 12 * filled)]

    def _handled(self, ask: Ask) -> list[Reply | Lost]:
        """A verb that a handler answers, client by client."""
        handler = HANDLERS[ask.verb]
        schema = {n: Slot() for n in handler.reply}
        replies: list[Reply] = []
        lost: list[Reply | Lost] = []
        for client in ask.to.tolist():
            who = np.array([client], np.int64)
            try:
                body, kept = handler.run(
                    ask.body | dict(ask.each.get(client, {})), self.memory.recall(who), self.federation.client(client)
                )
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                lost.append(Lost(client, "error", text, traceback.format_exc(), ask.number))
                continue
            _, held = leave(
                who,
                {n: v for n, v in body.items() if v.shape[0] == 1},
                {n: s for n, s in schema.items() if n in body and body[n].shape[0] == 1},
            )
            if held:
                lost += held
                continue
            self.memory.keep(who, kept)
            replies.append(Reply(who, body, ask.number, 0.0, size_bytes(body)))
        return [*(folded(replies, ask.fold) if ask.fold else replies), *lost]

    # ---- what they share

    def _engine(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("the runtime is asked to train before it was prepared")
        return self.engine

    def _running(self, ask: Ask) -> Tensor | None:
        """Running statistics to judge with: the hub's, or each client's own where they stay there."""
        if self.job.task.buffers == "local" and self._engine().buffers.d:
            return self.memory.recall(ask.to)["buffers"]
        return ask.body.get("buffers")

    def _own(self) -> Slab:
        own = self.federation.central()
        if own is None:
            raise RuntimeError("this source has no test set of its own")
        return own

    def _faults(self, ask: Ask) -> list[Lost]:
        """Which clients of a cohort are lost by `[simulate]`, from the seed."""
        fate = self.job.simulate
        drawn = np.zeros(len(ask.to), bool)
        if fate.dropout:
            ids = self.federation.ids[ask.to]
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
