"""Keys of one attempt: X25519 for channels and masks, Ed25519 for who says so, HKDF-SHA256 bound to the transcript.

Nothing here is invented: every primitive is the `cryptography` package's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from manyloom.secure.transcript import digest, tagged, u32

ADVERT = 196  # bytes
SEALED = 82  # bytes of two shares and their tag
UNSIGNED = bytes(64)
Entropy = Callable[[int], bytes]


class Secrets(NamedTuple):
    """What a client never tells: its two private keys and the seed of its self mask, 32 bytes each."""

    c: bytes
    s: bytes
    b: bytes


class Advert(NamedTuple):
    """What a client says of itself at stage 0."""

    uid: int
    c_pk: bytes
    s_pk: bytes
    nonce: bytes
    commit: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        return u32(self.uid) + b"".join(self[1:])

    @staticmethod
    def from_bytes(raw: bytes) -> Advert:
        """The advert of 196 bytes; ValueError for any other length."""
        if len(raw) != ADVERT:
            raise ValueError(f"an advert has {ADVERT} bytes, not {len(raw)}")
        parts = [raw[i : i + 32] for i in range(4, 132, 32)]
        return Advert(int.from_bytes(raw[:4], "little"), parts[0], parts[1], parts[2], parts[3], raw[132:])

    def signed(self, sid: bytes) -> bytes:
        """What the signature is over."""
        return tagged("adv", sid, self.uid, *self[1:5])


def public(private: bytes) -> bytes:
    """The X25519 public key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def commitment(sid: bytes, b: bytes) -> bytes:
    """H("b" | sid | b): binds a client to its self mask."""
    return digest("b", sid, b)


def advertise(
    uid: int, sid: bytes, identity: Ed25519PrivateKey | None, entropy: Entropy = os.urandom
) -> tuple[Advert, Secrets]:
    """Fresh keys, and the advert that shows their public halves; unsigned without an identity."""
    secrets = Secrets(entropy(32), entropy(32), entropy(32))
    bare = Advert(uid, public(secrets.c), public(secrets.s), entropy(32), commitment(sid, secrets.b), UNSIGNED)
    return (bare._replace(signature=identity.sign(bare.signed(sid))) if identity else bare), secrets


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the holder of a roster key signed these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def agree(private: bytes, other: bytes) -> bytes:
    """X25519; ValueError where the other key is of small order (the result would be zero)."""
    return agree_each(private, [other])[0]


def agree_each(private: bytes, others: Iterable[bytes]) -> list[bytes]:
    """X25519 with each; the private key is read once, which is half of the work."""
    own = X25519PrivateKey.from_private_bytes(private)
    return [own.exchange(X25519PublicKey.from_public_bytes(other)) for other in others]


def _derive(shared: bytes, tid: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=tid, info=info).derive(shared)


def mask_seed(shared: bytes, tid: bytes, u: int, v: int) -> bytes:
    """The pairwise seed, 16 bytes: the same for both."""
    return _derive(shared, tid, tagged("mask", min(u, v), max(u, v)), 16)


def self_seed(tid: bytes, b: bytes) -> bytes:
    """The seed of the self mask, 16 bytes."""
    return digest("self", tid, b)[:16]


def seal(shared: bytes, tid: bytes, u: int, v: int, plain: bytes) -> bytes:
    """What u tells v alone. The key encrypts exactly one message, hence the zero nonce."""
    key = _derive(shared, tid, tagged("chan", u, v), 32)
    return ChaCha20Poly1305(key).encrypt(bytes(12), plain, tagged("share", tid, u, v))


def unseal(shared: bytes, tid: bytes, u: int, v: int, sealed: bytes) -> bytes | None:
    """What v reads of u's message; None where it is not u's, not for v, or not of this transcript."""
    key = _derive(shared, tid, tagged("chan", u, v), 32)
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(12), sealed, tagged("share", tid, u, v))
    except InvalidTag:
        return None
