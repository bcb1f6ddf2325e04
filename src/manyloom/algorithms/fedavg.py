"""FedAvg."""

from __future__ import annotations

from typing import Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, descend, local


def fedavg(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """theta <- theta + eta_g sum_i p_i u_i after local SGD (McMahan et al. 2017, arXiv:1602.05629).

    Args:
        server: the server step; sgd with eta_g 1.

    >>> fedavg(lr=0.1, epochs=2)
    Algorithm(fedavg, server sgd, mean by samples)
    """
    opt = local(options)
    return compose("fedavg", opt, descend(opt), server, sgd)
