"""The opening of an exchange between parties: who takes part, fresh keys, and the same schema and parameters.

Two asks. `open.hello`: everybody says who it is and signs it. `open.check`: everybody sees all hellos, and from then on
speaks in boxes (`vertical.seal`); schema and parameters are compared. A retried or resumed exchange opens anew, so
no id, key or nonce is used twice. Where something differs, a third ask tells all parties to forget their keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.core.exchange import Ask, Exchange, Handler, Ids, Lost, Reply
from manyloom.core.slots import Slots, pack_json
from manyloom.secure.wire import numbers, pack, raw
from manyloom.vertical import seal, sealed
from manyloom.vertical.hello import (
    FEATURE,
    LABEL,
    Hello,
    Node,
    checked,
    digest,
    exchange_id,
    joined,
    mismatch,
    node,
    parse,
    said,
    size,
)
from manyloom.vertical.party import Party
from manyloom.vertical.seal import BOX, Sealer
from manyloom.vertical.wire import malformed, octets, whole

__all__ = ["Node", "Opened", "digest", "handlers", "node", "opened", "traffic"]

FIELDS = ("schema", "parameters")
XID, PRIVATE, MINE, THEIRS = "xid", "open.private", "open.mine", "open.theirs"
HELLO, HELLOS, FIELD = "hello", "hellos", "field"


class Opened(NamedTuple):
    """An open exchange at the label party."""

    xid: bytes
    sealer: Sealer


def _differs(field: str, name: str) -> RunFailed:
    rule = {"schema": "types and order of the id columns are the same at all parties",
            "parameters": "all settings but a party's own columns are the same at all parties"}[field]  # fmt: skip
    return mismatch(f"{field} digest", name, "another one", "compare the job files", rule)


# ---- the label party


def opened(parties: int, me: Node, pins: Mapping[str, bytes], *, names: Sequence[str], schema: bytes, parameters: bytes,
           deadline_s: float = 3600.0) -> Exchange[Opened]:  # fmt: skip
    """Open an exchange with feature parties 0 .. parties - 1.

    Args:
        parties: how many.
        me: the label party's node.
        pins: public node keys by name, of all who may take part.
        names: of the feature parties, by number.
        schema: digest of the id columns' types and order, 32 bytes.
        parameters: digest of all public settings, 32 bytes.
        deadline_s: of each ask.

    Raises:
        RunFailed: a party is lost, is not who it should be, or has another schema or other parameters; all are told.
    """
    if len(names) != parties or len({me.name, *names}) != parties + 1:
        raise bad("out-of-range", "each party needs a name of its own", got=", ".join([me.name, *names]))
    to = np.arange(parties, dtype=np.int64)
    mine, private = said(me, LABEL)
    answers = yield Ask(to, "open.hello", {HELLO: pack(mine.to_bytes())}, quorum=parties, deadline_s=deadline_s)
    hellos: list[Hello] = []
    for name, reply in zip(names, _all(answers, names, "open.hello")):
        theirs = parse(reply.body, HELLO)
        if len(theirs) != 1 or theirs[0].name != name:
            raise mismatch("sender", name, ", ".join(h.name for h in theirs) or "nobody", "compare the parties' names")
        hellos.append(checked(theirs[0], pins, FEATURE))
    xid = exchange_id([mine, *hellos])
    sealer = Sealer(names, [seal.agreed(private, h.key, xid, me.name, h.name) for h in hellos])
    boxes = [sealer.seal(i, "open.check", _digests(schema, parameters)) for i in range(parties)]
    ask = Ask(to, "open.check", {HELLOS: pack(joined([mine, *hellos]))},
              {i: {BOX: box} for i, (box, _) in enumerate(boxes)}, quorum=parties, deadline_s=deadline_s)  # fmt: skip
    checks = _all((yield ask), names, "open.check")
    for i, (name, reply, (_, counter)) in enumerate(zip(names, checks, boxes)):
        theirs = sealer.unseal(i, "open.check", counter, reply.body)
        field = _different(theirs, schema, parameters)
        if field is not None:
            yield from _abort(to, field, sealer, deadline_s)
            raise _differs(field, name)
    return Opened(xid, sealer)


def _all(answers: Sequence[Reply | Lost], names: Sequence[str], verb: str) -> list[Reply]:
    """The answer of each party by number, or the failure that one of them is."""
    for lost in answers:
        if isinstance(lost, Lost):
            what = f'opening: "{names[lost.client]}" gave no answer to {verb}'
            raise RunFailed(Problem("opening", what, lost.text, rule="all parties must be there",
                                    mend="see what it says, then start again"))  # fmt: skip
    found = {int(r.clients[0]): r for r in answers if isinstance(r, Reply) and len(r.clients) == 1}
    if set(found) != set(range(len(names))):
        raise RunFailed(Problem("opening", f"opening: {len(found)} of {len(names)} parties answered {verb}"))
    return [found[i] for i in range(len(names))]


def _abort(to: Ids, field: str, sealer: Sealer, deadline_s: float) -> Exchange[None]:
    """Tell all, as far as they still listen, what it was that differs."""
    body = {FIELD: numbers([FIELDS.index(field)])}
    each: dict[int, Slots] = {i: {BOX: sealer.seal(i, "open.abort", body)[0]} for i in range(len(to))}
    yield Ask(to, "open.abort", each=each, quorum=0, deadline_s=deadline_s)


def _digests(schema: bytes, parameters: bytes) -> Slots:
    return {"schema": pack(schema), "parameters": pack(parameters)}


def _different(theirs: Slots, schema: bytes, parameters: bytes) -> str | None:
    mine = _digests(schema, parameters)
    return next((f for f in FIELDS if not torch.equal(octets(theirs, f, 32), mine[f])), None)


def traffic(names: Sequence[str], label: str) -> tuple[int, int]:
    """Bytes up and down of an opening that succeeds, exactly: names of the feature parties, and the label party's."""
    mine, theirs = size(label), [size(n) for n in names]
    box = seal.NONCE + seal.PAD + seal.TAG
    k = len(names)
    return sum(theirs) + k * box, k * (mine + mine + sum(theirs) + box)


