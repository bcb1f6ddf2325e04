"""Private set intersection: which ids two parties share, and nothing of the others (vertical alignment by ECDH).

Both mask hashed ids with a secret scalar, each masks the other's again, and equal ids end as equal points:
H(x)^(ab) = H(y)^(ba) iff x = y (Meadows 1986; Huberman, Franklin, Hogg 1999). This is the label party's half; the
feature party's is `psi_party`. What it rests on: Diffie-Hellman on Curve25519 and a random oracle; parties that follow
the protocol. Sizes are told, unless made up ids round the feature party's up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.core.exchange import Ask, Exchange, Lost
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.tensors import from_numpy
from manyloom.vertical import psi_wire as wire
from manyloom.vertical.curve import U8, Masking, masking, scalar
from manyloom.vertical.psi_party import handlers as handlers
from manyloom.vertical.psi_wire import CHUNK, FEW, FLOOR, I64
from manyloom.vertical.settings import Align
from manyloom.vertical.wire import bitmap


class Aligned(NamedTuple):
    """What an alignment with one feature party came to.

    `rows` are places in the label party's keys, in the agreed order; None where only a count is told, and `few` where
    even that is no more than "below 10" (`common` is 0 then). `digest` is what both sides compared: it differs from run
    to run, as masks do. `sizes` are n_A and n_B, made up ids included.
    """

    common: int
    rows: I64 | None
    digest: bytes
    sizes: tuple[int, ...]
    sent_up: int
    sent_down: int
    few: bool = False

    @property
    def told(self) -> str:
        """How many are common, as it may be told."""
        return f"below {FEW}" if self.few else str(self.common)


class AlignedAll(NamedTuple):
    """What the alignment with all feature parties came to: `pairs` one by one, the rest of the rows that all have."""

    common: int
    rows: I64 | None
    digest: bytes
    sizes: tuple[int, ...]
    sent_up: int
    sent_down: int
    pairs: tuple[Aligned, ...]


def align(
    keys: Sequence[bytes],
    party: int,
    *,
    xid: bytes,
    settings: Align,
    deadline_s: float = 3600.0,
    chunk: int = CHUNK,
    floor: int = FLOOR,
    threads: int | None = None,
) -> Exchange[Aligned]:
    """Find the ids shared with one feature party; with reveal = "both" it learns them too, and keeps its rows.

    Args:
        keys: canonical (`ids.canonical`), each once.
        party: the feature party's number.
        xid: the exchange id of the opening [32].
        settings: the job's `[align]`, the same at both.
        deadline_s: of each ask.
        chunk: ids of an ask.
        floor: with reveal = "count", the least ids of either side.
        threads: to work with; as many as torch has by default.

    Raises RunFailed naming the party and the step: it was lost, it refused, or it sent what no party sends that follows
    the protocol. The scalar is gone then; another attempt needs a new opening.
    """
    reveal, line = settings.reveal, _Line(party, deadline_s)
    if reveal == "count" and len(keys) < floor:
        raise bad("too-few-ids", f"how many ids are common is told from {floor} ids a side on",
                  got=f"{len(keys)} at the label party", rule="a count over few ids tells who they are")  # fmt: skip
    if len(xid) != 32 or len(set(keys)) != len(keys):
        raise bad("bad-ids", "keys must differ, and the exchange id must be 32 bytes")
    n_a, said = len(keys), torch.tensor([wire.REVEALS.index(reveal)], dtype=torch.uint8)
    reply = yield from line.ask("ids.open", {"n": torch.tensor(n_a), "reveal": said})
    with line.reading("ids.open"):
        n_b = wire.count_of(reply, "n")
        if n_b < (floor if reveal == "count" else 0):
            raise ValueError(f"{n_b} ids are too few")
    width = wire.width(n_a, n_b)
    order = wire.permutation(n_a)
    with masking(scalar(), xid, threads or torch.get_num_threads()) as masks:
        theirs = yield from _theirs(line, masks, wire.chunks(n_b, chunk), width)
        mine = yield from _mine(line, masks, [keys[int(i)] for i in order], chunk, width, reveal)
    with line.reading("ids.remask"):
        mine_set = wire.digest_set(mine)
        theirs_set = wire.digest_set(theirs)
    if reveal == "count":
        common = int((theirs_set.find(mine) >= 0).sum())
        few = common < FEW
        return Aligned(0 if few else common, None, b"", (n_a, n_b), line.up, line.down, few)
    found = mine_set.find(theirs)  # for each of theirs, which of mine
    places = order[found[found >= 0]]
    at = wire.agreed_order([keys[int(i)] for i in places])
    digest = wire.sealed(theirs[found >= 0][at])
    if reveal == "both":
        parts = wire.chunks(n_b, chunk)
        for k, part in enumerate(parts):
            body = {"k": wire.place(k, len(parts)), "digests": wire.tensor(theirs[part])}
            yield from line.ask("ids.return", body, k, len(parts))
        sealed = wire.tensor(np.frombuffer(digest, np.uint8))
        reply = yield from line.ask("ids.confirm", {"count": torch.tensor(len(at)), "digest": sealed})
        with line.reading("ids.confirm"):
            if (wire.count_of(reply, "count"), wire.bytes_of(reply, "digest", 32).tobytes()) != (len(at), digest):
                raise ValueError("the two sides do not find the same common ids")
    return Aligned(len(at), places[at], digest, (n_a, n_b), line.up, line.down)


def _theirs(line: _Line, masks: Masking, parts: Sequence[slice], width: int) -> Exchange[U8]:
    """The feature party's points, masked again: digests [n_b, T] in the order it sent them."""
    made: list[U8] = []
    waiting: Callable[[], U8] | None = None
    for k, part in enumerate((*parts, None)):
        begun = None
        if part is not None:
            reply = yield from line.ask("ids.masked", {"k": wire.place(k, len(parts))}, k, len(parts))
            with line.reading("ids.masked", k, len(parts)):
                points = wire.bytes_of(reply, "points", part.stop - part.start, 32)
                begun = masks.points(points, width)
        if waiting is not None:
            with line.reading("ids.masked", k - 1, len(parts)):
                made.append(waiting())
        waiting = begun  # worked on while the next chunk is asked for
    return np.concatenate(made)


