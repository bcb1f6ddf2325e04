"""From a float update to integers to a noised sum and back: the order and the formulas of privacy.md §2.1, 2.4.

    clip to C' = C (1 - sqrt(d)/S)  ->  x w S/C  ->  round up or down at random  ->  check sum q^2 <= S^2
    sum of integers + round(N(0, (z S)^2))  ->  x C / (S q N)

Clip, rounding and check in one function, so that nobody can reorder them: the integer sensitivity is S by construction.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import bad
from manyloom.privacy.sampler import CACHED, LARGEST, rounded_gaussian
from manyloom.privacy.source import Secret, Source

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """A client's integers [d] and what was seen on the way."""

    q: I64
    norm: float  # before the clip; nan where the update was not finite
    finite: bool  # else it contributes zero, and is counted and named
    mended: bool  # the norm check failed once (float error): the vector was truncated toward zero


def shrink(d: int, scale: int) -> float:
    """C'/C = 1 - sqrt(d)/S: room for the rounding, which moves a vector by less than sqrt(d).

    Raises `BadInput` where S <= sqrt(d).

    >>> round(shrink(10**6, 2**18), 4), round(shrink(10**6, 2**16), 4), round(shrink(10**6, 2**14), 4)
    (0.9962, 0.9847, 0.939)
    """
    if scale * scale <= d:
        raise bad(
            "scale-too-small",
            f"an integer scale of {scale} has no room to round {d} parameters",
            rule="scale must be above the square root of the number of parameters",
            mend=f"use a scale of at least {2 ** (math.isqrt(d).bit_length())}",
        )
    return 1.0 - math.sqrt(d) / scale


def fits(scale: int, clients: int, extra: int = 0) -> bool:
    """The overflow rule of a 32-bit sum: n_max (S + 1 + M) < 2^31, M a client's own noise (0 when central).

    >>> fits(2**18, 1000), fits(2**18, 10000)
    (True, False)
    """
    return clients * (scale + 1 + extra) < 2**31


def choose_scale(d: int, noise_multiplier: float, clients: int) -> int:
    """S: the largest power of two <= 2^18 with z S <= 6e4 and no overflow for `clients` summands.

    Where that would shrink the clip below 0.9, larger S are tried while z S <= 2^20: slower noise, but sound.
    Raises `BadInput` where none is above sqrt(d).

    >>> choose_scale(10**6, 1.0, 1000), choose_scale(100, 100.0, 10)
    (32768, 512)
    """
    powers = [2**b for b in range(8, 19) if fits(2**b, clients) and noise_multiplier * 2**b <= LARGEST]
    quick = [s for s in powers if noise_multiplier * s <= CACHED]
    best = quick[-1] if quick else 0
    for s in powers:
        if s > best and (best * best <= d or shrink(d, best) < 0.9):
            best = s
    if best * best <= d:
        raise bad(
            "scale-too-small",
            f"no integer scale fits {d} parameters, {clients} clients and a noise multiplier of {noise_multiplier:g}",
            rule="sqrt(parameters) < scale <= 2^18, noise multiplier x scale <= 2^20, clients x (scale + 1) < 2^31",
            mend="use a smaller model, a smaller noise multiplier or fewer clients a round",
        )
    return best


def norm(update: npt.NDArray[Any]) -> float:
    """The L2 norm in float64, without overflow or underflow on the way; nan where a value is not finite.

    >>> norm(np.full(4, 1e20, np.float32)), norm(np.zeros(3)), norm(np.array([float("inf"), 1.0]))
    (2.0000000400...e+20, 0.0, nan)
    """
    return _norm(np.asarray(update, np.float64))[0]


def _norm(x: F64) -> tuple[float, float, float]:
    """(norm, largest absolute value m, norm of x / m)."""
    m = float(np.abs(x).max(initial=0.0))
    if not math.isfinite(m):
        return math.nan, m, math.nan
    if m == 0:
        return 0.0, 0.0, 0.0
    if 1e-140 < m < 1e140:  # squares neither overflow nor vanish beside the largest
        whole = math.sqrt(float(np.dot(x, x)))
        return whole, m, whole / m
    y = x / m
    rest = math.sqrt(float(np.dot(y, y)))
    return m * rest, m, rest


