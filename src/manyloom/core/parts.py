"""The parts of an algorithm: what a client does, what happens to its message, how messages become a step.

Each is a record of pure functions; an `Algorithm` is a record of parts. Being data, it can be printed, checked for
unsound mixes, costed before it runs, saved and resumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from manyloom.core.exchange import the_same
from manyloom.core.seeds import Draw
from manyloom.core.slots import Slots


class Seen(NamedTuple):
    """What a client's round looks like: each tensor is [K, 1], a row a client of the group."""

    round: int  # counted from 1
    rounds: int  # of the whole job
    samples: Tensor  # the sum of sizes: rows, or tokens
    steps: Tensor  # planned in `begin`, taken in `finish`
    loss: Tensor  # sum over the steps of the batch's mean loss; 0 in `begin`
    measured: Slots = {}

    @property
    def clients(self) -> int:
        return self.samples.shape[0]


class Batches(NamedTuple):
    """How a client walks its rows: `epochs` passes (also fractional) or exactly `steps` batches, cycling."""

    size: int = 32
    epochs: float = 1.0
    steps: int | None = None


State = dict[str, Any]  # of local work: tensors [K, d] or [K, 1] are per client, [d], scalars and counters shared


class Drive(NamedTuple):
    """`step(w, grad_at, state)`, in place: for methods that need gradients at other points too.

    `grad_at(point [K, d], batch=0)` is the gradient of the objective on minibatch `batch` of this step.
    """

    step: Callable[[Tensor, Callable[..., Tensor], State], None]
    batches: int = 1


class Measure(NamedTuple):
    """A pass over the client's rows without training, before or after, into `seen.measured`.

    What: "loss" (mean over rows) or "gradient" (of that mean) at the start (`before`) or at the end (`after`).
    """

    before: tuple[Literal["loss", "gradient"], ...] = ()
    after: tuple[Literal["loss", "gradient"], ...] = ()


class Work(NamedTuple):
    """What a client does in a round, stated per step; the runtime owns the loop over batches.

    Every function broadcasts over a leading client axis [K, ...]; the same line runs one client in place or a
    hundred at once.
    """

    begin: Callable[[Slots, Slots, Seen], tuple[Tensor, State]]  # (down, memory, seen) -> w [.., d], state
    step: Callable[[Tensor, Tensor, State], None]  # (w, grad, state), in place
    finish: Callable[[Tensor, Slots, State, Slots, Seen], tuple[Slots, Slots]]  # -> up, memory
    memory: Mapping[str, str] = {}  # name -> its length: "d" (a vector like theta) or "1"; a stranger starts at 0
    sends: Mapping[str, str] = {"u": "d"}  # the slots of `up`, with their lengths
    drive: Drive | None = None
    objective: Callable[..., Tensor] | None = None  # (forward, w, batch, anchors) -> loss a sample
    measure: Measure | None = None
    personal: Callable[[Slots, Slots], Tensor] | None = None  # (down, memory) -> w [.., d] to be judged


class Transform(NamedTuple):
    """What happens to a message: the client's half, and the server's, which undoes it before any sum.

    Both take rows [K, ...] of K clients, and what may be drawn from (`Draw`), which both ends know.
    """

    name: str = "none"
    apply: Callable[[Slots, Slots, Slots, Draw], tuple[Slots, Slots]] | None = None  # (message, memory, down, draw)
    undo: Callable[[Slots, Draw], Slots] = the_same
    bound: Callable[[float], float] = lambda _: math.inf  # L2 norm in -> L2 norm out; inf promises nothing
    memory: Mapping[str, str] = {}  # as of Work
    size: Callable[[Slots], Slots] = lambda message: message  # one client's message -> its shapes and dtypes after it
    table: Mapping[str, object] = {}  # the [uplink] or [downlink] table that makes it again
    summable: bool = False  # linear, and the same for all clients of a round: messages may be summed before `undo`


class Aggregator(NamedTuple):
    """How a cohort's messages become one: reduce(rows or their sum, weights [n], state) -> aggregate, state."""

    name: str
    needs: Literal["sum", "each"]
    reduce: Callable[[Slots, Tensor, Slots], tuple[Slots, Slots]]
    init: Callable[[Tensor], Slots] = lambda _: {}  # theta [d] -> the rule's first state
    table: Mapping[str, object] = {}  # the [aggregate] table that makes it again
    weighed: bool = False  # needs each, and takes their weights: no rule against liars


class ServerStep(NamedTuple):
    """What the server does with the aggregate."""

    name: str
    init: Callable[[Tensor], Slots]  # theta [d] -> state, which holds "theta"
    apply: Callable[[Slots, Slots], Slots]  # (state, aggregate) -> state
    down: Callable[[Slots], Slots] = lambda state: {"theta": state["theta"]}
    model: Callable[[Slots], Tensor] = lambda state: state["theta"]
    table: Mapping[str, object] = {}  # the [server] table that makes it again


class Buffered(NamedTuple):
    """Rounds without a cohort that waits: a server step after so many updates, each from the model it was sent."""

    size: int = 10  # updates of one server version
    max_staleness: int | None = None  # an update that is more versions old is dropped


class Before(NamedTuple):
    """Before each round all clients are asked; of one, whose labels are not known, and of the rest goes down."""

    client: str  # the one without labels: its name or number
    verb: str
    lengths: Callable[[int], Mapping[str, int]]  # D features -> the slots each sends, with their lengths
    idle: bool = False  # nothing is asked, and that client does not train

    def down(self, features: int) -> dict[str, int]:
        """The slots that go down beside the model: of the one, and of the rest."""
        if self.idle:
            return {}
        sent = self.lengths(features)
        return {**sent, **{f"{n}_rest": k for n, k in sent.items()}}


@dataclass(frozen=True)
class Algorithm:
    """Who does what in a round. Made by a recipe of `manyloom.algorithms`."""

    name: str
    work: Work
    server: ServerStep
    aggregate: Aggregator
    batches: Batches = Batches()
    weights: Literal["samples", "uniform"] | None = None  # of the mean; None: as the job needs, else by samples
    uplink: Transform = Transform()
    downlink: Transform = Transform()
    local: Sequence[str] | Literal["batchnorm"] = ()  # parameters that stay at the client: patterns, or by module type
    turns: Sequence[Sequence[str]] = ()  # parts, by patterns, that are trained and sent in turn, one a round
    before: Before | None = None  # who is asked before each round
    adapt: int = 0  # local steps before a client is judged
    buffered: Buffered | None = None  # asynchronous; None: a round asks a cohort and waits for it
    tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict[str, Mapping[str, object]])
    paper: str = ""

    def __repr__(self) -> str:
        return f"Algorithm({self.name}, server {self.server.name}, mean by {self.weights or 'samples'})"


def per_client(state: State, k: int) -> State:
    """The state of the first k clients of a group: tensors of two or more axes are sliced, all else is shared."""
    return {n: v[:k] if isinstance(v, torch.Tensor) and v.dim() >= 2 else v for n, v in state.items()}
