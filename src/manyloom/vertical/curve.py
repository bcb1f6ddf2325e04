"""Ids as points of Curve25519, masked by a secret scalar: the arithmetic of a private set intersection.

Field p = 2^255 - 19, curve v^2 = u^3 + 486662 u^2 + u, a point by its u alone, 32 bytes little-endian. Masks commute:
X(a, X(b, u)) = X(b, X(a, u)). Every hashed id lies on the curve and never on its twist: X25519 keeps curve and twist
apart, so a bare hash taken as u would hand over one bit of the id through every mask.

The symbol that tells them apart comes from gmpy2 where it is installed (3 us), else from plain Python (55 us, same
answers): then a whole intersection takes twice as long.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import secrets
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

U8 = npt.NDArray[np.uint8]

P = 2**255 - 19
A = 486662
SLICE = 4096  # ids a thread works on at a time
SMALL = 4096  # lists below this are hashed in the same number of tries whatever their ids are
ALWAYS = 64  # that number: an id that needs more turns up once in 2^64

REAL = b"manyloom/psi/v1"
DUMMY = b"manyloom/psi/dummy/v1"
_OUT = b"manyloom/psi/out/v1"
_LOW = (1 << 255) - 1


class Hash(Protocol):
    """A running SHA-256."""

    def copy(self) -> Hash: ...
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


def jacobi(a: int, n: int) -> int:
    """The Jacobi symbol (a / n), n odd, in plain Python.

    >>> [jacobi(a, 7) for a in range(8)]
    [0, 1, 1, -1, 1, -1, -1, 0]
    """
    sign = 1
    a %= n
    while a:
        twos = (a & -a).bit_length() - 1
        a >>= twos
        if twos & 1 and n & 7 in (3, 5):
            sign = -sign
        if a & n & 3 == 3:
            sign = -sign
        a, n = n % a, a
    return sign if n == 1 else 0


def _fastest() -> Callable[[int, int], int]:
    if importlib.util.find_spec("gmpy2") is None:
        return jacobi
    return cast("Callable[[int, int], int]", importlib.import_module("gmpy2").jacobi)


symbol = _fastest()
"""The Jacobi symbol by the fastest means there is."""


def on_curve(u: int) -> bool:
    """Whether u is the coordinate of a point of the curve, other than (0, 0): u^3 + A u^2 + u is a square, not 0.

    >>> on_curve(9), on_curve(2), on_curve(0)
    (True, False, False)
    """
    return symbol(u * (u * (u + A) + 1) % P, P) == 1


def tries(prefix: bytes, exchange: bytes) -> list[Hash]:
    """SHA-256 begun with prefix || exchange id || c, for every c: what a key is then added to."""
    return [hashlib.sha256(prefix + exchange + bytes([c])) for c in range(256)]


def hashed(key: bytes, begun: Sequence[Hash], *, always: int = 0) -> bytes:
    """H(key): the first hash on the curve, u as 32 bytes.

    D_c = SHA-256(prefix || exchange id || c || key), u = D_c without bit 255; c = 0, 1, ... until u < p and
    u (u^2 + A u + 1) is a square mod p. All of c < `always` are computed whatever comes out.

    Raises ValueError where no c of 256 does, once in 2^256.
    """
    found = b""
    for c, start in enumerate(begun):
        if found and c >= always:
            break
        h = start.copy()
        h.update(key)
        u = int.from_bytes(h.digest(), "little") & _LOW
        if u < P and on_curve(u) and not found:
            found = u.to_bytes(32, "little")
    if not found:
        raise ValueError("no hash of an id is on the curve")
    return found


def scalar() -> bytes:
    """A secret of the operating system's generator; X25519 clamps it to a multiple of 8."""
    return secrets.token_bytes(32)


def multiply(secret: bytes, points: Sequence[bytes]) -> bytes:
    """X(secret, u) of each point, one after the other.

    Raises ValueError for a point of small order, which every mask takes to zero.
    """
    key = X25519PrivateKey.from_private_bytes(secret)
    load = X25519PublicKey.from_public_bytes
    try:
        out = b"".join([key.exchange(load(u)) for u in points])
    except ValueError:
        raise ValueError("a point has small order") from None
    return out


