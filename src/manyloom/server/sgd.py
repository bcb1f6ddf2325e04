"""The plain server step, and with momentum."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from manyloom.core.parts import ServerStep
from manyloom.core.slots import Slots
from manyloom.core.validate import Above, Below, checked


@checked
def sgd(lr: Annotated[float, Above(0)] = 1.0) -> ServerStep:
    """theta <- theta + eta_g ubar (McMahan et al. 2017, AISTATS; eta_g 1 is FedAvg).

    Args:
        lr: eta_g.
    """

    def apply(state: Slots, mean: Slots) -> Slots:
        return state | {"theta": (state["theta"] + lr * mean["u"]).to(state["theta"].dtype)}

    def init(theta: Tensor) -> Slots:
        return {"theta": theta}

    return ServerStep("sgd", init, apply, table={"name": "sgd", "lr": lr})


@checked
def momentum(lr: Annotated[float, Above(0)] = 1.0, beta: Annotated[float, Below(1)] = 0.9) -> ServerStep:
    """v <- beta v + ubar, theta <- theta + eta_g v (FedAvgM; Hsu et al. 2019, arXiv:1909.06335).

    Args:
        lr: eta_g; keep eta_g / (1 - beta) about 1 to 3.
        beta: of the server's momentum.
    """

    def init(theta: Tensor) -> Slots:
        return {"theta": theta, "v": torch.zeros_like(theta, dtype=torch.float64)}

    def apply(state: Slots, mean: Slots) -> Slots:
        v = beta * state["v"] + mean["u"]
        return state | {"theta": (state["theta"] + lr * v).to(state["theta"].dtype), "v": v}

    return ServerStep("momentum", init, apply, table={"name": "momentum", "lr": lr, "beta": beta})
