"""Held-out rows: drawn by a counter hash of a client's stable id, of no other client."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.data.arrays import I64, offsets


class Parts(NamedTuple):
    """Rows to train on and rows held out, each as row numbers and offsets: client i owns rows[off[i]:off[i+1]]."""

    train: I64
    train_off: I64
    test: I64
    test_off: I64


def hold_out(
    rows: I64,
    off: I64,
    ids: seeds.U64,
    share: float,
    seed: int,
    classes: npt.NDArray[np.generic] | None = None,
    ordered: bool = False,
) -> Parts:
    """Hold out floor(share n) of each client's rows, of each class alike where `classes` (one a row) is given.

    A client's split depends on its own id, its own rows and the seed, on no other client. A share below 1
    leaves at least one row to train. `ordered` holds out the last rows in place of drawn ones (texts, in
    time).
    """
    sizes = np.diff(off)
    client = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(rows)) - np.repeat(off[:-1], sizes)  # row's position inside its client
    if share <= 0:
        return Parts(rows, off, np.zeros(0, np.int64), np.zeros_like(off))
    kind = np.zeros(len(rows), np.int64) if classes is None else np.unique(classes, return_inverse=True)[1]
    group = client * (int(kind.max(initial=0)) + 1) + kind
    if len(sizes) * int(kind.max(initial=0)) > 4 * len(rows):  # many kinds, few of them at any client
        group = np.unique(group, return_inverse=True)[1]
    if ordered:
        sort = np.lexsort((-place, group))
    else:
        keys = seeds.key(seed, 0, ids, "held-out")
        with np.errstate(over="ignore"):
            h = seeds.mix(keys[client] + (place.astype(np.uint64) + np.uint64(1)) * seeds.PHI)
        sort = np.lexsort((place, h, group))
    count = np.bincount(group)
    start = np.cumsum(count) - count
    rank = np.empty(len(rows), np.int64)
    rank[sort] = np.arange(len(rows)) - start[group[sort]]
    held = rank < np.floor(share * count + 1e-9).astype(np.int64)[group]  # 1e-9: 0.29 * 100 is 29, not 28.99...
    tests = np.bincount(client[held], minlength=len(sizes))
    return Parts(rows[~held], offsets(sizes - tests), rows[held], offsets(tests))
