"""Bits that nobody can foretell: AES-128-CTR under a key the operating system just gave.

All noise, rounding under a DP claim and cohort draws under an amplified claim come from here (privacy.md §2.4, 6).
No seed of the job, numpy or torch reaches it. Tests inject bits of their own (`Injected`): what was made with them
says so (`secret` is False), so no guarantee is derived from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Protocol


class Source(Protocol):
    """Where random bytes come from; `secret` is whether an amplified or noised claim may rest on them."""

    @property
    def secret(self) -> bool: ...

    @property
    def commitment(self) -> str: ...

    def draw(self, n: int) -> bytes: ...


class Secret:
    """AES-128 in counter mode, zero IV, under a fresh 16-byte key of the operating system.

    The IV may be zero because the key is used once. The key is kept in no attribute; `commitment` is the SHA-256 of a
    tag and the key, for the ledger.

    >>> a, b = Secret(), Secret()
    >>> a.draw(16) != b.draw(16), len(a.draw(5)), a.secret
    (True, 5, True)
    """

    __slots__ = ("_update", "_commitment")

    def __init__(self) -> None:
        key = os.urandom(16)
        self._commitment = hashlib.sha256(b"manyloom noise" + key).hexdigest()
        self._update = counter(key)

    @property
    def secret(self) -> bool:
        return True

    @property
    def commitment(self) -> str:
        return self._commitment

    def draw(self, n: int) -> bytes:
        return self._update(bytes(n))

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret stream is not saved: a resumed run draws fresh noise")


class Injected:
    """The seam for tests: bytes from a function of the caller. Nothing made with it carries a guarantee.

    >>> Injected(lambda n: b"\\x01" * n).draw(3), Injected(bytes).secret
    (b'\\x01\\x01\\x01', False)
    """

    __slots__ = ("_bytes",)

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        self._bytes = draw

    @property
    def secret(self) -> bool:
        return False

    @property
    def commitment(self) -> str:
        return "injected"

    def draw(self, n: int) -> bytes:
        return self._bytes(n)


def counter(key: bytes) -> Callable[[bytes], bytes]:
    """The key stream of AES-CTR with a zero IV (NIST SP 800-38A), XORed onto what is given.

    >>> counter(bytes(16))(bytes(16)).hex()      # AES-128 of the zero block under the zero key
    '66e94bd4ef8a2c3b884cfa59ca342b2e'
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update
