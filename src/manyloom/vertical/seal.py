"""Sealed bodies: what two parties tell each other through a hub that sees verb, sizes and times only.

One AES-256-GCM key per ordered pair of parties, from the opening. A box is counter [12] | ciphertext | tag [16]. The
counter is the nonce and never goes back; a reply carries the counter of its ask, so it answers that ask and no other.
The text is a body's length in 8 bytes, the body as safetensors, and zeros up to a multiple of 4 KiB.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from manyloom.core.errors import ManyloomError, Problem, RunFailed, bad
from manyloom.core.slots import Slots, from_bytes, to_bytes
from manyloom.secure.wire import pack, raw
from manyloom.vertical.wire import octets

PAD = 4096
BODY = 8 << 20  # bytes of a body at most
NONCE, TAG, HEAD = 12, 16, 8
COUNTERS = 1 << 62
BOX = "box"


class Keys(NamedTuple):
    """What two parties share: the key of what is sent, and the key of what comes back."""

    out: bytes
    back: bytes


def agreed(private: bytes, other: bytes, xid: bytes, me: str, them: str) -> Keys:
    """Both keys of a pair: HKDF-SHA256(X25519, salt = xid, info = "manyloom/seal/v1" | 0 | sender | 0 | recipient).

    Raises RunFailed where the other's key is of small order (the shared secret would be zero).
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError:
        shared = bytes(32)
    if not any(shared):
        raise broken(f'the key of "{them}" gives an all-zero secret', "an X25519 key of full order")
    return Keys(derived(shared, xid, me, them), derived(shared, xid, them, me))


def derived(shared: bytes, xid: bytes, sender: str, recipient: str) -> bytes:
    """The key of what one says to the other, 32 bytes."""
    info = b"\0".join([b"manyloom/seal/v1", sender.encode(), recipient.encode()])
    return HKDF(algorithm=SHA256(), length=32, salt=xid, info=info).derive(shared)


def seal(key: bytes, verb: str, counter: int, body: Mapping[str, Tensor]) -> Tensor:
    """A body as a box, uint8 [12 + k 4096 + 16].

    Raises:
        BadInput: `too-large` for a body above 8 MiB: long vectors are sent in chunks.
    """
    if not 0 <= counter < COUNTERS:
        raise broken(f"{counter} messages between two parties", "a key is used for fewer")
    text = to_bytes(body)
    if len(text) > BODY:
        raise bad("too-large", f'"{verb}" would send too much at once', got=f"{len(text)} bytes",
                  rule=f"a body has at most {BODY} bytes", mend="send it in chunks")  # fmt: skip
    text = struct.pack("<Q", len(text)) + text
    text += bytes(-len(text) % PAD)
    nonce = counter.to_bytes(NONCE, "big")
    return pack(nonce + AESGCM(key).encrypt(nonce, text, _bound(verb, nonce)))


def number(body: Mapping[str, Tensor], slot: str = BOX) -> int:
    """The counter of a box, as it says itself; only opening it proves that.

    Raises:
        BadInput: `malformed`, if the slot can hold no box.
    """
    box = octets(body, slot, None)
    if len(box) < NONCE + PAD + TAG or (len(box) - NONCE - TAG) % PAD:
        raise bad("malformed", f'"{slot}" is no box', got=f"{len(box)} bytes",
                  rule=f"{NONCE} bytes, one or more of {PAD} bytes, {TAG} bytes")  # fmt: skip
    return int.from_bytes(raw(box[:NONCE]), "big")


def unseal(key: bytes, verb: str, body: Mapping[str, Tensor], slot: str = BOX) -> Slots:
    """What is in a box.

    Raises:
        BadInput: `malformed`, if the slot can hold no box.
        RunFailed: it does not open: another key, verb or counter, or bytes that were changed.
    """
    number(body, slot)
    box = raw(body[slot].cpu())
    try:
        text = AESGCM(key).decrypt(box[:NONCE], box[NONCE:], _bound(verb, box[:NONCE]))
    except InvalidTag:
        rule = "sealed by the other party, for this ask, as it came"
        raise broken(f'the box of "{verb}" does not open', rule) from None
    (length,) = struct.unpack("<Q", text[:HEAD])
    if length > len(text) - HEAD or len(text) - HEAD - length >= PAD or any(text[HEAD + length :]):
        raise broken(f'the box of "{verb}" holds no body', "its length, the body, zeros up to 4 KiB")
    return from_bytes(text[HEAD : HEAD + length])


def _bound(verb: str, nonce: bytes) -> bytes:
    return verb.encode() + b"\0" + nonce


def broken(what: str, rule: str) -> RunFailed:
    """What ends an exchange on both sides."""
    mend = "start again: all keys are then new; if it comes back, what lies between the parties changes what they send"
    return RunFailed(Problem("box", what, rule=rule, mend=mend))


class Sealer:
    """The label party's half of the channels to all feature parties, and the one thing here that changes.

    Its counters go on over all exchanges after one opening. It can't be copied or saved: a copy would use a
    (key, nonce) pair twice.

    Args:
        names: of the feature parties, by number.
        keys: shared with each.
        used: counters below this were used, by the opening.
    """

    def __init__(self, names: Sequence[str], keys: Sequence[Keys], used: int = 0) -> None:
        self.names = tuple(names)
        self._keys = tuple(keys)
        self._next = [used] * len(keys)

    def seal(self, party: int, verb: str, body: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """A box for one party, and its counter."""
        counter = self._next[party]
        self._next[party] = counter + 1
        return seal(self._keys[party].out, verb, counter, body), counter

    def unseal(self, party: int, verb: str, counter: int, body: Mapping[str, Tensor]) -> Slots:
        """What a party answers to the ask of this counter.

        Raises:
            RunFailed: the box does not open, or answers another ask.
        """
        try:
            found = unseal(self._keys[party].back, verb, body) if set(body) == {BOX} else None
            if found is not None and number(body) == counter:
                return found
        except ManyloomError as error:
            what = error.what
        else:
            what = "no box" if found is None else "its box answers another ask"
        raise broken(
            f'"{self.names[party]}" answered "{verb}" with what can\'t be used: {what}', "one box, for this ask"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("a sealer can't be copied or saved: no nonce may be used twice")
