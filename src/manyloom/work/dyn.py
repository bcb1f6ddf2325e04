"""FedDyn's client."""

from __future__ import annotations

from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend


def dyn(opt: Local, alpha: float) -> Work:
    """g - h_i + alpha (w - theta), then h_i -= alpha u_i (Acar et al. 2021, ICLR, arXiv:2111.04263).

    The gradient of f_i(w) - <h_i, w> + (alpha / 2) ||w - theta||^2; memory is h_i [d], 0 at first.
    """

    def constants(down: Slots, kept: Slots, seen: Seen) -> State:
        return {"c": kept["h"] + alpha * down["theta"]}  # [K, d]

    def correct(grad: Tensor, w: Tensor, state: State) -> None:
        grad.add_(w, alpha=alpha).sub_(state["c"])

    def report(u: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        return {}, {"h": kept["h"] - alpha * u}

    return descend(opt, correct=correct, constants=constants, report=report, memory={"h": "d"})
