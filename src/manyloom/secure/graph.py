"""Who masks with whom, and how many shares open a secret: computed from the corrupt and the lost, never a table.

The graph is a Harary ring in an order drawn from the transcript (Bell et al. 2020). The tails are of hypergeometric
distributions; products such as gamma n are exact decimals (in floats floor(0.29 * 100) is 28).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import bad
from manyloom.secure.transcript import digest

F64 = npt.NDArray[np.float64]
Mode = Literal["active", "semi"]
SLACK = 1 + 1e-9  # a client that checks another's arithmetic allows for rounding in the tails
LOST = 2.0**-20  # how often too few neighbours may answer
SMALL = 50  # up to so many clients everybody is everybody's neighbour


class Degree(NamedTuple):
    """k neighbours, t shares; of which at most x corrupt, at least a answering, w (active) a window's corrupt."""

    k: int
    t: int
    x: int
    a: int
    w: int | None


def corrupt(gamma: str, n: int) -> int:
    """floor(gamma n), exactly.

    >>> corrupt("0.29", 100)
    29
    """
    return math.floor(Fraction(gamma) * n)


def lost(delta_drop: str, n: int) -> int:
    """ceil(delta_drop n), exactly."""
    return math.ceil(Fraction(delta_drop) * n)


def quorum_of_signers(n: int, c: int) -> int:
    """q3: two sets of so many share an honest signer, as 2 q3 - n > c."""
    return (n + c) // 2 + 1


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> F64:
    return np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])


def _choose(n: npt.NDArray[np.int64], r: npt.NDArray[np.int64], table: F64) -> F64:
    """log C(n, r), -inf where there is none."""
    ok = (r >= 0) & (r <= n) & (n >= 0)
    n, r = np.where(ok, n, 0), np.where(ok, r, 0)
    return np.where(ok, table[n] - table[r] - table[n - r], -np.inf)


def hypergeometric(population: int, marked: int | npt.NDArray[np.int64], draws: int) -> F64:
    """P[i marked among the drawn], i = 0 .. draws on the last axis; `marked` may be [m] for [m, draws + 1].

    >>> hypergeometric(4, 2, 2).round(3).tolist()
    [0.167, 0.667, 0.167]
    """
    table = _log_factorials(population)
    i = np.arange(draws + 1, dtype=np.int64)
    m = np.asarray(marked, np.int64)[..., None]
    total = _choose(np.asarray(population), np.asarray(draws), table)
    return np.exp(_choose(m, i, table) + _choose(population - m, draws - i, table) - total)


def _above(pmf: F64) -> F64:
    """P[> i] for each i, from the small end."""
    tail = np.cumsum(pmf[..., ::-1], axis=-1)[..., ::-1]
    return np.concatenate([tail[..., 1:], np.zeros_like(tail[..., :1])], axis=-1)


def corrupt_neighbours(n: int, c: int, k: int, kappa: int) -> int:
    """X(k): with more corrupt neighbours than this, for anybody, only with probability 2^-kappa."""
    if c == 0:
        return 0
    tail = n * _above(hypergeometric(n - 1, c, k))
    return int(np.argmax(tail < 2.0**-kappa * SLACK))


def answering(n: int, dr: int, k: int) -> int:
    """A(k): so many neighbours answer everybody, but with probability 2^-20."""
    below = n * np.cumsum(hypergeometric(n - 1, n - 1 - dr, k))  # n P[<= s] at s
    return int(np.sum(below < LOST))


def window(n: int, c: int, k: int, kappa: int) -> int:
    """W(k): two disjoint windows of k/2 places hold so many corrupt each only with probability 2^-kappa."""
    half = k // 2
    if c == 0:
        return 1
    i = np.arange(half + 1, dtype=np.int64)
    first = hypergeometric(n, c, half)
    second = hypergeometric(n - half, np.maximum(c - i, 0), half)
    at_least = _above(second) + second
    for w in range(1, half + 1):
        if n * (n - 1) / 2 * float(first[w:] @ at_least[w:, w]) < 2.0**-kappa * SLACK:
            return w
    return half + 1


