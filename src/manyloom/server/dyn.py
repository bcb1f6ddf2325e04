"""FedDyn's server half, around any server step."""

from __future__ import annotations

import torch
from torch import Tensor

from manyloom.core.parts import ServerStep
from manyloom.core.slots import Slots


def dynamic(inner: ServerStep, alpha: float) -> ServerStep:
    """h <- h - (alpha / N) sum_i u_i, then theta <- theta + mean(u_i) - h / alpha (Acar et al. 2021).

    The aggregate brings `share` = m/N, the part of the population that answered. Clients get theta alone.
    """

    def init(theta: Tensor) -> Slots:
        return inner.init(theta) | {"h": torch.zeros_like(theta, dtype=torch.float64)}

    def apply(state: Slots, mean: Slots) -> Slots:
        h = state["h"] - alpha * mean["share"] * mean["u"]
        return inner.apply(state, mean | {"u": mean["u"] - h / alpha}) | {"h": h}

    return inner._replace(init=init, apply=apply)
