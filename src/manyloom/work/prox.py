"""FedProx's client."""

from __future__ import annotations

from torch import Tensor

from manyloom.core.parts import State, Work
from manyloom.work.local import Local, descend


def prox(opt: Local, mu: float) -> Work:
    """g + mu (w - theta): a pull towards where the client started (Li et al. 2020, MLSys, arXiv:1812.06127)."""

    def correct(grad: Tensor, w: Tensor, state: State) -> None:
        grad.add_(w, alpha=mu).sub_(state["theta"], alpha=mu)

    return descend(opt, correct=correct if mu else None)
