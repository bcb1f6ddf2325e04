"""A conversation over a secure channel: what may be summed on the way is summed unseen, and nothing else is asked.

`over` takes any conversation whose asks are folded. To each ask clients answer by keeping their integers; then the
stages of the secure sum run, and the conversation gets the one folded reply that a plain channel would have given it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch

from manyloom.core.errors import Problem, RunFailed
from manyloom.core.exchange import Ask, Exchange, Lost, Reply
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy, ints
from manyloom.secure import wire
from manyloom.secure.encoding import decode
from manyloom.secure.params import KINDS, LIMB, Params, number_of
from manyloom.secure.server import Setting, Summed, secure_sum
from manyloom.secure.transcript import hash_model

PARAMS = "sum.params"  # the slot of an ask that says: answer with integers, by these parameters
SUM = "integers"  # the slot of a reply that holds them
DIMS = "dims."  # + a slot: its shape, which is all that a client says of what it keeps

T = TypeVar("T")


@dataclass(frozen=True)
class Channel:
    """The hub's half of all secure sums of a run.

    Args:
        params: of a sum of updates; of others come mode, gamma, delta_drop, kappa and alpha.
        setting: of the session; `model` is filled in for each ask.
        n_min: the least clients of a sum that is no update (metrics, statistics).
    """

    params: Params
    setting: Setting
    n_min: int

    def exact(self, asked: int) -> Params:
        """The parameters of an exact sum of so many clients' numbers; the least is alpha's share of them."""
        least = max(self.n_min, math.ceil(Fraction(self.params.alpha) * asked))
        return replace(self.params, n_min=least, n_max=max(least, asked), weights="exact", control=(), noise="none",
                       z=0.0, bound=1.0, scale=LIMB, d=0)  # fmt: skip


def over(exchange: Exchange[T], channel: Channel) -> Exchange[T]:
    """The same conversation, with each folded answer as a secure sum.

    An ask that carries its own parameters (`PARAMS`) gets the integer sum, slot `SUM` int64 [1, d_total]; every other
    one gets its named sums, exact to 2^-32. A sum that fails loses every client; its text says at what.

    Raises RunFailed for an ask whose answers can't be summed: they would leave in the clear.
    """
    try:
        ask = next(exchange)
        while True:
            answers = yield from _answered(ask, channel)
            ask = exchange.send(answers)
    except StopIteration as end:
        return end.value


def _answered(ask: Ask, channel: Channel) -> Exchange[list[Reply | Lost]]:
    if ask.fold is None or ask.verb not in KINDS:
        raise RunFailed(Problem("in-the-clear", f'answers to "{ask.verb}" can\'t be summed',
                                rule="over a secure channel only sums leave a client"))  # fmt: skip
    own = PARAMS in ask.body
    params = Params.from_bytes(wire.raw(ask.body[PARAMS])) if own else channel.exact(len(ask.to))
    body = ask.body | {PARAMS: wire.pack(params.to_bytes())}
    answers = yield replace(ask, body=body)
    lost: list[Reply | Lost] = [a for a in answers if isinstance(a, Lost)]
    replies = [a for a in answers if isinstance(a, Reply)]
    there = np.sort(np.concatenate([r.clients for r in replies])) if replies else ask.to[:0]
    sent = sum(r.sent for r in replies)
    if not len(there):
        return lost
    shapes, odd = _shapes(replies, ask.fold.slots)
    lost += odd
    there = np.array([c for c in there.tolist() if c not in {x.client for x in odd}], np.int64)
    params = replace(params, d=sum(math.prod(s) for s in shapes.values()) - (params.total if own else 0))
    setting = replace(channel.setting, model=hash_model(dict(sorted(body.items()))))
    number = number_of(ask.round, ask.verb)
    up = down = 0
    done: Summed | None = None
    for attempt in (ask.attempt,) if own else (0, 1):  # another attempt of an update is trained anew
        done = yield from secure_sum(there, params, setting, round=number, attempt=attempt)
        up, down = up + done.sent_up, down + done.sent_down
        if done.total is not None or done.released:
            break
    assert done is not None
    lost += done.lost
    if done.total is None:
        gone = {x.client for x in lost if isinstance(x, Lost)}
        why = f"no sum: {done.why}"
        rest = [c for c in there.tolist() if c not in gone]
        if done.released and not rest:  # all were lost at the last stage: that shares were asked for must still be told
            rest = there.tolist()
            lost = [x for x in lost if isinstance(x, Lost) and x.client not in rest]
        lost += [Lost(c, "opened" if done.released else "no-sum", why, None, ask.number) for c in rest]
        return [Reply(ask.to[:0], {}, ask.number, 0.0, sent, (up, down)), *lost]
    if own:
        found: Slots = {SUM: from_numpy(done.total)[None]}
    else:
        vector, at, found = decode(done.total, params).vector, 0, {}
        for name, shape in shapes.items():
            n = math.prod(shape)
            found[name] = from_numpy(vector[at : at + n].copy()).reshape(1, *shape)
            at += n
    told = tuple(f"client {c} sent a wrong share" for c in done.liars)
    at = max(r.at for r in replies)
    return [Reply(done.clients, found, ask.number, 0.0, sent, (up, down), told, at), *lost]


def _shapes(replies: Sequence[Reply], slots: Sequence[str]) -> tuple[dict[str, tuple[int, ...]], list[Lost]]:
    """The shape of each slot as most clients say it, and those that say another."""
    said: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for r in replies:
        for row, client in enumerate(r.clients.tolist()):
            dims = tuple(tuple(ints(r.body[DIMS + n][row])) for n in slots)
            said.setdefault(dims, []).append(client)
    most = max(said, key=lambda d: len(said[d]))
    odd = [Lost(c, "malformed", "its answer has another shape") for d, who in said.items() if d != most for c in who]
    return dict(zip(slots, most)), odd


def dims(rows: Slots, slots: Sequence[str]) -> Slots:
    """What a client says of the rows [k, ...] it keeps: their shapes, int64 [k, rank]."""
    k = next(iter(rows.values())).shape[0]
    return {DIMS + n: torch.tensor([list(rows[n].shape[1:])] * k, dtype=torch.int64).reshape(k, -1) for n in slots}
