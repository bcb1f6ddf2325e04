"""What the stages are made of, in two fidelities with the same integers and the same bytes.

`FULL` is the protocol. `IDEAL` is for simulation alone: no secret, no mask, zeros of the same length in their place. A
client's suite is its own; no server can choose it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from manyloom.secure import keys, masks, shamir
from manyloom.secure.keys import Advert, Secrets
from manyloom.secure.transcript import digest


class Suite(NamedTuple):
    """The primitives by what they are for."""

    advertise: Callable[[int, bytes, Ed25519PrivateKey | None], tuple[Advert, Secrets]]
    sign: Callable[[Ed25519PrivateKey | None, bytes], bytes]
    verify: Callable[[bytes, bytes, bytes], bool]  # key, signature, message
    agree: Callable[[bytes, Sequence[bytes]], list[bytes]]  # with each
    split: Callable[[bytes, int, int], list[bytes]]
    seal: Callable[[bytes, bytes, int, int, bytes], bytes]
    unseal: Callable[[bytes, bytes, int, int, bytes], bytes | None]
    mask: Callable[[masks.U32, Iterable[tuple[bytes, int]]], None]
    real: bool


def _sign(identity: Ed25519PrivateKey | None, message: bytes) -> bytes:
    return identity.sign(message) if identity else keys.UNSIGNED


FULL = Suite(
    keys.advertise, _sign, keys.verify, keys.agree_each, shamir.split, keys.seal, keys.unseal, masks.apply, real=True
)


def _name(uid: int, sid: bytes, identity: Ed25519PrivateKey | None) -> tuple[Advert, Secrets]:
    advert = Advert(uid, digest("c", sid, uid), digest("s", sid, uid), bytes(32), bytes(32), keys.UNSIGNED)
    return advert, Secrets(bytes(32), bytes(32), bytes(32))


def _unsigned(identity: Ed25519PrivateKey | None, message: bytes) -> bytes:
    return keys.UNSIGNED


def _believe(key: bytes, signature: bytes, message: bytes) -> bool:
    return True


def _nothing(private: bytes, others: Sequence[bytes]) -> list[bytes]:
    return [bytes(32)] * len(others)


def _zeros(secret: bytes, k: int, t: int) -> list[bytes]:
    return [bytes(shamir.SHARE)] * k


def _closed(shared: bytes, tid: bytes, u: int, v: int, plain: bytes) -> bytes:
    return bytes(keys.SEALED)


def _opened(shared: bytes, tid: bytes, u: int, v: int, sealed: bytes) -> bytes | None:
    return bytes(2 * shamir.SHARE)


def _bare(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """No mask."""


IDEAL = Suite(_name, _unsigned, _believe, _nothing, _zeros, _closed, _opened, _bare, real=False)
