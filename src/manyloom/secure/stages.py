"""What a client checks and says at each stage (privacy specification, 3.3); pure but for fresh keys.

A step takes (site, body, memory) and gives (reply, the secrets that live on, the stage that must come next).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.secure import graph, keys, wire
from manyloom.secure.keys import ADVERT, SEALED, Advert, mask_seed, self_seed
from manyloom.secure.params import Params, Policy
from manyloom.secure.shamir import SHARE, P
from manyloom.secure.suite import FULL, Suite
from manyloom.secure.transcript import hash_roster, hash_set, session, tagged, transcript

# secrets of an attempt; every step hands on those that live
LIVE = tuple(
    "secure." + n for n in ("sid", "tid", "params", "keys", "own", "kt", "u0", "pks", "around", "shares", "u1", "u2")
)
DONE = 5


class Abort(Exception):
    """Why a client ends an attempt."""


@dataclass(frozen=True)
class Site:
    """What a client knows by itself: who it is, who else there is, what it approved, what it trains on.

    Args:
        uid: its place in the roster; without one, its number.
        model: H(model), of the bytes it trained from.
        job_digest, run_id: what was approved.
        identity, roster: its long-term key, and the public keys of all, ascending.
        policy: its own floor.
        suite: `FULL`; `IDEAL` only in simulation.
    """

    uid: int
    model: bytes
    job_digest: bytes
    run_id: str
    identity: Ed25519PrivateKey | None = field(default=None, repr=False)
    roster: tuple[bytes, ...] | None = None
    policy: Policy = field(default_factory=Policy)
    suite: Suite = field(default=FULL, repr=False)


class _Known(NamedTuple):
    """An attempt as a client remembers it."""

    params: Params
    sid: bytes
    tid: bytes
    secrets: keys.Secrets


Step = Callable[[Site, Slots, Slots], "tuple[Slots, Slots, int]"]


def _need(ok: bool, why: str) -> None:
    if not ok:
        raise Abort(why)


def _known(memory: Slots) -> _Known:
    raw = wire.raw(memory["secure.keys"])
    secrets = keys.Secrets(raw[:32], raw[32:64], raw[64:])
    params = Params.from_bytes(wire.raw(memory["secure.params"]))
    return _Known(params, wire.raw(memory["secure.sid"]), wire.raw(memory["secure.tid"]), secrets)


@lru_cache(maxsize=4)
def _adverts(raw: bytes) -> tuple[Advert, ...]:
    """The adverts of one list, public bytes; kept, because in a simulation all clients are shown the same."""
    if len(raw) % ADVERT:
        raise ValueError("this is no list of adverts")
    return tuple(Advert.from_bytes(raw[i : i + ADVERT]) for i in range(0, len(raw), ADVERT))


def _ascending(members: list[int]) -> bool:
    return all(a < b for a, b in zip(members, members[1:]))


def _within(members: list[int], others: list[int]) -> list[int]:
    inside = set(others)
    return [v for v in members if v in inside]


def _set(body: Slots, name: str, inside: list[int], own: int) -> list[int]:
    """A set of clients: ascending, within what was there before, and with oneself."""
    members = wire.integers(body[name])
    _need(_ascending(members), f"{name} is not ascending")
    _need(set(members) <= set(inside), f"{name} names clients that were not there")
    _need(own in members, f"{name} leaves this client out")
    return members


def _live(memory: Slots, *names: str) -> Slots:
    return {"secure." + n: memory["secure." + n] for n in names}


def advertise(site: Site, body: Slots, memory: Slots) -> tuple[Slots, Slots, int]:
    """Stage 0: one's own session, one's own floor, fresh keys."""
    params = Params.from_bytes(wire.raw(body["params"]))
    _need(wire.raw(body["run"]).decode() == site.run_id, "another run than the approved one")
    refused = site.policy.refuses(params, site.roster is not None)
    _need(refused is None, refused or "")
    _need(params.mode == "semi" or (site.roster is not None and site.identity is not None), "active without a roster")
    round, attempt = wire.integers(memory["secure.at"][0])
    sid = session(site.job_digest, site.run_id, round, attempt, site.model, params.digest(), hash_roster(site.roster))
    identity = site.identity if params.mode == "active" else None
    advert, secrets = site.suite.advertise(site.uid, sid, identity)
    own = wire.pack(advert.to_bytes())[None]
    live = {
        "secure.sid": wire.pack(sid)[None],
        "secure.tid": torch.zeros(1, 32, dtype=torch.uint8),
        "secure.params": wire.pack(params.to_bytes())[None],
        "secure.keys": wire.pack(b"".join(secrets))[None],
        "secure.own": own.clone(),
    }
    return {"advert": own}, live, 1


def share(site: Site, body: Slots, memory: Slots) -> tuple[Slots, Slots, int]:
    """Stage 1: whom one shares masks with; one's secrets in parts, sealed for each neighbour."""
    at, me = _known(memory), site.uid
    p = at.params
    adverts = _adverts(wire.raw(body["adverts"]))
    raw, u0, n = wire.rows(body["adverts"], ADVERT), [a.uid for a in adverts], len(adverts)
    k, t = wire.integers(body["kt"])
    _need(_ascending(u0), "the adverts are not ascending")
    _need(p.n_min <= n <= p.n_max, f"{n} clients, agreed {p.n_min} to {p.n_max}")
    _need(wire.raw(memory["secure.own"]) in raw, "this client's own advert was changed")
    _need(len({x for a in adverts for x in (a.c_pk, a.s_pk)}) == 2 * n, "two keys are the same")
    if p.mode == "active":
        roster, said = site.roster or (), tagged("adv", at.sid)
        for a, row in zip(adverts, raw):
            ok = a.uid < len(roster) and site.suite.verify(roster[a.uid], a.signature, said + row[:-64])
            _need(ok, f"the advert of client {a.uid} is not signed for this session")
    wrong = graph.sound(n, k, t, p.gamma, p.delta_drop, p.kappa, p.mode)
    _need(wrong is None, wrong or "")
    tid = transcript(at.sid, n, k, t, raw)
    around = graph.neighbours(tid, u0, k, me)
    by = {a.uid: a for a in adverts}
    shared = site.suite.agree(at.secrets.c, [by[v].c_pk for v in around])
    parts_b = site.suite.split(at.secrets.b, len(around), t)
    parts_s = site.suite.split(at.secrets.s, len(around), t)
    sealed = [site.suite.seal(both, tid, me, v, pb + ps) for v, both, pb, ps in zip(around, shared, parts_b, parts_s)]
    live = _live(memory, "sid", "params", "keys") | {
        "secure.tid": wire.pack(tid)[None],
        "secure.kt": wire.numbers([k, t])[None],
        "secure.u0": wire.numbers(u0)[None],
        "secure.around": wire.numbers(around)[None],
        "secure.pks": wire.table([by[v].c_pk + by[v].s_pk for v in around], 64)[None],
    }
    return {"sealed": wire.table(sealed, SEALED)[None]}, live, 2


