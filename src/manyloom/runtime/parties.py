"""The parties of a vertical job in this process: each has its own rows, memory and secrets, and one gate."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Ask, Handler, Lost, Reply
from manyloom.core.slots import Slots, size_bytes
from manyloom.gate import Slot, leave
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.prepare import handlers, remembered
from manyloom.vertical import opening
from manyloom.vertical.party import Party


@dataclass
class Site:
    """One feature party: what it has, what it remembers, what it answers.

    Args:
        number: as the label party calls it in an ask.
        party: its rows.
        handlers: a verb each.
        memory: kept between asks, and in checkpoints.
        secret: kept between asks, never written anywhere.
    """

    number: int
    party: Party
    handlers: Mapping[str, Handler]
    memory: Slots = field(default_factory=dict[str, Tensor])
    secret: Slots = field(default_factory=dict[str, Tensor])

    def __post_init__(self) -> None:
        self.hidden = frozenset(n for h in self.handlers.values() for n in h.secret)
        declared = {n: t for h in self.handlers.values() for n, t in h.memory.items() if n not in self.hidden}
        self.start = declared
        self.memory = {n: t.clone() for n, t in declared.items()} | self.memory

    def answer(self, ask: Ask) -> Reply | Lost:
        """This party's reply; what it remembers changes only if the reply may leave."""
        began = time.perf_counter()
        handler = self.handlers.get(ask.verb)
        if handler is None:
            return Lost(self.number, "refused", f'{self.party.name} answers no "{ask.verb}"', None, ask.number)
        try:
            asked = ask.body | dict(ask.each.get(self.number, {}))
            body, kept = handler.run(asked, self.memory | self.secret, self.party)
            if stray := sorted(set(kept) - set(self.start) - self.hidden):
                raise RuntimeError(f'"{ask.verb}" would keep {", ".join(stray)}, which no handler declares')
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            return Lost(self.number, "error", text, traceback.format_exc(), ask.number)
        if lost := self._held(ask, handler, body):
            return lost
        for name, t in kept.items():
            (self.secret if name in self.hidden else self.memory)[name] = t
        seconds = time.perf_counter() - began
        if seconds > ask.deadline_s:
            late = f"answered after {seconds:.3g} s; {ask.deadline_s:g} s were allowed"
            return Lost(self.number, "deadline", late, None, ask.number)
        return Reply(np.array([self.number], np.int64), body, ask.number, seconds, size_bytes(body))

    def _held(self, ask: Ask, handler: Handler, body: Slots) -> Lost | None:
        """What the gate holds back: names that were not declared, numbers that are none."""
        who = np.array([self.number], np.int64)
        schema = {n: Slot() for n in handler.reply if n in body}
        _, held = leave(who, {n: t[None] for n, t in body.items()}, schema)
        return Lost(self.number, held[0].reason, held[0].text, None, ask.number) if held else None

    def restore(self, memory: Mapping[str, Tensor]) -> None:
        """Remember what it did; what was never kept starts as declared."""
        self.memory = {n: t.clone() for n, t in (self.start | dict(memory)).items()}


def answering(sites: Sequence[Site]) -> Callable[[Ask], list[Reply | Lost]]:
    """The other side of a conversation with these parties: a reply or a loss each."""
    return lambda ask: [sites[int(i)].answer(ask) for i in ask.to]


class LocalParties:
    """A runtime for a vertical job in simulation: this process is the label party and every feature party."""

    def open(self, job: Vertical, session: str = "") -> None:
        """Make everybody's key for this session, known to all; what each party answers follows from the job alone."""
        self.me = opening.node(job.parties.label.name)
        nodes = [opening.node(p.name) for p in job.parties.features]
        self.pins = {n.name: n.public for n in (self.me, *nodes)}
        self.sites = [
            Site(i, party, handlers(job, node, self.pins))
            for i, (party, node) in enumerate(zip(job.parties.features, nodes))
        ]

    def roster(self) -> tuple[bytes, ...] | None:
        return None

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        return answering(self.sites)(ask)

    def snapshot(self) -> Slots:
        """What the parties remember, as "number/name"; nothing that is secret."""
        return {remembered(s.number, n): t.clone() for s in self.sites for n, t in s.memory.items()}

    def restore(self, memory: Slots) -> None:
        for site in self.sites:
            site.restore(memory_of(memory, site.number))

    def describe(self) -> Mapping[str, Any]:
        return {
            "name": "sequential",
            "provider": "autograd",
            "group": 1,
            "device": "cpu",
            "threads": 1,
            "torch": torch.__version__,
            "capability": torch.backends.cpu.get_cpu_capability(),
        }

    def close(self) -> None:
        """Forget what was secret."""
        for site in self.sites:
            site.secret.clear()


def memory_of(snapshot: Slots, number: int) -> Slots:
    """One party's memory in a snapshot of all.

    >>> memory_of({"0/rows": torch.tensor([1]), "1/rows": torch.tensor([2])}, 1)
    {'rows': tensor([2])}
    """
    own = remembered(number, "")
    return {n.removeprefix(own): t for n, t in snapshot.items() if n.startswith(own)}
