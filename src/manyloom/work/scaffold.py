"""SCAFFOLD's client, option II."""

from __future__ import annotations

from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend


def scaffold(opt: Local) -> Work:
    """g - c_i + c, then dc_i = -c - u_i / (K_i eta_l) and c_i += dc_i (Karimireddy et al. 2020, arXiv:1910.06378).

    `down` holds theta and c [d]; memory is c_i [d]; `dc` travels beside u. K_i is the client's own number of steps.
    """

    def constants(down: Slots, kept: Slots, seen: Seen) -> State:
        return {"v": down["c"] - kept["c_i"]}

    def correct(grad: Tensor, w: Tensor, state: State) -> None:
        grad.add_(state["v"])

    def report(u: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        rates = (seen.steps * state["lr"]).clamp_min(1e-30)
        dc = -down["c"] - (u / rates).to(u.dtype)
        return {"dc": dc}, {"c_i": kept["c_i"] + dc}

    sends = {"u": "d", "dc": "d"}
    return descend(opt, correct=correct, constants=constants, report=report, memory={"c_i": "d"}, sends=sends)
