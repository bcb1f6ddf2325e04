"""How a server turns shares into seeds, and seeds into the sum: nothing here is asked or sent."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from manyloom.secure import keys, masks, shamir
from manyloom.secure.keys import Advert
from manyloom.secure.suite import Suite

TRIES = 1000
Point = tuple[int, bytes]


class Opened(NamedTuple):
    """A secret, and who sent a share that is off its polynomial."""

    secret: bytes
    liars: list[int]  # the x of their shares


def rebuild(points: Sequence[Point], t: int, right: Callable[[bytes], bool]) -> Opened | None:
    """The secret of t shares that `right` accepts; with wrong shares among them, random parts are tried.

    `None` where no part gives it. The draw decides nothing but which parts are tried, so it is not secret.
    """
    if len(points) < t:
        return None
    draw = random.Random(0)
    basis = list(points[:t])
    for _ in range(TRIES + 1):
        secret = shamir.secret_of(basis)
        if secret is not None and right(secret):
            return Opened(secret, shamir.strays(points[t:] if basis == list(points[:t]) else points, basis))
        if len(points) == t:
            return None
        basis = draw.sample(list(points), t)
    return None


def usable(advert: Advert, probe: bytes) -> bool:
    """Whether both keys of an advert can be agreed with (not of small order)."""
    try:
        keys.agree_each(probe, (advert.c_pk, advert.s_pk))
    except ValueError:
        return False
    return True


def unmask(
    total: masks.U32,
    suite: Suite,
    tid: bytes,
    sid: bytes,
    t: int,
    around: Mapping[int, Sequence[int]],
    adverts: Mapping[int, Advert],
    u1: Sequence[int],
    u2: Sequence[int],
    b: Mapping[int, Mapping[int, bytes]],
    s: Mapping[int, Mapping[int, bytes]],
) -> tuple[str | None, list[int]]:
    """Take the self masks of U2, and the masks between U2 and who was lost after U1, off the sum, in place.

    Args:
        total: the masked sum [d_total].
        b, s: shares by whose secret it is, then by who sent it.

    Returns:
        What could not be opened (then `total` means nothing), and who sent wrong shares.
    """
    inside, liars, seeds = set(u2), set[int](), list[tuple[bytes, int]]()
    for v in u1:
        kept = v in inside
        rank = {w: i + 1 for i, w in enumerate(around[v])}
        sent = (b if kept else s).get(v, {})
        if len(sent) < t:
            return f"{len(sent)} shares of client {v}, {t} are needed", sorted(liars)
        if not suite.real:
            continue
        advert = adverts[v]
        if kept:
            opened = rebuild(
                [(rank[w], y) for w, y in sent.items()], t, lambda x, a=advert: keys.commitment(sid, x) == a.commit
            )
        else:
            opened = rebuild([(rank[w], y) for w, y in sent.items()], t, lambda x, a=advert: keys.public(x) == a.s_pk)
        if opened is None:
            return f"the shares of client {v} open nothing that it committed to", sorted(liars)
        liars |= {around[v][x - 1] for x in opened.liars}
        if kept:
            seeds.append((keys.self_seed(tid, opened.secret), -1))
            continue
        near = [w for w in around[v] if w in inside]
        for w, shared in zip(near, keys.agree_each(opened.secret, [adverts[w].s_pk for w in near])):
            seeds.append((keys.mask_seed(shared, tid, w, v), -1 if w < v else 1))  # w added +PRG if w < v
    suite.mask(total, seeds)
    return None, sorted(liars)
