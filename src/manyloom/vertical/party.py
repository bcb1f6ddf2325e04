"""What one party of a vertical federation has: all that its handlers see, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Party:
    """One party's rows.

    Args:
        name: as the other parties call it.
        keys: the canonical key of each row (`vertical.ids`), in the party's own order.
        x: [n, F] float32, encoded by the party's own statistics; a label party may have F = 0.
        columns: names of the F columns; they never travel.
        y: [n] labels; only at the label party.
    """

    name: str
    keys: Sequence[bytes]
    x: Tensor
    columns: tuple[str, ...] = ()
    y: Tensor | None = None
