"""A client's numbers as integers of the ring, and the sum's integers as numbers.

    [count = 1 | control numbers | vector],  int32 seen as uint32

Overflow is impossible by construction: a vector's norm (or, with plain weights, each coordinate) is bounded before it
is scaled, and `Params` refuses what could leave 32 bits. Clip, rounding and norm check are those of a private sum
(`privacy.mechanisms`), with or without noise after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.privacy import mechanisms
from manyloom.privacy.source import Injected, Source
from manyloom.secure import masks
from manyloom.secure.params import LIMB, LIMBS, Control, Params

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """The integers [d_total] uint32, and what became of the vector."""

    words: masks.U32
    finite: bool
    inside: bool  # within the bound before the clip: nothing was cut


@dataclass(frozen=True)
class Decoded:
    """A sum: how many are in it, the sums of the control numbers, the sum of the vectors [d]."""

    count: int
    control: Mapping[str, float]
    vector: F64


def repeatable(seed: int, round: int, client: int) -> Source:
    """Bits from the job's seed: without a privacy claim rounding hides nothing, and a run repeats.

    >>> repeatable(1, 2, 3).draw(4) == repeatable(1, 2, 3).draw(4), repeatable(1, 2, 3).secret
    (True, False)
    """
    key = seeds.key(seed, round, np.array([client], np.uint64), "round")

    def draw(n: int) -> bytes:
        return seeds.counters(key, -(-n // 8))[0].astype("<u8").tobytes()[:n]

    return Injected(draw)


def _control(c: Control, value: float) -> int:
    """A number as an integer: of [0, scale] for a weight, of [-scale, scale] for others; nothing for no number."""
    if not math.isfinite(value):
        value = c.lo
    share = (min(max(value, c.lo), c.hi) - c.lo) / (c.hi - c.lo)
    return round(share * c.scale) if c.name == "weight" else round((2 * share - 1) * c.scale)


def encode(
    x: npt.NDArray[np.floating],
    p: Params,
    source: Source,
    *,
    weight: float = 1.0,
    control: Mapping[str, float] | None = None,
) -> Encoded:
    """One client's message as integers of the ring.

        q = SR(w clip(x, C') S / C),   with plain weights  q = SR(w clamp(x, -R, R) S),   exact  q = the parts of x

    Args:
        x: the vector [d]; where a number is not finite it contributes zero, and so do its weight and metrics (an exact
            sum then is no number in those coordinates).
        p: of the sum.
        source: what rounding is drawn from: secret under a privacy claim.
        weight: in [0, 1].
        control: a value for each control number but "weight", "clip" (whether the norm is within C: 1/2 or -1/2) and
            "cut" (whether a coordinate is beyond R: 1 or 0).
    """
    v = np.asarray(x, np.float64)
    if p.weights == "exact":
        q = parts(v, p.n_max)
        return Encoded(_words(q, [0] * len(p.control)), bool(np.isfinite(v).all()), inside=True)
    w = 1.0 if p.weights == "one" else min(max(weight, 0.0), 1.0)
    finite = math.isfinite(weight) and bool(np.isfinite(v).all())
    if not finite:
        return Encoded(_words(np.zeros(v.size, np.int64), [0] * len(p.control)), finite=False, inside=False)
    if p.clipped:
        made = mechanisms.encode(v, p.bound, p.scale, source, w)
        q, inside = made.q, made.norm <= p.bound
    else:
        low = np.clip(v, -p.bound, p.bound)
        inside = bool(np.array_equal(low, v))
        q = mechanisms.stochastic_round(w * low * p.scale, source)
    known = {"clip": 0.5 if inside else -0.5, "cut": 0.0 if inside else 1.0}
    values = known | dict(control or {})
    return Encoded(
        _words(q, [_control(c, w * c.hi if c.name == "weight" else values[c.name]) for c in p.control]), True, inside
    )


def _words(q: I64, control: list[int]) -> masks.U32:
    return np.concatenate([np.array([1, *control], np.int64), q]).astype(np.int32).view(np.uint32)


def most(n_max: int) -> float:
    """The largest total of an exact sum, 2^60/n; a coordinate beyond it, or of a client's non-finite number, is nan."""
    return 2.0 ** math.floor(60 - math.log2(n_max))


def parts(x: F64, n_max: int) -> I64:
    """x [m] to 2^-32, in two's complement of 96 bits, as six parts of 16 bits [6 m], lowest first.

    >>> parts(np.array([1.0, -1.0]), 10).reshape(2, 6).tolist()
    [[0, 0, 1, 0, 0, 0], [0, 0, 65535, 65535, 65535, 65535]]
    """
    top = most(n_max)
    safe = np.where(np.abs(x) <= top, x, 4 * top)  # no number: the total then is beyond what is allowed
    whole = np.floor(safe)
    low = np.rint((safe - whole) * 2.0**32).astype(np.uint64)
    high = whole.astype(np.int64).view(np.uint64) + (low >> np.uint64(32))
    pieces = [low, low >> np.uint64(16), *(high >> np.uint64(16 * i) for i in range(4))]
    return np.stack([(piece & np.uint64(LIMB - 1)).astype(np.int64) for piece in pieces], 1).reshape(-1)


def whole(sums: I64, n_max: int) -> F64:
    """The sum of the numbers whose parts were summed [6 m]; nan where one of them was none.

    >>> whole(sum(parts(np.array([x]), 3) for x in (0.5, -2.25, 1e6)), 3)
    array([999998.25])
    """
    piece = sums.reshape(-1, LIMBS).astype(np.uint64)
    with np.errstate(over="ignore"):
        high = sum((piece[:, 2 + i] << np.uint64(16 * i) for i in range(4)), np.zeros(len(piece), np.uint64))
    low = piece[:, 0].astype(np.float64) * 2.0**-32 + piece[:, 1].astype(np.float64) * 2.0**-16
    total = high.view(np.int64).astype(np.float64) + low
    return np.where(np.abs(total) <= most(n_max), total, math.nan)


def signed(words: masks.U32) -> I64:
    """Ring elements as integers of [-2^31, 2^31)."""
    return words.view(np.int32).astype(np.int64)


def decode(total: I64, p: Params) -> Decoded:
    """The sum's integers [d_total] as numbers.

    Errors: ValueError where a control sum is beyond what so many clients can send.
    """
    count = int(total[0])
    sums: dict[str, float] = {}
    for c, value in zip(p.control, total[1 : 1 + len(p.control)].tolist()):
        if abs(value) > count * c.scale:
            raise ValueError(f'the sum of "{c.name}" is beyond {count} clients')
        if c.name == "weight":
            sums[c.name] = value / c.scale * c.hi
        else:
            sums[c.name] = count * (c.lo + c.hi) / 2 + value / c.scale * (c.hi - c.lo) / 2
    vector = total[1 + len(p.control) :]
    if p.weights == "exact":
        return Decoded(count, sums, whole(vector, p.n_max))
    unit = p.bound / p.scale if p.clipped else 1 / p.scale
    return Decoded(count, sums, vector.astype(np.float64) * unit)