# ---- a feature party


SECRET = (XID, PRIVATE, MINE, THEIRS, *sealed.SECRET)


def handlers(me: Node, pins: Mapping[str, bytes], schema: bytes, parameters: bytes) -> dict[str, Handler]:
    """What a feature party answers; once open, its secret memory has "xid" uint8 [32] and the keys of its channels."""

    def hello(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        theirs = parse(body, HELLO)
        if len(theirs) != 1:
            raise malformed(HELLO, f"{len(theirs)} hellos", "one")
        checked(theirs[0], pins, LABEL)
        if THEIRS in memory and torch.equal(memory[THEIRS], body[HELLO]):
            return {HELLO: memory[MINE].clone()}, {}  # the same ask again
        mine, private = said(me, FEATURE)
        told = pack(mine.to_bytes())
        return {HELLO: told}, {THEIRS: body[HELLO].clone(), MINE: told.clone(), PRIVATE: pack(private)}

    def check(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        asked = pack(hashlib.sha256(raw(octets(body, HELLOS, None)) + raw(octets(body, BOX, None))).digest())
        if sealed.ASKED in memory and torch.equal(memory[sealed.ASKED], asked):
            return {BOX: memory[sealed.ANSWER].clone()}, {}
        if not len(memory.get(PRIVATE, ())):
            raise RunFailed(Problem("opening", "opening: open.check came without open.hello", mend="open anew"))
        hellos, label = _present(body, raw(memory[MINE]), pins)
        xid, private = exchange_id(hellos), raw(memory[PRIVATE])
        pairs = [None if h.name == me.name else seal.agreed(private, h.key, xid, me.name, h.name) for h in hellos]
        mine = pairs[label]
        assert mine is not None
        counter = seal.number(body)
        theirs = seal.unseal(mine.back, "open.check", body)
        field = _different(theirs, schema, parameters)
        answer = seal.seal(mine.out, "open.check", counter, _digests(schema, parameters))
        n = len(hellos)
        rows = [pack(k.out + k.back) if k else torch.zeros(64, dtype=torch.uint8) for k in pairs]
        keys = torch.stack(rows)
        kept: Slots = {
            XID: pack(xid),
            PRIVATE: pack(b""),
            sealed.NAMES: pack_json([h.name for h in hellos]),
            sealed.KEYS: keys,
            sealed.LABEL: numbers([label]),
            sealed.SEEN: numbers([counter if i == label else -1 for i in range(n)]),
            sealed.SENT: numbers([0] * n),
            sealed.ASKED: asked,
            sealed.ANSWER: answer.clone(),
        }
        return {BOX: answer}, kept if field is None else _closed()

    def abort(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        whole(body, FIELD, 1)
        return {}, _closed()

    stop = sealed.unsealing({"open.abort": Handler(abort, (), {}, SECRET)})["open.abort"]
    return {
        "open.hello": Handler(hello, (HELLO,), {}, SECRET),
        "open.check": Handler(check, (BOX,), {}, SECRET),
        "open.abort": stop,
    }


def _present(body: Slots, mine: bytes, pins: Mapping[str, bytes]) -> tuple[list[Hello], int]:
    """All hellos by name, and the place of the label party's; each is signed, and one is this party's own."""
    hellos = [checked(h, pins) for h in parse(body, HELLOS)]
    names = [h.name.encode() for h in hellos]
    if names != sorted(set(names)):
        raise malformed(HELLOS, "another order, or a name twice", "one hello a party, by name")
    if not any(h.to_bytes() == mine for h in hellos):
        raise RunFailed(Problem("opening", "opening: this party's own hello is not among those of open.check",
                                rule="everybody sees the same hellos", mend="open anew"))  # fmt: skip
    labels = [i for i, h in enumerate(hellos) if h.role == LABEL]
    if len(labels) != 1:
        raise RunFailed(Problem("opening", f"opening: there are {len(labels)} label parties", rule="there is one"))
    return hellos, labels[0]


def _closed() -> Slots:
    """What is left in memory of an exchange that was aborted: nothing that opens or seals."""
    nothing = pack(b"")
    return {XID: nothing, PRIVATE: nothing, MINE: nothing, THEIRS: nothing, sealed.KEYS: torch.zeros(0, 64).byte()}
