"""What a secure sum costs in bytes, before it is asked for."""

from __future__ import annotations

from manyloom.secure.keys import ADVERT, SEALED
from manyloom.secure.params import Params
from manyloom.secure.shamir import SHARE

HASH, SIGNATURE, NUMBER = 32, 64, 8
AT = 2 * NUMBER  # round and attempt, in every ask


def costs(p: Params, n: int, k: int, run: str) -> tuple[int, int]:
    """Bytes of one client, up and down, where all n stay to the end and each has k neighbours.

    >>> p = Params("semi", 3, 4, 1000, 8.0, 256, weights="plain")
    >>> costs(p, 4, 3, "run")
    (4545, 1618)
    """
    active = p.mode == "active"
    up = ADVERT + k * SEALED + 4 * p.total + (2 * SIGNATURE if active else 0) + k * SHARE
    down = 5 * AT if active else 4 * AT
    down += len(run.encode()) + len(p.to_bytes())  # advertise
    down += HASH + n * ADVERT + 2 * NUMBER  # share
    down += HASH + n * NUMBER + k * (NUMBER + SEALED)  # masked
    if active:
        down += HASH + n * NUMBER + k * SIGNATURE  # consistency
        down += HASH + n * (NUMBER + SIGNATURE)  # unmask
    else:
        down += HASH + n * NUMBER
    return up, down
