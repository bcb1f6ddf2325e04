"""How vertical parties write things down, and the refusal of anything else: bytes, whole numbers, bitmaps.

Little-endian throughout; points and digests are rows of bytes, counts are int64, bitmaps start at bit 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from manyloom.core.errors import BadInput, bad
from manyloom.core.tensors import ints


def octets(body: Mapping[str, Tensor], slot: str, *shape: int | None) -> Tensor:
    """A slot of bytes of this shape; None is any length.

    >>> octets({"points": torch.zeros(2, 31, dtype=torch.uint8)}, "points", None, 32)
    Traceback (most recent call last):
    manyloom.core.errors.BadInput: error: "points" has the wrong form
      got    uint8 [2, 31]
      rule   uint8 [any, 32]
    """
    return _slot(body, slot, torch.uint8, shape)


def whole(body: Mapping[str, Tensor], slot: str, *shape: int | None) -> Tensor:
    """A slot of whole numbers (int64) of this shape; None is any length."""
    return _slot(body, slot, torch.int64, shape)


def count(body: Mapping[str, Tensor], slot: str) -> int:
    """A slot that is one count, int64 [1], and not negative.

    >>> count({"n": torch.tensor([3])}, "n")
    3
    """
    value = ints(whole(body, slot, 1))[0]
    if value < 0:
        raise malformed(slot, str(value), "a count of at least 0")
    return value


def bitmap(flags: Tensor) -> Tensor:
    """Booleans [n] as bits, uint8 [ceil(n / 8)]: flag i is bit i mod 8 of byte i // 8, the rest is 0.

    >>> bitmap(torch.tensor([True, False, True, False, False, False, False, False, True])).tolist()
    [5, 1]
    """
    padded = torch.zeros(-(-len(flags) // 8) * 8, dtype=torch.uint8)
    padded[: len(flags)] = flags
    return (padded.reshape(-1, 8) << torch.arange(8, dtype=torch.uint8)).sum(1).to(torch.uint8)


def flags(body: Mapping[str, Tensor], slot: str, n: int) -> Tensor:
    """The n booleans of a slot that holds a `bitmap`; bits beyond the last flag must be 0."""
    packed = octets(body, slot, -(-n // 8))
    every = ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).bool().flatten()
    if bool(every[n:].any()):
        raise malformed(slot, "bits after the last flag", f"{n} flags, then zeros")
    return every[:n]


def malformed(slot: str, got: str, rule: str) -> BadInput:
    """The refusal of what a peer sent."""
    return bad("malformed", f'"{slot}" has the wrong form', got=got, rule=rule)


def _slot(body: Mapping[str, Tensor], slot: str, dtype: torch.dtype, shape: tuple[int | None, ...]) -> Tensor:
    wanted = f"{str(dtype).removeprefix('torch.')} [{', '.join('any' if n is None else str(n) for n in shape)}]"
    found = body.get(slot)
    if found is None:
        raise malformed(slot, "nothing", wanted)
    fits = found.dtype == dtype and found.dim() == len(shape)
    if not fits or any(want is not None and want != n for want, n in zip(shape, found.shape)):
        raise malformed(slot, f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}", wanted)
    return found.cpu().contiguous()
