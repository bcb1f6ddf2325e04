"""Rules that shorten: centred clipping and norm clipping."""

from __future__ import annotations

from typing import Annotated, Literal, cast

import numpy as np

from manyloom.aggregate.cohort import F64, Cohort, array, linear
from manyloom.aggregate.condition import Condition
from manyloom.aggregate.coordinate import column_means, half
from manyloom.aggregate.gram import gram
from manyloom.aggregate.order import Block
from manyloom.aggregate.rule import Outcome, robust
from manyloom.core.parts import Aggregator
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import Above, AtLeast, checked

Faults = Annotated[int, AtLeast(0)]


@checked
def centred_clipping(
    f: Faults | None = None,
    tau: Annotated[float, Above(0)] | None = None,
    iterations: Annotated[int, AtLeast(1)] = 1,
    pre: Literal["nnm"] | None = None,
    keep_f: bool = False,
) -> Aggregator:
    """v <- v + mean_i (x_i - v) min(1, tau / ||x_i - v||), from the last round's v (Karimireddy et al. 2021, ICML).

    arXiv:2012.10333. The first round starts at the coordinate median of the updates. Proved for f/n below about .1.

    Args:
        f: faults tolerated; only checked, n >= 2f+1.
        tau: the radius; the median of ||x_i - v|| without it.
        iterations: how often, 1 to 3.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> rows = {"u": torch.tensor([[1.0], [2.0], [3.0], [102.0]])}
    >>> got, state = centred_clipping(tau=1).reduce(rows, torch.ones(4), {"v.u": torch.tensor([2.0])})
    >>> got["u"], state["v.u"], got["kept"][:3]
    (tensor([2.2500]), tensor([2.2500]), tensor([1., 1., 1.], dtype=torch.float64))
    """

    def act(c: Cohort, state: Slots) -> Outcome:
        aggregate: dict[str, Block] = {}
        kept = np.ones(c.n)
        for name in c.names:
            before = state.get(f"v.{name}")
            v = column_means(c, name, *half(c)) if before is None else array(before.flatten(), c.work(name))
            a, factor = clipped(gram(c, name, v), tau if name == c.names[0] else None, iterations)
            rest = v * (1 - a.sum())
            aggregate[name] = cast(Block, (linear(c, name, a) + rest).astype(v.dtype))
            kept = np.minimum(kept, factor)
        after = {f"v.{name}": from_numpy(v.copy()) for name, v in aggregate.items()}
        return Outcome(aggregate, kept, after)

    own = {"tau": tau, "iterations": iterations}
    return robust("centred-clipping", Condition(2, 1), act, f=f, pre=pre, keep_f=keep_f, own=own)


def clipped(g: F64, tau: float | None, iterations: int) -> tuple[F64, F64]:
    """Coefficients a [n] with v' = v + sum_i a_i (x_i - v), and the last factors [n]; G is centred at v."""
    n = len(g)
    a, factor = np.zeros(n), np.ones(n)
    size = np.diag(g)
    for _ in range(iterations):
        to = g @ a
        far = np.sqrt(np.maximum(size - 2 * to + a @ to, 0))
        factor = shorten(far, tau if tau is not None else float(np.median(far)))
        a = a * (1 - factor.mean()) + factor / n
    return a, factor


def shorten(lengths: F64, to: float) -> F64:
    """min(1, to / length); nothing is divided by a length of 0.

    >>> shorten(np.array([0.0, 1.0, 4.0]), 2.0)
    array([1. , 1. , 0.5])
    """
    return np.divide(to, lengths, out=np.ones_like(lengths), where=lengths > to)


@checked
def norm_clipping(
    f: Faults | None = None,
    max_norm: Annotated[float, Above(0)] | None = None,
    pre: Literal["nnm"] | None = None,
    keep_f: bool = False,
) -> Aggregator:
    """The mean of x_i min(1, c / ||x_i||): no update is longer than c (Sun et al. 2019, arXiv:1911.07963).

    Args:
        f: faults tolerated; only checked, n >= 2f+1.
        max_norm: c; the median of the norms without it.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> norm_clipping(max_norm=1).reduce({"u": torch.tensor([[3.0, 4.0], [0.0, 0.0]])}, torch.ones(2), {})[0]["u"]
    tensor([0.3000, 0.4000])
    """

    def act(c: Cohort, state: Slots) -> Outcome:
        aggregate: dict[str, Block] = {}
        kept = np.ones(c.n)
        for name in c.names:
            norms = c.norms[name] if c.mix is None else np.sqrt(np.maximum(np.diag(gram(c, name)), 0))
            given = max_norm if name == c.names[0] else None
            factor = shorten(norms, given if given is not None else float(np.median(norms)))
            aggregate[name] = linear(c, name, factor / c.n)
            kept = np.minimum(kept, factor)
        return Outcome(aggregate, kept)

    return robust("norm-clipping", Condition(2, 1), act, f=f, pre=pre, keep_f=keep_f, own={"max_norm": max_norm})
