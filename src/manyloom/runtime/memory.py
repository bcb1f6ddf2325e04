"""What clients remember between rounds: a sparse store, a row for each client that was ever seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Ids
from manyloom.core.slots import Slots


class Memory:
    """Named rows by client; a client never seen has the declared start.

    Secret names (keys, masks, an update that waits) are kept like the others and left out of `snapshot`.
    """

    def __init__(self, start: Mapping[str, Tensor], secret: Collection[str] = ()) -> None:
        self.start = dict(start)
        self.secret = frozenset(secret)
        self._at: dict[int, int] = {}
        self._rows: Slots = {name: row[None].expand(0, *row.shape).clone() for name, row in start.items()}

    def recall(self, clients: Ids) -> Slots:
        """What these clients remember, [k, ...] a name; copies."""
        if not self.start:
            return {}
        at = torch.tensor([self._at.get(int(c), -1) for c in clients], dtype=torch.int64)
        seen = at >= 0
        out: Slots = {}
        for name, row in self.start.items():
            rows = row[None].expand(len(clients), *row.shape).clone()
            rows[seen] = self._rows[name][at[seen]]
            out[name] = rows
        return out

    def keep(self, clients: Ids, memory: Slots) -> None:
        """Remember rows [k, ...] of these clients."""
        if not memory or not len(clients):
            return
        for c in clients.tolist():
            self._at.setdefault(c, len(self._at))
        have = next(iter(self._rows.values())).shape[0]
        if len(self._at) > have:
            grow = max(len(self._at), 2 * have, 16) - have
            for name, row in self.start.items():
                self._rows[name] = torch.cat([self._rows[name], row[None].expand(grow, *row.shape)])
        at = torch.tensor([self._at[c] for c in clients.tolist()])
        for name, rows in memory.items():
            self._rows[name][at] = rows.to(self._rows[name].dtype)

    def snapshot(self) -> Slots:
        """All that may be saved: `clients` [n] and a row a client of each name that is not secret."""
        if not self._at:
            return {}
        clients = torch.tensor(list(self._at), dtype=torch.int64)
        kept = {n: rows[: len(self._at)].clone() for n, rows in self._rows.items() if n not in self.secret}
        return {"clients": clients, **kept}

    def restore(self, saved: Slots) -> None:
        """Become what `snapshot` gave."""
        self.__init__(self.start, self.secret)
        if "clients" in saved:
            self.keep(np.asarray(saved["clients"].numpy()), {n: r for n, r in saved.items() if n != "clients"})
