"""Several documents in one row: positions restart with each, so that none sees another."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Segment = tuple[Ids, Bools]  # the tokens of a document [t], and which of them are supervised [t]
NONE = -100  # a label that asks for nothing
PAD = -1  # the position of a place that holds no token


def packed(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Which documents share a row: the longest first, each where it leaves the least room (best fit, decreasing).

    A document is never cut. Rows hold their documents in the order given, and come in the order of their first.

    >>> packed([3, 6, 2, 4], room=8)
    [[0, 3], [1, 2]]
    """
    if any(n > room for n in lengths):
        raise ValueError(f"a document of {max(lengths)} tokens has no place in a row of {room}")
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, row), sorted
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        at = bisect_left(free, (lengths[i], 0))
        if at == len(free):
            rows.append([i])
            left, row = room - lengths[i], len(rows) - 1
        else:
            left, row = free.pop(at)
            rows[row].append(i)
            left -= lengths[i]
        if left:
            free.insert(bisect_left(free, (left, row)), (left, row))
    return sorted(sorted(row) for row in rows)


def pieces(ids: Ids, room: int) -> list[Ids]:
    """A document cut into pieces of at most `room` tokens; a piece of one token asks for nothing and is left out."""
    return [ids[a : a + room] for a in range(0, len(ids), room) if len(ids) - a > 1]


def labels_of(ids: Ids, supervised: Bools) -> Ids:
    """Labels [t], already shifted: position i is asked for token i + 1 where that is supervised, the last for none.

    >>> labels_of(np.array([5, 6, 7]), np.array([True, False, True])).tolist()
    [-100, 7, -100]
    """
    out = np.full(len(ids), NONE, np.int64)
    out[:-1] = np.where(supervised[1:], ids[1:], NONE)
    return out


def lay(segments: Sequence[Segment], row: Tensor, pad: int, packed: bool) -> None:
    """Write documents into row [3, T] = (ids, positions, labels), one after the other.

    The rest of a packed row is one more document without labels; that of a padded one has position -1.
    """
    at = 0
    for ids, supervised in segments:
        end = at + len(ids)
        row[0, at:end] = torch.from_numpy(ids)  # pyright: ignore[reportUnknownMemberType]
        row[1, at:end] = torch.arange(len(ids))
        row[2, at:end] = torch.from_numpy(labels_of(ids, supervised))  # pyright: ignore[reportUnknownMemberType]
        at = end
    row[0, at:] = pad
    row[1, at:] = torch.arange(row.shape[1] - at) if packed else PAD
    row[2, at:] = NONE


def isolated(
    forward: Callable[[Tensor, Tensor], Tensor], first: Sequence[int], second: Sequence[int], tolerance: float = 1e-4
) -> bool:
    """Whether a model keeps packed documents apart: two of them in one row, against each alone.

    Args:
        forward: (ids [1, T], positions [1, T]) -> logits [1, T, V], as rows will be given to it.
        first, second: tokens of the two documents.
        tolerance: of the logits, absolute.
    """
    with torch.no_grad():
        parts = [torch.tensor([list(p)], dtype=torch.int64) for p in (first, second)]
        places = [torch.arange(p.shape[1])[None] for p in parts]
        together = forward(torch.cat(parts, 1), torch.cat(places, 1))
        alone = torch.cat([forward(p, q) for p, q in zip(parts, places)], 1)
    return bool((together - alone).abs().max() <= tolerance)
