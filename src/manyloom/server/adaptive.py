"""Adaptive server steps (Reddi et al. 2021, ICLR, arXiv:2003.00295, Algorithm 2).

    m <- beta1 m + (1 - beta1) ubar
    adagrad  v <- v + ubar^2
    adam     v <- beta2 v + (1 - beta2) ubar^2
    yogi     v <- v - (1 - beta2) ubar^2 sign(v - ubar^2)
    theta <- theta + eta_g m / (sqrt(v) + tau)

No bias correction, as the paper's listing; v starts at tau^2 (the paper asks v >= tau^2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from manyloom.core.parts import ServerStep
from manyloom.core.slots import Slots
from manyloom.core.validate import Above, Below, checked

Rate = Annotated[float, Above(0)]
Beta = Annotated[float, Below(1)]


@checked
def adam(lr: Rate = 0.01, beta1: Beta = 0.9, beta2: Beta = 0.99, tau: Rate = 1e-3) -> ServerStep:
    """FedAdam's server: v <- beta2 v + (1 - beta2) ubar^2.

    Args:
        lr: eta_g.
        beta1: decay of the mean m.
        beta2: decay of the second moment v.
        tau: adaptivity; added to sqrt(v).
    """
    own: dict[str, object] = {"name": "adam", "lr": lr, "beta1": beta1, "beta2": beta2, "tau": tau}
    return _adaptive(own, lr, beta1, tau, lambda v, uu: beta2 * v + (1 - beta2) * uu)


@checked
def yogi(lr: Rate = 0.01, beta1: Beta = 0.9, beta2: Beta = 0.99, tau: Rate = 1e-3) -> ServerStep:
    """FedYogi's server: v <- v - (1 - beta2) ubar^2 sign(v - ubar^2).

    Args:
        lr: eta_g.
        beta1: decay of the mean m.
        beta2: how fast the second moment v follows.
        tau: adaptivity; added to sqrt(v).
    """
    own: dict[str, object] = {"name": "yogi", "lr": lr, "beta1": beta1, "beta2": beta2, "tau": tau}
    return _adaptive(own, lr, beta1, tau, lambda v, uu: v - (1 - beta2) * uu * torch.sign(v - uu))


@checked
def adagrad(lr: Rate = 0.01, beta1: Beta = 0.0, tau: Rate = 1e-3) -> ServerStep:
    """FedAdagrad's server: v <- v + ubar^2.

    Args:
        lr: eta_g.
        beta1: decay of the mean m; 0 as in the paper.
        tau: adaptivity; added to sqrt(v).
    """
    own: dict[str, object] = {"name": "adagrad", "lr": lr, "beta1": beta1, "tau": tau}
    return _adaptive(own, lr, beta1, tau, lambda v, uu: v + uu)


def _adaptive(
    table: dict[str, object], lr: float, b1: float, tau: float, second: Callable[[Tensor, Tensor], Tensor]
) -> ServerStep:
    def init(theta: Tensor) -> Slots:
        zeros = torch.zeros_like(theta, dtype=torch.float64)
        return {"theta": theta, "m": zeros, "v": zeros + tau**2}

    def apply(state: Slots, mean: Slots) -> Slots:
        u = mean["u"].double()
        m = b1 * state["m"] + (1 - b1) * u
        v = second(state["v"], u.square())
        theta = state["theta"] + lr * m / (v.sqrt() + tau)
        return state | {"theta": theta.to(state["theta"].dtype), "m": m, "v": v}

    return ServerStep(str(table["name"]), init, apply, table=table)
