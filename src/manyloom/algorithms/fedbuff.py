"""FedBuff."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput, bad
from manyloom.core.parts import Algorithm, Buffered, ServerStep
from manyloom.core.validate import AtLeast, check, hints
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, descend, local


def fedbuff(
    *,
    buffer: Annotated[int, AtLeast(1)] = 10,
    max_staleness: Annotated[int | None, AtLeast(0)] = None,
    server: ServerStep | None = None,
    **options: Unpack[LocalOptions],
) -> Algorithm:
    """theta <- theta + eta_g/K sum_i u_i / sqrt(1 + tau_i) after K updates (Nguyen et al. 2022, arXiv:2106.06639).

    Asynchronous: `cohort` clients are at work at any time, nobody waits for the slowest. tau_i counts the server
    versions between sending and applying; the sum is divided by K, not by the weights. `rounds` are versions.

    Args:
        buffer: K, updates of one server version.
        max_staleness: an update that is more versions old is dropped and counted.
        server: the server step; sgd with eta_g 1.

    >>> fedbuff(buffer=5).buffered
    Buffered(size=5, max_staleness=None)
    """
    said = {"buffer": buffer, "max_staleness": max_staleness}
    if found := [p for k, v in said.items() if (p := check(k, v, hints(fedbuff)[k]))]:
        raise BadInput(*found)
    opt = local({"weights": "uniform", **options})
    if opt.weights != "uniform":
        raise bad("fedbuff-weights", "fedbuff weighs updates by their age alone", got='weights = "samples"',
                  rule="the sum is divided by the number of updates",
                  mend='weights = "uniform", or leave it out')  # fmt: skip
    own = {k: v for k, v in said.items() if v is not None}
    made = compose("fedbuff", opt, descend(opt), server, sgd, own=own)
    return replace(made, buffered=Buffered(buffer, max_staleness))
