"""A client's numbers as integers of the ring, and the sum's integers as numbers.

    [count = 1 | control numbers | vector],  int32 seen as uint32

Overflow is impossible by construction: a vector's norm (or, with plain weights, each coordinate) is bounded before it
is scaled, and `Params` refuses what could leave 32 bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.secure import masks
from manyloom.secure.params import Control, Params

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """The integers [d_total] uint32, and what became of the vector."""

    words: masks.U32
    finite: bool
    inside: bool  # the norm was within the bound before the clip


@dataclass(frozen=True)
class Decoded:
    """A sum: how many are in it, the sums of the control numbers, the sum of the vectors [d]."""

    count: int
    control: Mapping[str, float]
    vector: F64


def fresh(d: int) -> F64:
    """Numbers of [0, 1) from AES-CTR keyed by the operating system: 32 bits each."""
    words = np.zeros(d, np.uint32)
    masks.apply(words, [(os.urandom(16), 1)])
    return words.astype(np.float64) * 2.0**-32


def repeatable(seed: int, round: int, client: int, d: int) -> F64:
    """Numbers of [0, 1) from the job's seed: without a privacy claim rounding hides nothing, and repeats."""
    key = seeds.key(seed, round, np.array([client], np.uint64), "round")
    return (seeds.counters(key, d)[0] >> np.uint64(32)) * 2.0**-32


def _round(x: F64, u: F64) -> I64:
    """floor(x) + 1[u < frac(x)]: x on average."""
    low = np.floor(x)
    return (low + (u < x - low)).astype(np.int64)


def norm(x: npt.NDArray[np.floating]) -> float:
    """||x|| in float64, scaled by its largest entry: no square overflows, or vanishes.

    >>> f"{norm(np.array([3e200, 4e200])):.3e}"
    '5.000e+200'
    """
    top = float(np.max(np.abs(x), initial=0.0))
    if top == 0 or not math.isfinite(top):
        return top
    return top * float(np.linalg.norm(np.asarray(x, np.float64) / top))


def _bounded(x: F64, weight: float, p: Params, u: F64) -> tuple[I64, bool]:
    """x clipped to C' and scaled by w S / C, so that the integers' norm is at most S; exactly checked."""
    length = norm(x)
    goal = p.bound * p.shrink()
    factor = weight * p.scale / p.bound
    if length > goal:
        x = x / length * goal  # in this order: goal / length could underflow
    y = x * factor
    q = _round(y, u)
    if int(q @ q) > p.scale**2:  # float error: towards zero the norm never grows
        q = np.trunc(y).astype(np.int64)
        if int(q @ q) > p.scale**2:
            q = np.zeros_like(q)
    return q, length <= p.bound


def _control(c: Control, value: float) -> int:
    """A number as an integer: of [0, scale] for a weight, of [-scale, scale] for others; nothing for no number."""
    if not math.isfinite(value):
        value = c.lo
    share = (min(max(value, c.lo), c.hi) - c.lo) / (c.hi - c.lo)
    return round(share * c.scale) if c.name == "weight" else round((2 * share - 1) * c.scale)


def encode(
    x: npt.NDArray[np.floating],
    p: Params,
    uniforms: F64,
    *,
    weight: float = 1.0,
    control: Mapping[str, float] | None = None,
) -> Encoded:
    """One client's message as integers of the ring.

        q = SR(w clip(x, C') S / C)         or, with plain weights,  q = SR(w clamp(x, -R, R) S)

    Args:
        x: the vector [d]; where a number is not finite it contributes zero, and so do its weight and metrics.
        p: of the sum.
        uniforms: what rounding is drawn by [d].
        weight: in [0, 1].
        control: a value for each control number but "weight".
    """
    values = dict(control or {})
    v = np.asarray(x, np.float64)
    finite = bool(np.isfinite(v).all()) and math.isfinite(weight)
    w = min(max(weight, 0.0), 1.0) if finite else 0.0
    if p.weights == "one":
        w = float(finite)
    if not finite:
        v = np.zeros_like(v)
    if p.clipped:
        q, inside = _bounded(v, w, p, uniforms)
    else:
        low = np.clip(v, -p.bound, p.bound)
        inside = bool(np.array_equal(low, v))
        q = _round(w * low * p.scale, uniforms)
    top = [_control(c, w * c.hi if c.name == "weight" else values[c.name]) if finite else 0 for c in p.control]
    every = np.concatenate([np.array([1, *top], np.int64), q])
    return Encoded(every.astype(np.int32).view(np.uint32), finite, inside)


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
    unit = p.bound / p.scale if p.clipped else 1 / p.scale
    return Decoded(count, sums, total[1 + len(p.control) :].astype(np.float64) * unit)
