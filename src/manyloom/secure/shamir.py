"""Shamir's secret sharing over the prime field of p = 2^256 + 297 (Shamir 1979).

A secret of 32 bytes is the constant term of a polynomial of degree t - 1 with uniform coefficients: t shares give it
back, t - 1 say nothing about it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

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
        for a in terms:
            y = (y + a) * x % P
        shares.append(((y + constant) % P).to_bytes(SHARE, "little"))
    return shares


def combine(points: Sequence[tuple[int, bytes]], at: int = 0) -> int:
    """The polynomial through these points (x, share), at another place: Lagrange with one inversion.

        f(a) = sum_i y_i prod_{j != i} (a - x_j) / (x_i - x_j)

    >>> parts = split(b"k" * 32, 5, 3)
    >>> combine([(5, parts[4]), (1, parts[0]), (2, parts[1])]).to_bytes(32, "little") == b"k" * 32
    True
    """
    xs = [x for x, _ in points]
    if len(set(xs)) != len(xs):
        raise ValueError("two shares at one place")
    tops: list[int] = []
    bottoms: list[int] = []
    for i, xi in enumerate(xs):
        top = bottom = 1
        for j, xj in enumerate(xs):
            if i != j:
                top = top * (at - xj) % P
                bottom = bottom * (xi - xj) % P
        tops.append(top)
        bottoms.append(bottom)
    prefix = [1]
    for b in bottoms:
        prefix.append(prefix[-1] * b % P)
    inverse = pow(prefix[-1], -1, P)
    total = 0
    for i in range(len(xs) - 1, -1, -1):
        y = int.from_bytes(points[i][1], "little")
        total += y * tops[i] % P * (prefix[i] * inverse % P)
        inverse = inverse * bottoms[i] % P
    return total % P


def secret_of(points: Sequence[tuple[int, bytes]]) -> bytes | None:
    """The 32 bytes that were shared; None where the points meet in no such secret."""
    value = combine(points)
    return value.to_bytes(32, "little") if value < 2**256 else None


def strays(points: Sequence[tuple[int, bytes]], basis: Sequence[tuple[int, bytes]]) -> list[int]:
    """The x of all points that are off the polynomial through `basis`."""
    return [x for x, y in points if combine(basis, x) != int.from_bytes(y, "little")]
