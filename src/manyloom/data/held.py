"""A set of rows held by the hub, to judge a round's model by before it is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from manyloom.core.errors import bad
from manyloom.core.seeds import generator
from manyloom.data.arrays import I64, offsets
from manyloom.data.federation import Federation
from manyloom.data.store import Listed, Shared


def hold_back(federation: Federation, rows: int, seed: int) -> Federation:
    """The federation without `rows` of its training rows, drawn over all clients alike; the hub has those.

    In a simulation only: between organisations the hub brings rows of its own. Raises BadInput where rows don't lie in
    one place, or a client would be left with none.

    >>> import torch
    >>> fed = Federation.of_tensors(torch.zeros(20, 1), torch.zeros(20, dtype=torch.int64), [range(10), range(10, 20)])
    >>> held = hold_back(fed, 4, seed=0)
    >>> int(held.sizes.sum()), len(held.held), set(held.held) & set(held.slab([0, 1]).rows)
    (12, 4, set())
    """
    store = federation.store
    if not isinstance(store, Shared):
        raise bad("validation-rows", "rows can be held back only where all lie in one place",
                  got=f"rows = {rows} in [validation]", rule="clients' rows are loaded or made when they are asked",
                  mend="give path, a file of the hub's own")  # fmt: skip
    everybody = np.arange(len(federation), dtype=np.int64)
    train, off = store.train(everybody)
    spare = len(train) - len(everybody)
    if rows > spare:
        raise bad("out-of-range", "more rows would be held back than the clients can spare",
                  got=f"rows = {rows} in [validation], {len(train)} rows at {len(everybody)} clients",
                  mend=f"set rows = {max(1, spare // 10)}")  # fmt: skip
    draw = generator(seed, 0, "validation")
    first = off[:-1]  # one row of each client stays
    free = np.setdiff1d(np.arange(len(train)), first[np.diff(off) > 0])
    taken = np.zeros(len(train), bool)
    taken[draw.choice(free, rows, replace=False)] = True
    client = np.repeat(everybody, np.diff(off))
    sizes: I64 = np.bincount(client[~taken], minlength=len(everybody)).astype(np.int64)
    left = Listed(train[~taken], offsets(sizes))
    return replace(federation, store=replace(store, train=left), sizes=sizes, held=train[taken])
