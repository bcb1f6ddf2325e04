"""Rules by coordinate: median and trimmed mean (Yin et al. 2018, ICML, arXiv:1803.01498)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, cast

import numpy as np

from manyloom.aggregate.cohort import F64, Cohort, by_block
from manyloom.aggregate.condition import Condition
from manyloom.aggregate.order import Block, middle
from manyloom.aggregate.rule import Outcome, robust
from manyloom.core.parts import Aggregator
from manyloom.core.slots import Slots
from manyloom.core.validate import AtLeast, checked

Faults = Annotated[int, AtLeast(0)]
SAMPLE = 1024  # coordinates at which it is looked who was kept


@checked
def median(f: Faults | None = None, pre: Literal["nnm"] | None = None, keep_f: bool = False) -> Aggregator:
    """The median of every coordinate; of an even number the mean of the two in the middle. n >= 2f+1.

    Args:
        f: faults tolerated; without it nothing is claimed and only the median taken.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> got, _ = median().reduce({"u": torch.tensor([[1.0], [9.0], [2.0]])}, torch.ones(3), {})
    >>> got["u"], got["kept"]
    (tensor([2.]), tensor([0., 0., 3.], dtype=torch.float64))
    """
    return robust("median", Condition(2, 1), by_ranks(half), f=f, pre=pre, keep_f=keep_f)


@checked
def trimmed_mean(f: Faults, pre: Literal["nnm"] | None = None, keep_f: bool = False) -> Aggregator:
    """Of every coordinate the mean without the f smallest and f largest values: ranks f .. n-f-1. n >= 2f+1.

    Args:
        f: faults tolerated: so many are cut off at either end.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> trimmed_mean(1).reduce({"u": torch.tensor([[1.0], [9.0], [2.0], [4.0]])}, torch.ones(4), {})[0]["u"]
    tensor([3.])
    """
    return robust("trimmed-mean", Condition(2, 1), by_ranks(lambda c: (c.f, c.n - c.f)), f=f, pre=pre, keep_f=keep_f)


def half(c: Cohort) -> tuple[int, int]:
    """The ranks of the median: one, or the two in the middle."""
    return (c.n - 1) // 2, c.n // 2 + 1


def by_ranks(ranks: Callable[[Cohort], tuple[int, int]]) -> Callable[[Cohort, Slots], Outcome]:
    """The rule that takes the mean of ranks lo .. hi-1 of every coordinate of every slot."""

    def act(c: Cohort, state: Slots) -> Outcome:
        lo, hi = ranks(c)
        return Outcome({name: column_means(c, name, lo, hi) for name in c.names}, within(c, c.names[0], lo, hi))

    return act


def column_means(c: Cohort, name: str, lo: int, hi: int) -> Block:
    """[d] of a slot: of every coordinate the mean of ranks lo .. hi-1."""
    return by_block(c, name, lambda columns: middle(np.array(c.read(name, columns)), lo, hi))


def within(c: Cohort, name: str, lo: int, hi: int) -> F64:
    """How often each row lies within the ranks lo .. hi-1, over the mean [n]; equal coordinates say nothing."""
    step = max(1, c.slots[name].shape[1] // SAMPLE)
    block = c.read(name, slice(None, None, step))
    ordered = np.sort(block, axis=0)
    telling = ordered[-1] > ordered[0]
    slack = 1e-6 * np.maximum(np.abs(ordered[lo]), np.abs(ordered[hi - 1]))  # equal mixtures differ by rounding
    inside = (block >= ordered[lo] - slack) & (block <= ordered[hi - 1] + slack) & telling
    share = cast(F64, inside.mean(axis=1))
    mean = float(share.mean())
    return share / mean if mean > 0 else np.ones(c.n)
