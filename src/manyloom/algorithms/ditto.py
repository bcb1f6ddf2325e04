"""Ditto."""

from __future__ import annotations

from typing import Annotated, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import AtLeast, check, hints
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, local
from manyloom.work.personal import ditto as client


def ditto(
    *, lam: Annotated[float, AtLeast(0)] = 1.0, server: ServerStep | None = None, **options: Unpack[LocalOptions]
) -> Algorithm:
    """FedAvg, and each client's own v_i pulled to it: g_i(v_i) + lam (v_i - theta) (Li et al. 2021, arXiv:2012.04221).

    The global model is FedAvg's, bit for bit; a client is judged by its v_i [d], which it remembers. Two gradients a
    step.

    Args:
        lam: strength of the pull; 0 trains alone, large is the global model.
        server: the server step; sgd with eta_g 1.
    """
    if problem := check("lam", lam, hints(ditto)["lam"]):
        raise BadInput(problem)
    opt = local(options)
    return compose("ditto", opt, client(opt, lam), server, sgd, own={"lam": lam})
