"""FedDyn."""

from __future__ import annotations

from typing import Annotated, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput, bad
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import Above, check, hints
from manyloom.server import sgd
from manyloom.server.dyn import dynamic
from manyloom.work.dyn import dyn
from manyloom.work.local import LocalOptions, local


def feddyn(
    *, alpha: Annotated[float, Above(0)] = 0.01, server: ServerStep | None = None, **options: Unpack[LocalOptions]
) -> Algorithm:
    """Clients and server seek one optimum: gradient g - h_i + alpha (w - theta) (Acar et al. 2021, arXiv:2111.04263).

    Means are uniform. Without a `clip_grad` local gradients are clipped to norm 10; a large one clips nothing. Clients
    remember h_i [d], so they should come back.

    Args:
        alpha: strength of the dynamic regulariser; .01 to .1.
        server: the server step for theta; sgd with eta_g 1.
    """
    if problem := check("alpha", alpha, hints(feddyn)["alpha"]):
        raise BadInput(problem)
    if options.get("clip_grad") is None:
        options["clip_grad"] = 10.0
    opt = local({"weights": "uniform", **options})
    if opt.weights != "uniform":
        raise bad("feddyn-weights", "feddyn takes uniform means", got='weights = "samples"',
                  rule="h is the plain mean of all h_i", mend='weights = "uniform", or leave it out')  # fmt: skip
    return compose("feddyn", opt, dyn(opt, alpha), dynamic(server or sgd(), alpha), sgd, own={"alpha": alpha})
