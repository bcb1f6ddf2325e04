"""Shamir's secret sharing over the prime field of p = 2^256 + 297 (Shamir 1979).

A secret of 32 bytes is the constant term of a polynomial of degree t - 1 with uniform coefficients: t shares give it
back, t - 1 say nothing about it.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from functools import lru_cache

P = 2**256 + 297
SHARE = 33  # bytes of a share: values reach beyond 2^256


def split(secret: bytes, k: int, t: int, below: Callable[[int], int] = secrets.randbelow) -> list[bytes]:
    """Shares at x = 1 .. k, any t of which give the secret back.

    Args:
        secret: 32 bytes, little-endian.
        k: how many shares.
        t: how many are needed.
        below: uniform draw in [0, n); only a test replaces it.

    Errors: ValueError where not 1 <= t <= k or the secret is not of 32 bytes.
    """
    if not 1 <= t <= k or len(secret) != 32:
        raise ValueError(f"can't share {len(secret)} bytes {t} of {k}")
    terms = [below(P) for _ in range(t - 1)]
    constant = int.from_bytes(secret, "little")
    shares: list[bytes] = []
    for x in range(1, k + 1):
        y = 0
        for i, a in enumerate(terms):
            y = (y + a) * x
            if i % 32 == 31:  # x is small: dividing seldom is faster than multiplying short numbers
                y %= P
        shares.append(((y + constant) % P).to_bytes(SHARE, "little"))
    return shares


@lru_cache(maxsize=4)
def _inverses(n: int) -> tuple[int, ...]:
    """1/i for i = 1 .. n (0 at 0)."""
    found = [0, 1]
    for i in range(2, n + 1):
        found.append((P - P // i) * found[P % i] % P)
    return tuple(found)


@lru_cache(maxsize=256)
def _bottoms(xs: tuple[int, ...]) -> tuple[int, ...]:
    """1 / prod_{j != i} (x_i - x_j) for each i, with one inversion. Places are public: nothing secret is kept here."""
    bottoms = [math.prod([a - b for b in xs if b != a]) % P for a in xs]
    prefix = [1]
    for b in bottoms:
        prefix.append(prefix[-1] * b % P)
    inverse = pow(prefix[-1], -1, P)
    found: list[int] = []
    for i in range(len(xs) - 1, -1, -1):
        found.append(prefix[i] * inverse % P)
        inverse = inverse * bottoms[i] % P
    return tuple(found[::-1])


@lru_cache(maxsize=256)
def _weights(xs: tuple[int, ...], at: int) -> tuple[int, ...]:
    """What each y counts in the value at a place that is none of these."""
    inverse = _inverses(1 << max(abs(at - x) for x in xs).bit_length())
    top = math.prod([at - x for x in xs]) % P
    return tuple(top * b % P * (inverse[at - x] if at > x else -inverse[x - at]) % P for x, b in zip(xs, _bottoms(xs)))


def combine(points: Sequence[tuple[int, bytes]], at: int = 0) -> int:
    """The polynomial through these points (x, share), at another place: Lagrange.

        f(a) = sum_i y_i prod_{j != i} (a - x_j) / (x_i - x_j)

    >>> parts = split(b"k" * 32, 5, 3)
    >>> combine([(5, parts[4]), (1, parts[0]), (2, parts[1])]).to_bytes(32, "little") == b"k" * 32
    True
    """
    known = dict(points)
    if len(known) != len(points):
        raise ValueError("two shares at one place")
    if at in known:
        return int.from_bytes(known[at], "little") % P
    weights = _weights(tuple(known), at)
    return sum(int.from_bytes(y, "little") * w for y, w in zip(known.values(), weights)) % P


def secret_of(points: Sequence[tuple[int, bytes]]) -> bytes | None:
    """The 32 bytes that were shared; None where the points meet in no such secret."""
    value = combine(points)
    return value.to_bytes(32, "little") if value < 2**256 else None


def strays(points: Sequence[tuple[int, bytes]], basis: Sequence[tuple[int, bytes]]) -> list[int]:
    """The x of all points that are off the polynomial through `basis`."""
    return [x for x, y in points if combine(basis, x) != int.from_bytes(y, "little")]
