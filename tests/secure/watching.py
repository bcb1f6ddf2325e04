"""A suite that writes down every secret it meets, and what a world lets out: for searches of one in the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manyloom.core.exchange import Ask
from manyloom.core.slots import Slots
from manyloom.secure import FULL, SECRET, masks
from manyloom.secure.keys import Advert, Secrets
from manyloom.secure.suite import Suite
from manyloom.secure.wire import VERBS
from tests.secure.playing import World, params

Seeds = list[tuple[bytes, int]]


@dataclass
class Watch:
    """All secrets of a world's clients by kind, as they are made."""

    secrets: dict[str, list[bytes]] = field(default_factory=dict)
    seeds: list[Seeds] = field(default_factory=list)  # of each masked input, the self mask's first
    channels: list[tuple[bytes, int, int, bytes]] = field(default_factory=list)  # shared, from, to, tid

    def note(self, kind: str, *found: bytes) -> None:
        self.secrets.setdefault(kind, []).extend(found)

    def suite(self, base: Suite = FULL) -> Suite:
        """FULL, watched."""

        def advertise(uid: int, sid: bytes, identity: Ed25519PrivateKey | None) -> tuple[Advert, Secrets]:
            advert, own = base.advertise(uid, sid, identity)
            self.note("key", own.c, own.s)
            self.note("self", own.b)
            return advert, own

        def agree(private: bytes, others: Sequence[bytes]) -> list[bytes]:
            found = base.agree(private, others)
            self.note("shared", *found)
            return found

        def split(secret: bytes, k: int, t: int) -> list[bytes]:
            found = base.split(secret, k, t)
            self.note("share", *found)
            return found

        def seal(shared: bytes, tid: bytes, u: int, v: int, plain: bytes) -> bytes:
            self.channels.append((shared, u, v, tid))
            return base.seal(shared, tid, u, v, plain)

        def mask(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
            used = list(seeds)
            self.seeds.append(used)
            for seed, sign in used:
                one = np.zeros(len(total), np.uint32)
                masks.apply(one, [(seed, sign)])
                self.note("seed", seed)
                self.note("mask", one.astype("<u4").tobytes()[:32])
            base.mask(total, used)

        return base._replace(advertise=advertise, agree=agree, split=split, seal=seal, mask=mask)


def bytes_of(body: Slots) -> bytes:
    """All tensors of a body, little-endian."""
    arrays = (t.detach().contiguous().numpy() for _, t in sorted(body.items()))
    return b"|".join(a.astype(a.dtype.newbyteorder("<"), copy=False).tobytes() for a in arrays)


def outside(world: World) -> dict[str, bytearray]:
    """Plays an attempt. What anybody but a client itself could see: asks, replies of each stage, plain memory."""
    found = {"asks": bytearray(), "plain memory": bytearray()} | {f"stage {i}": bytearray() for i in range(5)}

    def note(ask: Ask, i: int, body: Slots) -> Slots:
        found["asks"] += bytes_of(body)
        found["plain memory"] += bytes_of({n: v for n, v in world.memory[i].items() if n not in SECRET})
        return body

    def told(ask: Ask, i: int, body: Slots) -> Slots:
        found[f"stage {VERBS.index(ask.verb)}"] += bytes_of(body)
        found["plain memory"] += bytes_of({n: v for n, v in world.memory[i].items() if n not in SECRET})
        return body

    world.meddle, world.corrupt = note, told
    assert world.run(attempts=1).total is not None
    return found


def leaks(watch: Watch, found: dict[str, bytearray]) -> set[tuple[str, str]]:
    """(kind of secret, where it was seen)."""
    return {(kind, where) for kind, all in watch.secrets.items() for where, raw in found.items()
            if any(x in raw for x in set(all))}  # fmt: skip


def own_masks(world: World) -> np.ndarray:
    """What each client added to its integers [n, d_total], of all masked inputs in order."""
    sent = [(i, body["masked"][0].numpy().view(np.uint32)) for stage, i, body in world.replies if stage == 2]
    return np.stack([y - world.q[i] for i, y in sent])


def repeats(rows: np.ndarray, window: int = 8) -> bool:
    """Whether any run of `window` words is found twice, in one row or two, at places that are multiples of it."""
    cut = rows[:, : rows.shape[1] // window * window].reshape(-1, window)
    return len(np.unique(cut, axis=0)) < len(cut)


def played() -> tuple[World, Watch]:
    """A sum of four that came out."""
    watch = Watch()
    world = World(4, params(4, 200, delta_drop="0"), suite=watch.suite())
    assert world.run(attempts=1).total is not None
    return world, watch


def complexity(bits: int, n: int) -> int:
    """The shortest linear recurrence over GF(2) of n bits (Berlekamp and Massey)."""
    c = b = 1
    length, shift, seen = 0, 1, 0  # `seen`: the bits so far, the latest lowest
    for i in range(n):
        seen = seen << 1 | (bits >> i & 1)
        if (c & seen & ((1 << (length + 1)) - 1)).bit_count() & 1:
            before = c
            c ^= b << shift
            if 2 * length <= i:
                length, b, shift = i + 1 - length, before, 0
        shift += 1
    return length
