"""Bytes and lists as the named tensors that cross a door, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

VERBS = ("secure-advertise", "secure-share", "secure-masked", "secure-consistency", "secure-unmask")


def pack(data: bytes) -> Tensor:
    """Bytes as uint8 [n]."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0, dtype=torch.uint8)


def table(rows: Sequence[bytes], width: int) -> Tensor:
    """Rows of `width` bytes as uint8 [n, width]."""
    return pack(b"".join(rows)).reshape(len(rows), width)


def raw(tensor: Tensor) -> bytes:
    """The bytes of a uint8 tensor; ValueError for any other."""
    if tensor.dtype != torch.uint8:
        raise ValueError(f"bytes are expected, not {tensor.dtype}")
    return tensor.contiguous().numpy().tobytes()


def rows(tensor: Tensor, width: int) -> list[bytes]:
    """The rows of a uint8 tensor [n, width]."""
    if tensor.dim() != 2 or tensor.shape[1] != width:
        raise ValueError(f"rows of {width} bytes are expected, not {list(tensor.shape)}")
    data = raw(tensor)
    return [data[i : i + width] for i in range(0, len(data), width)]


def numbers(values: Iterable[int]) -> Tensor:
    """Whole numbers as int64 [n]."""
    return torch.tensor(list(values), dtype=torch.int64)


def integers(tensor: Tensor) -> list[int]:
    """The whole numbers of an int64 tensor [n]."""
    if tensor.dtype != torch.int64 or tensor.dim() != 1:
        raise ValueError("a list of whole numbers is expected")
    return cast("list[int]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]
