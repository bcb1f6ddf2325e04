"""What crosses a cut: embeddings up, their gradients down, as float32 or in a few bits a number.

    b in {8, 4, 2}, a row:  code = floor((x - lo)/sc + U[0, 1)),  xhat = lo + sc code,  E xhat = x
    b = 16:                 half precision; gradients times the rows of the batch, to stay above its subnormals

lo and sc travel as bfloat16 rounded outward (lo down, sc up) before coding, so no code is cut off and the mean stays
x. A row that is constant at a bfloat16 number has sc = 0 and is exact. U is a counter hash of (seed, round, step,
party, direction): rounding hides nothing, and the same run rounds alike.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots
from manyloom.transforms.bits import pack, uniforms, unpack, width

Bits = Literal[32, 16, 8, 4, 2]
LARGEST_BODY = 8 << 20  # bytes of a body, at most
HALF = 65504.0  # the largest number of half precision


def names(slot: str) -> tuple[str, str]:
    """What `encode` may make of a slot."""
    return slot, f"{slot}.range"


def key(seed: int, round: int, step: int, party: str, way: str) -> U64:
    """What the rounding of one message is drawn from [1]."""
    return seeds.key(seed, round, np.array([seeds.name_id(party)], np.uint64), f"cut/{way}", step)


def encode(x: Tensor, slot: str, bits: Bits, draw: U64, scale: float = 1.0) -> Slots:
    """Rows [n, D] as they travel.

    Args:
        x: what is sent.
        slot: its name.
        bits: of a number; 32 sends x as it is.
        draw: key [1] of the rounding.
        scale: what half precision is multiplied by.
    """
    if bits == 32:
        return {slot: x.detach().contiguous()}
    if bits == 16:
        return {slot: (x.detach().double() * scale).clamp(-HALF, HALF).half()}
    top = 2**bits - 1
    rows = x.detach().double()
    lo, sc = ranges(rows, top)
    low, step = lo.double()[:, None], sc.double()[:, None]
    t = torch.where(step > 0, (rows - low) / step, torch.zeros_like(rows))
    codes = (t + uniforms(draw, rows.numel()).view_as(rows)).floor_().nan_to_num_(0.0).clamp_(0, top)
    return {slot: pack(codes.to(torch.uint8).flatten(), bits), f"{slot}.range": torch.stack([lo, sc], 1)}


def decode(body: Slots, slot: str, bits: Bits, n: int, d: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    """The rows [n, d] of `encode`.

    Raises:
        ValueError: a slot is missing, or has another shape or dtype than agreed.
    """
    want = like(slot, bits, n, d, dtype)
    for name, t in want.items():
        have = body.get(name)
        if have is None:
            raise ValueError(f'"{name}" is missing')
        if have.dtype != t.dtype or have.shape != t.shape:
            agreed = f"{t.dtype} {list(t.shape)} was agreed"
            raise ValueError(f'"{name}" is {have.dtype} {list(have.shape)}, {agreed}')
        if have.is_floating_point() and not bool(torch.isfinite(have).all()):
            raise ValueError(f'"{name}" holds numbers that are not finite')
    if bits == 32:
        return body[slot]
    if bits == 16:
        return (body[slot].double() / scale).to(dtype)
    lo, sc = body[f"{slot}.range"].double().unbind(1)
    codes = unpack(body[slot], bits, n * d).view(n, d).double()
    return (lo[:, None] + codes * sc[:, None]).to(dtype)


def like(slot: str, bits: Bits, n: int, d: int, dtype: torch.dtype = torch.float32) -> Slots:
    """Shapes and dtypes of `encode`, without storage.

    >>> from manyloom.core.slots import size_bytes
    >>> [size_bytes(like("z", b, 256, 16)) // 256 for b in (32, 16, 8, 4, 2)]
    [64, 32, 20, 12, 8]
    """
    if bits >= 16:
        return {slot: torch.empty(n, d, dtype=torch.float16 if bits == 16 else dtype, device="meta")}
    codes = torch.empty(width(n * d, bits), dtype=torch.uint8, device="meta")
    return {slot: codes, f"{slot}.range": torch.empty(n, 2, dtype=torch.bfloat16, device="meta")}


def ranges(rows: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """lo, sc [n] as bfloat16: lo <= min and lo + top sc >= max, for rows [n, D] in float64."""
    low, high = rows.amin(1), rows.amax(1)
    lo = low.bfloat16()
    lo = torch.where(lo.double() > low, -above(-lo), lo)
    span = high - lo.double()
    sc = (span / top).bfloat16()
    sc = torch.where(lo.double() + top * sc.double() < high, above(sc), sc)
    return lo, sc


def above(x: Tensor) -> Tensor:
    """The next larger bfloat16.

    >>> above(torch.tensor([1.0, -1.0, 0.0], dtype=torch.bfloat16)).tolist()[:2]
    [1.0078125, -0.99609375]
    """
    bits = x.view(torch.int16)
    up = torch.where(x > 0, bits + 1, bits - 1).to(torch.int16)
    return torch.where(x == 0, torch.ones_like(bits), up).view(torch.bfloat16)


def rows_at_once(bits: Bits, d: int) -> int:
    """Rows of a body of at most 8 MiB, its counters left room for."""
    a_row = d * 4 if bits == 32 else d * 2 if bits == 16 else d * bits // 8 + 5
    return max(1, (LARGEST_BODY - 4096) // a_row)
