"""How federations are put together: index ranges, held-out rows, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core.errors import BadInput, bad
from manyloom.data.arrays import I64
from manyloom.data.federation import Federation, TestMode, ids_of
from manyloom.data.holdout import hold_out
from manyloom.data.partition import Partition, Split, natural, split
from manyloom.data.sources.info import SourceInfo
from manyloom.data.store import Listed, Numbered, Raw, Shared, Slab
from manyloom.data.table import Table, Target
from manyloom.data.texts import Corpus, Texts


def unit(x: Tensor) -> Tensor:
    """uint8 pixels as float32 in [0, 1]."""
    return x.float().div_(255)


def to_float(x: Tensor) -> Tensor:
    """Rows of another number type as float32, after the gather."""
    return x.float()


def cast_of(x: Tensor) -> Callable[[Tensor], Tensor] | None:
    """What gathered rows of x need to become what a model takes."""
    if x.dtype == torch.uint8:
        return unit
    return to_float if x.is_floating_point() and x.dtype != torch.float32 else None


def federate(
    data: tuple[Tensor, Tensor] | Table | Corpus,
    info: SourceInfo,
    *,
    partition: Partition | None,
    test: TestMode | None,
    seed: int,
    groups: tuple[Sequence[str], Sequence[str], I64] | None = None,
    keys: Mapping[str, object] | None = None,
    own: Slab | None = None,
    standardise: bool = False,
    ordered: bool = False,
    labels: Sequence[str] = (),
    classes: int | None = None,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    empty: str | None = None,
    client_word: tuple[str, str] = ("client", "clients"),
    row_word: tuple[str, str] = ("row", "rows"),
) -> Federation:
    """A source's rows as a federation: dealt by `partition`, some held out, checked.

    `groups` are the source's own clients: names, keys, and the number of each row's [n]. `keys` are the
    source's own arguments as in `[data]`. `own` is its test set. `empty` says why a client may have no row.
    """
    y = data[1].numpy() if isinstance(data, tuple) else data.y
    target: Target = "text" if isinstance(data, Corpus) else "number" if y.dtype.kind == "f" else "class"
    mode = ("own" if own is not None else 0.2) if test is None else test
    share = check_test(mode, own is not None)
    spec = partition or _default(info, groups is not None)
    dealt = split(
        spec,
        y if y.ndim == 1 else np.zeros(len(y), np.int64),
        seed,
        groups[2] if groups else None,
        len(groups[0]) if groups else 0,
    )
    count = len(dealt.off) - 1
    names = list(groups[0]) if groups and dealt.natural else Numbered(count)
    stable = list(groups[1]) if groups and dealt.natural else names
    word = client_word if dealt.natural else ("client", "clients")  # a made client is no hospital
    skipped = _empty(dealt, stable, spec, empty)
    ids = ids_of(stable, count)
    in_time = ordered and spec.scheme == "natural"  # rows that were shuffled among clients have no order left
    strata = y[dealt.rows] if target != "number" and y.ndim == 1 else None
    if in_time and groups:
        strata = groups[2][dealt.rows]
    parts = hold_out(dealt.rows, dealt.off, ids, share, seed, strata, in_time)
    train, held = Listed(parts.train, parts.train_off), Listed(parts.test, parts.test_off)
    if isinstance(data, Table):
        _finite_table(data, stable, dealt, standardise)
        store, shape, schema = Raw(data, train, held), None, data.schema
        classes, labels = len(data.schema.labels) or None, data.schema.labels
    elif isinstance(data, Corpus):
        store, shape, schema, classes = Texts(data, train, held), None, None, None
    else:
        x = data[0]
        store, shape, schema = Shared(x, data[1], train, held, cast_of(x)), tuple(x.shape[1:]), None
        classes = (classes or int(y.max(initial=-1)) + 1) if target == "class" else None
    settings: dict[str, object] = {
        "source": info.name,
        **(keys or {}),
        "test": mode,
        "standardise": standardise,
        "seed": seed,
    }
    return Federation(
        store=store,
        ids=ids,
        names=names,
        keys=stable,
        sizes=np.diff(parts.train_off),
        tests=np.diff(parts.test_off),
        target=target,
        classes=classes,
        labels=tuple(labels),
        features=shape,
        schema=schema,
        standardise=standardise,
        vocabulary=vocabulary,
        client_word=word,
        row_word=row_word,
        info=info,
        tables={"data": settings, "partition": spec.table()},
        moved=dealt.moved,
        skipped=skipped,
        test_mode=mode,
        own=own,
    )


def _default(info: SourceInfo, has_clients: bool) -> Partition:
    if has_clients:
        return natural()
    scheme = "iid" if info.task == "next token" else "dirichlet"  # texts have no label to deal by
    raise bad(
        "missing-key",
        f"{info.name} has no clients of its own: say how to deal its rows",
        got="no [partition]",
        rule="scheme is required where the source has no clients",
        mend=f'[partition] scheme = "{scheme}", clients = 10; in Python: partition={scheme}(clients=10)',
    )


def check_test(mode: TestMode, own: bool) -> float:
    """The share to hold out at clients, of `[data] test`."""
    if mode == "own" and not own:
        raise bad(
            "out-of-range",
            "this source has no test set of its own",
            got='test = "own" in [data]',
            rule="a share from 0 to below 1",
            mend="test = 0.2",
        )
    if mode != "own" and not 0 <= mode < 1:
        raise bad(
            "out-of-range",
            "test must be at least 0 and below 1",
            got=f"test = {mode} in [data]",
            rule="at least one row of a client stays to train",
            mend="test = 0.2",
        )
    return 0.0 if mode == "own" else float(mode)


def _empty(dealt: Split, keys: Sequence[str], spec: Partition, why: str | None) -> tuple[int, ...]:
    none = np.flatnonzero(np.diff(dealt.off) == 0)
    if len(none) and not spec.drop_empty:
        first: list[int] = none[:5].tolist()
        some = ", ".join(keys[i] for i in first) + (", ..." if len(none) > 5 else "")
        raise bad(
            "empty-client",
            f"{len(none)} of {len(keys)} clients have no training rows",
            got=f"{'client' if len(none) == 1 else 'clients'} {some}{why or ''}",
            rule="a client needs a row to train on",
            mend="mend the data, or leave them out: drop_empty = true in [partition]",
        )
    return tuple(none.tolist())


def _finite_table(table: Table, keys: Sequence[str], dealt: Split, fill: bool) -> None:
    wrong = ~np.isfinite(table.numbers) if not fill else np.isinf(table.numbers)
    if wrong.any():
        columns = np.flatnonzero(wrong.any(axis=0))
        column = int(columns[0])
        more = f" (so have {len(columns) - 1} more columns)" if len(columns) > 1 else ""
        raise not_finite(
            wrong[:, column],
            table.numbers[:, column],
            f'column "{table.schema.numbers[column]}"',
            keys,
            dealt.rows,
            dealt.off,
            more,
        )


def not_finite(
    wrong: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    place: str,
    keys: Sequence[str],
    rows: I64,
    off: I64,
    more: str = "",
) -> BadInput:
    """The error of the first client with such values; its rows count from 1 as they come in the source."""
    first = int(wrong[rows].argmax())
    client = int(np.searchsorted(off, first, side="right")) - 1
    own = np.sort(rows[off[client] : off[client + 1]])
    hits = np.flatnonzero(wrong[own])
    kind = "NaN" if np.isnan(values[own][hits]).all() else "infinite or NaN"
    if place == "rows":
        mend = "clean the data"
    elif kind == "NaN":
        mend = "[data] standardise = true fills them with federated means; or clean it"
    else:
        mend = "clean the data, or name the value in [data] missing"
    return bad(
        "not-finite",
        "features hold values that are not numbers",
        got=f"{len(hits)} {kind} in {place} of client {keys[client]}, first in row {int(hits[0]) + 1}{more}",
        rule="the model takes finite numbers only",
        mend=mend,
    )
