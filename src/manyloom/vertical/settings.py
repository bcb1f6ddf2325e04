"""`[align]` and `[cut]`: how rows are matched, and what happens to what crosses the cut."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from manyloom.core.validate import Above, AtLeast, Below


class Align(NamedTuple):
    """How parties find the rows they share: `[align]`.

    Args:
        reveal: who learns the common ids: both parties, the label party alone, or only how many there are.
        duplicates: of an id in one party's rows: an error, or the first row counts.
        casefold: text ids that differ in case are the same.
        dummies: a feature party's size is rounded up to a multiple of this, with ids made up; 0: its size is told.
    """

    reveal: Literal["both", "label", "count"] = "both"
    duplicates: Literal["reject", "first"] = "reject"
    casefold: bool = False
    dummies: Annotated[int, AtLeast(0)] = 0


class Cut(NamedTuple):
    """What happens to embeddings and gradients where the network is cut: `[cut]`.

    Args:
        bits: of a number, in both directions; 32 is float32.
        defence: noise on the gradients that feature parties get, against reading labels off them.
        strength: of the isotropic noise, t.
        dropout: chance that a party's embedding is replaced by zero in a training step; 0.25 where a missing party is
            to be made up for.
        on_missing: what becomes of rows that a feature party does not have, in prediction.
    """

    bits: Literal[32, 16, 8, 4, 2] = 32
    defence: Literal["max-norm", "isotropic", "none"] = "max-norm"
    strength: Annotated[float, Above(0)] = 1.0
    dropout: Annotated[float | None, AtLeast(0), Below(1)] = None
    on_missing: Literal["error", "impute"] = "error"

    @property
    def dropped(self) -> float:
        """The chance that a party is left out of a step."""
        return self.dropout if self.dropout is not None else 0.25 if self.on_missing == "impute" else 0.0
