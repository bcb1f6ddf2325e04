"""SCAFFOLD's server half, around any server step."""

from __future__ import annotations

import torch
from torch import Tensor

from manyloom.core.parts import ServerStep
from manyloom.core.slots import Slots


def control(inner: ServerStep) -> ServerStep:
    """c <- c + (m/N) mean(dc_i), sent down beside theta (Karimireddy et al. 2020).

    The aggregate brings `share` = m/N, the part of the population that answered.
    """

    def init(theta: Tensor) -> Slots:
        return inner.init(theta) | {"c": torch.zeros_like(theta)}

    def apply(state: Slots, mean: Slots) -> Slots:
        c = state["c"] + mean["share"] * mean["dc"]
        return inner.apply(state, mean) | {"c": c.to(state["c"].dtype)}

    def down(state: Slots) -> Slots:
        return inner.down(state) | {"c": state["c"]}

    return ServerStep(inner.name, init, apply, down, inner.model, inner.table)
