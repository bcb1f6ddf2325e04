"""Fixed keys, coefficients and inputs: every message, bit for bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manyloom.secure import FULL, keys, shamir
from manyloom.secure.keys import Advert, Secrets
from tests.secure.playing import World, params

GOLDEN = {
    0: "12391ed528291d6b",
    1: "daf37ad37ae8119c",
    2: "a96444186d56990e",
    3: "438aec4da9b9c5c8",
    4: "f2a34b4602ed0fc0",
}


def counted(tag: bytes) -> Callable[[int], bytes]:
    """Bytes that repeat: for this test alone."""
    calls = iter(range(10**6))
    return lambda n: hashlib.sha256(tag + next(calls).to_bytes(4, "little")).digest()[:n]


def advertise(uid: int, sid: bytes, identity: Ed25519PrivateKey | None) -> tuple[Advert, Secrets]:
    return keys.advertise(uid, sid, identity, counted(bytes([uid])))


def split(secret: bytes, k: int, t: int) -> list[bytes]:
    entropy = counted(secret)
    return shamir.split(secret, k, t, lambda n: int.from_bytes(entropy(32), "little") % n)


def test_every_message() -> None:
    world = World(5, params(5, 9), lost={(0, 2): {4}}, suite=FULL._replace(advertise=advertise, split=split))
    got = world.run()
    assert got.total is not None and np.array_equal(got.total, world.plain(np.arange(4)))
    found = {}
    for stage in range(5):
        h = hashlib.sha256()
        for s, _, body in world.replies:
            if s == stage:
                for name in sorted(body):
                    array = body[name].numpy()
                    h.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        found[stage] = h.hexdigest()[:16]
    assert found == GOLDEN
