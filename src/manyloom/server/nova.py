"""FedNova's server half, around any server step."""

from __future__ import annotations

from manyloom.core.parts import ServerStep
from manyloom.core.slots import Slots


def normalised(inner: ServerStep) -> ServerStep:
    """The aggregate is tau_eff sum_i p_i u_i / A_i, with tau_eff = sum_i p_i A_i (Wang et al. 2020)."""

    def apply(state: Slots, mean: Slots) -> Slots:
        return inner.apply(state, mean | {"u": mean["u"] * mean["a"]})

    return inner._replace(apply=apply)
