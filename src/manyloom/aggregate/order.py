"""Order statistics of the columns of [n, c] blocks: the mean of ranks lo .. hi-1, by a pruned sorting network.

Batcher's odd-even merge network (Knuth, The Art of Computer Programming, vol. 3, 5.2.2, algorithm M) is walked
backwards from the ranks that are needed: order inside a group that is only summed, or thrown away, does not matter,
so its comparators go, and a comparator of which one end is thrown away takes only a minimum or a maximum. What is left
is vectorised over the columns of a block that stays in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Block = npt.NDArray[np.floating[Any]]  # float32 or float64
SORTED = 128  # from so many rows on a sort of the transposed block is as fast as the network (measured)


def width(n: int) -> int:
    """Columns of a block that fit the cache beside its scratch space."""
    return 16384 if n < SORTED else 4096


class Comparator(NamedTuple):
    """Two wires, i < j: the smaller value goes to i, the larger to j; or only one of them is needed."""

    i: int
    j: int
    needed: Literal["both", "low", "high"]


def batcher(n: int) -> list[tuple[int, int]]:
    """The comparators of Batcher's odd-even merge sort of n wires, in order.

    >>> len(batcher(20)), len(batcher(50)), len(batcher(100))
    (97, 395, 1077)
    """
    out: list[tuple[int, int]] = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p > 0:
        q, r, step = top, 0, p
        while True:
            out += [(i, i + step) for i in range(n - step) if i & p == r]
            if q == p:
                break
            step, q, r = q - p, q >> 1, p
        p >>= 1
    return out


@lru_cache(maxsize=64)
def network(n: int, lo: int, hi: int) -> tuple[Comparator, ...]:
    """What is left of `batcher(n)` if only the sum of the ranks lo .. hi-1 is asked for.

    >>> len(network(50, 24, 26)), len(network(50, 10, 40)), len(network(50, 0, 50))
    (329, 334, 0)
    """
    # -1: thrown away; 0: only the sum with others marked 0 counts; above: this very value counts
    mark = [0 if lo <= i < hi else -1 for i in range(n)]
    kept: list[Comparator] = []
    for i, j in reversed(batcher(n)):
        a, b = mark[i], mark[j]
        if a == b and a <= 0:
            continue
        kept.append(Comparator(i, j, "low" if b < 0 else "high" if a < 0 else "both"))
        mark[i] = mark[j] = 1
    return tuple(reversed(kept))


def middle(block: Block, lo: int, hi: int) -> Block:
    """The mean of the ranks lo .. hi-1 of every column, [c]; `block` [n, c] is used up.

    >>> middle(np.array([[3.0, 1.0], [9.0, 1.0], [1.0, 7.0], [2.0, 4.0]]), 1, 3)
    array([2.5, 2.5])
    """
    n = len(block)
    if n >= SORTED and hi - lo < n:
        ordered = np.sort(np.ascontiguousarray(block.T), axis=1)
        return ordered[:, lo:hi].mean(axis=1, dtype=np.float64).astype(block.dtype)
    wires = list(block)
    spare = np.empty_like(wires[0])
    for i, j, needed in network(n, lo, hi):
        a, b = wires[i], wires[j]
        if needed == "both":
            np.minimum(a, b, out=spare)
            np.maximum(a, b, out=b)
            wires[i], spare = spare, a
        elif needed == "low":
            np.minimum(a, b, out=a)
        else:
            np.maximum(a, b, out=b)
    if hi - lo == 1:
        return wires[lo]
    total = wires[lo].astype(np.float64)
    for wire in wires[lo + 1 : hi]:
        total += wire
    total /= hi - lo
    return total.astype(block.dtype)
