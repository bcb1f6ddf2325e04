"""Federations of what one has in Python: tensors, data sets, callables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.data.arrays import I64, any_of_row, as_tensor, offsets
from manyloom.data.build import cast_of, check_test, not_finite
from manyloom.data.federation import Federation, check_range, ids_of, label_range
from manyloom.data.holdout import hold_out
from manyloom.data.partition import Partition, split
from manyloom.data.store import Lazy, Listed, Numbered, Shared, Slab
from manyloom.data.table import Target


def of_tensors(
    x: Tensor | npt.NDArray[Any],
    y: Tensor | npt.NDArray[Any],
    parts: Sequence[npt.NDArray[Any] | Tensor | Sequence[int]] | I64 | Partition,
    own: tuple[Tensor, Tensor] | None,
    names: Sequence[str] | None,
    test: float,
    seed: int,
    target: Target | None,
    classes: int | None,
    labels: Sequence[str],
) -> Federation:
    """See `Federation.of_tensors`."""
    mapped = isinstance(x, np.memmap)
    xs, ys = as_tensor(x), as_tensor(y)
    check_test(test, False)
    kind: Target = target or ("number" if ys.is_floating_point() else "class")
    ys = ys.float() if kind == "number" else ys.long()
    rows, off, moved = _dealt(parts, ys, seed)
    if len(rows) and not (0 <= rows.min() and rows.max() < len(ys)) or len(xs) != len(ys):
        raise bad(
            "out-of-range",
            "the clients' rows are not all in the data",
            rule=f"row numbers 0 to {len(ys) - 1}",
            got=f"x has {len(xs)} rows, y {len(ys)}, the largest row number is {int(rows.max(initial=-1))}",
        )
    count = len(off) - 1
    stable = Numbered(count) if names is None else list(names)
    _named(stable, count)
    ids = ids_of(stable, count)
    strata = ys.numpy()[rows] if kind == "class" and ys.dim() == 1 else None
    cut = hold_out(rows, off, ids, test, seed, strata)
    if xs.is_floating_point() and not mapped:
        wrong = any_of_row(~torch.isfinite(xs)).numpy()
        if wrong[rows].any():
            raise not_finite(
                wrong, xs.flatten(1).sum(1).numpy() if xs.dim() > 1 else xs.numpy(), "rows", stable, rows, off
            )
    store = Shared(xs, ys, Listed(cut.train, cut.train_off), Listed(cut.test, cut.test_off), cast_of(xs))
    known = classes or int(ys.max()) + 1 if kind == "class" and len(ys) else classes if kind == "class" else None
    if known is not None:
        check_range(ys[from_numpy(rows)], off, stable, known)
    return Federation(
        store,
        ids,
        stable,
        stable,
        np.diff(cut.train_off),
        np.diff(cut.test_off),
        target=kind,
        classes=known,
        labels=tuple(labels),
        features=tuple(xs.shape[1:]),
        moved=moved,
        test_mode="own" if own is not None and test == 0 else test,
        skipped=tuple(np.flatnonzero(np.diff(off) == 0).tolist()),
        own=None if own is None else _own(own, xs, ys, kind),
    )


def _dealt(
    parts: Sequence[npt.NDArray[Any] | Tensor | Sequence[int]] | I64 | Partition, y: Tensor, seed: int
) -> tuple[I64, I64, int]:
    """Row numbers, offsets, rows moved."""
    if isinstance(parts, Partition):
        dealt = split(parts, y.numpy() if y.dim() == 1 else np.zeros(len(y), np.int64), seed)
        return dealt.rows, dealt.off, dealt.moved
    if isinstance(parts, np.ndarray) and parts.ndim == 1 and parts.dtype.kind in "iu":
        off = parts.astype(np.int64)
        return np.arange(int(off[0]), int(off[-1]), dtype=np.int64), off - off[0], 0
    lists = [np.asarray(p, np.int64) for p in cast("Sequence[Any]", parts)]
    return np.concatenate([*lists, np.zeros(0, np.int64)]), offsets(np.array([len(p) for p in lists], np.int64)), 0


def _own(own: tuple[Tensor, Tensor], x: Tensor, y: Tensor, kind: Target) -> Slab:
    if own[0].shape[1:] != x.shape[1:] or own[1].shape[1:] != y.shape[1:] or len(own[0]) != len(own[1]):
        raise bad(
            "out-of-range",
            "the own test set does not fit the rows to train on",
            got=f"x {list(own[0].shape)}, y {list(own[1].shape)}",
            rule=f"rows of x {list(x.shape[1:])}, of y {list(y.shape[1:])}",
        )
    n = len(own[1])
    ys = own[1].float() if kind == "number" else own[1].long()
    return Slab(own[0], ys, np.arange(n), np.array([0, n], np.int64), cast_of(own[0]))


def of_callables(
    load: Callable[[int], tuple[Tensor, Tensor]],
    sizes: I64,
    names: Sequence[str] | None,
    test: float,
    seed: int,
    target: Target,
    classes: int | None,
    features: Sequence[int] | None,
) -> Federation:
    """See `Federation.of_callables`."""
    check_test(test, False)
    count = len(sizes)
    stable = Numbered(count) if names is None else list(names)
    _named(stable, count)
    ids = ids_of(stable, count)

    def checked(i: int) -> tuple[Tensor, Tensor]:
        x, y = load(i)
        if len(x) != sizes[i] or len(y) != sizes[i]:
            raise bad(
                "out-of-range",
                f"client {stable[i]} has another number of rows than was said",
                got=f"x {len(x)}, y {len(y)} rows",
                rule=f"sizes says {int(sizes[i])}",
            )
        x = cast_x(x) if (cast_x := cast_of(x)) else x
        y = y.float() if target == "number" else y.long()
        if x.is_floating_point() and len(x):
            bad_rows = any_of_row(~torch.isfinite(x)).numpy()
            if bad_rows.any():
                raise not_finite(
                    bad_rows,
                    x.flatten(1).sum(1).numpy() if x.dim() > 1 else x.numpy(),
                    "rows",
                    [stable[i]],
                    np.arange(len(x)),
                    np.array([0, len(x)]),
                )
        if target == "class" and known[0] is not None and len(y) and not (0 <= y.min() and y.max() < known[0]):
            row = int(torch.nonzero(any_of_row((y < 0) | (y >= known[0])))[0])
            raise label_range(stable[i], row, int(y[row].reshape(-1)[0]), known[0])
        return x, y

    known: list[int | None] = [classes]
    if target == "class" and classes is None:
        known[0] = max((int(y.max()) for y in (load(i)[1] for i in range(count) if sizes[i])), default=-1) + 1
    shape = tuple(features) if features is not None else None
    if shape is None:
        shape = next((tuple(load(i)[0].shape[1:]) for i in range(count) if sizes[i]), ())
    tests = np.floor(test * sizes + 1e-9).astype(np.int64)
    return Federation(
        Lazy(checked, ids, test, seed),
        ids,
        stable,
        stable,
        sizes - tests,
        tests,
        target=target,
        classes=known[0] if target == "class" else None,
        features=shape,
        test_mode=test,
        skipped=tuple(np.flatnonzero(sizes == 0).tolist()),
    )


def of_datasets(
    datasets: Mapping[str, Any] | Sequence[Any], test: float, seed: int, target: Target, classes: int | None
) -> Federation:
    """See `Federation.of_datasets`."""
    names = [str(k) for k in datasets] if isinstance(datasets, Mapping) else None
    sets: list[Any] = list(datasets.values()) if isinstance(datasets, Mapping) else list(datasets)

    def load(i: int) -> tuple[Tensor, Tensor]:
        items = [sets[i][j] for j in range(len(sets[i]))]
        x = torch.stack([torch.as_tensor(item[0]) for item in items])
        return x, torch.stack([torch.as_tensor(item[1]) for item in items])

    sizes = np.array([len(s) for s in sets], np.int64)
    if target == "class" and classes is None and sets:  # torchvision's sets say it
        classes = len(getattr(sets[0], "classes", ())) or None
    return of_callables(load, sizes, names, test, seed, target, classes, None)


def _named(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise bad("out-of-range", f"{count} clients have {len(names)} names", rule="one name a client")
    if not isinstance(names, Numbered) and len(set(names)) < count:
        twice = next(n for n in names if names.count(n) > 1)
        raise bad(
            "out-of-range", f'two clients are called "{twice}"', rule="names differ: all that is drawn hangs on them"
        )
