"""Masks: AES-128-CTR streams added to integers in place, modulo 2^32.

A seed is used once, which is why the counter may start at zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

U32 = npt.NDArray[np.uint32]
CHUNK = 1 << 18  # bytes: stays in the cache between the cipher and the add
_ZEROS = bytes(CHUNK)
TOGETHER = 64  # streams that take turns on a chunk of the sum, which stays in the cache too


def apply(total: U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """total <- total + sum_j sign_j PRG(seed_j) mod 2^32, in place.

    Args:
        total: [d] uint32, contiguous.
        seeds: 16 bytes and +1 or -1 each.

    >>> x = np.zeros(3, np.uint32)
    >>> apply(x, [(bytes(16), 1)]); hex(int(x[0]))
    '0xd44be966'
    """
    step = min(CHUNK // 4, len(total))
    buffer = bytearray(4 * step + 16)
    words = np.frombuffer(buffer, dtype="<u4", count=step)
    left = iter(seeds)
    while some := [_stream(seed, sign) for seed, sign in islice(left, TOGETHER)]:
        for at in range(0, len(total), step or 1):
            part = total[at : at + step]
            zeros, mask = memoryview(_ZEROS)[: 4 * len(part)], words[: len(part)]
            for stream, put in some:
                stream.update_into(zeros, buffer)
                put(part, mask, out=part)
    buffer[:] = bytes(len(buffer))


def _stream(seed: bytes, sign: int) -> tuple[CipherContext, np.ufunc]:
    if len(seed) != 16 or sign not in (1, -1):
        raise ValueError("a mask needs a seed of 16 bytes and a sign")
    return Cipher(AES(seed), CTR(bytes(16))).encryptor(), np.add if sign > 0 else np.subtract
