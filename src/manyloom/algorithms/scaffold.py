"""SCAFFOLD."""

from __future__ import annotations

from typing import Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import bad
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.server import sgd
from manyloom.server.control import control
from manyloom.work.local import LocalOptions, local
from manyloom.work.scaffold import scaffold as client


def scaffold(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """Control variates cancel client drift: gradient g - c_i + c (Karimireddy et al. 2020, arXiv:1910.06378).

    Means are uniform. Clients remember c_i [d], so they should come back; local momentum is refused, since dc_i
    takes the update for a sum of gradients.

    Args:
        server: the server step for theta; sgd with eta_g 1.
    """
    opt = local({"weights": "uniform", **options})
    if opt.momentum or opt.optimiser != "sgd":
        raise bad(
            "scaffold-optimiser",
            "scaffold needs plain local SGD",
            got=f'optimiser = "{opt.optimiser}", momentum = {opt.momentum}',
            rule="its control variates are u / (K lr), which holds for SGD without momentum",
            mend='optimiser = "sgd" and momentum = 0; or algorithm.name = "fedprox"',
        )
    if opt.weights != "uniform":
        raise bad(
            "scaffold-weights",
            "scaffold takes uniform means",
            got='weights = "samples"',
            rule="c is the plain mean of all c_i",
            mend='weights = "uniform", or leave it out',
        )
    return compose("scaffold", opt, client(opt), control(server or sgd()), sgd)
