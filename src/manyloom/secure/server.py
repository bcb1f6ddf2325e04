"""A server's half of a secure sum, as a conversation: five stages (four, semi-honest), clients lost at any of them.

What comes out is the integer sum over those whose input is in, or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.errors import BadInput
from manyloom.core.exchange import Ask, Exchange, Ids, Lost
from manyloom.core.slots import Slots, size_bytes
from manyloom.secure import encoding, graph, opening, wire
from manyloom.secure.encoding import I64
from manyloom.secure.keys import ADVERT, SEALED, Advert
from manyloom.secure.params import Params
from manyloom.secure.shamir import SHARE
from manyloom.secure.suite import FULL, Suite
from manyloom.secure.transcript import hash_roster, hash_set, session, tagged, transcript


@dataclass(frozen=True)
class Setting:
    """What a server needs to know of a job, beside its parameters.

    Args:
        job_digest, run_id, model: what the session is bound to; `model` is H(model).
        roster: the public keys of all clients, ascending.
        degree: (k, t) in place of the search.
        suite: `IDEAL` only in simulation.
    """

    job_digest: bytes
    run_id: str
    model: bytes
    roster: tuple[bytes, ...] | None = None
    degree: tuple[int, int] | None = None
    suite: Suite = field(default=FULL, repr=False)


class Summed(NamedTuple):
    """What a secure sum came to. `total` is None where it failed, and `why` says at what."""

    total: I64 | None
    clients: Ids  # whose input is in the sum
    lost: list[Lost]
    sent_up: int
    sent_down: int
    attempt: int
    released: bool  # shares were asked for: no other attempt of this round
    liars: list[int]  # clients that sent wrong shares
    why: str | None


@dataclass
class _Count:
    """What adds up over the stages of an attempt; local to one conversation."""

    lost: dict[int, Lost] = field(default_factory=dict[int, Lost])
    up: int = 0
    down: int = 0


def _ask(
    stage: int, to: Sequence[int], body: Slots, each: dict[int, Slots], p: Params, at: tuple[int, int], quorum: int
) -> Ask:
    every = body | {"at": wire.numbers(at)}
    ids = np.array(sorted(to), np.int64)
    return Ask(ids, wire.VERBS[stage], every, each, at[0], at[1], max(1, quorum), float(p.deadlines[stage]))


def _stage(
    count: _Count,
    ask: Ask,
    shapes: Callable[[int], Mapping[str, tuple[tuple[int, ...], torch.dtype]]],
    who: Sequence[int],
) -> Exchange[dict[int, Slots]]:
    """Ask, count bytes, and keep the first well-formed reply of each client that was asked.

    What a stranger says, or anybody says twice, is not read.
    """
    count.down += len(ask.to) * size_bytes(ask.body) + sum(size_bytes(x) for x in ask.each.values())
    answers = yield ask
    found: dict[int, Slots] = {}
    asked = set(who)
    for answer in answers:
        if isinstance(answer, Lost):
            count.lost.setdefault(answer.client, answer)
            continue
        count.up += answer.sent or size_bytes(answer.body)
        for row, client in enumerate(answer.clients.tolist()):
            if client not in asked or client in found or client in count.lost:
                continue
            body = {name: t[row] for name, t in answer.body.items()}
            want = shapes(client)
            wrong = [n for n, (shape, kind) in want.items() if n not in body or _differs(body[n], shape, kind)]
            if wrong or set(body) != set(want):
                text = f"malformed: {', '.join(wrong or sorted(set(body) ^ set(want)))}"
                count.lost[client] = Lost(client, "malformed", text, None, ask.number)
            else:
                found[client] = body
    for client in asked - set(found):
        count.lost.setdefault(client, Lost(client, "deadline", "no reply", None, ask.number))
    return found


def _differs(tensor: Tensor, shape: tuple[int, ...], kind: torch.dtype) -> bool:
    return tuple(tensor.shape) != shape or tensor.dtype != kind


U8, I32 = torch.uint8, torch.int32


def _adverts(told: Mapping[int, Slots], sid: bytes, p: Params, setting: Setting, count: _Count) -> dict[int, Advert]:
    """By client, ascending uid: adverts that are signed, alone and usable; the others' clients are lost."""
    suite, probe = setting.suite, os.urandom(32)
    good: dict[int, Advert] = {}
    seen: dict[bytes | int, int] = {}
    for client, body in sorted(told.items()):
        advert = Advert.from_bytes(wire.raw(body["advert"]))
        why = None
        if p.mode == "active":
            roster = setting.roster or ()
            signed = advert.uid < len(roster) and suite.verify(roster[advert.uid], advert.signature, advert.signed(sid))
            why = None if signed else "its advert is not signed for this session"
        if why is None and suite.real and not opening.usable(advert, probe):
            why = "its key is of small order"
        parts: tuple[bytes | int, ...] = (advert.uid, advert.c_pk, advert.s_pk)
        if why is None and (advert.c_pk == advert.s_pk or any(x in seen for x in parts)):
            why = "its number or key is another client's"
        if why is not None:
            count.lost[client] = Lost(client, "malformed", why)
            continue
        seen |= dict.fromkeys(parts, client)
        good[client] = advert
    return dict(sorted(good.items(), key=lambda item: item[1].uid))


