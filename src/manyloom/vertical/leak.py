"""How well a feature party could read labels off the gradients it is sent: two attacks, run by the label party.

    norm:    AUC of ||g_i|| for y_i
    cosine:  AUC of cos(g_i, g_ref) for y_i, g_ref the first positive row's

Li et al. 2022, arXiv:2102.08504. An AUC a counts as max(a, 1 - a): an attacker knows which class is rarer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from manyloom.core.metrics import auc
from manyloom.core.tensors import ints
from manyloom.vertical.passes import Leaked


class Attack(NamedTuple):
    """What the attacks make of one batch: AUCs, 1/2 is nothing."""

    norm: float
    cosine: float


def attack(g: Tensor, y: Tensor) -> Attack | None:
    """Both attacks on one batch of gradients.

    Args:
        g: [n, D] as the party gets them.
        y: [n] classes; with more than two, the worst of "this class or another" counts.

    Returns:
        None if the batch has only one class.

    >>> attack(torch.tensor([[1.0, 0.0], [-2.0, 0.1], [1.5, 0.0]]), torch.tensor([0, 1, 0]))
    Attack(norm=1.0, cosine=1.0)
    """
    g = g.double()
    size = norms(g)
    found: list[Attack] = []
    classes = sorted(set(ints(y)))
    if len(classes) < 2:
        return None
    for c in classes if len(classes) > 2 else classes[1:]:  # of two classes the second one says it all
        positive = y == c
        first = ints(y).index(c)
        cosine = (g @ g[first]) / (size * size[first]).clamp(min=1e-300)
        found.append(Attack(_told(auc(size, positive)), _told(auc(cosine, positive))))
    return Attack(max(a.norm for a in found), max(a.cosine for a in found))


def leaked(party: int, attacks: Sequence[Attack | None]) -> Leaked:
    """Mean and 95 % quantile over the batches of a pass that have two classes."""
    both = [a for a in attacks if a is not None]
    if not both:
        return Leaked(party, 0, math.nan, math.nan, math.nan, math.nan)
    norm, cosine = torch.tensor(both, dtype=torch.float64).unbind(1)
    return Leaked(party, len(both), float(norm.mean()), _q95(norm), float(cosine.mean()), _q95(cosine))


def _told(a: float) -> float:
    return max(a, 1 - a)


def _q95(a: Tensor) -> float:
    return float(torch.quantile(a, 0.95))


def norms(g: Tensor) -> Tensor:
    """||g_i|| of rows [n, D], float64 [n]."""
    return g.double().square().sum(1).sqrt()