def check(points: U8) -> None:
    """Refuse what no honest party sends, before anything is done with it.

    Args:
        points: uint8 [m, 32].

    Raises ValueError: bit 255 is set, u >= p, the point is on the twist, or stands there twice.

    >>> check(np.frombuffer((2).to_bytes(32, "little"), np.uint8).reshape(1, 32))
    Traceback (most recent call last):
    ValueError: a point is not on the curve
    """
    if (points[:, 31] & 0x80).any():
        raise ValueError("a point has bit 255 set")
    high = (points[:, 31] == 0x7F) & (points[:, 1:31] == 0xFF).all(1)
    if (high & (points[:, 0] >= 0xED)).any():
        raise ValueError("a point is no number below p")
    each = rows(points)
    if not all(on_curve(int.from_bytes(u, "little")) for u in each):
        raise ValueError("a point is not on the curve")
    if len(set(each)) != len(each):
        raise ValueError("a point stands there twice")


def rows(table: U8) -> list[bytes]:
    """The rows of a table of bytes [m, w], each as bytes."""
    raw, w = table.tobytes(), table.shape[1]
    return [raw[i : i + w] for i in range(0, len(raw), w)]


def digests(points: bytes, exchange: bytes, width: int) -> bytes:
    """The first `width` bytes of SHA-256(out || exchange id || P), for each point."""
    start = hashlib.sha256(_OUT + exchange)
    out: list[bytes] = []
    for i in range(0, len(points), 32):
        h = start.copy()
        h.update(points[i : i + 32])
        out.append(h.digest()[:width])
    return b"".join(out)


class Masking:
    """One side's half of the arithmetic of one exchange: its scalar, and threads to use it with.

    `cryptography` lets other threads run while it multiplies. With one thread the work is done when it is collected.
    """

    def __init__(self, secret: bytes, exchange: bytes, threads: ThreadPoolExecutor | None) -> None:
        self._secret = secret
        self._exchange = exchange
        self._threads = threads
        self._real = tries(REAL, exchange)
        self._dummy = tries(DUMMY, exchange)

    def ids(self, keys: Sequence[bytes | None], *, of: int) -> Callable[[], U8]:
        """Start on H(key)^secret, uint8 [m, 32]; None is a dummy, an id made up that no one has.

        Args:
            keys: a chunk of a permuted list.
            of: length of the whole list.
        """
        always = ALWAYS if of < SMALL else 0

        def work(lo: int, hi: int) -> bytes:
            points = [
                hashed(secrets.token_bytes(32), self._dummy, always=always)
                if key is None
                else hashed(key, self._real, always=always)
                for key in keys[lo:hi]
            ]
            return multiply(self._secret, points)

        return self._start(work, len(keys), 32)

    def points(self, points: U8, width: int) -> Callable[[], U8]:
        """Check points, then start on digest(P^secret), uint8 [m, width]; raises ValueError as `check` does."""
        check(points)
        each = rows(points)
        return self._start(
            lambda lo, hi: digests(multiply(self._secret, each[lo:hi]), self._exchange, width), len(each), width
        )

    def _start(self, work: Callable[[int, int], bytes], n: int, width: int) -> Callable[[], U8]:
        slices = [(lo, min(lo + SLICE, n)) for lo in range(0, n, SLICE)]
        if self._threads is None:
            parts: list[Callable[[], bytes]] = [lambda lo=lo, hi=hi: work(lo, hi) for lo, hi in slices]
        else:
            parts = [self._threads.submit(work, lo, hi).result for lo, hi in slices]
        return lambda: np.frombuffer(b"".join(part() for part in parts), np.uint8).reshape(n, width)


@contextmanager
def masking(secret: bytes, exchange: bytes, threads: int) -> Generator[Masking]:
    """Arithmetic on so many threads; none is left behind."""
    if threads <= 1:
        yield Masking(secret, exchange, None)
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield Masking(secret, exchange, pool)
    finally:
        pool.shutdown(cancel_futures=True)
