"""Randomness as a function of (seed, round, client, purpose): no generator objects, nothing to save or restore.

A counter hash (the splitmix64 finaliser; Steele, Lea, Flood 2014) gives the same draw on every machine, in every
grouping of clients and in any order. DP noise, keys and masks never come from here.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
PHI = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64((1 << 24) - 1)  # a row's index is packed into the low bits of its hash: keys differ, sort is enough


def mix(z: U64) -> U64:
    """splitmix64's finaliser, elementwise on uint64 (wraps).

    >>> hex(int(mix(np.array([0x9E3779B97F4A7C15], np.uint64))[0]))
    '0xe220a8397b1dcdaf'
    """
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def name_id(name: str) -> int:
    """The stable id of a named client: the first 8 bytes of SHA-256 of its name.

    >>> hex(name_id("cleveland"))
    '0x205556f14222038a'
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


@lru_cache(maxsize=256)
def purpose_id(purpose: str) -> int:
    """A purpose ("shuffle", "cohort", ...) as 64 bits."""
    return name_id(purpose)


def key(seed: int, round: int, ids: U64, purpose: str, epoch: int | npt.NDArray[np.int64] = 0) -> U64:
    """One 64-bit key a client: mix(mix(id + mix(seed phi + round)) + purpose + epoch), shape of `ids`."""
    with np.errstate(over="ignore"):
        base = mix(np.array([(seed * int(PHI) + round) & (2**64 - 1)], np.uint64))
        at = np.uint64(purpose_id(purpose)) + np.asarray(epoch, dtype=np.uint64)
        return mix(mix(ids + base) + at)


def scalar(seed: int, round: int, purpose: str) -> int:
    """A 63-bit number for what no single client owns: initial weights, a library's generator."""
    return int(key(seed, round, np.zeros(1, np.uint64), purpose)[0] >> np.uint64(1))


class Draw(NamedTuple):
    """What a message's randomness is a function of: the job's seed, the round, the clients' ids [k].

    Both ends know it, so a rotation or a mask of coordinates never travels.
    """

    seed: int
    round: int
    ids: U64

    def keys(self, purpose: str) -> U64:
        """One 64-bit key a client [k]."""
        return key(self.seed, self.round, self.ids, purpose)

    def shared(self, purpose: str) -> int:
        """One 63-bit number that is the same for all clients."""
        return scalar(self.seed, self.round, purpose)


class Draws(NamedTuple):
    """What all messages of a job are drawn from: its seed and the ids of its population [N]."""

    seed: int
    ids: U64

    def of(self, round: int, clients: npt.NDArray[np.int64]) -> Draw:
        """What these clients' messages are drawn from."""
        return Draw(self.seed, round, self.ids[clients])

    def hub(self, round: int) -> Draw:
        """What the hub's message to all is drawn from."""
        return Draw(self.seed, round, np.array([name_id("hub")], np.uint64))


def uniform(seed: int, round: int, ids: U64, purpose: str) -> npt.NDArray[np.float64]:
    """One number in [0, 1) a client."""
    return (key(seed, round, ids, purpose) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def counters(keys: U64, n: int) -> U64:
    """h[k, i] = mix(key_k + (i + 1) phi): n independent 64-bit words a key, [k, n]."""
    with np.errstate(over="ignore"):
        steps = np.arange(1, n + 1, dtype=np.uint64) * PHI
        return mix(keys[:, None] + steps[None, :])


def permutations(keys: U64, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """A permutation of range(sizes[k]) a row, [k, max(sizes)]; beyond a client's size the entries mean nothing.

    Sizes must be below 2^24. Sorting the hashes of the positions is a uniform permutation up to ties of 40 bits,
    which the packed index breaks.
    """
    n = int(sizes.max(initial=0))
    h = (counters(keys, n) & ~_LOW) | np.arange(n, dtype=np.uint64)[None, :]
    h[np.arange(n)[None, :] >= sizes[:, None]] = np.uint64(2**64 - 1)
    h.sort(axis=1)
    return (h & _LOW).astype(np.int64)


def generator(seed: int, round: int, purpose: str) -> np.random.Generator:
    """A Philox generator for a draw over the population (cohorts), keyed by (seed, round, purpose)."""
    return np.random.Generator(np.random.Philox(key=scalar(seed, round, purpose)))
