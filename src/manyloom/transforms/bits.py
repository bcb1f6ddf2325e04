"""Whole numbers of a few bits as bytes, and the random bits of a client.

    byte j of the stream holds its bits 8j (the lowest) to 8j + 7; code i has the bits b i to b i + b - 1, lowest first

The last byte is filled up with zeros.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from manyloom.core.seeds import U64, counters
from manyloom.core.tensors import from_numpy

LARGEST = 8  # bits: a code is at most a byte


def width(n: int, bits: int) -> int:
    """Bytes of n codes.

    >>> width(4810, 1), width(4810, 3)
    (602, 1804)
    """
    return -(-n * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes [n], uint8 and below 2^bits, as a stream of bytes [width(n, bits)].

    >>> import torch
    >>> pack(torch.tensor([1, 2, 3], dtype=torch.uint8), 3).tolist()  # 011 010 001
    [209, 0]
    """
    own = codes.numpy()
    if bits == 8:
        return codes.clone()
    if bits == 1:
        return from_numpy(np.packbits(own, bitorder="little"))
    eight = np.zeros((-(-len(own) // 8), 8), np.uint8)  # eight codes are `bits` bytes
    eight.reshape(-1)[: len(own)] = own
    words = np.zeros(len(eight), np.dtype("<u8"))
    for i in range(8):
        words |= eight[:, i].astype(np.uint64) << np.uint64(bits * i)
    stream = words.view(np.uint8).reshape(-1, 8)[:, :bits].reshape(-1)
    return from_numpy(stream[: width(len(own), bits)].copy())


def unpack(stream: Tensor, bits: int, n: int) -> Tensor:
    """The n codes [n] of `pack`.

    >>> import torch
    >>> unpack(torch.tensor([209, 0], dtype=torch.uint8), 3, 3).tolist()
    [1, 2, 3]
    """
    if bits == 8:
        return stream[:n].clone()
    own = stream.numpy()
    if bits == 1:
        return from_numpy(np.unpackbits(own, count=n, bitorder="little"))
    eight = np.zeros((-(-n // 8), 8), np.uint8)
    padded = np.zeros(len(eight) * bits, np.uint8)
    padded[: len(own)] = own
    eight[:, :bits] = padded.reshape(-1, bits)
    words = eight.view("<u8")[:, 0]
    mask = np.uint64(2**bits - 1)
    codes = np.stack([(words >> np.uint64(bits * i) & mask).astype(np.uint8) for i in range(8)], 1).reshape(-1)
    return from_numpy(codes[:n].copy())


def uniforms(key: U64, n: int) -> Tensor:
    """Numbers in [0, 1) of 24 bits, float64 [n], of a key [1]."""
    words = counters(key, -(-n // 2))[0].astype("<u8").view("<u4")[:n]
    return from_numpy((words >> np.uint32(8)) * 2.0**-24)


def signs(key: U64, n: int) -> Tensor:
    """-1 or 1, float32 [n], of a key [1]."""
    octets = from_numpy(counters(key, -(-n // 64))[0].astype("<u8").view(np.uint8))
    return _SIGNS.index_select(0, octets.int()).view(-1)[:n]


_SIGNS = (
    1.0 - 2.0 * from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")).float()
)  # [256, 8]: a byte's bits as signs
