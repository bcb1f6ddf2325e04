"""Masks: AES-128-CTR streams added to integers in place, modulo 2^32.

A seed is used once, which is why the counter may start at zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

U32 = npt.NDArray[np.uint32]
CHUNK = 1 << 18  # bytes: stays in the cache between the cipher and the add
_ZEROS = bytes(CHUNK)


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
    for seed, sign in seeds:
        if len(seed) != 16 or sign not in (1, -1):
            raise ValueError("a mask needs a seed of 16 bytes and a sign")
        stream = Cipher(AES(seed), CTR(bytes(16))).encryptor()
        for at in range(0, len(total), step or 1):
            part = total[at : at + step]
            stream.update_into(memoryview(_ZEROS)[: 4 * len(part)], buffer)
            if sign > 0:
                np.add(part, words[: len(part)], out=part)
            else:
                np.subtract(part, words[: len(part)], out=part)
    buffer[:] = bytes(len(buffer))
