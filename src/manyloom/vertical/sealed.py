"""Conversations whose every body is sealed: the label party's half, a feature party's half, and party to party.

The hub between them sees who asks whom, the verb, sizes (in steps of 4 KiB) and times. What goes wrong inside a party's
handler is told in its box as well. In one process nothing needs sealing.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, cast

import torch
from torch import Tensor

from manyloom.core.exchange import Ask, Exchange, Handler, Lost, Reply
from manyloom.core.slots import Slots, size_bytes, unpack_json
from manyloom.core.tensors import ints
from manyloom.secure.wire import numbers, pack, raw
from manyloom.vertical.seal import BOX, Sealer, broken, number, seal, unseal
from manyloom.vertical.wire import malformed

KEYS = "seal.keys"  # uint8 [P, 64]: by name, ascending: the key of what is sent to a party | the key of what it sends
NAMES = "seal.names"  # of the P parties, ascending
LABEL = "seal.label"  # int64 [1]: which of them asks
SEEN = "seal.seen"  # int64 [P]: the last counter that was taken from each
SENT = "seal.sent"  # int64 [P]: the next counter of what is handed to each, through the label party
ASKED = "seal.asked"  # uint8 [32]: SHA-256 of the last ask
ANSWER = "seal.answer"  # uint8 [n]: what was answered, until the next ask
SECRET = (KEYS, NAMES, LABEL, SEEN, SENT, ASKED, ANSWER)
ERROR, TRACE = "seal.error", "seal.trace"  # slots of a box that says why there is no answer

T = TypeVar("T")
Gate = Callable[[str, Slots], None]


def no_gate(verb: str, body: Slots) -> None:
    """A gate that lets everything through."""


# ---- the label party


def sealed(exchange: Exchange[T], sealer: Sealer) -> Exchange[T]:
    """The same conversation with one box for each party asked, and each reply's box opened.

    A reply's `sent` is what it is without sealing; `channel` has the bytes that boxes took beyond it.

    Raises:
        RunFailed: a box does not open, at either end, or an ask asks for sums, which nobody can make of boxes.
    """
    try:
        ask = next(exchange)
        while True:
            answers = yield from _through(ask, sealer)
            ask = exchange.send(answers)
    except StopIteration as end:
        return end.value
    finally:
        exchange.close()


def _through(ask: Ask, sealer: Sealer) -> Exchange[list[Reply | Lost]]:
    if ask.fold is not None:
        raise broken(
            f'answers to "{ask.verb}" would be summed on the way', "what is sealed is opened by one party alone"
        )
    bodies = {i: ask.body | dict(ask.each.get(i, {})) for i in (int(c) for c in ask.to)}
    boxes = {i: sealer.seal(i, ask.verb, body) for i, body in bodies.items()}
    each: dict[int, Slots] = {i: {BOX: box} for i, (box, _) in boxes.items()}
    answers = yield replace(ask, body={}, each=each, round=0, attempt=0)
    return [_opened(answer, ask, boxes, bodies, sealer) for answer in answers]


def _opened(answer: Reply | Lost, ask: Ask, boxes: Mapping[int, tuple[Tensor, int]], bodies: Mapping[int, Slots],
            sealer: Sealer) -> Reply | Lost:  # fmt: skip
    if isinstance(answer, Lost):
        if answer.reason == "error":  # a party's own trouble comes in a box: this is a box that it could not open
            name = sealer.names[answer.client]
            raise broken(f'"{name}" refused "{ask.verb}": {answer.text}', "a party opens every box that is for it")
        return answer
    if len(answer.clients) != 1 or int(answer.clients[0]) not in boxes:
        raise broken(f'an answer to "{ask.verb}" is not one party\'s', "each party answers for itself")
    party = int(answer.clients[0])
    box, counter = boxes[party]
    body = sealer.unseal(party, ask.verb, counter, answer.body)
    if ERROR in body:
        trace = raw(body[TRACE]).decode() if TRACE in body else None
        return Lost(party, "error", raw(body[ERROR]).decode(), trace, answer.asked, answer.at)
    up, down = size_bytes(body), size_bytes(bodies[party])
    beyond = (answer.channel[0] + size_bytes(answer.body) - up, answer.channel[1] + box.numel() - down)
    return replace(answer, body=body, sent=up, channel=beyond)


# ---- a feature party


def unsealing(handlers: Mapping[str, Handler], entering: Gate = no_gate, leaving: Gate = no_gate) -> dict[str, Handler]:
    """A party's handlers behind boxes.

    Args:
        handlers: of all that comes after the opening.
        entering: sees each ask's named tensors, and raises where the party's policy has something against them.
        leaving: the same for each answer's, before it is sealed.
    """
    return {verb: _behind(verb, handler, entering, leaving) for verb, handler in handlers.items()}


def _behind(verb: str, handler: Handler, entering: Gate, leaving: Gate) -> Handler:
    def run(body: Slots, memory: Slots, data: object) -> tuple[Slots, Slots]:
        if set(body) != {BOX}:
            raise malformed(BOX, ", ".join(sorted(body)) or "nothing", "one box and nothing beside it")
        box, (to_label, from_label) = body[BOX], _keys(memory, label := _label(memory))
        asked = pack(hashlib.sha256(verb.encode() + b"\0" + raw(box)).digest())
        if torch.equal(asked, memory[ASKED]):
            return {BOX: memory[ANSWER].clone()}, {}
        counter, seen = number(body), ints(memory[SEEN])
        if counter <= seen[label]:
            raise broken(f'the box of "{verb}" is an old one', "a box is opened once, and in order")
        plain = unseal(from_label, verb, body)
        seen[label] = counter
        kept: Slots = {SEEN: numbers(seen)}
        try:
            entering(verb, plain)
            known = {n: t for n, t in memory.items() if n not in (ASKED, ANSWER)}
            reply, changes = handler.run(plain, known | kept, data)
            if stray := sorted(set(reply) - set(handler.reply)):
                raise malformed(stray[0], "a tensor that was not declared", ", ".join(handler.reply) or "no tensor")
            leaving(verb, reply)
            answer = seal(to_label, verb, counter, reply)
        except Exception as error:  # told to the label party alone
            text = f"{type(error).__name__}: {error}".encode()
            changes = {}
            answer = seal(to_label, verb, counter, {ERROR: pack(text), TRACE: pack(traceback.format_exc().encode())})
        return {BOX: answer}, kept | changes | {ASKED: asked, ANSWER: answer.clone()}

    return Handler(run, (BOX,), handler.memory, (*handler.secret, *SECRET))


def _label(memory: Slots) -> int:
    if LABEL not in memory or not memory[KEYS].numel():
        raise broken("there is no open exchange here", "open.hello and open.check come first")
    return ints(memory[LABEL])[0]


def _keys(memory: Slots, row: int) -> tuple[bytes, bytes]:
    both = raw(memory[KEYS][row])
    return both[:32], both[32:]


# ---- party to party: the label party forwards what it can't open


def hand(memory: Slots, to: str, verb: str, body: Slots) -> tuple[Tensor, Slots]:
    """A box for another feature party, to be forwarded by the label party, and what the sender's memory changes."""
    row = _row(memory, to)
    sent = ints(memory[SENT])
    box = seal(_keys(memory, row)[0], verb, sent[row], body)
    sent[row] += 1
    return box, {SENT: numbers(sent)}


def take(memory: Slots, sender: str, verb: str, body: Slots, slot: str) -> tuple[Slots, Slots]:
    """What another feature party handed over in a slot of an ask, and what the reader's memory changes.

    Raises RunFailed where it does not open, or was taken already.
    """
    row = _row(memory, sender)
    seen = ints(memory[SEEN])
    counter = number(body, slot)
    if counter <= seen[row]:
        raise broken(f'the box of "{sender}" is an old one', "a box is opened once, and in order")
    plain = unseal(_keys(memory, row)[1], verb, body, slot)
    seen[row] = counter
    return plain, {SEEN: numbers(seen)}


def _row(memory: Slots, name: str) -> int:
    label = _label(memory)
    names = cast("list[str]", unpack_json(memory[NAMES]))
    if name not in names or names.index(name) == label or not any(raw(memory[KEYS][names.index(name)])):
        raise malformed("name", name, "another feature party of this exchange")
    return names.index(name)
