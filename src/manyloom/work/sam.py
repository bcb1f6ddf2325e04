"""FedSAM's client."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from manyloom.core.parts import Drive, State, Work
from manyloom.work.local import Local, descend, norms


def sam(opt: Local, rho: float) -> Work:
    """The gradient at w + rho g / ||g||, on the same minibatch (Qu et al. 2022, ICML, arXiv:2206.02618).

    A gradient of zero goes nowhere. Two gradients a step.
    """
    plain = descend(opt)

    def drive(w: Tensor, grad_at: Callable[..., Tensor], state: State) -> None:
        g = grad_at(w)
        ahead = w + g * (rho / norms(g).clamp_min(1e-12)).to(g.dtype)
        plain.step(w, grad_at(ahead), state)

    return plain._replace(drive=Drive(drive)) if rho else plain
