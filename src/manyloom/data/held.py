"""A set of rows held by the hub, to judge a round's model by before it is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from manyloom.core.errors import bad
from manyloom.core.seeds import generator
from manyloom.core.tensors import from_numpy
from manyloom.data.arrays import I64, offsets
from manyloom.data.federation import Federation
from manyloom.data.preprocess import Preprocess
from manyloom.data.rows import encode, read_file
from manyloom.data.store import Listed, Shared, Slab


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


def with_file(federation: Federation, path: str) -> Federation:
    """The federation with a file of the hub's own, CSV or Parquet, with the columns that clients train on.

    Raises BadInput where clients hold no tables, or there is no such file.
    """
    if federation.schema is None:
        raise bad("validation-path", "a file can judge a model of table columns only",
                  got=f'path = "{path}" in [validation]', rule="these clients hold tensors",
                  mend="give rows = 200: so many are taken from the clients")  # fmt: skip
    if not Path(path).is_file():
        read_file(path)  # says what is wrong
    return replace(federation, held=path)


def of_file(path: str, pre: Preprocess) -> Slab:
    """The rows of a hub's file as the model takes them; those without a label are left out.

    Raises BadInput where columns lack, hold text for numbers, or no row has a label.
    """
    raw = encode(pre, read_file(path, missing=pre.schema.missing), Path(path).name)
    y = raw.y
    have = np.zeros(0, bool) if y is None else (y >= 0 if pre.schema.target == "class" else ~np.isnan(y))
    if y is None or not have.any():
        raise bad("columns-missing", f"{Path(path).name} has no row with a label", got=f'label "{pre.schema.label}"',
                  rule="a model is judged by labels", mend="add the column that is predicted")  # fmt: skip
    x, labels = from_numpy(pre.encode(raw.table)), from_numpy(np.asarray(y))
    rows = np.flatnonzero(have)
    target = labels if pre.schema.target == "class" else labels.float()
    return Slab(x, target, rows, np.array([0, len(rows)], np.int64))
