"""FedPer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput, bad
from manyloom.core.parts import Algorithm, ServerStep
from manyloom.core.validate import check, hints
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, descend
from manyloom.work.local import local as checked_local


def fedper(*, local: Sequence[str], server: ServerStep | None = None, **options: Unpack[LocalOptions]) -> Algorithm:
    """FedAvg of a shared body; each client keeps a head of its own (Arivazhagan et al. 2019, arXiv:1912.00818).

    Body and head are trained together; the head never leaves the client, which is judged with it.

    Args:
        local: names of the parameters that stay at the client, as patterns: the head.
        server: the server step; sgd with eta_g 1.

    >>> fedper(local=["head.*"]).local
    ('head.*',)
    """
    if problem := check("local", local, hints(fedper)["local"]):
        raise BadInput(problem)
    if not local:
        raise bad("out-of-range", "fedper needs a part that stays local", got="local = []", mend='local = ["head.*"]')
    opt = checked_local(options)
    made = compose("fedper", opt, descend(opt), server, sgd, own={"local": list(local)})
    return replace(made, local=tuple(local))
