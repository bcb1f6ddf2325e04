"""FedProx."""

from __future__ import annotations

from typing import Annotated, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import AtLeast, check, hints
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, local
from manyloom.work.prox import prox


def fedprox(
    *, mu: Annotated[float, AtLeast(0)] = 0.01, server: ServerStep | None = None, **options: Unpack[LocalOptions]
) -> Algorithm:
    """FedAvg whose clients are pulled back: gradient g + mu (w - theta) (Li et al. 2020, arXiv:1812.06127).

    mu = 0 is FedAvg, bit for bit.

    Args:
        mu: strength of the pull; .001 to 1.
        server: the server step; sgd with eta_g 1.
    """
    if problem := check("mu", mu, hints(fedprox)["mu"]):
        raise BadInput(problem)
    opt = local(options)
    return compose("fedprox", opt, prox(opt, mu), server, sgd, own={"mu": mu})
