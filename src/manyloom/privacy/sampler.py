"""The rounded Gaussian, exactly as integers: table inversion of the survival function (privacy.md §2.4, 3).

R = round(N(0, sigma^2)) added to an integer s is round(s + N(0, sigma^2)): post-processing of the continuous Gaussian
mechanism, so its accounting holds as it is. No floating-point low bits reach a release (Mironov 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import bad
from manyloom.privacy.source import Source

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]

LARGEST = 2.0**20
"""The largest standard deviation, in integer units, that is sampled."""
CACHED = 6e4
"""Above this the table leaves the processor's cache, and sampling slows down several times."""
LOST = 4e-33
"""What truncation at 12 sigma takes from delta, a draw."""
_GUIDE = 18
_CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class Table:
    """Thresholds of |X|: `rising[M - 1 - k] = floor(P(|X| > k) 2^63)`; `low` answers 18 bits, where `sure`."""

    sigma: float
    most: int
    rising: U64
    low: I32
    sure: npt.NDArray[np.bool_]


def survival(sigma: float, k: int) -> float:
    """P(|X| > k) = cast(Any, special).erfc((k + 1/2) / (sigma sqrt 2)) of a rounded Gaussian.

    >>> round(survival(1.0, 0), 6)
    0.617075
    """
    return math.erfc((k + 0.5) / (sigma * math.sqrt(2.0)))


@lru_cache(maxsize=4)
def table(sigma: float) -> Table:
    """The table of a standard deviation in integer units: M = ceil(12 sigma) thresholds, and a guide on 18 bits.

    Raises `BadInput` above 2^20, or where sigma is not a positive number.
    """
    if not 0 < sigma <= LARGEST:
        raise bad(
            "noise-scale",
            f"noise on integers needs a standard deviation above 0 and at most 2^20, not {sigma:g}",
            rule="standard deviation = noise multiplier x scale",
            mend="use a smaller scale",
        )
    from scipy import special  # pyright: ignore[reportMissingTypeStubs]

    most = math.ceil(12 * sigma)
    k = np.arange(most, dtype=np.float64)
    tail: npt.NDArray[np.float64] = cast(Any, special).erfc((k + 0.5) / (sigma * math.sqrt(2.0)))
    rising = np.ascontiguousarray(np.floor(tail * 2.0**63).astype(np.uint64)[::-1])
    edges = np.arange((1 << _GUIDE) + 1, dtype=np.uint64) << np.uint64(63 - _GUIDE)
    # |X| for the least u of a bucket, and for its largest: where they agree, 18 bits are the answer
    largest = most - np.searchsorted(rising, edges[:-1], side="right")
    least = most - np.searchsorted(rising, edges[1:] - np.uint64(1), side="right")
    return Table(sigma, most, rising, least.astype(np.int32), least == largest)


def magnitude(t: Table, u: U64, source: Source) -> I64:
    """|X| = the number of k with floor(P(|X| > k) 2^63) > u, for 63-bit u; the far tail to 2^-126."""
    bucket = (u >> np.uint64(63 - _GUIDE)).astype(np.int64)
    out = t.low[bucket].astype(np.int64)
    rest = np.flatnonzero(~t.sure[bucket])
    out[rest] = t.most - np.searchsorted(t.rising, u[rest], side="right")
    for i in np.flatnonzero(u < np.uint64(1 << 31)):
        v = int.from_bytes(source.draw(8), "little") >> 1
        out[i] = _far(t, (int(u[i]) << 63) + v)
    return out


def _far(t: Table, target: int) -> int:
    """The number of k with P(|X| > k) 2^126 > target, as exact integers; all with a threshold >= 2^32 count."""
    low = t.most - int(np.searchsorted(t.rising, np.uint64(1 << 32), side="left"))
    high = t.most
    while low < high:
        k = (low + high) // 2
        # times 2^126 is exact in float64: a power of two
        if int(math.ldexp(survival(t.sigma, k), 126)) > target:
            low = k + 1
        else:
            high = k
    return high


def rounded_gaussian(sigma: float, n: int, source: Source) -> I64:
    """n independent draws of round(N(0, sigma^2)), |X| <= ceil(12 sigma), as int64 [n].

    64 bits a draw: 63 for |X|, one for the sign. Source: privacy.md §2.4; inversion of the survival function, so that
    the tail keeps its relative precision.

    >>> from manyloom.privacy.source import Injected
    >>> rounded_gaussian(1.0, 3, Injected(lambda n: b"\\xff" * n))
    array([0, 0, 0])
    """
    t = table(sigma)
    out = np.empty(n, np.int64)
    for at in range(0, n, _CHUNK):
        m = min(_CHUNK, n - at)
        bits = np.frombuffer(source.draw(8 * m), "<u8").astype(np.uint64, copy=False)
        size = magnitude(t, bits >> np.uint64(1), source)
        out[at : at + m] = np.where(bits & np.uint64(1), -size, size)
    return out
