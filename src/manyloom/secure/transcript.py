"""What a session is: every byte that is hashed, signed or bound, injectively encoded.

Integers are u32 little-endian; keys, hashes, seeds and signatures are raw and of fixed length; text is UTF-8 after its
length. Each hashed or signed string starts with a tag. Clients who were shown another model, parameter, roster or
advert are in another session: they share no key, no mask and no signature.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

NO_ROSTER = bytes(32)  # H(roster) where the server numbers the clients (semi-honest only)


def u32(value: int) -> bytes:
    """An integer of 0 .. 2^32 - 1, little-endian."""
    return value.to_bytes(4, "little")


def text(value: str) -> bytes:
    """Text after its length in bytes.

    >>> text("adv")
    b'\\x03\\x00\\x00\\x00adv'
    """
    raw = value.encode()
    return u32(len(raw)) + raw


def tagged(tag: str, *parts: bytes | int) -> bytes:
    """tag | parts: integers as u32, bytes as they are, so each must be of fixed length or carry its own.

    >>> tagged("set", 1, bytes(2)).hex()
    '03000000736574010000000000'
    """
    return text(tag) + b"".join(u32(p) if isinstance(p, int) else p for p in parts)


def digest(tag: str, *parts: bytes | int) -> bytes:
    """H(tag | parts), SHA-256."""
    return hashlib.sha256(tagged(tag, *parts)).digest()


def hash_set(uids: Iterable[int]) -> bytes:
    """H("set" | count | uids ascending)."""
    members = sorted(uids)
    return digest("set", len(members), struct.pack(f"<{len(members)}I", *members))


def hash_roster(roster: Sequence[bytes] | None) -> bytes:
    """H("roster" | count | keys), or 32 zero bytes where there is none."""
    return digest("roster", len(roster), *roster) if roster else NO_ROSTER


def hash_model(tensors: Mapping[str, Tensor]) -> bytes:
    """H("model" | name | dtype | rank | dimensions | bytes, a tensor after the other), in the order given."""
    h = hashlib.sha256(text("model"))
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().contiguous().numpy()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        h.update(text(name) + text(str(tensor.dtype).removeprefix("torch.")) + u32(tensor.dim()))
        h.update(b"".join(u32(n) for n in tensor.shape))
        h.update(little.tobytes())
    return h.digest()


def session(
    job_digest: bytes, run_id: str, round: int, attempt: int, model: bytes, params: bytes, roster: bytes
) -> bytes:
    """sid: what all who take part in one attempt of a round agree on beforehand."""
    return digest("flsa1 sid", job_digest, text(run_id), round, attempt, model, params, roster)


def transcript(sid: bytes, n: int, k: int, t: int, adverts: Sequence[bytes]) -> bytes:
    """tid: the session, the graph's degree and threshold, and all adverts by ascending uid."""
    return digest("flsa1 tid", sid, n, k, t, *adverts)
