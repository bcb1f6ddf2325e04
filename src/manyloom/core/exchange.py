"""Conversations without I/O: what a hub asks, what comes back, who answers.

A protocol is a generator that yields one `Ask` at a time and is sent the replies. It runs unchanged in one process,
in many, or between organisations, and a test can play the other side by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manyloom.core.seeds import Draw
from manyloom.core.slots import Slots

Ids = npt.NDArray[np.int64]  # clients by index: 0 .. N-1 of the federation


def the_same(message: Slots, draw: Draw) -> Slots:
    """The undo of a message that nobody changed."""
    return message


@dataclass(frozen=True)
class Fold:
    """What may be summed on the way to the hub.

    A folded reply covers many clients: each slot of `slots` is one row, sum_i weight_i * undo(message_i), summed in
    float64; all other slots keep a row a client.
    """

    slots: tuple[str, ...]
    weight: str | None = None  # the slot (one number a client) that weighs them; None: weight 1
    undo: Callable[[Slots, Draw], Slots] = the_same


@dataclass(frozen=True)
class Ask:
    """One question to some clients.

    Args:
        to: the clients [n].
        verb: which handler answers.
        body: tensors for all.
        each: tensors for one alone.
        round, attempt: what a client's randomness is a function of, beside the seed and its id.
        quorum: the least that must come back.
        deadline_s: the only timeout there is.
        take: return after so many replies; what comes later is dropped, or kept for a later ask (`late`).
        fold: what may be summed on the way.
        number: of this ask among those that are open; its replies say it.
        at: on the virtual clock, when it is put.
    """

    to: Ids
    verb: str
    body: Slots = field(default_factory=dict[str, Tensor])
    each: Mapping[int, Slots] = field(default_factory=dict[int, Slots])
    round: int = 0
    attempt: int = 0
    quorum: int = 1
    deadline_s: float = 3600.0
    take: int | None = None
    late: Literal["drop", "keep"] = "drop"
    fold: Fold | None = None
    number: int = 0
    at: float = 0.0


@dataclass(frozen=True)
class Reply:
    """What came back: `clients` names all it covers (one, or many: a row a client, or folded).

    `sent` is the bytes of the tensors as the clients serialised them, before any fold; `channel` the bytes (up, down)
    that a secure sum of the answer took beyond the ask and its reply; `warnings` what is to be told of it; `at` when,
    on the virtual clock, the last of it was there.
    """

    clients: Ids
    body: Slots
    asked: int = 0
    seconds: float = 0.0
    sent: int = 0
    channel: tuple[int, int] = (0, 0)
    warnings: tuple[str, ...] = ()
    at: float = 0.0


@dataclass(frozen=True)
class Lost:
    """A client that gave no reply, or one that could not be used, and why.

    "no-sum" and "opened": it answered, but the secure sum of the answers came to nothing; after "opened", where
    shares were asked for already, no other attempt may be made. "away": not reachable, or gone before it was done;
    "late": it came after the ask had all it wanted; "stale": its update was too many versions old. `at` is when that
    was known, on the virtual clock.
    """

    client: int
    reason: Literal["simulated", "error", "deadline", "away", "late", "stale", "not-finite", "refused", "malformed",
                    "no-sum", "opened"]  # fmt: skip
    text: str
    traceback: str | None = None
    asked: int = 0
    at: float = 0.0


T = TypeVar("T")
Exchange = Generator[Ask, "list[Reply | Lost]", T]


class Handler(NamedTuple):
    """A site's half of one verb: run(body, memory, data) -> (body, memory).

    `memory` names what is kept between asks, with what a client never seen starts with; a name in `secret` (keys,
    masks, an update that waits for its mask) lives in RAM only and is in no checkpoint. `reply` declares the names
    of the tensors that may leave.
    """

    run: Callable[[Slots, Slots, Any], tuple[Slots, Slots]]
    reply: tuple[str, ...]
    memory: Mapping[str, Tensor] = {}
    secret: tuple[str, ...] = ()


class Runtime(Protocol):
    """Who answers an Ask, and where."""

    def open(self, job: Any, session: str = "") -> None:
        """Get ready: data, model and device stay warm until `close`; `session` names this run in secure sums."""
        ...

    def roster(self) -> tuple[bytes, ...] | None:
        """The public keys of all clients, ascending, as the clients know them; None: there are none."""
        ...

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        """Put one question; every client asked is in exactly one reply or lost."""
        ...

    def snapshot(self) -> Slots:
        """What clients remember (never what is secret), as part of the run's state."""
        ...

    def restore(self, memory: Slots) -> None:
        """Give clients back what they remembered."""
        ...

    def describe(self) -> Mapping[str, object]:
        """What was chosen (provider, group, threads, reasons): recorded in the run and kept on resume."""
        ...

    def close(self) -> None: ...


def stack(replies: Sequence[Reply], slot: str) -> Tensor:
    """One slot of all replies, a row a client, in the order of their clients."""
    import torch

    return torch.cat([r.body[slot] for r in replies])


def play(exchange: Exchange[T], answer: Callable[[Ask], list[Reply | Lost]]) -> T:
    """Run a conversation to its end, with `answer` as the other side.

    >>> def greet() -> Exchange[int]:
    ...     replies = yield Ask(np.array([0, 1]), "hello")
    ...     return len(replies)
    >>> play(greet(), lambda ask: [Reply(np.array([i]), {}) for i in ask.to])
    2
    """
    try:
        ask = next(exchange)
        while True:
            ask = exchange.send(answer(ask))
    except StopIteration as end:
        return end.value
