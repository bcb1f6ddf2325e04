"""Clients in memory, for conversations played by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manyloom.core.exchange import Ask, Ids, Lost, Reply, play
from manyloom.core.slots import Slots
from manyloom.secure import FULL, HANDLERS, Params, Policy, Refused, Setting, Site, Summed, secure_sum, start, wait
from manyloom.secure.suite import Suite
from manyloom.secure.wire import VERBS

DIGEST, MODEL, RUN = b"d" * 32, b"m" * 32, "run-1"
KEYS = sorted(
    (Ed25519PrivateKey.from_private_bytes(bytes([i // 256, i % 256]) + bytes(30)) for i in range(64)),
    key=lambda k: k.public_key().public_bytes_raw(),
)
Meddle = Callable[[Ask, int, Slots], Slots]  # what a server really sends to one client


def params(n: int, d: int = 5, **more: object) -> Params:
    base: dict[str, object] = {"mode": "active", "n_min": 3, "n_max": max(n, 3), "d": d, "bound": 1.0, "scale": 2**10}
    return Params(**(base | {"gamma": "0.05", "alpha": "0.5"} | more))  # pyright: ignore[reportArgumentType]


def inputs(n: int, p: Params, round: int = 1) -> np.ndarray:
    """Integers [n, d_total] uint32, a client's count first."""
    draw = np.random.default_rng([n, p.d, round]).integers(-p.scale, p.scale + 1, (n, p.total))
    draw[:, 0] = 1
    return draw.astype(np.int32).view(np.uint32)


@dataclass
class World:
    """A cohort 0 .. n-1; `lost[stage]` do not answer it, `meddle` changes what a server sends to each."""

    n: int
    p: Params
    lost: dict[tuple[int, int], set[int]] = field(default_factory=dict)  # (attempt, stage)
    meddle: Meddle | None = None
    corrupt: Callable[[Ask, int, Slots], Slots] | None = None  # what a client really answers
    suite: Suite = FULL
    policy: Policy = field(default_factory=Policy)
    round: int = 1
    replies: list[tuple[int, int, Slots]] = field(default_factory=list)  # stage, client, body
    refused: dict[int, str] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    degree: tuple[int, int] | None = None
    server: Suite | None = None  # a server that looks away

    def __post_init__(self) -> None:
        active = self.p.mode == "active"
        roster = tuple(k.public_key().public_bytes_raw() for k in KEYS[: self.n]) if active else None
        self.setting = Setting(DIGEST, RUN, MODEL, roster, self.degree, self.server or self.suite)
        self.sites = [
            Site(i, MODEL, DIGEST, RUN, KEYS[i] if active else None, roster, self.policy, self.suite)
            for i in range(self.n)
        ]
        self.q = inputs(self.n, self.p)
        self.memory = [wait(start(), self.q[i], self.round) for i in range(self.n)]

    def one(self, ask: Ask, i: int) -> Reply | Lost:
        stage = VERBS.index(ask.verb)
        body = {**ask.body, **ask.each.get(i, {})}
        if self.meddle:
            body = self.meddle(ask, i, dict(body))
        try:
            reply, self.memory[i] = HANDLERS[ask.verb].run(body, self.memory[i], self.sites[i])
        except Refused as why:
            self.memory[i] = why.memory
            self.refused[i] = why.what
            return Lost(i, "refused", why.what)
        if self.corrupt:
            reply = self.corrupt(ask, i, dict(reply))
        self.replies.append((stage, i, reply))
        return Reply(np.array([i]), reply)

    def answer(self, ask: Ask) -> list[Reply | Lost]:
        self.asks.append(ask)
        gone = self.lost.get((ask.attempt, VERBS.index(ask.verb)), set())
        return [Lost(i, "simulated", "gone") if i in gone else self.one(ask, i) for i in ask.to.tolist()]

    def run(self, attempts: int = 2, round: int | None = None) -> Summed:
        cohort: Ids = np.arange(self.n)
        for attempt in range(attempts):
            sum = secure_sum(cohort, self.p, self.setting, round=round or self.round, attempt=attempt)
            got = play(sum, self.answer)
            if got.total is not None or got.released:
                break
        return got

    def plain(self, clients: Ids) -> np.ndarray:
        return self.q[clients].view(np.int32).astype(np.int64).sum(0)
