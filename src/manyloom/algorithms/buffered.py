"""Rounds that wait for no cohort: the hub keeps clients at work and steps after so many updates.

A conversation of asks with `take` and `late = "keep"`; what is open when it ends is a value, part of the run's state.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Mapping
from typing import NamedTuple

import numpy as np
import torch

from manyloom.aggregate import screen
from manyloom.algorithms.round import COUNTS, Round, begins, concluded, shapes, slots_of
from manyloom.algorithms.sample import cohort
from manyloom.core.exchange import Ask, Exchange, Ids, Lost, Reply, stack
from manyloom.core.parts import Algorithm, Buffered
from manyloom.core.seeds import Draws
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.tensors import floats, ints

NOBODY: Ids = np.zeros(0, np.int64)


class Sent(NamedTuple):
    """An ask that is open."""

    client: int
    number: int  # of all asks of the run
    round: int  # the version it was to make when it was sent
    attempt: int  # how often the client was asked before, from the same model
    at: float  # on the virtual clock


class Open(NamedTuple):
    """All that is open, and what its replies will be relative to."""

    asks: tuple[Sent, ...] = ()
    bodies: Mapping[int, Slots] = {}  # version -> what was sent
    made: int = 0  # asks of the run so far
    now: float = 0.0

    def slots(self) -> Slots:
        """As named tensors: a part of the run's state."""
        rounds = sorted(self.bodies)
        asks = torch.tensor([a[:4] for a in self.asks], dtype=torch.int64).view(-1, 4)
        at = torch.tensor([*(a.at for a in self.asks), self.now], dtype=torch.float64)
        out: Slots = {
            "asks": asks,
            "at": at,
            "count": torch.tensor([self.made]),
            "rounds": torch.tensor(rounds, dtype=torch.int64),
        }
        names = self.bodies[rounds[0]] if rounds else {}
        return out | {f"body/{n}": torch.stack([self.bodies[r][n] for r in rounds]) for n in names}

    @staticmethod
    def of(slots: Slots) -> Open:
        """What `slots` made; nothing is open in the state before round 1."""
        if not slots:
            return Open()
        at = floats(slots["at"])
        asks = tuple(Sent(*ints(row), at=t) for row, t in zip(slots["asks"], at))
        sent = {n.removeprefix("body/"): t for n, t in slots.items() if n.startswith("body/")}
        bodies = {r: {n: t[k] for n, t in sent.items()} for k, r in enumerate(ints(slots["rounds"]))}
        return Open(asks, bodies, int(slots["count"]), at[-1])


class Version(NamedTuple):
    """What making a server version came to, and what is open after it."""

    trained: Round
    staleness: tuple[int, ...]  # of the updates in it, as `trained.back`
    open: Open