def secure_sum(cohort: Ids, params: Params, setting: Setting, *, round: int, attempt: int = 0) -> Exchange[Summed]:
    """The integer sum of what waits at a cohort's clients: one attempt, to the sum or to why there is none.

        sum over i in U2 of q_i, exactly, in 32-bit integers

    Another attempt (1, with fresh keys) may be made only where this one was not `released`.

    Args:
        cohort: who is asked [n].
        params: what all agree on.
        setting: the job's half of the session.
        round: number of the sum within the run (`params.number_of`).
        attempt: 0 or 1.

    Errors: BadInput where the parameters can't be.
    """
    p = params.checked()
    suite, count, at = setting.suite, _Count(), (round, attempt)

    def failed(why: str, released: bool = False, liars: Sequence[int] = ()) -> Summed:
        lost = sorted(count.lost.values(), key=lambda x: x.client)
        return Summed(None, cohort[:0], lost, count.up, count.down, attempt, released, list(liars), why)

    # 0: who is there
    who = cohort.tolist()
    if not p.n_min <= len(who) <= p.n_max:
        return failed(f"{len(who)} clients, agreed {p.n_min} to {p.n_max}")
    body: Slots = {"run": wire.pack(setting.run_id.encode()), "params": wire.pack(p.to_bytes())}
    told = yield from _stage(count, _ask(0, who, body, {}, p, at, p.n_min), lambda _: {"advert": ((ADVERT,), U8)}, who)
    sid = session(
        setting.job_digest, setting.run_id, round, attempt, setting.model, p.digest(), hash_roster(setting.roster)
    )
    of = _adverts(told, sid, p, setting, count)
    n = len(of)
    if n < p.n_min:
        return failed(f"{n} clients advertised keys, {p.n_min} must")
    try:
        k, t = setting.degree or (0, 0)
        if setting.degree is None or graph.sound(n, k, t, p.gamma, p.delta_drop, p.kappa, p.mode) is not None:
            k, t = graph.degree(n, p.gamma, p.delta_drop, p.kappa, p.mode)[:2]  # fewer came than were planned for
    except BadInput as error:  # too many were lost for any graph; of the planned cohort the job has asked before
        return failed(error.what)
    raw = [a.to_bytes() for a in of.values()]
    tid = transcript(sid, n, k, t, raw)
    adverts = {a.uid: a for a in of.values()}
    client = {a.uid: c for c, a in of.items()}
    uid = {c: a.uid for c, a in of.items()}
    around = graph.ring(tid, list(adverts), k)

    # 1: shares, sealed
    body = {"session": wire.pack(sid), "adverts": wire.table(raw, ADVERT), "kt": wire.numbers([k, t])}
    told = yield from _stage(
        count, _ask(1, list(of), body, {}, p, at, p.n_min), lambda _: {"sealed": ((k, SEALED), U8)}, list(of)
    )
    u1 = sorted(uid[c] for c in told)
    if len(u1) < p.n_min:
        return failed(f"{len(u1)} clients shared their keys, {p.n_min} must")
    sealed = {uid[c]: dict(zip(around[uid[c]], wire.rows(x["sealed"], SEALED))) for c, x in told.items()}

    # 2: masked inputs, into one accumulator
    body = {"session": wire.pack(tid), "u1": wire.numbers(u1)}
    each: dict[int, Slots] = {}
    for u in u1:
        near = [v for v in around[u] if v in sealed]
        each[client[u]] = {
            "from": wire.numbers(near), "sealed": wire.table([sealed[v][u] for v in near], SEALED)
        }  # fmt: skip
    want: dict[str, tuple[tuple[int, ...], torch.dtype]] = {"masked": ((p.total,), I32)}
    if p.mode == "active":
        want["sign"] = ((64,), U8)
    there = [client[u] for u in u1]
    told = yield from _stage(count, _ask(2, there, body, each, p, at, p.floor_of(n)), lambda _: want, there)
    total = np.zeros(p.total, np.uint32)
    signed: dict[int, bytes] = {}
    said = tagged("U1", tid, hash_set(u1))
    for c, x in list(told.items()):
        if p.mode == "active":
            signed[uid[c]] = wire.raw(x["sign"])
            if not suite.verify((setting.roster or ())[uid[c]], signed[uid[c]], said):
                count.lost[c] = Lost(c, "malformed", "its masked input is not signed")
                del told[c]
                continue
        total += x["masked"].numpy().view(np.uint32)
    u2 = sorted(uid[c] for c in told)
    if len(u2) < p.floor_of(n):
        return failed(f"{len(u2)} masked inputs came, {p.floor_of(n)} must")

    # 3: one U2 for all, signed
    inside, present = set(u2), set(u1)
    there = [client[u] for u in u2]
    body = {"session": wire.pack(tid)}
    if p.mode == "active":
        each = {client[u]: {"signatures": wire.table([signed[v] for v in around[u] if v in inside], 64)} for u in u2}
        c = graph.corrupt(p.gamma, n)
        q3 = graph.quorum_of_signers(n, c)
        ask = _ask(3, there, body | {"u2": wire.numbers(u2)}, each, p, at, q3)
        told = yield from _stage(count, ask, lambda _: {"sign": ((64,), U8)}, there)
        said = tagged("U2", tid, hash_set(u1), hash_set(u2))
        agreed = {uid[c]: wire.raw(x["sign"]) for c, x in told.items()}
        agreed = {u: s for u, s in agreed.items() if suite.verify((setting.roster or ())[u], s, said)}
        if len(agreed) < q3:
            return failed(f"{len(agreed)} clients signed the sum, {q3} must")
        body |= {
            "signers": wire.numbers(sorted(agreed)),
            "signatures": wire.table([agreed[u] for u in sorted(agreed)], 64),
        }
        there = [client[u] for u in sorted(agreed)]
    else:
        body["u2"] = wire.numbers(u2)

    # 4: shares of one kind for each
    near = {client[u]: [v for v in around[u] if v in present] for u in u2}
    kinds = {c: ([v for v in vs if v in inside], [v for v in vs if v not in inside]) for c, vs in near.items()}
    told = yield from _stage(
        count,
        _ask(4, there, body, {}, p, at, t),
        lambda c: {"b": ((len(kinds[c][0]), SHARE), U8), "s": ((len(kinds[c][1]), SHARE), U8)},
        there,
    )
    shares: tuple[dict[int, dict[int, bytes]], dict[int, dict[int, bytes]]] = ({}, {})
    for c, x in told.items():
        for kind, name in enumerate(("b", "s")):
            for v, y in zip(kinds[c][kind], wire.rows(x[name], SHARE)):
                shares[kind].setdefault(v, {})[uid[c]] = y
    why, liars = opening.unmask(total, suite, tid, sid, t, around, adverts, u1, u2, *shares)
    named = [client[u] for u in liars]
    if why is not None:
        return failed(why, released=True, liars=named)
    ints = encoding.signed(total)
    if int(ints[0]) != len(u2):
        return failed(f"the sum counts {int(ints[0])} clients, {len(u2)} are in it", released=True, liars=named)
    lost = sorted(count.lost.values(), key=lambda x: x.client)
    ids = np.array(sorted(client[u] for u in u2), np.int64)
    return Summed(ints, ids, lost, count.up, count.down, attempt, True, named, None)
