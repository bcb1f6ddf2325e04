"""The simulated clients: their rows, their memory, their secrets, and what they answer to each verb."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from manyloom.algorithms.evaluation import HELD
from manyloom.algorithms.round import COUNTS, arrived, shapes
from manyloom.core.exchange import Ask, Handler, Ids, Lost, Reply, stack
from manyloom.core.metrics import BINS
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.tensors import floats, from_numpy
from manyloom.data import statistics
from manyloom.data.federation import Federation
from manyloom.data.store import Slab
from manyloom.engine.build import Engine
from manyloom.engine.engine import Rows
from manyloom.engine.evaluate import joined
from manyloom.engine.loop import Failed, Group
from manyloom.engine.moments import moments
from manyloom.engine.own import own
from manyloom.engine.plan import Int
from manyloom.gate import Slot, leave
from manyloom.job.job import Job
from manyloom.runtime.attack import Mislabelled, liars_of, staged
from manyloom.runtime.fold import Messages, add_weighted, folded
from manyloom.runtime.memory import Memory
from manyloom.runtime.sites import Sites, protect, rounding
from manyloom.runtime.timing import Again
from manyloom.runtime.unlabelled import Unlabelled
from manyloom.secure import wire
from manyloom.secure.channel import PARAMS, SUM
from manyloom.secure.params import Params

HANDLERS: dict[str, Handler] = dict(statistics.HANDLERS)


@dataclass
class Clients:
    """All clients of a run in one process; the engine trains them.

    Args:
        job: the job.
        federation: who they are; encoded once the statistics are known.
        engine: warm for all rounds, once it is prepared.
        memory: what each remembers.
        sites: who each is in secure sums, and what it keeps of them.
    """

    job: Job
    federation: Federation
    engine: Engine | None = None
    memory: Memory = field(default_factory=lambda: Memory({}))
    sites: Sites | None = None

    def __post_init__(self) -> None:
        self.liars = liars_of(self.job)

    def train(self, ask: Ask, gone: list[Lost], most: Int | None = None) -> list[Reply | Lost]:
        """Train, at most so many steps each, and send or keep what came of it; who is `gone` does neither."""
        began = time.perf_counter()
        algorithm, job = self.job.algorithm, self.job
        uplink = algorithm.uplink
        hidden = self.hidden(ask)
        lost: list[Reply | Lost] = [*gone]
        clients = without(ask.to, gone)
        down = arrived(algorithm, {n: t for n, t in ask.body.items() if n != PARAMS}, job.draws.hub(ask.round))
        at = int(down.pop("turn")[0]) if "turn" in down else None
        engine = self.ready() if at is None else self.ready().turn(at)
        known = self._shapes(engine, down)
        schema = {n: Slot(tuple(t.shape), whole=not t.is_floating_point()) for n, t in known.items()}
        schema = {SUM: Slot(None, whole=True)} if PARAMS in ask.body else schema | {n: Slot(()) for n in COUNTS}
        bits = rounding(job.seed, ask.round, self.federation.ids, job.privacy is not None)
        total = Messages(ask.fold)
        held: list[tuple[Ids, Slots]] = []
        for group in self._trained(engine, clients, down, ask, most):
            if isinstance(group, Failed):
                lost.append(Lost(group.client, "error", group.text, group.traceback, ask.number))
                continue
            message, kept, there = dict(group.up), dict(group.memory), group.clients
            draw = job.draws.of(ask.round, there)
            if uplink.apply is not None:
                recalled = self.memory.recall(there)
                message, carried = uplink.apply(message, {n: recalled[n] for n in uplink.memory}, down, draw)
                kept |= carried
            if PARAMS in ask.body:
                message = {n: message[n] for n, t in known.items() if t.is_floating_point()}
                made = protect(ask, there, message, group.samples, group.loss, bits)
                lost += made.lost
                stay = np.isin(there, made.kept)
                message, kept = made.words, {n: v[from_numpy(stay)] for n, v in kept.items()}
                there = made.kept
            else:
                message |= {"samples": group.samples.float(), "steps": group.steps.float(), "loss": group.loss.float()}
            ok, kept_back = self._leave(there, message, schema)
            lost += kept_back
            if kept_back:
                rows = ok.nonzero().flatten()
                message = {n: v[rows] for n, v in message.items()}
                kept = {n: v[rows] for n, v in kept.items()}
                draw = draw._replace(ids=draw.ids[ok.numpy()])
                there = there[ok.numpy()]
            self.memory.keep(there, kept)
            if hidden:
                held.append((there, message))
            else:
                lost += total.add(there, message, draw)
        if hidden and held:
            everyone = np.concatenate([c for c, _ in held])
            reply = hidden.hold(ask, everyone, {SUM: torch.cat([m[SUM] for _, m in held])})
        else:
            reply = total.reply(ask.number, time.perf_counter() - began)
        told = {*reply.clients.tolist(), *(x.client for x in lost if isinstance(x, Lost))}
        idle = "took no step: its rows make no minibatch (running statistics need two)"
        lost += [Lost(c, "error", idle, None, ask.number) for c in ask.to.tolist() if c not in told]
        return [*([reply] if len(reply.clients) else []), *lost]

    def evaluate(self, ask: Ask) -> list[Reply | Lost]:
        """Sums over each client's held-out rows, a row a client.

        A model that diverged has no finite loss, and an AUC of one class is undefined: both are honest answers, so
        the gate holds back only what is malformed.
        """
        began = time.perf_counter()
        engine, theta = self.ready(), ask.body["theta"]
        if ask.to[0] < 0:
            found = engine.judge(self._own(ask.to), ask.to, theta, ask.body.get("buffers"))
        else:
            each = own(engine, self.federation, ask.to, ask.body, self.memory.recall, ask.round)
            fed = self.federation
            found = joined([engine.evaluate(fed, o.clients, o.theta, o.running, failed=o.failed) for o in each])
        gone = {f.client for f in found.failed}
        lost: list[Reply | Lost] = [Lost(f.client, "error", f.text, f.traceback, ask.number) for f in found.failed]
        keep = np.array([c not in gone for c in found.clients.tolist()], bool)
        body: Slots = {"rows": found.rows, "loss": found.loss_sums, **found.sums}
        if "auc" in found.sums:
            body["auc_own"] = found.auc_own
        body = {n: v[from_numpy(keep)] for n, v in body.items()}
        if ask.fold is not None:
            return [*self._summed(ask, ask.to[keep], {n: body[n] for n in ask.fold.slots}), *lost]
        return [Reply(ask.to[keep], body, ask.number, time.perf_counter() - began, size_bytes(body)), *lost]

    def scores(self, ask: Ask) -> list[Reply | Lost]:
        """Histograms of the score, summed over the clients; only filled bins travel (place and count, 12 bytes)."""
        engine, theta = self.ready(), ask.body["theta"]
        centre, spread = floats(ask.body["at"])
        if ask.to[0] < 0:
            each = engine.scores(self._own(ask.to), theta, centre, spread, ask.body.get("buffers"))
            return [Reply(ask.to, {"histogram": each.sum(0)[None]}, ask.number, 0.0, 0)]
        total, filled = torch.zeros(2, BINS, dtype=torch.float64), 0
        hidden = self.hidden(ask)
        kept: list[Tensor] = []
        for o in own(engine, self.federation, ask.to, ask.body, self.memory.recall, ask.round, most=1024):
            each = engine.histograms(self.federation, o.clients, o.theta, centre, spread, o.running)
            if hidden:
                kept.append(each)
                continue
            total += each.sum(0)
            filled += int((each > 0).sum())
        if hidden:
            return [hidden.hold(ask, ask.to, {"histogram": torch.cat(kept)})]
        return [Reply(ask.to, {"histogram": total[None]}, ask.number, 0.0, 12 * filled)]

    def moments(self, ask: Ask) -> list[Reply | Lost]:
        """Mean and covariance of each client's features, for those who align theirs with them."""
        down = arrived(self.job.algorithm, ask.body, self.job.draws.hub(ask.round))
        found: list[Reply | Lost] = []
        for client in ask.to.tolist():
            began, who = time.perf_counter(), np.array([client], np.int64)
            try:
                told = moments(self.ready(), self.federation.slab(who), down["theta"], down.get("buffers"))
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                found.append(Lost(client, "error", text, traceback.format_exc(), ask.number))
                continue
            body = {n: t[None] for n, t in told.items()}
            _, held = leave(who, body, {n: Slot(tuple(t.shape)) for n, t in told.items()})
            took = time.perf_counter() - began
            found += held or [Reply(who, body, ask.number, took, size_bytes(body))]
        return found

    def handled(self, ask: Ask) -> list[Reply | Lost]:
        """A verb that a handler answers, client by client."""
        handler = HANDLERS[ask.verb]
        hidden = self.hidden(ask)
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
        if hidden and ask.fold and replies:
            clients = np.concatenate([r.clients for r in replies])
            return [hidden.hold(ask, clients, {n: stack(replies, n) for n in ask.fold.slots}), *lost]
        return [*(folded(replies, ask.fold) if ask.fold else replies), *lost]

    # ---- what they share

    def ready(self) -> Engine:
        """The engine, once it is there."""
        if self.engine is None:
            raise RuntimeError("the runtime is asked to train before it was prepared")
        return self.engine

    def hidden(self, ask: Ask) -> Sites | None:
        """Who keeps the answers of an ask that a secure sum follows."""
        if PARAMS not in ask.body or Params.from_bytes(wire.raw(ask.body[PARAMS])).mode == "plain":
            return None
        return self.sites

    def _trained(
        self, engine: Engine, clients: Ids, down: Slots, ask: Ask, most: Int | None
    ) -> Iterator[Group | Failed]:
        """What the engine trains; under attack, what is sent in its place."""
        job, attack, round = self.job, self.job.attack, ask.round
        rows: Rows = self.federation if attack is None else Mislabelled(self.federation, attack, self.liars)
        if job.apart is not None:
            rows = Unlabelled(rows, job.apart)
        if job.algorithm.buffered is not None and ask.attempt:
            rows = Again(rows, ask.attempt)
        groups = engine.train(rows, clients, down, self.memory.recall, round, most)
        if attack is None:
            return groups
        return staged(groups, attack, self.liars, self.federation.ids, job.seed, round)

    def _leave(self, clients: Ids, message: Slots, schema: dict[str, Slot]) -> tuple[Tensor, list[Lost]]:
        """The gate of each client; a malicious one has none, so that the hub's checks are what is tested."""
        ok, held = leave(clients, message, schema)
        lies = np.isin(clients, self.liars)
        if not lies.any():
            return ok, held
        return ok | from_numpy(lies), [x for x in held if x.client not in self.liars]

    def _shapes(self, engine: Engine, down: Slots) -> Slots:
        """A message to the hub without storage."""
        theta = torch.empty(engine.shared.d, dtype=engine.layout.dtype, device="meta")
        return shapes(self.job.algorithm, {"theta": theta} | {n: t for n, t in down.items() if n == "buffers"})

    def _summed(self, ask: Ask, clients: Ids, rows: Slots) -> list[Reply | Lost]:
        """Rows that are summed on the way: kept for a secure sum, or added up here."""
        if not len(clients):
            return []
        if hidden := self.hidden(ask):
            return [hidden.hold(ask, clients, rows)]
        sums: Slots = {}
        for name, t in rows.items():
            add_weighted(sums, name, t.double(), torch.ones(len(t), dtype=torch.float64))
        return [Reply(clients, {n: t[None] for n, t in sums.items()}, ask.number, 0.0, size_bytes(rows))]

    def _own(self, who: Ids) -> Slab:
        """Rows that lie at the hub: the source's own test set, or those held to judge a round by."""
        own = self.federation.validation() if np.array_equal(who, HELD) else self.federation.central()
        if own is None:
            raise RuntimeError("this source has no test set of its own")
        return own


def without(clients: Ids, gone: list[Lost]) -> Ids:
    """Those who are still there."""
    if not gone:
        return clients
    return clients[~np.isin(clients, [x.client for x in gone])]
