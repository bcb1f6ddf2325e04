"""FedAvg's clients with another server step: FedAvgM, FedAdam, FedYogi, FedAdagrad."""

from __future__ import annotations

from typing import Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.server import adagrad, adam, momentum, yogi
from manyloom.work.local import LocalOptions, descend, local


def fedavgm(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """FedAvg with server momentum: v = beta v + ubar (Hsu et al. 2019, arXiv:1909.06335).

    Args:
        server: the server step; momentum with beta .9.
    """
    opt = local(options)
    return compose("fedavgm", opt, descend(opt), server, momentum)


def fedadam(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """FedAvg with Adam at the server (Reddi et al. 2021, arXiv:2003.00295).

    Args:
        server: the server step; adam with eta_g .01.
    """
    opt = local(options)
    return compose("fedadam", opt, descend(opt), server, adam)


def fedyogi(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """FedAvg with Yogi at the server (Reddi et al. 2021, arXiv:2003.00295).

    Args:
        server: the server step; yogi with eta_g .01.
    """
    opt = local(options)
    return compose("fedyogi", opt, descend(opt), server, yogi)


def fedadagrad(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """FedAvg with Adagrad at the server (Reddi et al. 2021, arXiv:2003.00295).

    Args:
        server: the server step; adagrad with eta_g .01.
    """
    opt = local(options)
    return compose("fedadagrad", opt, descend(opt), server, adagrad)
