"""One round: the interpreter of an algorithm's record. The hub's half of a conversation, without I/O."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.aggregate import TooFew, screen
from manyloom.core.exchange import Ask, Exchange, Fold, Ids, Lost, Reply, stack
from manyloom.core.parts import Algorithm
from manyloom.core.seeds import Draw, Draws
from manyloom.core.slots import Slots, size_bytes

BESIDE = ("buffers", "rest", "turn")  # what goes down beside the server step's own: averaged statistics, other parts
COUNTS = ("samples", "steps", "loss")  # what travels beside an update: sums over the client's own steps


class Round(NamedTuple):
    """What a round came to: the server's new state, or the old one if too few came back."""

    server: Slots
    rule: Slots
    back: Ids
    samples: Tensor  # [n], of those that came back, as are steps and loss; empty where only a sum came
    steps: Tensor
    loss: Tensor  # a client's mean training loss; of a sum their mean [1]
    lost: list[Lost]
    sent_up: int
    sent_down: int
    enough: bool
    channel: tuple[int, int] = (0, 0)  # what a secure channel took beyond that, up and down
    agg_error: Tensor | None = None  # [2], of combined adapters: mean and largest over their matrices
    kept: Tensor | None = None  # how much of each is in a robust rule's aggregate [n]; below 0.1 it was filtered
    why: str = ""  # what was not enough
    at: float = 0.0  # when it was closed, on the virtual clock


def slots_of(algorithm: Algorithm, buffers: bool) -> tuple[str, ...]:
    """The slots of a client's message that are summed or handed to a rule."""
    return (*algorithm.work.sends, *(["buffers"] if buffers else []))


def shapes(algorithm: Algorithm, server: Slots) -> Slots:
    """A client's message without storage, as its transforms leave it."""
    d = server["theta"].numel()
    kind = server["theta"].dtype
    own = {
        n: torch.empty(d if length == "d" else 1, dtype=kind, device="meta")
        for n, length in algorithm.work.sends.items()
    }
    return algorithm.uplink.size(own | ({"buffers": server["buffers"].to("meta")} if "buffers" in server else {}))


def begins(algorithm: Algorithm, server: Slots, draw: Draw) -> Slots:
    """What clients get: what the server step sends, running statistics where they are averaged, a part's rest.

    Where the downlink packs it, each slot is one row [1, ...] of what travels.
    """
    body = algorithm.server.down(server)
    before = algorithm.before.down(1) if algorithm.before else ()
    body = body | {n: server[n] for n in (*BESIDE, *before) if n in server}
    if algorithm.downlink.apply is None:
        return body
    return algorithm.downlink.apply({n: t[None] for n, t in body.items()}, {}, {}, draw)[0]


def arrived(algorithm: Algorithm, body: Slots, draw: Draw) -> Slots:
    """What a client makes of what it gets: its update is relative to this."""
    if algorithm.downlink.apply is None:
        return body
    return {n: t[0] for n, t in algorithm.downlink.undo(body, draw).items()}


def concluded(
    algorithm: Algorithm, server: Slots, rule: Slots, rows: Slots, weights: Tensor, share: float
) -> tuple[Slots, Slots, Slots]:
    """The server's next state, the rule's, and what the rule tells beside ("kept", "agg_error"), of messages or a sum.

    Args:
        algorithm, server, rule: the record and its states.
        rows: a row a client, or their weighted sum.
        weights: of the clients [n], or what the sum is divided by [1].
        share: m/N, for methods that weigh by it.
    """
    mean, rule = algorithm.aggregate.reduce(rows, weights, rule)
    told = {n: mean.pop(n) for n in ("kept", "agg_error") if n in mean}
    mean["share"] = torch.tensor(share, dtype=torch.float64)
    state = algorithm.server.apply(server, mean)
    if "buffers" in server:  # running statistics move by their mean change, past the server's optimiser
        state = state | {"buffers": (server["buffers"] + mean["buffers"]).to(server["buffers"].dtype)}
    return state, rule, told


def train(
    algorithm: Algorithm,
    server: Slots,
    rule: Slots,
    cohort: Ids,
    *,
    population: int,
    draws: Draws,
    round: int,
    attempt: int,
    quorum: int,
    deadline_s: float,
    take: int | None = None,
    at: float = 0.0,
) -> Exchange[Round]:
    """Ask a cohort to train, combine what comes back, take the server step.

        theta <- server(theta, rule({u_i}, {p_i}))

    Args:
        algorithm: the record.
        server, rule: the state of server step and aggregator.
        cohort: who is asked [n].
        population: N, for methods that weigh by m/N.
        draws: what messages are drawn from.
        round, attempt: what clients' randomness is a function of.
        quorum: below so many replies nothing changes and `enough` is False.
        deadline_s: of the ask.
        take: close at so many replies; later ones are lost.
        at: on the virtual clock, when the cohort is asked.
    """
    body = begins(algorithm, server, draws.hub(round))
    fold = None
    sends = slots_of(algorithm, "buffers" in server)
    if algorithm.aggregate.needs == "sum":
        fold = Fold(sends, "samples" if algorithm.weights == "samples" else None, algorithm.uplink.undo)
    answers = yield Ask(
        cohort, "train", body, round=round, attempt=attempt, quorum=quorum, deadline_s=deadline_s, fold=fold,
        take=take, at=at,
    )  # fmt: skip
    replies = [a for a in answers if isinstance(a, Reply)]
    lost = sorted((a for a in answers if isinstance(a, Lost)), key=lambda a: a.client)
    back = np.concatenate([r.clients for r in replies]) if replies else cohort[:0]
    closed = max([at, *(a.at for a in answers)])
    down = len(cohort) * size_bytes(body)
    up = sum(r.sent for r in replies)
    samples, steps, loss = (stack(replies, name) if replies else torch.zeros(0) for name in COUNTS)
    if len(back) < max(1, quorum):
        return Round(server, rule, back, samples, steps, loss, lost, up, down, enough=False, at=closed)

    weights = samples.double() if algorithm.weights == "samples" else torch.ones(len(back), dtype=torch.float64)
    if fold:
        rows: Slots = {name: torch.stack([r.body[name][0].double() for r in replies]).sum(0) for name in sends}
    else:
        rows = {name: stack(replies, name) for name in shapes(algorithm, server)}
        rows = algorithm.uplink.undo(rows, draws.of(round, back))
        seen = screen(rows)
        rows, weights = seen.rows, weights * seen.ok
        lost += [Lost(int(back[row]), "not-finite", why) for row, why in seen.why.items()]
    try:
        state, rule, told = concluded(algorithm, server, rule, rows, weights, len(back) / population)
    except TooFew as error:
        why = error.problems[0].what
        return Round(server, rule, back, samples, steps, loss, lost, up, down, enough=False, why=why, at=closed)
    return Round(state, rule, back, samples, steps, loss, lost, up, down, enough=True, at=closed,
                 kept=told.get("kept"), agg_error=told.get("agg_error"))  # fmt: skip
