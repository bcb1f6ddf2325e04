"""The clients' halves of protected sums, in a simulation: who each is, what it keeps, what it answers.

A client's update becomes integers here (`protect`). Over a plain channel they are its message; for a secure sum they
wait in this process's memory, which no checkpoint holds, until the stages of the sum ask for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manyloom.core.exchange import Ask, Handler, Ids, Lost, Reply
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.tensors import floats, from_numpy
from manyloom.gate import Slot, leave
from manyloom.privacy.source import Secret, Source
from manyloom.runtime.memory import Memory
from manyloom.secure import FULL, HANDLERS, IDEAL, Params, Refused, Site, encode, hash_model, repeatable, wait, wire
from manyloom.secure.channel import PARAMS, SUM, dims
from manyloom.secure.client import START
from manyloom.secure.params import number_of
from manyloom.secure.settings import Secure


class Protected(NamedTuple):
    """The integers of some clients, int32 [k, d_total], and which clients' update was no number."""

    words: Slots
    lost: list[Lost]
    kept: Ids


def protect(ask: Ask, clients: Ids, message: Slots, samples: torch.Tensor, loss: torch.Tensor,
            source: Callable[[int], Source]) -> Protected:  # fmt: skip
    """Updates as integers, by the parameters of the ask: every slot that would be summed, one after the other.

    Args:
        ask: with `PARAMS`.
        clients: whose rows these are [k].
        message: the slots to sum, rows [k, ...], in the order they are laid out.
        samples: what a client weighs [k].
        loss: its mean training loss [k].
        source: client -> what its rounding is drawn from.
    """
    params = Params.from_bytes(wire.raw(ask.body[PARAMS]))
    cap = next((c.hi for c in params.control if c.name == "weight"), 1.0)
    rows = torch.cat([t.reshape(len(clients), -1).double() for t in message.values()], 1).numpy()
    out: list[np.ndarray] = []
    lost: list[Lost] = []
    for row, client, n, mean in zip(rows, clients.tolist(), floats(samples), floats(loss)):
        made = encode(row, params, source(client), weight=min(1.0, n / cap), control={"loss": mean})
        if not made.finite:
            lost.append(Lost(client, "not-finite", "its update holds numbers that are not finite", None, ask.number))
            continue
        out.append(made.words.view(np.int32))
    gone = {x.client for x in lost}
    kept = np.array([c for c in clients.tolist() if c not in gone], np.int64)
    words = from_numpy(np.stack(out)) if out else torch.zeros(0, 0, dtype=torch.int32)
    return Protected({SUM: words}, lost, kept)


class Sites:
    """All simulated clients of a run with secure sums.

    Args:
        settings: the job's `[secure]`.
        digest: of the job, which every client approved.
        session: the run.
        clients: all that may be asked.
    """

    def __init__(self, settings: Secure, digest: str, session: str, clients: Ids) -> None:
        self._suite = IDEAL if settings.fidelity == "ideal" else FULL
        self._digest = hashlib.sha256(digest.encode()).digest()
        self._session = session
        self._keys, self.roster, self._uid = _identities(settings, clients)
        self.log = Memory(START)  # which sums a client answered: kept also when a round is taken back
        self._secret: dict[int, Slots] = {}
        self._model: bytes = b""
        self._number = -1

    def hold(self, ask: Ask, clients: Ids, rows: Slots) -> Reply:
        """Keep what would be sent until its mask is made; of it only the shape is told.

        Args:
            ask: with `PARAMS`; its fold names the slots.
            clients: whose rows these are [k].
            rows: integers (`SUM`), or numbers to be summed exactly, [k, ...].
        """
        assert ask.fold is not None
        number = number_of(ask.round, ask.verb)
        model = hash_model(dict(sorted(ask.body.items())))
        if number != self._number or model != self._model:
            self.forget()  # what an earlier sum left waiting
        self._number, self._model = number, model
        if SUM in rows:
            words = [row.view(np.uint32) for row in rows[SUM].numpy()]
        else:
            params = Params.from_bytes(wire.raw(ask.body[PARAMS]))
            flat = torch.cat([rows[n].reshape(len(clients), -1).double() for n in ask.fold.slots], 1).numpy()
            words = [encode(row, params, Secret()).words for row in flat]
        for client, each in zip(clients.tolist(), words):
            self._secret[client] = wait(self._secret.get(client, {}), each, number)
        told = dims(rows, ask.fold.slots)
        return Reply(clients, told, ask.number, 0.0, size_bytes(told))

    def forget(self) -> None:
        """Overwrite and drop all that waits, all keys, all masks."""
        for kept in self._secret.values():
            for tensor in kept.values():
                tensor.zero_()
        self._secret.clear()

    def answer(self, ask: Ask) -> list[Reply | Lost]:
        """One stage of a secure sum, client by client."""
        handler = HANDLERS[ask.verb]
        return [self._one(ask, handler, client) for client in ask.to.tolist()]

    def _one(self, ask: Ask, handler: Handler, client: int) -> Reply | Lost:
        who = np.array([client], np.int64)
        uid = self._uid[client]
        identity = self._keys[uid] if self._keys else None
        site = Site(uid, self._model, self._digest, self._session, identity, self.roster, suite=self._suite)
        try:
            memory = self.log.recall(who) | self._secret.get(client, {})
            body, kept = handler.run(ask.body | dict(ask.each.get(client, {})), memory, site)
        except Refused as why:
            self._keep(who, why.memory, handler)
            return Lost(client, "refused", why.what, None, ask.number)
        self._keep(who, kept, handler)
        declared = {n: Slot() for n in handler.reply if n in body}
        _, held = leave(who, body, declared)
        return held[0] if held else Reply(who, body, ask.number, 0.0, size_bytes(body))

    def _keep(self, who: Ids, memory: Slots, handler: Handler) -> None:
        self.log.keep(who, {n: t for n, t in memory.items() if n in handler.memory})
        self._secret[int(who[0])] = {n: t for n, t in memory.items() if n in handler.secret}


def rounding(seed: int, round: int, ids: U64, private: bool) -> Callable[[int], Source]:
    """Client -> what its rounding is drawn from: the system's entropy under a privacy claim, else the job's seed."""
    return lambda client: Secret() if private else repeatable(seed, round, int(ids[client]))


def _identities(
    settings: Secure, clients: Ids
) -> tuple[list[Ed25519PrivateKey], tuple[bytes, ...] | None, dict[int, int]]:
    """A long-term key for each client, the roster of their public halves, and each one's place in it."""
    if settings.mode == "semi":
        return [], None, {c: i for i, c in enumerate(clients.tolist())}
    if settings.fidelity == "ideal":  # names of the same length, nobody signs
        one = Ed25519PrivateKey.generate()
        names = sorted((hashlib.sha256(str(c).encode()).digest(), c) for c in clients.tolist())
        return [one] * len(names), tuple(n for n, _ in names), {c: i for i, (_, c) in enumerate(names)}
    made = [(Ed25519PrivateKey.generate(), c) for c in clients.tolist()]
    ranked = sorted((k.public_key().public_bytes_raw(), c, i) for i, (k, c) in enumerate(made))
    return [made[i][0] for *_, i in ranked], tuple(n for n, *_ in ranked), {c: u for u, (_, c, _) in enumerate(ranked)}