def version(
    algorithm: Algorithm,
    server: Slots,
    rule: Slots,
    opened: Open,
    *,
    eligible: Ids,
    flying: int,
    spare: int,
    absent: bool,
    draws: Draws,
    round: int,
    deadline_s: float,
) -> Exchange[Version]:
    """Keep `flying` clients at work until K updates are there, then take the server step.

        theta <- server(theta, 1/K sum_i u_i / sqrt(1 + tau_i))

    tau_i counts the versions between sending and applying; u_i is relative to what client i was sent. Updates are
    applied in the order they came (time, then name). Who answered is idle and may be asked again at once.

    Args:
        algorithm: the record, with `buffered`.
        server, rule: the state of server step and aggregator.
        opened: what is open; it is asked again, which changes nothing where it is known.
        eligible: who may be asked [N].
        flying: clients at work at a time.
        spare: so many may be lost; then the version is given up (`enough` is False).
        absent: clients may be away: who is there is asked first.
        draws: what messages are drawn from.
        round: the version that is made, from 1.
        deadline_s: of each ask.
    """
    assert algorithm.buffered is not None
    size, most = algorithm.buffered
    body = begins(algorithm, server, draws.hub(round))
    sends = slots_of(algorithm, "buffers" in server)
    asks = {a.number: a for a in opened.asks}
    bodies, count, now = dict(opened.bodies), opened.made, opened.now
    came: list[Reply] = []
    rows: list[Slots] = []
    stale: list[int] = []
    lost: list[Lost] = []
    times: Counter[int] = Counter()
    up = down = 0
    why = ""

    def ask(a: Sent) -> Ask:
        return Ask(np.array([a.client], np.int64), "train", bodies[a.round], round=a.round, attempt=a.attempt,
                   deadline_s=deadline_s, take=0, late="keep", number=a.number, at=a.at)  # fmt: skip

    for a in opened.asks:
        yield ask(a)
    while len(came) < size and len(lost) <= spare:
        if (free := flying - len(asks)) > 0:
            idle = np.setdiff1d(eligible, [a.client for a in asks.values()])
            if absent and len(idle):
                idle, now = yield from reached(idle, 0 if asks else 1, now, deadline_s, round)
            for client in cohort(idle, free, sampling="uniform", rate=1.0, seed=draws.seed, round=round,
                                 purpose=f"flight/{count}").tolist():  # fmt: skip
                bodies[round] = body
                asks[count] = Sent(client, count, round, times[client], now)
                yield ask(asks[count])
                count, down, times[client] = count + 1, down + size_bytes(body), times[client] + 1
        if not asks:
            why = f"nobody could be reached within {deadline_s:g} virtual s"
            break
        patience = math.inf  # for the next; then for those that come at the same instant
        while len(came) < size:
            got = yield Ask(NOBODY, "train", round=round, deadline_s=patience, take=1, late="keep", at=now)
            if not got:
                break
            patience = 0.0
            for answer in got:
                sent, now = asks.pop(answer.asked), answer.at
                if isinstance(answer, Lost):
                    lost.append(answer)
                    continue
                up += answer.sent
                tau = round - sent.round
                if most is not None and tau > most:
                    text = f"{tau} versions old, max_staleness {most}"
                    lost.append(Lost(sent.client, "stale", text, None, sent.number, now))
                    spare += 1  # it did answer
                    continue
                there = {n: answer.body[n] for n in shapes(algorithm, server)}
                message = algorithm.uplink.undo(there, draws.of(sent.round, answer.clients))
                if odd := screen(message).why:
                    lost.append(Lost(sent.client, "not-finite", odd[0], None, sent.number, now))
                    continue
                came.append(answer)
                rows.append(message)
                stale.append(tau)
    left = Open(tuple(asks.values()), {r: bodies[r] for r in {a.round for a in asks.values()}}, count, now)
    back = np.concatenate([r.clients for r in came]) if came else NOBODY
    counts = [stack(came, n) if came else torch.zeros(0) for n in COUNTS]
    if len(came) < size:
        why = why or f"{len(lost)} clients were lost before {size} updates were there"
        nothing = Round(server, rule, back, counts[0], counts[1], counts[2], lost, up, down, enough=False, why=why)
        return Version(nothing._replace(at=now), tuple(stale), left)
    sums = {
        n: sum((discount(tau) * row[n][0].double() for row, tau in zip(rows, stale)), torch.zeros(())) for n in sends
    }
    whole = torch.tensor([float(size)], dtype=torch.float64)
    state, rule, _ = concluded(algorithm, server, rule, sums, whole, size / len(eligible))
    made = Round(state, rule, back, counts[0], counts[1], counts[2], lost, up, down, enough=True)
    return Version(made._replace(at=now), tuple(stale), left)


def discount(tau: int) -> float:
    """s(tau) = 1 / sqrt(1 + tau): what an update counts that is tau versions old; a fresh one counts 1.

    >>> discount(0), discount(3)
    (1.0, 0.5)
    """
    return 1 / math.sqrt(1 + tau)


def reached(
    clients: Ids, least: int, at: float, deadline_s: float, round: int
) -> Generator[Ask, list[Reply | Lost], tuple[Ids, float]]:
    """Who of these is there, and when: waits for `least` of them, at most so long."""
    answers = yield Ask(clients, "reachable", round=round, quorum=least, deadline_s=deadline_s, at=at)
    here = [a for a in answers if isinstance(a, Reply)]
    return (np.concatenate([r.clients for r in here]) if here else NOBODY), max([at, *(a.at for a in answers)])


__all__ = ["Buffered", "Open", "Sent", "Version", "discount", "reached", "version"]
