"""A vertical federation in one process, by hand: plays an exchange against parties' handlers and records every body."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from manyloom.core.exchange import Ask, Exchange, Handler, Lost, Reply, play
from manyloom.core.slots import Slots, size_bytes
from manyloom.vertical.party import Party

T = TypeVar("T")


class Said(NamedTuple):
    """One question to one party and what it answered; `up` is None where it was lost."""

    party: int
    verb: str
    down: Slots
    up: Slots | None
    why: str = ""


@dataclass
class Players:
    """K feature parties.

    Args:
        handlers: verb -> handler, of all parties alike or one mapping a party.
        parties: what each has.
        memory: what each remembers, kept and secret names together; start values are filled in.
        on_way_down, on_way_up: (ask, party, body) -> the body as it arrives.
        lose: (ask, party) -> why the party gives no answer, or None.
    """

    handlers: Mapping[str, Handler] | Sequence[Mapping[str, Handler]]
    parties: Sequence[Party]
    memory: list[Slots] = field(default_factory=list)
    on_way_down: Callable[[Ask, int, Slots], Slots] = lambda ask, party, body: body
    on_way_up: Callable[[Ask, int, Slots], Slots] = lambda ask, party, body: body
    lose: Callable[[Ask, int], str | None] = lambda ask, party: None
    said: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.memory = self.memory or [{} for _ in self.parties]

    def of(self, party: int) -> Mapping[str, Handler]:
        return self.handlers if isinstance(self.handlers, Mapping) else self.handlers[party]

    def answer(self, ask: Ask) -> list[Reply | Lost]:
        """What every party asked says, one after the other, each in a reply or lost of its own."""
        return [self.one(ask, int(party)) for party in ask.to]

    def one(self, ask: Ask, party: int) -> Reply | Lost:
        down = copied(ask.body | dict(ask.each.get(party, {})))
        down = self.on_way_down(ask, party, down)
        gone = self.lose(ask, party)
        if gone is not None:
            return self._lost(ask, party, down, "away", gone)
        handler = self.of(party)[ask.verb]
        known = {**handler.memory, **self.memory[party]}
        try:
            up, changes = handler.run(down, known, self.parties[party])
        except Exception as error:  # as a runtime does: the party's trouble is told, its memory is what it was
            return self._lost(ask, party, down, "error", str(error), traceback.format_exc())
        undeclared = set(changes) - set(handler.memory) - set(handler.secret)
        assert not undeclared, f"{ask.verb} keeps undeclared {sorted(undeclared)}"
        assert set(up) <= set(handler.reply), f"{ask.verb} sends undeclared {sorted(set(up) - set(handler.reply))}"
        self.memory[party] = self.memory[party] | changes
        up = self.on_way_up(ask, party, copied(up))
        self.said.append(Said(party, ask.verb, down, up))
        return Reply(np.array([party]), up, ask.number, 0.0, size_bytes(up))

    def _lost(self, ask: Ask, party: int, down: Slots, reason: str, text: str, trace: str | None = None) -> Lost:
        self.said.append(Said(party, ask.verb, down, None, text))
        return Lost(party, reason, text, trace, ask.number)  # pyright: ignore[reportArgumentType]

    def play(self, exchange: Exchange[T]) -> T:
        return play(exchange, self.answer)

    def checkpoint(self) -> list[Slots]:
        """What outlives a restart: the names that handlers declare as kept."""
        kept = [{n for h in self.of(i).values() for n in h.memory} for i in range(len(self.parties))]
        return [{n: t.clone() for n, t in m.items() if n in kept[i]} for i, m in enumerate(self.memory)]

    def bytes(self) -> tuple[int, int]:
        """Bytes up and down of all that was said."""
        return sum(size_bytes(s.up or {}) for s in self.said), sum(size_bytes(s.down) for s in self.said)

    def transcript(self) -> bytes:
        """Every byte that travelled, both ways."""
        bodies = (body for s in self.said for body in (s.down, s.up or {}))
        return b"|".join(
            t.contiguous().view(-1).view(torch.uint8).numpy().tobytes() for b in bodies for t in b.values()
        )


def copied(body: Slots) -> Slots:
    """The same tensors in other memory, as if they had been serialised."""
    return {n: t.detach().clone() for n, t in body.items()}
