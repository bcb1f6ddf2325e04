"""FedNova."""

from __future__ import annotations

from typing import Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import bad
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.server import sgd
from manyloom.server.nova import normalised
from manyloom.work.local import LocalOptions, local
from manyloom.work.nova import nova


def fednova(*, server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """theta <- theta + tau_eff sum_i p_i u_i / A_i: unequal work without bias (Wang et al. 2020, arXiv:2007.07481).

    A_i is the length of client i's local work (its steps, for plain SGD), tau_eff = sum_i p_i A_i. Its fixed point is
    that of equal work; it need not be more accurate than FedAvg. Equal `steps` are FedAvg, bit for bit.

    Args:
        server: the server step; sgd with eta_g 1.

    >>> fednova(epochs=2, momentum=0.9)
    Algorithm(fednova, server sgd, mean by samples)
    """
    opt = local(options)
    if opt.optimiser != "sgd":
        raise bad(
            "fednova-optimiser",
            "fednova needs local SGD",
            got=f'optimiser = "{opt.optimiser}"',
            rule="updates are divided by the length of a client's work, which is known for SGD (momentum too)",
            mend='optimiser = "sgd"; or algorithm.name = "fedavg"',
        )
    return compose("fednova", opt, nova(opt), normalised(server or sgd()), sgd)