def least_threshold(n: int, k: int, gamma: str, kappa: int, mode: Mode) -> tuple[int, int, int | None]:
    """The least t at which the corrupt open nothing, with X and (active) W."""
    c = corrupt(gamma, n)
    x = corrupt_neighbours(n, c, k, kappa)
    t0 = 2 if k < 6 else 3
    if mode == "semi":
        return max(t0, x + 1), x, None
    t = max(t0, (k + x) // 2 + 1)
    if k == n - 1:
        return t, x, None
    w = window(n, c, k, kappa)
    return max(t, k // 2 + w), x, w


def connected(n: int, k: int, gamma: str, delta_drop: str, kappa: int) -> bool:
    """Whether two runs of k/2 bad places, which would cut the ring, are as rare as 2^-kappa."""
    r = min(1.0, n * float(Fraction(gamma) + Fraction(delta_drop)) ** (k / 2))
    return r * r / 2 < 2.0**-kappa * SLACK


@lru_cache(maxsize=256)
def sound(n: int, k: int, t: int, gamma: str, delta_drop: str, kappa: int, mode: Mode) -> str | None:
    """What is wrong with an announced k and t, or None. What a client checks: it does not search."""
    if not (k == n - 1 or (4 <= k < n - 1 and k % 2 == 0)):
        return f"{k} neighbours of {n} clients make no ring"
    least, *_ = least_threshold(n, k, gamma, kappa, mode)
    if not least <= t <= k:
        return f"threshold {t} of {k} neighbours; it must be {least} to {k}"
    if mode == "semi" and k < n - 1 and not connected(n, k, gamma, delta_drop, kappa):
        return f"{k} neighbours of {n} clients may fall apart when clients are lost"
    if mode == "active" and n - lost(delta_drop, n) < quorum_of_signers(n, corrupt(gamma, n)):
        return f"too few of {n} clients sign when {lost(delta_drop, n)} are lost"
    return None


@lru_cache(maxsize=256)
def degree(n: int, gamma: str, delta_drop: str, kappa: int, mode: Mode, small: int = SMALL) -> Degree:
    """The least k with its t, so that the corrupt open nothing and the lost stop nothing.

    Errors: BadInput where no k will do, naming what to relax.

    >>> degree(100, "0.10", "0.10", 80, "active")
    Degree(k=32, t=22, x=10, a=22, w=6)
    """
    even = list[int]() if n <= small else list(range(4, n - 1, 2))
    dr = lost(delta_drop, n)
    for k in [*even, n - 1]:
        if k < 1 or n - 1 - dr < 0:
            continue
        a = answering(n, dr, k)
        x = corrupt_neighbours(n, corrupt(gamma, n), k, kappa)
        if (x + 1 if mode == "semi" else (k + x) // 2 + 1) > a:  # cheap, before the windows
            continue
        t, x, w = least_threshold(n, k, gamma, kappa, mode)
        if t <= a and sound(n, k, t, gamma, delta_drop, kappa, mode) is None:
            return Degree(k, t, x, a, w)
    raise bad(
        "secure-infeasible",
        f"no secure sum over {n} clients survives {dr} lost ones and {corrupt(gamma, n)} corrupt ones",
        got=f"gamma = {gamma}, delta_drop = {delta_drop}",
        rule="those who stay must open what those who collude never can",
        mend="lower delta_drop or gamma, or ask more clients",
    )


@lru_cache(maxsize=4)
def _order(tid: bytes, uids: tuple[int, ...]) -> tuple[int, ...]:
    """By H("perm" | tid | uid). Kept, because in a simulation many clients of one session ask for it."""
    return tuple(sorted(uids, key=lambda u: digest("perm", tid, u)))


def _beside(order: tuple[int, ...], i: int, k: int) -> list[int]:
    n, half = len(order), k // 2
    return sorted(order[(i + s) % n] for s in range(-half, half + 1) if s)


def neighbours(tid: bytes, uids: Sequence[int], k: int, me: int) -> list[int]:
    """The neighbours of one, ascending; ValueError where it is not there.

    >>> neighbours(bytes(32), range(6), 4, 2) == ring(bytes(32), range(6), 4)[2]
    True
    """
    if k == len(uids) - 1:
        return sorted(v for v in uids if v != me)
    order = _order(tid, tuple(uids))
    return _beside(order, order.index(me), k)


def ring(tid: bytes, uids: Sequence[int], k: int) -> dict[int, list[int]]:
    """The neighbours of each, ascending: k/2 to either side in the order of H("perm" | tid | uid).

    >>> sorted(len(v) for v in ring(bytes(32), range(6), 4).values())
    [4, 4, 4, 4, 4, 4]
    """
    if k == len(uids) - 1:
        members = sorted(uids)
        return {u: [v for v in members if v != u] for u in members}
    order = _order(tid, tuple(uids))
    return {u: _beside(order, i, k) for i, u in enumerate(order)}
