"""FedSAM."""

from __future__ import annotations

from typing import Annotated, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import AtLeast, check, hints
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, local
from manyloom.work.sam import sam


def fedsam(
    *, rho: Annotated[float, AtLeast(0)] = 0.05, server: ServerStep | None = None, **options: Unpack[LocalOptions]
) -> Algorithm:
    """FedAvg that looks for flat minima: the gradient at w + rho g / ||g|| (Qu et al. 2022, arXiv:2206.02618).

    Two gradients a step. rho = 0 is FedAvg, bit for bit.

    Args:
        rho: how far uphill the gradient is taken; .05 to .1.
        server: the server step; sgd with eta_g 1.
    """
    if problem := check("rho", rho, hints(fedsam)["rho"]):
        raise BadInput(problem)
    opt = local(options)
    return compose("fedsam", opt, sam(opt, rho), server, sgd, own={"rho": rho})
