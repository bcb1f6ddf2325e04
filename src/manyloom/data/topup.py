"""Topping up: move rows from the largest clients to those below the least size, one deterministic way."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]


def top_up(owner: I64, codes: I64, clients: int, least: int) -> int:
    """Give every client at least `least` rows, changing `owner` [n] in place; return how many rows moved.

    Clients below it are served in the order of their index. Each row comes from the client that is largest at
    that moment (ties: the lower index), of a class that the receiver has already if the donor has one of
    those, else of the donor's most frequent class (ties: the lower class), the lowest row first. n >= clients
    * least is needed; then the donor is always above `least`, so it ends after exactly the missing number of
    rows.
    """
    sizes = np.bincount(owner, minlength=clients)
    needy = np.flatnonzero(sizes < least)
    if not len(needy):
        return 0
    classes = int(codes.max(initial=-1)) + 1
    counts = np.bincount(owner * classes + codes, minlength=clients * classes).reshape(clients, classes)
    heap = [(-int(size), i) for i, size in enumerate(sizes.tolist()) if size > least]
    heapq.heapify(heap)
    piles: dict[int, list[list[int]]] = {}  # donor -> class -> its rows, the lowest at the end
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(sizes)

    def pile(donor: int) -> list[list[int]]:
        if donor not in piles:
            rows = order[ends[donor] - sizes0[donor] : ends[donor]]
            piles[donor] = [rows[codes[rows] == c][::-1].tolist() for c in range(classes)]
        return piles[donor]

    sizes0 = sizes.copy()
    moved = 0
    for client in needy.tolist():
        while sizes[client] < least:
            size, donor = heapq.heappop(heap)
            shared = np.where(counts[client] > 0, counts[donor], 0)
            kind = int((shared if shared.any() else counts[donor]).argmax())
            owner[pile(donor)[kind].pop()] = client
            counts[donor, kind] -= 1
            counts[client, kind] += 1
            sizes[client] += 1
            sizes[donor] -= 1
            moved += 1
            if sizes[donor] > least:
                heapq.heappush(heap, (size + 1, donor))
    return moved
