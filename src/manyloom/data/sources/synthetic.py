"""Rows made when asked: a million clients for the price of their number."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import AtLeast, checked
from manyloom.data.build import check_test
from manyloom.data.federation import Federation, TestKey
from manyloom.data.holdout import hold_out
from manyloom.data.partition import Partition, natural, split
from manyloom.data.sources.registry import SYNTHETIC
from manyloom.data.sources.sklearn import not_a_table
from manyloom.data.store import Index, Listed, Made, Numbered, Regular, Rows

I64 = npt.NDArray[np.int64]
MOST = 50_000_000  # rows whose labels are made at once to be dealt by label


@checked
def synthetic(
    *,
    samples_per_client: Annotated[int, AtLeast(1)] = 20,
    features: Annotated[int, AtLeast(1)] = 64,
    classes: Annotated[int, AtLeast(2)] = 10,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Normal clouds around one centre a class: row r is a function of (seed, r), made when its client is asked.

    Labels are uniform; x = centre[y] + z with z ~ N(0, 1) and centres ~ N(0, 6 / features). By "iid" and
    "natural" client i owns the rows from i * samples_per_client; other schemes deal rows by their labels.

    Args:
        samples_per_client: rows a client (held-out ones included), on average where the scheme makes sizes
            unequal.
        features: numbers in a row.
        classes: how many.
        partition: how many clients, and how rows are dealt; required.
        test: share held out at each client; 0.2 by default. By "iid" the last rows, as all are drawn alike.
        standardise: features have mean 0 and scale about 1; must stay false.
        seed: of the rows, of partition and held-out rows.

    >>> from manyloom.data.partition import iid
    >>> synthetic(partition=iid(clients=1_000_000))
    Federation(synthetic, 1000000 clients, 16000000 rows + 4000000 held out, 10 classes)
    """
    not_a_table(standardise, "synthetic data")
    mode = 0.2 if test is None else test
    share = check_test(mode, False)
    spec = partition or natural()
    if spec.clients is None:
        raise bad(
            "missing-key",
            "synthetic data needs the number of clients",
            got="no clients in [partition]",
            rule="rows are made for as many clients as are asked for",
            mend="[partition] clients = 1000",
        )
    count, each = spec.clients, samples_per_client
    ids = np.arange(count, dtype=np.uint64)
    train: Index
    held: Index
    moved = 0
    skipped: tuple[int, ...] = ()
    if spec.scheme in ("iid", "natural"):
        tests = int(np.floor(share * each + 1e-9))
        train, held = Regular(each, 0, each - tests), Regular(each, each - tests, tests)
        sizes = np.broadcast_to(np.int64(each - tests), (count,))
        held_sizes = np.broadcast_to(np.int64(tests), (count,))
    else:
        if count * each > MOST:
            raise bad(
                "out-of-range",
                f'"{spec.scheme}" deals at most {MOST} made rows',
                rule="it looks at every label",
                got=f"{count} clients x {each} rows",
                mend='scheme = "iid" takes any number',
            )
        labels = _labels(np.arange(count * each), seed, classes)
        dealt = split(spec, labels, seed)
        parts = hold_out(dealt.rows, dealt.off, ids, share, seed, labels[dealt.rows])
        train, held = Listed(parts.train, parts.train_off), Listed(parts.test, parts.test_off)
        sizes, held_sizes, moved = np.diff(parts.train_off), np.diff(parts.test_off), dealt.moved
        empty = np.flatnonzero(sizes == 0)
        if len(empty) and not spec.drop_empty:
            raise bad(
                "empty-client",
                f"{len(empty)} of {count} clients have no training rows",
                got=f"client {int(empty[0])}",
                rule="a client needs a row to train on",
                mend="leave them out: drop_empty = true in [partition]",
            )
        skipped = tuple(empty.tolist())
    centres = seeds.generator(seed, 0, "synthetic-centres").standard_normal((classes, features))
    centres = from_numpy((centres * np.sqrt(6 / features)).astype(np.float32))

    def make(rows: I64) -> Rows:
        y = from_numpy(_labels(rows, seed, classes))
        return normals(seeds.key(seed, 0, rows.astype(np.uint64), "synthetic-x"), features).add_(centres[y]), y

    settings: dict[str, object] = {
        "source": "synthetic",
        "samples_per_client": each,
        "features": features,
        "classes": classes,
        "test": mode,
        "standardise": False,
        "seed": seed,
    }
    names = Numbered(count)
    return Federation(
        Made(make, lambda rows: from_numpy(_labels(rows, seed, classes)), train, held),
        ids,
        names,
        names,
        sizes,
        held_sizes,
        classes=classes,
        labels=tuple(str(c) for c in range(classes)),
        features=(features,),
        info=SYNTHETIC,
        tables={"data": settings, "partition": spec.table()},
        moved=moved,
        skipped=skipped,
        test_mode=share,
    )


def _labels(rows: I64, seed: int, classes: int) -> I64:
    word = seeds.key(seed, 0, rows.astype(np.uint64), "synthetic-y") >> np.uint64(32)
    return ((word * np.uint64(classes)) >> np.uint64(32)).astype(np.int64)


def normals(keys: seeds.U64, n: int) -> Tensor:
    """n standard normal numbers a key, float32 [k, n], by Box-Muller: one 64-bit word makes two of them.

    z = sqrt(-2 log u) (cos 2 pi v, sin 2 pi v), with u in (0, 1] and v in [0, 1) of 24 bits each.
    """
    words = seeds.counters(keys, (n + 1) // 2)
    u = from_numpy(((words >> np.uint64(40)).astype(np.int32) + 1).astype(np.float32)) * 2.0**-24
    v = from_numpy(((words & np.uint64(0xFFFFFF)).astype(np.int32)).astype(np.float32)) * (2.0**-24 * 2 * np.pi)
    r = u.log_().mul_(-2).sqrt_()
    return torch.stack([r * v.cos(), r * v.sin()], dim=-1).reshape(len(keys), -1)[:, :n].contiguous()
