"""Cohorts that nobody can foretell: what an amplified claim rests on (privacy.md §2.3, trap 7).

Drawn from AES-CTR under a secret of the run, by (round, attempt): a resumed run draws the same, another run with the
same seed does not. The secret lies in a file of its own until the run is done.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manyloom.privacy.accountants import Sampling
from manyloom.privacy.source import counter

KEY = 32  # bytes


def secret(path: Path) -> bytes:
    """The run's secret: read from its file, or fresh from the operating system and written there, mode 0600.

    A run that was done has erased it; given more rounds, it draws them under a fresh one.
    """
    if path.exists():
        found = path.read_bytes()
        if len(found) == KEY:
            return found
    made = os.urandom(KEY)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(made)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    return made


def erase(path: Path) -> None:
    """Overwrite and remove the secret: the run is done."""
    if path.exists():
        path.write_bytes(bytes(KEY))
        path.unlink()


def draw(key: bytes, sampling: Sampling, round: int, attempt: int) -> npt.NDArray[np.int64]:
    """Who is asked: places 0 .. N-1 of the population, ascending.

    poisson: each where its 64 bits are below q 2^64; truncated: a uniform part of at most `cap` of those; fixed: those
    with the least bits. Nobody is drawn where everyone is asked.

    >>> from manyloom.privacy.accountants import fixed, poisson
    >>> draw(bytes(32), fixed(100, 3), 1, 0)
    array([ 1, 47, 78])
    >>> 300 < len(draw(bytes(32), poisson(1000, 0.35), 1, 0)) < 400
    True
    """
    n = sampling.population
    if sampling.kind == "none":
        return np.arange(n, dtype=np.int64)
    seed = hashlib.sha256(b"manyloom cohort" + key + round.to_bytes(8, "little") + attempt.to_bytes(8, "little"))
    stream = counter(seed.digest()[:16])
    bits = np.frombuffer(stream(bytes(8 * n)), "<u8")
    if sampling.kind == "fixed":
        return np.sort(np.argsort(bits, kind="stable")[: sampling.cohort]).astype(np.int64)
    came = np.flatnonzero(bits < np.uint64(min(int(sampling.rate * 2**64), 2**64 - 1)))
    if sampling.cap is not None and len(came) > sampling.cap:
        order = np.argsort(np.frombuffer(stream(bytes(8 * len(came))), "<u8"), kind="stable")
        came = np.sort(came[order[: sampling.cap]])
    return came.astype(np.int64)