def clipped(update: npt.NDArray[Any], clip: float) -> tuple[F64, float]:
    """D min(1, C/||D||) in float64, and ||D||; a non-finite update gives zeros and nan, a zero update stays zero.

    >>> clipped(np.array([3.0, 4.0]), 1.0)
    (array([0.6, 0.8]), 5.0)
    """
    x = np.asarray(update, np.float64)
    size, m, rest = _norm(x)
    if math.isnan(size):
        return np.zeros(x.shape), size
    if size <= clip:
        return x, size
    return (x / m) * (clip / rest), size


def stochastic_round(x: F64, source: Source) -> I64:
    """q = floor(x) + 1[u < x - floor(x)], u = 32 random bits / 2^32: unbiased to 2^-32.

    >>> from manyloom.privacy.source import Injected
    >>> stochastic_round(np.array([1.5, -1.5, 2.0]), Injected(bytes))
    array([ 2, -1,  2])
    """
    low = np.floor(x)
    u = np.frombuffer(source.draw(4 * x.size), "<u4").reshape(x.shape)
    return low.astype(np.int64) + (u < (x - low) * 2.0**32)


def encode(update: npt.NDArray[Any], clip: float, scale: int, source: Source, weight: float = 1.0) -> Encoded:
    """One client's update [d] as integers with sum q^2 <= S^2, always.

    Clip to C' = C (1 - sqrt(d)/S), times the weight in [0, 1] and S/C, stochastic rounding; if float error breaks the
    exact check in int64, the vector is truncated toward zero, which never increases a norm; else it is zero.
    Raises `BadInput` for a weight outside [0, 1], a clip that is not positive, or S <= sqrt(d).

    >>> e = encode(np.array([0.3, 0.4]), 1.0, 1024, Secret())
    >>> e.norm, e.finite, bool((e.q**2).sum() <= 1024**2)
    (0.5, True, True)
    """
    if not 0 <= weight <= 1:
        raise bad(
            "weight-above-one",
            "under a privacy claim a client's weight lies in [0, 1]",
            got=f"weight = {weight:g}",
            rule="the clip bounds weight x update, so the weight must not exceed 1",
            mend='set algorithm.weights = "uniform"',
        )
    if not (clip > 0 and math.isfinite(clip)):
        raise bad("out-of-range", "clip must be above 0 and finite", got=f"clip = {clip:g}")
    room = clip * shrink(update.size, scale)
    x, size = clipped(update.reshape(-1), room)
    if math.isnan(size):
        return Encoded(np.zeros(x.size, np.int64), size, False, False)
    x = x * (weight / clip) * scale
    q = stochastic_round(x, source)
    if within(q, scale):
        return Encoded(q, size, True, False)
    q = np.trunc(x).astype(np.int64)
    return Encoded(q if within(q, scale) else np.zeros_like(q), size, True, True)


def within(q: I64, scale: int) -> bool:
    """sum q_i^2 <= S^2, in int64; a coordinate beyond S answers at once, so the squares can't overflow."""
    return q.size == 0 or (int(np.abs(q).max()) <= scale and int(np.dot(q, q)) <= scale * scale)


def noised(total: I64, sigma: float, source: Source | None = None, *, testing: bool = False) -> I64:
    """The integer sum plus round(N(0, sigma^2)), sigma = z S in integer units, from a fresh key of the system.

    One party, once a release. `source` is for a record that commits to the key before; one that is not secret is
    refused unless `testing` says that nothing private depends on it.

    >>> noised(np.zeros(4, np.int64), 100.0).shape
    (4,)
    """
    bits = Secret() if source is None else source
    if not bits.secret and not testing:
        raise bad(
            "noise-not-secret",
            "noise of a release must come from the operating system",
            rule="whoever can foretell the noise can subtract it",
            mend="leave the source out",
        )
    return total + rounded_gaussian(sigma, total.size, bits).reshape(total.shape)


def decode(total: I64, clip: float, scale: int, denominator: float) -> F64:
    """The integer sum as the mean update: total x C / (S q N), the denominator fixed, never the realised cohort.

    >>> decode(np.array([1024]), 2.0, 1024, 4.0)
    array([0.5])
    """
    if not denominator > 0:
        raise bad("out-of-range", "the expected cohort must be above 0", got=f"{denominator:g}")
    return total.astype(np.float64) * (clip / (scale * denominator))