def _mine(line: _Line, masks: Masking, keys: Sequence[bytes], chunk: int, width: int, reveal: str) -> Exchange[U8]:
    """Digests of the own keys [n_a, T], which the feature party makes: in this order, or shuffled with "count"."""
    parts = wire.chunks(len(keys), chunk)
    made: list[U8] = []
    ahead = masks.ids(keys[parts[0]], of=len(keys))
    for k, part in enumerate(parts):
        points = ahead()
        if k + 1 < len(parts):
            ahead = masks.ids(keys[parts[k + 1]], of=len(keys))
        body = {"k": wire.place(k, len(parts)), "points": wire.tensor(points)}
        reply = yield from line.ask("ids.remask", body, k, len(parts))
        with line.reading("ids.remask", k, len(parts)):
            told = 0 if reveal == "count" else part.stop - part.start
            made.append(wire.bytes_of(reply, "digests", told, width))
    if reveal == "count":
        for k, part in enumerate(parts):
            reply = yield from line.ask("ids.shuffled", {"k": wire.place(k, len(parts))}, k, len(parts))
            with line.reading("ids.shuffled", k, len(parts)):
                made.append(wire.bytes_of(reply, "digests", part.stop - part.start, width))
    return np.concatenate(made)


def aligned_all(
    keys: Sequence[bytes], parties: int, *, xid: bytes, settings: Align, deadline_s: float = 3600.0, chunk: int = CHUNK,
    threads: int | None = None,
) -> Exchange[AlignedAll]:  # fmt: skip
    """Find the ids that the label party and all of `parties` feature parties share, pair by pair.

    The label party learns what it shares with each, and each what it shares with the label party: the price of pairs.
    With reveal = "both" every party then keeps its rows of the ids that all have, in one order.
    Arguments and errors as in `align`; reveal = "count" is for one feature party.
    """
    if parties < 1 or (settings.reveal == "count" and parties > 1):
        raise bad("out-of-range", 'with reveal = "count" there is one feature party', got=f"{parties} parties")
    pairs: list[Aligned] = []
    for party in range(parties):
        pair = yield from align(keys, party, xid=xid, settings=settings, deadline_s=deadline_s, chunk=chunk,
                                threads=threads)  # fmt: skip
        pairs.append(pair)
    up, down = sum(p.sent_up for p in pairs), sum(p.sent_down for p in pairs)
    sizes = (len(keys), *(p.sizes[1] for p in pairs))
    rows, digest = pairs[0].rows, hashlib.sha256(b"".join(p.digest for p in pairs)).digest()
    if parties == 1 or rows is None:
        return AlignedAll(pairs[0].common, rows, pairs[0].digest, sizes, up, down, tuple(pairs))
    for pair in pairs[1:]:
        assert pair.rows is not None
        rows = rows[np.isin(rows, pair.rows)]  # all are in the agreed order, and so is any part of one
    for party, pair in enumerate(pairs):
        if settings.reveal == "label":
            break
        assert pair.rows is not None
        line = _Line(party, deadline_s)
        bits = bitmap(from_numpy(np.isin(pair.rows, rows)))
        reply = yield from line.ask("ids.keep", {"n": torch.tensor(pair.common), "bits": bits})
        with line.reading("ids.keep"):
            if wire.count_of(reply, "count") != len(rows):
                raise ValueError(f"it keeps another number of rows than {len(rows)}")
        up, down = up + line.up, down + line.down
    return AlignedAll(len(rows), rows, digest, sizes, up, down, tuple(pairs))


