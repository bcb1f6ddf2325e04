"""The weighted mean: the rule that needs only the sum."""

from __future__ import annotations

from torch import Tensor

from manyloom.core.parts import Aggregator
from manyloom.core.slots import Slots


def mean() -> Aggregator:
    """ubar = sum_i n_i u_i / sum_i n_i, from the sum alone.

    A sum of weights of zero divides by nothing: the aggregate is zero.
    """

    def reduce(sums: Slots, weights: Tensor, state: Slots) -> tuple[Slots, Slots]:
        total = weights.double().sum()
        scale = 1 / total if total > 0 else total
        return {name: s * scale for name, s in sums.items()}, state

    return Aggregator("mean", "sum", reduce)
