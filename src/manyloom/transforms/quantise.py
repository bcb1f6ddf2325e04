"""Fewer bits a coordinate, by stochastic rounding on an even grid: QSGD and min-max.

A number t becomes floor(t + U), U uniform in [0, 1) and the client's own: its mean is t.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from manyloom.core.parts import Transform
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots
from manyloom.core.tensors import floats
from manyloom.core.validate import Within, checked
from manyloom.transforms.bits import LARGEST, pack, uniforms, unpack, width
from manyloom.transforms.packed import Code, fitted, like, packed


@checked
def qsgd(
    levels: Annotated[int, Within(1, 127)],
    names: tuple[str, ...] = ("u",),
    d: int | None = None,
    *,
    biased: bool = False,
) -> Transform:
    """||x|| sign(x) round(s |x| / ||x||) / s (Alistarh et al. 2017, arXiv:1610.02132).

    Unbiased, variance at most min(d/s^2, sqrt(d)/s) ||x||^2. The norm is float32 [1], a coordinate s + sign(x) level in
    the fewest bits that hold 2s.

    Args:
        levels: s.
        names: the slots it acts on, each alone.
        d: their length, where it is known.
        biased: scaled by least squares, as error feedback needs.
    """
    s = levels
    bits = (2 * s).bit_length()

    def encode(x: Tensor, size: float, key: U64) -> Slots:
        sent = float(torch.tensor(size, dtype=torch.float32))
        t = x.double().abs().mul_(s / sent) if sent > 0 else torch.zeros(len(x), dtype=torch.float64)
        level = t.add_(uniforms(key, len(x))).floor_().clamp_(max=s)
        signed = level.copysign_(x.double())
        scale = fitted(x, signed * (sent / s)) if biased else 1.0
        return {"bits": pack((signed + s).to(torch.uint8), bits), "norm": torch.tensor([sent * scale])}

    def decode(parts: Slots, n: int, key: U64) -> Tensor:
        signed = unpack(parts["bits"], bits, n).double().sub_(s).clamp_(max=s)
        return signed.mul_(float(parts["norm"]) / s).float()

    code = Code(
        "qsgd",
        encode,
        decode,
        lambda n: {"bits": like(width(n, bits), torch.uint8), "norm": like(1, torch.float32)},
        lambda n: 1.0 if biased else 1.0 + math.sqrt(n) / s,
    )
    return packed(code, names, d)


@checked
def uniform(
    bits: Annotated[int, Within(1, LARGEST)],
    names: tuple[str, ...] = ("u",),
    d: int | None = None,
    *,
    biased: bool = False,
) -> Transform:
    """L + 1 = 2^b even steps between the least and the largest number (Suresh et al. 2017, arXiv:1611.00429).

        t = L (x - min)/(max - min),  xhat = min + (max - min) floor(t + U)/L

    Unbiased; constant vectors are exact. The range is float32 [2], a coordinate b bits.

    Args:
        bits: b.
        names: the slots it acts on, each alone.
        d: their length, where it is known.
        biased: scaled by least squares, as error feedback needs.
    """
    top = 2**bits - 1

    def levels(low: float, high: float, at: Tensor) -> Tensor:
        return at.double() * ((high - low) / top) + low

    def encode(x: Tensor, size: float, key: U64) -> Slots:
        low, high = floats(torch.stack([x.min(), x.max()]).float())
        t = (x.double() - low).mul_(top / (high - low)) if high > low else torch.zeros(len(x), dtype=torch.float64)
        at = t.add_(uniforms(key, len(x))).floor_().clamp_(0, top)
        scale = fitted(x, levels(low, high, at)) if biased else 1.0
        return {"bits": pack(at.to(torch.uint8), bits), "range": torch.tensor([low * scale, high * scale])}

    def decode(parts: Slots, n: int, key: U64) -> Tensor:
        low, high = floats(parts["range"])
        return levels(low, high, unpack(parts["bits"], bits, n)).float()

    code = Code(
        "uniform",
        encode,
        decode,
        lambda n: {"bits": like(width(n, bits), torch.uint8), "range": like(2, torch.float32)},
        lambda n: 1.0 if biased else 1.0 + math.sqrt(2 * n) / top,
    )
    return packed(code, names, d)
