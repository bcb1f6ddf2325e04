"""A random rotation that spreads any vector evenly: random signs and Hadamard matrices on blocks, in rounds.

    R = H S_3 T H S_2 T H S_1,   H the normalised Hadamard matrix of B coordinates on each block, S random signs

Between two rounds T deals each block's coordinates to all blocks, so that a vector in one block (a bias, a few large
coordinates) is spread over the whole length. One round is not enough: it takes e1 + e2 to a vector of which half is
zero. Of many blocks two are not: each gets a few coordinates of that one, whose sum is far from normal. A block is
transformed as a matrix X by two products that BLAS is fast at, and left transposed, (H_p X H_q)^T: dealt as it stood,
the next round would find equal numbers side by side.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from manyloom.core.seeds import U64, counters
from manyloom.transforms.bits import signs

BLOCK = 4096
LEAST = 64
SPARE = 8  # padding may be one part in so many, before blocks get smaller
FEW = 4  # blocks, of which two rounds are enough


def block(n: int) -> int:
    """B: the largest power of two up to 4096 that pads n by an eighth at most; at least 64, or what holds n.

    >>> [block(n) for n in (1, 3, 65, 4810, 1_000_000)]
    [1, 4, 64, 1024, 4096]
    """
    b = BLOCK
    while b > LEAST and (-n % b) * SPARE > n:
        b //= 2
    return min(b, 1 << (n - 1).bit_length())


def padded(n: int) -> int:
    """n filled up to whole blocks.

    >>> padded(4810), padded(1_000_000)
    (5120, 1003520)
    """
    return n + -n % block(n)


def rounds(n: int) -> int:
    """How many rounds spread n coordinates.

    >>> rounds(4096), rounds(1_000_000)
    (2, 3)
    """
    return 2 if padded(n) <= FEW * block(n) else 3


def rotate(x: Tensor, key: U64, times: int | None = None) -> Tensor:
    """sqrt(N) R x of x [n], float32 [N] with N = padded(n): of a unit vector coordinates about N(0, 1)."""
    n, b = padded(len(x)), block(len(x))
    p, q = sides(b)
    times = times or rounds(len(x))
    y = torch.zeros(n)
    y[: len(x)] = x
    for i in range(times):
        if i:
            y = y.view(-1, b).t().reshape(-1)
        y = _blocks(y.mul_(_signs(key, n, i)), p, q)
    return y.mul_(math.sqrt(n) * b ** (-times / 2))


def unrotate(y: Tensor, n: int, key: U64) -> Tensor:
    """R^T y / sqrt(N) of y [N], cut to n coordinates: the inverse of `rotate`."""
    b, times = block(n), rounds(n)
    p, q = sides(b)
    for i in reversed(range(times)):
        y = _blocks(y, q, p).mul_(_signs(key, len(y), i))
        if i:
            y = y.view(b, -1).t().reshape(-1)
    return y[:n] * (b ** (-times / 2) / math.sqrt(len(y)))


def sides(b: int) -> tuple[int, int]:
    """A block of B = p q coordinates as a matrix [p, q], about square.

    >>> sides(4096), sides(128)
    ((64, 64), (8, 16))
    """
    p = 1 << ((b.bit_length() - 1) // 2)
    return p, b // p


def _blocks(y: Tensor, p: int, q: int) -> Tensor:
    """(H_p X H_q)^T of every block X [p, q], with unnormalised H: with p and q exchanged its own inverse, times 1/B."""
    return ((y.view(-1, p, q) @ _hadamard(q)).transpose(1, 2) @ _hadamard(p)).view(-1)


def _signs(key: U64, n: int, i: int) -> Tensor:
    return signs(counters(key, i + 1)[:, i], n)


@lru_cache(maxsize=8)
def _hadamard(n: int) -> Tensor:
    """[n, n] of 1 and -1 (Sylvester)."""
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h
