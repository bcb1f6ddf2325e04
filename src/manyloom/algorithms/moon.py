"""MOON."""

from __future__ import annotations

from typing import Annotated, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import Above, AtLeast, problems
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, local
from manyloom.work.moon import moon as client


def moon(
    *,
    mu: Annotated[float, AtLeast(0)] = 1.0,
    temperature: Annotated[float, Above(0)] = 0.5,
    server: ServerStep | None = None,
    **options: Unpack[LocalOptions],
) -> Algorithm:
    """Local features stay near the global model's, far from the client's last (Li et al. 2021, arXiv:2103.16257).

    Features are what enters the last layer. Clients remember their last result y_i [d]; three passes a step.
    mu = 0 is FedAvg, bit for bit.

    Args:
        mu: weight of the contrast; .1 to 10.
        temperature: of the contrast.
        server: the server step; sgd with eta_g 1.
    """
    own: dict[str, object] = {"mu": mu, "temperature": temperature}
    if wrong := problems(moon, own):
        raise BadInput(*wrong)
    opt = local(options)
    return compose("moon", opt, client(opt, mu, temperature), server, sgd, own=own)
