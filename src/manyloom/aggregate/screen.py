"""Which updates can be used at all: finite, of the declared shape, not absurdly large. Before any rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from manyloom.aggregate.cohort import F64, array
from manyloom.core.slots import Slots
from manyloom.core.text import count

ABSURD = 1e15  # the L2 norm above which no update is meant
_COLUMNS = 65536  # of a block: 50 rows are 13 MB


@dataclass(frozen=True, eq=False)
class Screened:
    """What is left of messages.

    Args:
        rows: the messages; zeros in place of a slot of another shape, so that they can be stacked.
        ok: which rows can be used [n], booleans.
        why: row -> the reason that it can't, in words for whoever reads the client's name before it.
        norms: L2 norm of every row, {slot: [n]}; of a row that can't be used it means nothing.
    """

    rows: Slots
    ok: Tensor
    why: dict[int, str]
    norms: Mapping[str, F64]


def screen(rows: Slots, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Screened:
    """Drop, row by row: NaN or infinity anywhere, a wrong shape, an L2 norm above 1e15 in any slot.

    Norms go in float64 over blocks of float32; where they are not clearly below the limit the row is looked at once
    more, exactly. Nothing is written to.

    Args:
        rows: messages of n clients, {slot: [n, ...]}.
        shapes: slot -> the shape that a client's row must have; None: whatever comes.

    >>> s = screen({"u": torch.tensor([[1.0, 2.0], [3.0, float("nan")], [1e20, 0.0]])})
    >>> s.ok.tolist(), s.why
    ([True, False, False], {1: '1 of 2 numbers in "u" is not finite', 2: 'the norm of "u" is 1e+20, above 1e+15'})
    >>> screen({"u": torch.zeros(1, 3)}, {"u": (2,)}).why
    {0: '"u" has the shape [3], declared [2]'}
    """
    n = next((len(v) for v in rows.values()), 0)
    ok, why = torch.ones(n, dtype=torch.bool), dict[int, str]()
    if shapes is not None and (wrong := _misshapen(rows, shapes)):
        blank = {name: torch.zeros((n, *shape)) for name, shape in shapes.items()}
        return Screened(blank, ~ok, dict.fromkeys(range(n), wrong), {name: np.zeros(n) for name in shapes})
    norms: dict[str, F64] = {}
    for name in sorted(rows):
        flat = flattened(rows[name])
        norms[name] = row_norms(flat)
        for row in np.flatnonzero(~(norms[name] < 0.999 * ABSURD)).tolist():
            if reason := _unusable(flat[row], name):
                ok[row] = False
                why.setdefault(row, reason)
    return Screened(rows, ok, dict(sorted(why.items())), norms)


def flattened(rows: Tensor) -> Tensor:
    """Rows [n, ...] as [n, d], a view where it can be.

    >>> flattened(torch.zeros(3)).shape, flattened(torch.zeros(3, 2, 2)).shape
    (torch.Size([3, 1]), torch.Size([3, 4]))
    """
    return rows.reshape(len(rows), -1) if len(rows) else rows.reshape(0, max(1, rows[:1].numel()))


def row_norms(x: Tensor) -> F64:
    """L2 norms [n] of rows [n, d]: blocks in the rows' precision (at least float32), their squares in float64."""
    total = torch.zeros(len(x), dtype=torch.float64)
    for a in range(0, x.shape[1], _COLUMNS):
        block = x[:, a : a + _COLUMNS]
        block = block if block.dtype in (torch.float32, torch.float64) else block.float()
        norms = cast(Tensor, torch.linalg.vector_norm(block, dim=1))  # pyright: ignore[reportUnknownMemberType]
        total += norms.double().square().cpu()
    return total.sqrt().numpy()


def _unusable(row: Tensor, name: str) -> str | None:
    """Why this row [d] can't be used, looked at in float64."""
    exact = array(row, np.float64)
    bad = int((~np.isfinite(exact)).sum())
    if bad:
        return f'{count(bad)} of {count(len(exact))} numbers in "{name}" {"is" if bad == 1 else "are"} not finite'
    largest = float(np.abs(exact).max(initial=0.0))
    norm = largest * float(np.linalg.norm(exact / largest))
    return f'the norm of "{name}" is {norm:.2g}, above {ABSURD:.0e}' if norm > ABSURD else None


def _misshapen(rows: Slots, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    if set(rows) != set(shapes):
        return f"it holds {', '.join(sorted(rows)) or 'nothing'}, declared {', '.join(sorted(shapes))}"
    for name, shape in shapes.items():
        if tuple(rows[name].shape[1:]) != shape:
            return f'"{name}" has the shape {list(rows[name].shape[1:])}, declared {list(shape)}'
    return None
