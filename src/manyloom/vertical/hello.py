"""Who a party is, and what it says of itself when an exchange opens: names, pinned keys, signed hellos.

A hello is version [4] | length of the name [4] | name | role [1] | nonce [32] | X25519 key [32] | Ed25519
signature [64], little-endian; the exchange id is SHA-256("manyloom/xid/v1" | all hellos, by name).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor

from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.secure.keys import public, verify
from manyloom.secure.wire import raw
from manyloom.vertical.wire import malformed, octets

VERSION = 1
LABEL, FEATURE = 0, 1
ROLES = {LABEL: "label party", FEATURE: "feature party"}
NAME = 64  # bytes of a name at most
REST = 1 + 32 + 32 + 64  # bytes of a hello after the name


class Node(NamedTuple):
    """A party's standing identity: never in a checkpoint, never in a message."""

    name: str
    key: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """What the others pin, 32 bytes."""
        return self.key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Node({self.name!r}, {self.public.hex()[:16]})"


def node(name: str) -> Node:
    """A fresh identity.

    Raises BadInput for a name that is empty, longer than 64 bytes, or has a zero byte.
    """
    if not 0 < len(name.encode()) <= NAME or "\0" in name:
        raise bad("out-of-range", "a party's name must be 1 to 64 bytes without a zero byte", got=repr(name))
    return Node(name, Ed25519PrivateKey.generate())


class Hello(NamedTuple):
    """What a party says of itself."""

    version: int
    name: str
    role: int
    nonce: bytes
    key: bytes
    signature: bytes

    def bare(self) -> bytes:
        """All but the signature."""
        name = self.name.encode()
        return (self.version.to_bytes(4, "little") + len(name).to_bytes(4, "little") + name + bytes([self.role])
                + self.nonce + self.key)  # fmt: skip

    def to_bytes(self) -> bytes:
        return self.bare() + self.signature

    def signed(self) -> bytes:
        """What the signature is over."""
        return b"manyloom/hello/v1\0" + self.bare()


def digest(what: str, value: object) -> bytes:
    """SHA-256 of what two parties must have alike, as JSON with sorted keys.

    >>> digest("schema", {"types": ["int"], "fold": 0}) == digest("schema", {"fold": 0, "types": ["int"]})
    True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"manyloom/{what}/v1\0{text}".encode()).digest()


def parse(body: Mapping[str, Tensor], slot: str) -> list[Hello]:
    """All hellos of a slot, one after the other; BadInput names the slot where they do not fill it exactly."""
    data = raw(octets(body, slot, None))
    found: list[Hello] = []
    at = 0
    while at < len(data):
        n = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + n + REST
        if len(data) < at + 8 or not 0 < n <= NAME or len(data) < end:
            raise malformed(slot, f"{len(data)} bytes", f"hellos of {8 + REST} bytes and a name of 1 to {NAME} each")
        version, name, rest = (
            int.from_bytes(data[at : at + 4], "little"),
            data[at + 8 : at + 8 + n],
            data[end - REST : end],
        )
        try:
            text = name.decode()
        except UnicodeDecodeError:
            raise malformed(slot, "a name that is no UTF-8", "text") from None
        found.append(Hello(version, text, rest[0], rest[1:33], rest[33:65], rest[65:]))
        at = end
    return found


def size(name: str) -> int:
    """Bytes of a party's hello."""
    return 8 + len(name.encode()) + REST


def exchange_id(hellos: Iterable[Hello]) -> bytes:
    """SHA-256("manyloom/xid/v1" | all hellos with signatures, by name)."""
    return hashlib.sha256(b"manyloom/xid/v1" + joined(hellos)).digest()


def joined(hellos: Iterable[Hello]) -> bytes:
    """All hellos in the order of their names' bytes."""
    return b"".join(h.to_bytes() for h in sorted(hellos, key=lambda h: h.name.encode()))


def said(me: Node, role: int) -> tuple[Hello, bytes]:
    """A fresh signed hello, and the private key to its public one."""
    private = os.urandom(32)
    bare = Hello(VERSION, me.name, role, os.urandom(32), public(private), b"")
    return bare._replace(signature=me.key.sign(bare.signed())), private


def checked(hello: Hello, pins: Mapping[str, bytes], role: int | None = None) -> Hello:
    """The hello, if its version, role and signature are as they must be.

    Raises RunFailed naming the field.
    """
    if hello.version != VERSION:
        raise mismatch("protocol version", hello.name, f"{hello.version}, here {VERSION}", "both install one version")
    if hello.role not in ROLES or (role is not None and hello.role != role):
        raise mismatch("role", hello.name, ROLES.get(hello.role, str(hello.role)), "one label party, no other roles")
    if hello.name not in pins:
        raise mismatch("sender", hello.name, "no pinned key", "pin the node keys of all parties first")
    if not verify(pins[hello.name], hello.signature, hello.signed()):
        raise mismatch("signature", hello.name, "not by the pinned key", "compare node keys over another channel")
    return hello


def mismatch(field: str, name: str, got: str, mend: str, rule: str | None = None) -> RunFailed:
    """The failure of an opening at one field of one party."""
    what = f'opening: the {field} of "{name}" is not what was agreed'
    return RunFailed(Problem("opening", what, f"{field}: {got}", rule=rule, mend=mend))
