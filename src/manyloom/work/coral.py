"""The client of moment alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend
from manyloom.work.moon import Forward


def coral(opt: Local, eta: float) -> Work:
    """loss + eta (||mu - mu_T||^2 + ||S - S_T||_F^2 / (4 D^2)): features with the moments of the target's.

    mu [D] and S [D, D] are mean and covariance (of n, not n - 1) of the features of the minibatch: what enters the last
    layer. mu_T and the upper half of S_T come down with the model.

    Sun, Saenko 2016, arXiv:1607.01719; the mean beside it as in moment matching (Zellinger et al. 2017,
    arXiv:1702.08811).
    """

    def constants(down: Slots, kept: Slots, seen: Seen) -> State:
        return {"mu": down["mu"], "cov": down["cov"]}

    def objective(forward: Forward, w: Tensor, batch: tuple[Tensor, Tensor], anchors: Slots) -> Tensor:
        x, y = batch
        output, z = forward(w, x)
        mu, cov = moments(z)
        d = z.shape[1]
        i, j = torch.triu_indices(d, d, device=z.device)
        twice = 2 - (i == j).to(z.dtype)  # off the diagonal each counts for two
        far = (mu - anchors["mu"]).square().sum() + (twice * (cov - anchors["cov"]).square()).sum() / (4 * d * d)
        return forward.loss(output, y) + eta * far

    return descend(opt, constants=constants)._replace(objective=objective) if eta else descend(opt)


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and upper half [D (D + 1) / 2] of the covariance of features [n, D].

    >>> mu, cov = moments(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    >>> mu.tolist(), cov.tolist()
    ([1.0, 2.0], [1.0, 2.0, 4.0])
    """
    mu = z.mean(0)
    centred = z - mu
    cov = centred.T @ centred / len(z)
    i, j = torch.triu_indices(*cov.shape, device=z.device)
    return mu, cov[i, j]
