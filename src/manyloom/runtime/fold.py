"""Summing on the way: what a runtime does with messages that an ask allows to be folded."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from manyloom.aggregate import screen
from manyloom.algorithms.round import COUNTS
from manyloom.core.exchange import Fold, Ids, Lost, Reply
from manyloom.core.seeds import Draw
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.tensors import floats


class Messages:
    """Messages as they come: summed if the ask allows it, else kept, a row a client."""

    def __init__(self, fold: Fold | None) -> None:
        self.fold = fold
        self.clients: list[Ids] = []
        self.rows: dict[str, list[Tensor]] = {}
        self.sums: Slots = {}
        self.sent = 0

    def add(self, clients: Ids, message: Slots, draw: Draw) -> list[Lost]:
        """Take in some clients' messages; of those that are to be summed, who could not be used is lost."""
        if not len(clients):
            return []
        self.sent += size_bytes(message)
        if self.fold is None:
            self.clients.append(clients)
            for name, rows in message.items():
                self.rows.setdefault(name, []).append(rows.clone())
            return []
        whole = self.fold.undo({n: rows for n, rows in message.items() if n not in COUNTS}, draw)
        seen = screen({n: whole[n] for n in self.fold.slots})
        if seen.why:
            good = seen.ok.nonzero().flatten()
            message, whole = ({n: t[good] for n, t in slots.items()} for slots in (message, whole))
        lost = [Lost(int(clients[row]), "not-finite", why) for row, why in seen.why.items()]
        clients = clients[seen.ok.numpy()]
        self.clients.append(clients)
        for name in COUNTS:
            if name in message:
                self.rows.setdefault(name, []).append(message[name].clone())
        weights = (
            message[self.fold.weight].double() if self.fold.weight else torch.ones(len(clients), dtype=torch.float64)
        )
        for name in self.fold.slots:
            add_weighted(self.sums, name, whole[name], weights)
        return lost

    def reply(self, number: int, seconds: float) -> Reply:
        clients = np.concatenate(self.clients) if self.clients else np.zeros(0, np.int64)
        body = {n: torch.cat(rows) for n, rows in self.rows.items()} | {n: s[None] for n, s in self.sums.items()}
        return Reply(clients, body, number, seconds, self.sent)


def add_weighted(sums: Slots, name: str, rows: Tensor, weights: Tensor) -> None:
    """sums[name] += sum_k weights_k rows_k, accumulated in float64; within a group of many clients in float32.

    Whole numbers have no weights and are added as such, in int64.

    A few rows are added one by one without a copy; for many one matrix product is ten times faster
    (the group's own rounding, 1e-7 of the largest row, is what engines are allowed to differ by).
    """
    if not rows.is_floating_point():
        if name not in sums:
            sums[name] = torch.zeros(rows.shape[1:], dtype=torch.int64)
        for row in rows:  # adding rows in place is six times faster than reducing over them
            sums[name].add_(row)
        return
    if name not in sums:
        sums[name] = torch.zeros(rows.shape[1:], dtype=torch.float64)
    if len(rows) <= 4 or rows.dtype == torch.float64:
        for row, weight in zip(rows, floats(weights)):
            sums[name].add_(row, alpha=weight)
    else:
        sums[name] += torch.mv(rows.flatten(1).T, weights.to(rows.dtype)).view(rows.shape[1:])


def folded(replies: list[Reply], fold: Fold) -> list[Reply]:
    """Replies of handlers, summed in the order of their clients."""
    if not replies:
        return []
    sums: Slots = {}
    for r in replies:
        weights = r.body[fold.weight].double() if fold.weight else torch.ones(1, dtype=torch.float64)
        for name in fold.slots:
            add_weighted(sums, name, r.body[name], weights)
    rest = {n: torch.cat([r.body[n] for r in replies]) for n in replies[0].body if n not in fold.slots}
    clients = np.concatenate([r.clients for r in replies])
    return [
        Reply(
            clients, rest | {n: s[None] for n, s in sums.items()}, replies[0].asked, 0.0, sum(r.sent for r in replies)
        )
    ]
