"""What both sides of a private set intersection compute alike: chunks, widths, orders, sets of digests, bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core.errors import BadInput
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy, ints
from manyloom.vertical import wire as written
from manyloom.vertical.curve import U8

I64 = npt.NDArray[np.int64]
Reveal = Literal["both", "label", "count"]

CHUNK = 65_536  # ids of an ask: 2 MiB of points
FLOOR = 1_000  # the least ids a side must have before how many are common is told
FEW = 10  # of common ids: fewer are told as "below 10"
REVEALS: tuple[Reveal, ...] = ("both", "label", "count")
_ORDER = b"manyloom/psi/order/v1"


class Digests(NamedTuple):
    """A set of digests, and where in the list each stood."""

    sorted: npt.NDArray[np.void]
    at: I64

    def find(self, table: U8) -> I64:
        """The place of each row of `table` [m, T] in the list, -1 where it is not in it, int64 [m]."""
        rows = _voids(table)
        if not len(self.at) or not len(rows):
            return np.full(len(rows), -1, np.int64)
        at = np.minimum(np.searchsorted(self.sorted, rows), len(self.at) - 1)
        return np.where(self.sorted[at] == rows, self.at[at], -1)


def digest_set(table: U8) -> Digests:
    """The set of the rows [m, T].

    Raises ValueError where a row stands there twice: so did a point, or an id.

    >>> digest_set(np.array([[7, 1], [3, 2]], np.uint8)).find(np.array([[3, 2], [3, 3], [7, 1]], np.uint8))
    array([ 1, -1,  0])
    """
    rows = _voids(table)
    at = np.argsort(rows).astype(np.int64)
    rows = rows[at]
    if (rows[1:] == rows[:-1]).any():
        raise ValueError("a point stands there twice")
    return Digests(rows, at)


def _voids(table: U8) -> npt.NDArray[np.void]:
    return np.ascontiguousarray(table).view(np.dtype((np.void, table.shape[1]))).reshape(-1)


def width(n_a: int, n_b: int) -> int:
    """Bytes of a digest, T: at most n_a n_b 2^(-8T) <= 2^-40 false matches are expected, and 12 at least.

    >>> width(0, 5), width(2**28, 2**28), width(2**28, 2**28 + 1)
    (12, 12, 13)
    """
    bits = 40 + (max(n_a, 1) * max(n_b, 1) - 1).bit_length()
    return max(12, -(-bits // 8))


def chunks(n: int, size: int) -> list[slice]:
    """Equal parts (+-1) of at most `size`, so that none is tiny; one empty part where there is nothing.

    >>> chunks(5, 2), chunks(0, 2)
    ([slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)], [slice(0, 0, None)])
    """
    k = max(1, -(-n // size))
    return [slice(i * n // k, (i + 1) * n // k) for i in range(k)]


def padded(n: int, dummies: int) -> int:
    """A size as it is told: rounded up to a multiple of `dummies`.

    >>> padded(7, 5), padded(7, 0), padded(0, 5)
    (10, 7, 5)
    """
    return max(-(-n // dummies), 1) * dummies if dummies else n


def permutation(n: int) -> I64:
    """A permutation of range(n) from the operating system's generator, never from a seed."""
    keys = np.frombuffer(os.urandom(16 * n), np.uint64).reshape(2, n)
    return np.lexsort(keys).astype(np.int64)


def agreed_order(keys: Sequence[bytes]) -> I64:
    """Where each of the common keys goes: sorted by SHA-256(order || key), the same at every party and in every run."""
    tags = np.frombuffer(b"".join(hashlib.sha256(_ORDER + k).digest() for k in keys), np.uint8)
    return np.argsort(_voids(tags.reshape(-1, 32))).astype(np.int64)


def sealed(table: U8) -> bytes:
    """What both sides compare at the end: SHA-256 of the common digests in row order."""
    return hashlib.sha256(np.ascontiguousarray(table).tobytes()).digest()


def distinct(keys: Sequence[bytes]) -> None:
    """Refuse keys of which one stands there twice; it is not named, for what is said here may travel."""
    if len(set(keys)) != len(keys):
        raise ValueError("ids stand there twice: they must be brought into one form, and duplicates dealt with, before")


def tensor(table: npt.NDArray[np.generic]) -> Tensor:
    return from_numpy(np.array(table))


def place(k: int, of: int) -> Tensor:
    """Chunk k of so many."""
    return torch.tensor([k, of])


def count_of(body: Mapping[str, Tensor], name: str) -> int:
    """A count, int64 []."""
    return ints(_read(written.whole, body, name))[0]


def bytes_of(body: Mapping[str, Tensor], name: str, *shape: int) -> U8:
    """A table of bytes of this shape."""
    return _read(written.octets, body, name, *shape).numpy()


def place_of(body: Mapping[str, Tensor]) -> tuple[int, int]:
    """Which chunk of how many is asked for."""
    k, of = ints(_read(written.whole, body, "k", 2))
    return k, of


def flags_of(body: Mapping[str, Tensor], name: str, n: int) -> Tensor:
    """n booleans, a bit each."""
    return _read(written.flags, body, name, n)


def _read(read: Callable[..., Tensor], body: Mapping[str, Tensor], name: str, *form: int) -> Tensor:
    try:
        return read(body, name, *form)
    except BadInput as bad:
        raise ValueError(f"{bad.what}: {bad.got}, not {bad.rule}") from None


def fingerprint(verb: str, body: Slots) -> bytes:
    """Of an ask: a repeated one has the same."""
    h = hashlib.sha256(verb.encode())
    for name in sorted(body):
        t = body[name].contiguous()
        h.update(f"|{name}|{t.dtype}|{list(t.shape)}|".encode() + t.numpy().tobytes())
    return h.digest()


def traffic(n_a: int, n_b: int, reveal: Reveal = "both", *, chunk: int = CHUNK) -> tuple[int, int]:
    """Bytes up and down of an alignment, exactly: of tensors as sent, before they are sealed.

    Args:
        n_a: ids of the label party.
        n_b: ids of the feature party as told, made up ones included (`padded`).
        reveal: who learns the common ids.
        chunk: ids of an ask.

    >>> up, down = traffic(100_000, 100_000)
    >>> (up + down) / 200_000  # an id: 32 bytes out, its digest back
    44.00...
    """
    t, k_a, k_b = width(n_a, n_b), len(chunks(n_a, chunk)), len(chunks(n_b, chunk))
    up = 8 + 32 * n_b + t * n_a
    down = 8 + 1 + 16 * (k_a + k_b) + 32 * n_a
    if reveal == "both":
        return up + 8 + 32, down + 16 * k_b + t * n_b + 8 + 32
    return (up, down + 16 * k_a) if reveal == "count" else (up, down)


def keep_traffic(pairwise: int) -> tuple[int, int]:
    """Bytes up and down of telling a party which of its common rows all parties have."""
    return 8, 8 + -(-pairwise // 8)
