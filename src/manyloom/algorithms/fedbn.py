"""FedBN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import check, hints
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, descend
from manyloom.work.local import local as checked_local


def fedbn(
    *, local: Sequence[str] | None = None, server: ServerStep | None = None, **options: Unpack[LocalOptions]
) -> Algorithm:
    """FedAvg of all but BatchNorm, whose weights and running statistics stay (Li et al. 2021, arXiv:2102.07623).

    Layers are known by their type; `[model] buffers = "local"` keeps the statistics. A model without BatchNorm is
    FedAvg, bit for bit.

    Args:
        local: names of the parameters that stay at the client, as patterns; those of BatchNorm layers by default.
        server: the server step; sgd with eta_g 1.
    """
    if problem := check("local", local, hints(fedbn)["local"]):
        raise BadInput(problem)
    opt = checked_local(options)
    made = compose("fedbn", opt, descend(opt), server, sgd, own={"local": list(local)} if local else {})
    return replace(made, local=tuple(local) if local else "batchnorm")
