"""The geometric median, in coefficient space (Pillutla, Kakade, Harchaoui 2022, IEEE TSP, arXiv:1912.13445)."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from manyloom.aggregate.cohort import F64
from manyloom.aggregate.condition import Condition
from manyloom.aggregate.gram import joint
from manyloom.aggregate.krum import by_weights
from manyloom.aggregate.rule import robust
from manyloom.core.parts import Aggregator
from manyloom.core.validate import Above, AtLeast, checked

Faults = Annotated[int, AtLeast(0)]
STILL, MOST = 1e-7, 1000  # the paper's code stops after 4 steps, long before it is there


@checked
def geometric_median(
    f: Faults | None = None,
    nu: Annotated[float, Above(0)] = 1e-6,
    pre: Literal["nnm"] | None = None,
    keep_f: bool = False,
) -> Aggregator:
    """The point z of least sum_i ||x_i - z||: w_i ~ 1 / max(nu, ||x_i - z||), z = sum_i w_i x_i, repeated. n >= 2f+1.

    Args:
        f: faults tolerated; without it nothing is claimed and only the point taken.
        nu: the distance below which an update is no longer weighed up.
        pre: "nnm" mixes each update with its n - f nearest first.
        keep_f: an update that can't be used does not count as one of the f.

    >>> import torch
    >>> rows = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    >>> geometric_median().reduce({"u": rows}, torch.ones(4), {})[0]["u"]
    tensor([1., 1.])
    """
    act = by_weights(lambda c: weiszfeld(joint(c), nu))
    return robust("geometric-median", Condition(2, 1), act, f=f, pre=pre, keep_f=keep_f, own={"nu": nu}, distances=True)


def weiszfeld(g: F64, nu: float) -> F64:
    """Weights [n] of the geometric median of rows with the Gram matrix G [n, n]; no row is touched.

    ||x_i - z||^2 = G_ii - 2 (G w)_i + w^T G w

    It stops where the weights stand still, and the point: a row a billion away moves it by weights of 1e-9.
    """
    w = np.full(len(g), 1 / len(g))
    size = np.diag(g)
    for _ in range(MOST):
        to = g @ w
        far = np.sqrt(np.maximum(size - 2 * to + w @ to, nu * nu))
        following = 1 / far
        following /= following.sum()
        near = len(g) / (1 / far).sum()  # the unit of length: the harmonic mean distance
        moved = float(np.abs(following - w) @ (1 + np.sqrt(size) / near))
        w = following
        if moved < STILL:
            break
    return w