def traffic(
    n_label: int, n_features: Sequence[int], common: Sequence[int], final: int, settings: Align, *, chunk: int = CHUNK
) -> tuple[int, int]:
    """Bytes up and down of `aligned_all`, exactly.

    Args:
        n_label: ids of the label party.
        n_features: ids of each feature party; those made up are added here.
        common: what each shares with the label party.
        final: what all share; it changes nothing.
        settings: the job's `[align]`.
        chunk: ids of an ask.
    """
    told = [wire.padded(n, settings.dummies) for n in n_features]
    pairs = [wire.traffic(n_label, n, settings.reveal, chunk=chunk) for n in told]
    if len(told) > 1 and settings.reveal == "both":
        pairs += [wire.keep_traffic(m) for m in common]
    return sum(up for up, _ in pairs), sum(down for _, down in pairs)


@dataclass
class _Line:
    """The line to one feature party: asks, counts bytes, and says what went wrong where."""

    party: int
    deadline_s: float
    up: int = 0
    down: int = 0

    def ask(self, verb: str, body: Slots, k: int = 0, of: int = 1) -> Exchange[Mapping[str, Tensor]]:
        answers = yield Ask(np.array([self.party], np.int64), verb, body, deadline_s=self.deadline_s)
        self.down += size_bytes(body)
        answer = answers[0]
        if isinstance(answer, Lost):
            raise self._failed(verb, k, of, f"it was lost ({answer.reason})", answer.text)
        self.up += size_bytes(answer.body)
        return answer.body

    @contextmanager
    def reading(self, verb: str, k: int = 0, of: int = 1) -> Generator[None]:
        """What a reply holds is refused by name."""
        try:
            yield
        except ValueError as why:
            raise self._failed(verb, k, of, "its answer is refused", str(why)) from None

    def _failed(self, verb: str, k: int, of: int, what: str, why: str) -> RunFailed:
        chunk = f", chunk {k + 1} of {of}" if of > 1 else ""
        return RunFailed(Problem("alignment-failed", f"feature party {self.party}: {what} at {verb}{chunk}", got=why,
                                 rule="a broken alignment starts again from the opening, with fresh keys",
                                 mend="see to that party, then resume or run the job again"))  # fmt: skip
