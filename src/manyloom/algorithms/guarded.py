"""A round whose messages are integers of a protected sum: private, secure, or both.

The hub gets one integer vector, the sum over those who came: over a plain channel folded on the way, over a secure one
by `secure.channel.over`, which this conversation does not know of. What the sum is divided by, and the noise before
that, are applied to it here; nothing of a single client is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from manyloom.algorithms.round import Round, begins, concluded, shapes
from manyloom.core.exchange import Ask, Exchange, Fold, Ids, Lost, Reply
from manyloom.core.parts import Algorithm
from manyloom.core.seeds import Draw, Draws
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.tensors import from_numpy
from manyloom.privacy import adaptive, mechanisms
from manyloom.privacy.source import Source
from manyloom.secure import wire
from manyloom.secure.channel import PARAMS, SUM
from manyloom.secure.encoding import decode
from manyloom.secure.params import Params

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Guard:
    """What a protected sum of updates is made by, for one round.

    Args:
        params: how clients encode; d is 0 (each fills in its own).
        denominator: under a privacy claim the expected cohort, never the realised one; None: the weights in the sum.
        z: noise multiplier of the update alone, in clips; 0: no noise.
    """

    params: Params
    denominator: float | None = None
    z: float = 0.0


class Gathered(NamedTuple):
    """What came of asking: the integer sum [d_total], who is in it, who is not."""

    ints: I64
    back: Ids
    lost: list[Lost]
    sent_up: int
    sent_down: int
    channel: tuple[int, int]
    why: str | None  # there is no sum
    opened: bool  # no other attempt may be made
    warnings: tuple[str, ...] = ()
    at: float = 0.0  # when it was closed, on the virtual clock


class Told(NamedTuple):
    """What a guarded round tells of itself beside the model."""

    clip: float
    unclipped: float | None  # the noised share of clients within the clip
    cut: int | None  # clients with a coordinate beyond the range


def lengths(algorithm: Algorithm, server: Slots) -> dict[str, int]:
    """How many numbers each slot has that is summed, in the order they are laid out; whole numbers say a length."""
    return {n: t.numel() for n, t in shapes(algorithm, server).items() if t.is_floating_point()}


def gather(
    algorithm: Algorithm,
    server: Slots,
    guard: Guard,
    cohort: Ids,
    *,
    draws: Draws,
    round: int,
    attempt: int,
    quorum: int,
    deadline_s: float,
    take: int | None = None,
    at: float = 0.0,
) -> Exchange[Gathered]:
    """Ask a cohort to train and get the integer sum of its protected updates.

    A cohort of nobody is a sum of nothing: zeros, which noise is added to like any other.
    """
    body = begins(algorithm, server, draws.hub(round)) | {PARAMS: wire.pack(guard.params.to_bytes())}
    nothing = np.zeros(guard.params.total + sum(lengths(algorithm, server).values()), np.int64)
    if not len(cohort) and guard.params.mode == "plain":
        return Gathered(nothing, cohort, [], 0, 0, (0, 0), None, opened=False, at=at)
    if len(cohort) < guard.params.n_min:
        why = f"{len(cohort)} clients were drawn, a sum has at least {guard.params.n_min}"
        return Gathered(nothing, cohort[:0], [], 0, 0, (0, 0), why, opened=False, at=at)
    ask = Ask(cohort, "train", body, round=round, attempt=attempt, quorum=quorum, deadline_s=deadline_s,
              fold=Fold((SUM,)), take=take, at=at)  # fmt: skip
    answers = yield ask
    replies = [a for a in answers if isinstance(a, Reply)]
    lost = sorted((a for a in answers if isinstance(a, Lost)), key=lambda a: a.client)
    failed = [a for a in lost if a.reason in ("no-sum", "opened")]
    came = [r for r in replies if len(r.clients)]
    ints = sum((r.body[SUM][0].numpy().astype(np.int64) for r in came), nothing)
    back = np.concatenate([r.clients for r in came]) if came else cohort[:0]
    channel = (sum(r.channel[0] for r in replies), sum(r.channel[1] for r in replies))
    return Gathered(
        ints,
        back,
        [a for a in lost if a not in failed],
        sum(r.sent for r in replies),
        len(cohort) * size_bytes(body),
        channel,
        failed[0].text if failed else None,
        any(a.reason == "opened" for a in failed),
        tuple(w for r in replies for w in r.warnings),
        max([at, *(a.at for a in answers)]),
    )


def noised(ints: I64, guard: Guard, source: Source, *, testing: bool = False) -> I64:
    """The sum with the round's noise: deviation z S on the update, z_j scale_j on each control number that has one."""
    p = guard.params
    out = ints.copy()
    first = 1 + len(p.control)
    out[first:] = mechanisms.noised(out[first:], guard.z * p.scale, source, testing=testing)
    for at, c in enumerate(p.control, 1):
        if c.z:
            out[at : at + 1] = mechanisms.noised(out[at : at + 1], c.z * c.scale, source, testing=testing)
    return out


def conclude(
    algorithm: Algorithm,
    server: Slots,
    rule: Slots,
    guard: Guard,
    got: Gathered,
    ints: I64,
    population: int,
    draw: Draw,
) -> tuple[Round, Told]:
    """The server step from a sum of integers, noised or not.

        theta <- server(theta, sum / denominator)

    Under a privacy claim the denominator and the share m/N are the expected ones.
    """
    p = guard.params
    d = len(ints) - p.total
    count = len(got.back)
    told = dict(zip((c.name for c in p.control), range(1, 1 + len(p.control))))
    private = guard.denominator is not None
    if private:
        vector = mechanisms.decode(ints[1 + len(p.control) :], p.bound, p.scale, 1.0)
        control: dict[str, float] = {}
        total, share = float(guard.denominator or 0), float(guard.denominator or 0) / population
    else:
        found = decode(ints, replace(p, d=d))
        vector, control = found.vector, dict(found.control)
        cap = next((c.hi for c in p.control if c.name == "weight"), 1.0)  # a client's weight is its samples over this
        total, share = control.get("weight", float(count)) / cap, count / population
    sizes = lengths(algorithm, server)
    parts = torch.split(from_numpy(vector), list(sizes.values()))
    sums: Slots = dict(zip(sizes, parts))
    if algorithm.uplink.apply is not None:  # linear, and the same for all: the sum is undone as one message
        template, d = shapes(algorithm, server), server["theta"].numel()
        whole = {n: torch.full((1, t.numel()), d, dtype=t.dtype) for n, t in template.items() if n not in sizes}
        rows = algorithm.uplink.undo(whole | {n: t[None].to(template[n].dtype) for n, t in sums.items()}, draw)
        sums = {n: t[0].double() for n, t in rows.items()}
    state, after, _ = concluded(algorithm, server, rule, sums, torch.tensor([total], dtype=torch.float64), share)
    unclipped = None
    if private and "clip" in told:
        unclipped = adaptive.fraction(int(ints[told["clip"]]), float(guard.denominator or 1))
    cut = round(control["cut"]) if "cut" in control else None
    loss = control["loss"] / count if "loss" in control and count else float("nan")
    none = torch.zeros(0)
    done = Round(state, after, got.back, none, none, torch.tensor([loss]), got.lost, got.sent_up, got.sent_down,
                 enough=True, channel=got.channel)  # fmt: skip
    return done, Told(p.bound, unclipped, cut)
