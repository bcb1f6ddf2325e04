"""The client of moment alignment."""

from __future__ import annotations

import torch
from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend
from manyloom.work.moon import Forward

UNKNOWN = -1  # the label of a row whose label is not to be used


def coral(opt: Local, eta: float) -> Work:
    """loss + eta (||mu - mu'||^2 + ||S - S'||_F^2 / (4 D^2)): features with the moments of the other domain's.

    mu [D] and S [D, D] are mean and covariance (of n, not n - 1) of the features of the minibatch: what enters the last
    layer. mu', S' come down with the model: those of the target for who knows labels; those of all others for the
    target, whose rows have the label -1 and no loss. So the two halves of the gradient of the centralised term are
    taken where the rows are.

    Sun, Saenko 2016, arXiv:1607.01719; the mean beside it as in moment matching (Zellinger et al. 2017,
    arXiv:1702.08811).
    """

    def constants(down: Slots, kept: Slots, seen: Seen) -> State:
        return {n: down[n] for n in ("mu", "cov", "mu_rest", "cov_rest")}

    def objective(forward: Forward, w: Tensor, batch: tuple[Tensor, Tensor], anchors: Slots) -> Tensor:
        x, y = batch
        output, z = forward(w, x)
        known = y != UNKNOWN
        toward = {n: torch.where(known[0], anchors[n], anchors[f"{n}_rest"]) for n in ("mu", "cov")}
        loss = forward.loss(output, torch.where(known, y, 0)) * known
        return loss + eta * distance(moments(z), (toward["mu"], toward["cov"]))

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


def distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> Tensor:
    """||mu_a - mu_b||^2 + ||S_a - S_b||_F^2 / (4 D^2), of means and upper halves."""
    d = a[0].shape[0]
    i, j = torch.triu_indices(d, d, device=a[0].device)
    twice = 2 - (i == j).to(a[0].dtype)  # off the diagonal each counts for two
    return (a[0] - b[0]).square().sum() + (twice * (a[1] - b[1]).square()).sum() / (4 * d * d)


def pooled(mu: Tensor, cov: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and upper half of the covariance of all rows, from those of k groups: [k, D], [k, D (D + 1) / 2], [k].

    mu = sum_k n_k mu_k / n; S = sum_k n_k (S_k + mu_k mu_k') / n - mu mu'.
    """
    p = rows.reshape(-1, 1) / rows.sum()
    i, j = torch.triu_indices(mu.shape[1], mu.shape[1])
    whole = (p * mu).sum(0)
    return whole, (p * (cov + mu[:, i] * mu[:, j])).sum(0) - whole[i] * whole[j]
