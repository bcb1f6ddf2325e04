"""A client whose labels are not used: what an engine gets of it has none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manyloom.core.exchange import Ids
from manyloom.core.seeds import U64
from manyloom.core.tensors import from_numpy
from manyloom.data.store import Part, Slab
from manyloom.engine.engine import Rows
from manyloom.work.coral import UNKNOWN


@dataclass(frozen=True)
class Unlabelled:
    """Rows of a population, one client's training rows without their labels."""

    inner: Rows
    client: int

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return self.inner.sizes

    @property
    def ids(self) -> U64:
        return self.inner.ids

    def slab(self, clients: Ids, part: Part = "train") -> Slab:
        """Rows as they are, with -1 in place of the client's labels."""
        found = self.inner.slab(clients, part)
        there = np.flatnonzero(np.asarray(clients) == self.client)
        if part != "train" or not len(there):
            return found
        rows = [found.rows[found.off[j] : found.off[j + 1]] for j in there.tolist()]
        y = found.y.clone()
        y[from_numpy(np.concatenate(rows))] = UNKNOWN
        return found._replace(y=y)
