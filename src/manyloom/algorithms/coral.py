"""Moment alignment: a federation whose clients know labels, and one that does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, NamedTuple, Unpack

from manyloom.algorithms.recipe import compose
from manyloom.core.errors import BadInput
from manyloom.core.exchange import Ask, Exchange, Ids, Lost, Reply, stack
from manyloom.core.parts import Algorithm, Before, ServerStep
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.validate import AtLeast, problems
from manyloom.server import sgd
from manyloom.work.coral import coral as client
from manyloom.work.coral import pooled
from manyloom.work.local import LocalOptions, local


def coral(
    *,
    target_client: str,
    eta: Annotated[float, AtLeast(0)] = 1.0,
    server: ServerStep | None = None,
    **options: Unpack[LocalOptions],
) -> Algorithm:
    """Clients with labels and one without learn features with equal mean and covariance.

    Before each round every client sends D + D (D + 1) / 2 numbers, mean and covariance of what enters the last layer,
    and how many rows they are of. The target's labels are not used: they only judge. eta = 0 is FedAvg of the others.
    (CORAL: Sun, Saenko 2016, arXiv:1607.01719.)

    Args:
        target_client: name or number of the client whose labels are not known, and that the model is for.
        eta: weight of the alignment; .1 to 10.
        server: the server step; sgd with eta_g 1.
    """
    own: dict[str, object] = {"target_client": target_client, "eta": eta}
    if wrong := problems(coral, own):
        raise BadInput(*wrong)
    opt = local(options)
    made = compose("coral", opt, client(opt, eta), server, sgd, own=own)
    return replace(made, before=Before(target_client, "moments", lengths, idle=not eta))


def lengths(features: int) -> Mapping[str, int]:
    """How many numbers a client sends, of D features; the hub sends twice as many.

    >>> lengths(3)
    {'mu': 3, 'cov': 6}
    """
    return {"mu": features, "cov": features * (features + 1) // 2}


class Beside(NamedTuple):
    """What the clients sent before a round."""

    down: Slots  # what goes down beside the model; empty where the target is lost, or all others are
    lost: list[Lost]
    sent_up: int
    sent_down: int


def beforehand(
    before: Before, everybody: Ids, target: int, body: Slots, round: int, deadline_s: float
) -> Exchange[Beside]:
    """Ask all clients for their moments: the target's, and those of all others as one.

    Args:
        before: what is asked.
        everybody: who trains.
        target: one of them.
        body: the model.
        round, deadline_s: of the ask.
    """
    answers = yield Ask(everybody, before.verb, body, round=round, deadline_s=deadline_s)
    replies = [a for a in answers if isinstance(a, Reply)]
    lost = [a for a in answers if isinstance(a, Lost)]
    up, sent = sum(r.sent for r in replies), size_bytes(body) * len(everybody)
    here = [r for r in replies if int(r.clients[0]) == target]
    rest = [r for r in replies if int(r.clients[0]) != target]
    if not here or not rest:
        return Beside({}, lost, up, sent)
    mu, cov = pooled(*(stack(rest, n).double() for n in ("mu", "cov", "rows")))
    own = here[0].body
    return Beside({"mu": own["mu"][0], "cov": own["cov"][0], "mu_rest": mu.float(), "cov_rest": cov.float()}, lost,
                  up, sent)  # fmt: skip
