"""Moment alignment: a federation whose clients know labels, and one that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Unpack

import numpy as np

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.exchange import Ask, Exchange, Lost, Reply
from manyloom.core.parts import Algorithm, Before, ServerStep
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.validate import AtLeast, problems
from manyloom.server import sgd
from manyloom.work.coral import coral as client
from manyloom.work.local import LocalOptions, local


def coral(
    *,
    target_client: str,
    eta: Annotated[float, AtLeast(0)] = 1.0,
    server: ServerStep | None = None,
    **options: Unpack[LocalOptions],
) -> Algorithm:
    """Clients learn features whose mean and covariance are those of one whose labels are unknown.

    Before each round the target sends D + D (D + 1) / 2 numbers, mean and covariance of what enters the last layer; its
    rows are never trained on, and its labels only judge. eta = 0 is FedAvg without it, bit for bit.
    (CORAL: Sun, Saenko 2016, arXiv:1607.01719.)

    Args:
        target_client: name or number of the client that the model is for; it does not train.
        eta: weight of the alignment; .1 to 10.
        server: the server step; sgd with eta_g 1.
    """
    own: dict[str, object] = {"target_client": target_client, "eta": eta}
    if wrong := problems(coral, own):
        raise BadInput(*wrong)
    opt = local(options)
    made = compose("coral", opt, client(opt, eta), server, sgd, own=own)
    return replace(made, before=Before(target_client, "moments", lengths))


def lengths(features: int) -> Mapping[str, int]:
    """How many numbers the target sends, of D features.

    >>> lengths(3)
    {'mu': 3, 'cov': 6}
    """
    return {"mu": features, "cov": features * (features + 1) // 2}


def beforehand(
    before: Before, client: int, body: Slots, round: int, attempt: int, deadline_s: float
) -> Exchange[tuple[Slots | Lost, int, int]]:
    """Ask the one that does not train; what it sends (or that it is lost), and the bytes up and down."""
    asked = Ask(np.array([client], np.int64), before.verb, body, round=round, attempt=attempt, deadline_s=deadline_s)
    answers = yield asked
    found = answers[0] if answers else Lost(client, "error", "no answer")
    if isinstance(found, Reply):
        return found.body, found.sent, size_bytes(body)
    return found, 0, size_bytes(body)