def masked(site: Site, body: Slots, memory: Slots) -> tuple[Slots, Slots, int]:
    """Stage 2: everybody's sealed shares open, or nothing leaves; then the masked update."""
    at, me = _known(memory), site.uid
    p = at.params
    _, t = wire.integers(memory["secure.kt"][0])
    u1 = _set(body, "u1", wire.integers(memory["secure.u0"][0]), me)
    _need(len(u1) >= p.n_min, f"only {len(u1)} clients shared, agreed {p.n_min}")
    around = wire.integers(memory["secure.around"][0])
    pks = dict(zip(around, wire.rows(memory["secure.pks"][0], 64)))
    near = _within(around, u1)
    _need(len(near) >= t, f"only {len(near)} neighbours shared, the threshold is {t}")
    _need(wire.integers(body["from"]) == near, "shares withheld, or of no neighbour")
    shares: list[bytes] = []
    channels = site.suite.agree(at.secrets.c, [pks[v][:32] for v in near])
    for v, both, sealed in zip(near, channels, wire.rows(body["sealed"], SEALED), strict=True):
        plain = site.suite.unseal(both, at.tid, v, me, sealed)
        if plain is None or len(plain) != 2 * SHARE:
            raise Abort(f"the shares of client {v} do not open")
        _need(all(int.from_bytes(x, "little") < P for x in (plain[:SHARE], plain[SHARE:])), f"no share: client {v}")
        shares.append(plain)
    words = memory["secure.waiting"][0].numpy().view(np.uint32).copy()
    _need(words.shape == (p.total,), f"the update has {len(words)} numbers, agreed {p.total}")
    shared = site.suite.agree(at.secrets.s, [pks[v][32:] for v in near])
    seeds = ((mask_seed(both, at.tid, me, v), 1 if me < v else -1) for v, both in zip(near, shared))
    site.suite.mask(words, chain([(self_seed(at.tid, at.secrets.b), 1)], seeds))
    reply = {"masked": from_numpy(words.view(np.int32))[None]}
    if p.mode == "active":
        reply["sign"] = wire.pack(site.suite.sign(site.identity, tagged("U1", at.tid, hash_set(u1))))[None]
    live = _live(memory, "sid", "params", "tid", "kt", "around") | {
        "secure.keys": torch.zeros(1, 96, dtype=torch.uint8),
        "secure.u0": wire.numbers([len(memory["secure.u0"][0])])[None],
        "secure.u1": wire.numbers(u1)[None],
        "secure.shares": wire.table(shares, 2 * SHARE)[None],
    }
    return reply, live, 3 if p.mode == "active" else 4


