"""Krum and Multi-Krum (Blanchard et al. 2017, NeurIPS, arXiv:1703.02757)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np

from manyloom.aggregate.cohort import F64, Cohort, linear
from manyloom.aggregate.condition import Condition
from manyloom.aggregate.gram import distances, even, joint, smallest
from manyloom.aggregate.rule import Outcome, robust
from manyloom.core.parts import Aggregator
from manyloom.core.slots import Slots
from manyloom.core.validate import AtLeast, checked

Faults = Annotated[int, AtLeast(0)]


@checked
def krum(f: Faults, pre: Literal["nnm"] | None = None, keep_f: bool = False) -> Aggregator:
    """The update nearest to its n-f-2 nearest: score_i = the sum of so many smallest ||x_i - x_j||^2. n >= 2f+3.

    Args:
        f: faults tolerated.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> rows = torch.tensor([[1.0, 0.0], [1.1, 0.0], [0.9, 0.1], [1.0, 0.1], [99.0, 9.0]])
    >>> krum(f=1).reduce({"u": rows}, torch.ones(5), {})[0]["u"]
    tensor([1., 0.])
    """
    return robust(
        "krum", Condition(2, 3), by_weights(lambda c: best(c, 1)), f=f, pre=pre, keep_f=keep_f, distances=True
    )


@checked
def multi_krum(
    f: Faults,
    m: Annotated[int, AtLeast(1)] | None = None,
    pre: Literal["nnm"] | None = None,
    keep_f: bool = False,
) -> Aggregator:
    """The mean of the m updates with the best Krum scores. n >= 2f+3; proved for m <= n-f-2.

    Args:
        f: faults tolerated.
        m: how many are kept; n - f without it.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> rows = torch.tensor([[1.0], [2.0], [3.0], [2.0], [99.0]])
    >>> multi_krum(f=1).reduce({"u": rows}, torch.ones(5), {})[0]["u"]
    tensor([2.])
    """
    condition = Condition(2, 3, m or 1)
    act = by_weights(lambda c: best(c, m or c.n - c.f))
    return robust("multi-krum", condition, act, f=f, pre=pre, keep_f=keep_f, own={"m": m}, distances=True)


def scores(d: F64, f: int) -> F64:
    """score_i [n]: the sum of the n-f-2 smallest squared distances to others (one row has nobody to be far from).

    >>> scores(np.array([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0], [9.0, 4.0, 0.0]]), 0)
    array([1., 1., 4.])
    """
    others = d.copy()
    np.fill_diagonal(others, np.inf)
    return np.sort(others, axis=1)[:, : max(0, len(d) - f - 2)].sum(axis=1)


def best(c: Cohort, m: int) -> F64:
    """Weights [n] of the mean of the m rows with the smallest scores."""
    return even(smallest(scores(distances(joint(c)), c.f), m, c), c.n)


def by_weights(weigh: Callable[[Cohort], F64]) -> Callable[[Cohort, Slots], Outcome]:
    """The rule sum_i w_i x_i with weights [n] that sum to 1, the same for every slot."""

    def act(c: Cohort, state: Slots) -> Outcome:
        w = weigh(c)
        return Outcome({name: linear(c, name, w) for name in c.names}, c.n * w)

    return act
