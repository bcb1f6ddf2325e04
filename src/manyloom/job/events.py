"""What happens in a run, as values: progress, stores, trackers and dashboards read these and can change nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from manyloom.core.text import event_line
from manyloom.job.state import State

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """The base of all events: `to_json` is what `events.jsonl` holds, `str` the plain line of a log."""

    type: ClassVar[str] = "event"

    def to_json(self) -> Json:
        """The event as JSON; numbers that are no numbers are null."""
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("shown", True)}
        return {"type": self.type} | {k: clean(v) for k, v in shown.items()}

    def __str__(self) -> str:
        return event_line(self.to_json())


def clean(value: Any) -> Any:
    """A value as strict JSON has it: nan and inf are null, tuples lists, keys text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): clean(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return value


@dataclass(frozen=True)
class RunStarted(Event):
    type: ClassVar[str] = "run_started"
    run: str
    name: str
    job_digest: str
    rounds: int
    seed: int
    algorithm: str
    paper: str
    model: Json
    clients: Sequence[Json] | None
    population: Json
    runtime: str
    execution: Json
    source: Json
    client_word: tuple[str, str]
    row_word: tuple[str, str]
    target: str
    classes: Sequence[str]
    metrics: Sequence[str]
    watch: str


@dataclass(frozen=True)
class Planned(Event):
    type: ClassVar[str] = "planned"
    bytes_up_round: int
    bytes_down_round: int
    seconds_estimate: float | None
    privacy: Json | None = None
    secure: Json | None = None
    threats: Mapping[str, Sequence[str]] | None = None  # step -> what label party, feature party, hub learn; on what


@dataclass(frozen=True)
class Statistics(Event):
    type: ClassVar[str] = "statistics"
    columns: int
    bytes_up: int
    bytes_down: int
    seconds: float


@dataclass(frozen=True)
class Missing(Event):
    """Which share of each raw column is missing, a client."""

    type: ClassVar[str] = "missing"
    columns: Sequence[str]
    clients: Mapping[int, Sequence[float]]


@dataclass(frozen=True)
class Released(Event):
    """A record of the privacy ledger: what was spent so far, this one included."""

    type: ClassVar[str] = "released"
    round: int
    attempt: int
    what: str
    epsilon: float
    delta: float
    budget: float | None
    noise_multiplier: float
    clip: float
    sampling: str


@dataclass(frozen=True)
class Aligned(Event):
    """Which rows the parties of a vertical job share: sizes are each party's own, `order` names the agreed order."""

    type: ClassVar[str] = "aligned"
    parties: Mapping[str, int]  # rows with an id
    left_out: Mapping[str, int]  # rows without one
    common: int
    train: int
    test: int
    reveal: str
    order: str
    bytes_up: int
    bytes_down: int
    seconds: float


@dataclass(frozen=True)
class Leak(Event):
    """How well labels can be read off the gradients a party gets: AUCs over the batches of a pass, 1/2 is nothing."""

    type: ClassVar[str] = "leak"
    round: int
    party: str
    defence: str
    batches: int
    norm_mean: float
    norm_q95: float
    cosine_mean: float
    cosine_q95: float


@dataclass(frozen=True)
class Adapter(Event):
    """What is trained of a language model."""

    type: ClassVar[str] = "adapter"
    base: str
    base_digest: str
    targets: Sequence[str]
    matched: int
    d: int
    r: int
    scale: float
    dtype: str
    combine: str
    base_parameters: int | None = None


@dataclass(frozen=True)
class Tokens(Event):
    """A client's texts as tokens: rows without a supervised token are dropped, longer ones are cut."""

    type: ClassVar[str] = "tokens"
    client: int
    name: str
    rows: int
    supervised: int
    dropped: int
    shortened: int


@dataclass(frozen=True)
class Combined(Event):
    """How far a combination of adapters is from the mean of their products, relative to the round's update.

    None: it can't be seen (a secure sum); `exact` where the rule makes it so.
    """

    type: ClassVar[str] = "combined"
    round: int
    rule: str
    agg_error_mean: float | None
    agg_error_max: float | None
    exact: bool
    covered: bool


@dataclass(frozen=True)
class Sample(Event):
    """What the model says to a prompt of the job's; never a client's text."""

    type: ClassVar[str] = "sample"
    round: int
    prompt: str
    text: str


@dataclass(frozen=True)
class RoundStarted(Event):
    type: ClassVar[str] = "round_started"
    round: int
    attempt: int
    cohort: Sequence[int] | None
    asked: int
    quorum: int


@dataclass(frozen=True)
class Phase(Event):
    type: ClassVar[str] = "phase"
    round: int
    phase: str


@dataclass(frozen=True)
class ClientDone(Event):
    type: ClassVar[str] = "client_done"
    round: int
    client: int
    samples: int | None
    steps: int | None
    loss: float | None
    bytes_up: int
    staleness: int | None = None  # asynchronous: server versions between sending and applying


@dataclass(frozen=True)
class ClientLost(Event):
    type: ClassVar[str] = "client_lost"
    round: int
    client: int
    name: str
    reason: str
    text: str
    detail: str | None = None


@dataclass(frozen=True)
class ClientFiltered(Event):
    """A robust rule left this client's update out, or nearly: a `score` of 1 is as much as in a plain mean."""

    type: ClassVar[str] = "client_filtered"
    round: int
    client: int
    name: str
    rule: str
    score: float


@dataclass(frozen=True)
class ClientSkipped(Event):
    type: ClassVar[str] = "client_skipped"
    client: int
    name: str
    reason: str


@dataclass(frozen=True)
class Evaluated(Event):
    type: ClassVar[str] = "evaluated"
    round: int
    split: str
    metrics: Mapping[str, float]
    clients: Mapping[int, Json]
    rows: int
    positives: int | None
    spread: Mapping[str, float]  # "accuracy_worst_tenth" and the like
    bytes_up: int
    bytes_down: int
    seconds: float
    covered: bool = False


@dataclass(frozen=True)
class RoundDone(Event):
    type: ClassVar[str] = "round_done"
    round: int
    rounds: int
    attempt: int
    asked: int
    back: int
    lost: int
    loss_train: float
    metrics: Mapping[str, float] | None  # of this round's evaluation, if there was one
    watch: str
    seconds: float
    phases: Mapping[str, float]
    bytes_up: int
    bytes_down: int
    cohort_summary: Json | None = None
    secure: Json | None = None  # bytes of the secure channel beyond the training bodies
    guard: Json | None = None  # of a protected sum: clip, share within it, clients that were cut
    virtual_s: float | None = None  # how long it took on the virtual clock, if there is one
    state: State | None = field(default=None, metadata={"shown": False}, repr=False, compare=False)


@dataclass(frozen=True)
class RoundRejected(Event):
    """The hub's own rows say that this round made the model worse: it keeps the one before."""

    type: ClassVar[str] = "round_rejected"
    round: int
    metric: str
    before: float
    after: float
    tolerance: float
    rows: int | None
    path: str | None = None


@dataclass(frozen=True)
class RoundFailed(Event):
    type: ClassVar[str] = "round_failed"
    round: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class Resumed(Event):
    type: ClassVar[str] = "resumed"
    from_round: int
    rounds: int | None = None  # as planned now: a run may be given more


@dataclass(frozen=True)
class Saved(Event):
    type: ClassVar[str] = "saved"
    round: int
    path: str
    sha256: str


@dataclass(frozen=True)
class Note(Event):
    type: ClassVar[str] = "note"
    level: str
    code: str
    text: str


@dataclass(frozen=True)
class RunDone(Event):
    """The end: status done, stopped, interrupted or failed. In Python it carries the result."""

    type: ClassVar[str] = "run_done"
    status: str
    reason: str | None
    final: Mapping[str, float]
    next: Sequence[str] = ()
    error: Json | None = None
    privacy: Json | None = None  # the guarantee of what was spent
    result: Any = field(default=None, metadata={"shown": False}, repr=False, compare=False)
    state: State | None = field(default=None, metadata={"shown": False}, repr=False, compare=False)