def _survivors(site: Site, body: Slots, memory: Slots, p: Params) -> tuple[list[int], list[int], list[int]]:
    """U2 as a client accepts it, U1, and which neighbours it holds shares of."""
    u1 = wire.integers(memory["secure.u1"][0])
    u2 = _set(body, "u2", u1, site.uid)
    least = p.floor_of(int(memory["secure.u0"][0, 0]))
    _need(len(u2) >= least, f"only {len(u2)} clients in the sum, agreed {least}")
    near = _within(wire.integers(memory["secure.around"][0]), u1)
    t = int(memory["secure.kt"][0, 1])
    _need(len(set(near) & set(u2)) >= t, "too few neighbours in the sum")
    return u2, u1, near


def consistency(site: Site, body: Slots, memory: Slots) -> tuple[Slots, Slots, int]:
    """Stage 3 (active): neighbours saw the same U1; one signature, for one U2."""
    at = _known(memory)
    u2, u1, near = _survivors(site, body, memory, at.params)
    said = tagged("U1", at.tid, hash_set(u1))
    roster = site.roster or ()
    signers = _within(near, u2)
    for v, signature in zip(signers, wire.rows(body["signatures"], 64), strict=True):
        _need(site.suite.verify(roster[v], signature, said), f"client {v} did not sign the same U1")
    signature = site.suite.sign(site.identity, tagged("U2", at.tid, hash_set(u1), hash_set(u2)))
    live = _live(memory, "sid", "params", "tid", "kt", "around", "keys", "u0", "u1", "shares")
    return {"sign": wire.pack(signature)[None]}, live | {"secure.u2": wire.numbers(u2)[None]}, 4


def unmask(site: Site, body: Slots, memory: Slots) -> tuple[Slots, Slots, int]:
    """Stage 4: for each neighbour one kind of share, never both; then everything is forgotten."""
    at = _known(memory)
    if at.params.mode == "active":
        u1, u2 = wire.integers(memory["secure.u1"][0]), wire.integers(memory["secure.u2"][0])
        near = _within(wire.integers(memory["secure.around"][0]), u1)
        said, roster = tagged("U2", at.tid, hash_set(u1), hash_set(u2)), site.roster or ()
        signers = wire.integers(body["signers"])
        signatures = wire.rows(body["signatures"], 64)
        n = int(memory["secure.u0"][0, 0])
        q3 = graph.quorum_of_signers(n, graph.corrupt(at.params.gamma, n))
        inside, good = set(u2), set[int]()
        for v, s in zip(signers, signatures, strict=True):
            if len(good) < q3 and v in inside and site.suite.verify(roster[v], s, said):
                good.add(v)
        _need(len(good) >= q3, f"{len(good)} clients signed this sum, {q3} must")
    else:
        u2, _, near = _survivors(site, body, memory, at.params)
    shares = dict(zip(near, wire.rows(memory["secure.shares"][0], 2 * SHARE)))
    inside = set(u2)
    b = [shares[v][:SHARE] for v in near if v in inside]
    s = [shares[v][SHARE:] for v in near if v not in inside]
    return {"b": wire.table(b, SHARE)[None], "s": wire.table(s, SHARE)[None]}, {}, DONE


STEPS: tuple[Step, ...] = (advertise, share, masked, consistency, unmask)
