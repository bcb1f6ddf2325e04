"""What is known of a run: one value that report, card and comparison share.

What grows with rounds times clients is kept only where it is shown: curves of single clients up to 20,
otherwise the spread; who took part as counts and, up to 40 clients, as rounds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from manyloom.core.text import LOWER_IS_BETTER
from manyloom.track.tuned import TOKENS, Tuned

NAMED = 20  # most clients with a curve of their own
THREADS = 40  # most clients with a thread of their own in the cloth
Metrics = dict[str, float | None]


@dataclass
class Judged:
    """Metrics of one evaluation: over all, and how they spread over clients."""

    round: int
    split: str
    metrics: Metrics
    rows: int | None = None
    positives: int | None = None
    clients: dict[int, Metrics] = field(default_factory=dict[int, Metrics])
    counts: dict[int, tuple[int | None, int | None]] = field(
        default_factory=dict[int, tuple[int | None, int | None]]
    )  # client -> rows, positives
    spread: dict[str, Spread] = field(default_factory=lambda: {})
    edges: dict[str, tuple[float, float]] = field(default_factory=lambda: {})
    """Mean over clients and mean of the worst tenth, where clients are too many to name."""
    covered: bool = False


@dataclass(frozen=True)
class Spread:
    """How one metric differs over clients; `worst` is the mean of the worst tenth."""

    low: float
    high: float
    mean: float
    worst: float
    tenths: tuple[float, float]
    """Tenth and ninetieth percentile."""

    @staticmethod
    def of(name: str, values: Iterable[float | None]) -> Spread | None:
        """Of the values that are known.

        >>> Spread.of("auc", [0.5, 0.9, None]).worst
        0.5
        """
        found = sorted(v for v in values if v is not None)
        if not found:
            return None
        ends = found if name not in LOWER_IS_BETTER else found[::-1]
        tenth = ends[: math.ceil(len(ends) / 10)]
        mean, worst = math.fsum(found) / len(found), math.fsum(tenth) / len(tenth)
        at = [found[round(q * (len(found) - 1))] for q in (0.1, 0.9)]
        return Spread(found[0], found[-1], mean, worst, (at[0], at[1]))


@dataclass
class Round:
    """One finished round."""

    round: int
    asked: int | None = None
    back: int | None = None
    lost: int = 0
    filtered: int = 0
    attempt: int = 0
    seconds: float | None = None
    virtual_s: float | None = None
    phases: dict[str, float] = field(default_factory=dict[str, float])
    bytes_up: int | None = None
    bytes_down: int | None = None
    channel: tuple[int, int] = (0, 0)
    """Bytes up and down of the secure channel beyond what `bytes_up` and `bytes_down` say."""
    guard: Mapping[str, Any] = field(default_factory=dict[str, Any])
    epsilon: float | None = None
    test: Judged | None = None
    own: Judged | None = None

    @property
    def judged(self) -> Judged | None:
        """The evaluation that counts: on the clients' held-out rows where there are any."""
        return self.test or self.own

    @property
    def up(self) -> int | None:
        """All bytes up, those of the channel among them."""
        return None if self.bytes_up is None else self.bytes_up + self.channel[0]

    @property
    def down(self) -> int | None:
        """All bytes down, those of the channel among them."""
        return None if self.bytes_down is None else self.bytes_down + self.channel[1]


@dataclass(frozen=True)
class Release:
    """One record of the privacy ledger: what was spent by then, and with what."""

    round: int
    attempt: int
    what: str
    epsilon: float | None
    noise: float | None
    clip: float | None
    sampling: str


@dataclass
class Person:
    """One client, as far as it is named."""

    index: int
    name: str
    train: int | None = None
    test: int | None = None
    labels: list[int] | None = None
    rounds: int = 0
    samples: int | None = None  # what it trained on in all; None where that did not leave the client
    lost: int = 0
    took: list[int] = field(default_factory=list[int])  # rounds, kept up to THREADS clients


@dataclass
class Loss:
    """A reply that did not come."""

    round: int
    client: int
    name: str
    reason: str
    text: str


@dataclass(frozen=True)
class Leak:
    """How well labels can be read off one party's gradients over a pass: mean and 95 % quantile of AUCs over batches.

    None: no batch had both classes.
    """

    round: int
    party: str
    defence: str
    norm: tuple[float | None, float | None]
    cosine: tuple[float | None, float | None]

    @property
    def mean(self) -> float | None:
        """Of the better of both attacks."""
        return max((v for v in (self.norm[0], self.cosine[0]) if v is not None), default=None)

    @property
    def worst(self) -> float | None:
        """What the better of both attacks reaches in one batch of twenty."""
        return max((v for v in (self.norm[1], self.cosine[1]) if v is not None), default=None)


@dataclass
class Baseline:
    """The same job without federation: pooled ("central") or each alone ("local")."""

    kind: str
    run: str | None
    metrics: Metrics
    clients: dict[int, Metrics]
    on_all: dict[int, Metrics]


@dataclass
class Run:
    """All that a run's folder says about it."""

    id: str
    name: str
    status: str = "queued"
    reason: str | None = None
    error: object = None
    started: str | None = None
    ended: str | None = None
    rounds_planned: int | None = None
    seed: int | None = None
    runtime: str | None = None
    algorithm: str | None = None
    job_digest: str | None = None
    model_digest: str | None = None
    paper: str = ""
    execution: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model: Mapping[str, Any] = field(default_factory=dict[str, Any])
    client_word: tuple[str, str] = ("client", "clients")
    row_word: tuple[str, str] = ("row", "rows")
    source: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: list[str] = field(default_factory=list[str])
    watch: str | None = None
    target: str = "class"
    classes: list[str] = field(default_factory=list[str])
    size: int = 0  # clients in the population
    summary: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of the population, where it is large
    people: dict[int, Person] = field(default_factory=dict[int, Person])
    rounds: list[Round] = field(default_factory=list[Round])
    start: Judged | None = None
    last: Judged | None = None
    own: Judged | None = None
    final: Metrics | None = None
    lost: list[Loss] = field(default_factory=list[Loss])
    lost_total: int = 0
    filtered: Counter[int] = field(default_factory=Counter[int])
    sieved: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])  # first and last round
    asked: int = 0
    notes: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    failed: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    rejected: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    resumed: list[int] = field(default_factory=list[int])
    missing: Mapping[str, Any] | None = None
    statistics: Mapping[str, Any] | None = None
    planned: Mapping[str, Any] = field(default_factory=dict[str, Any])
    privacy: Mapping[str, Any] | None = None
    """The guarantee, as planned until the end says what was spent: then it is `settled`."""
    settled: bool = False
    sums: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the secure sum, as planned
    releases: list[Release] = field(default_factory=list[Release])
    spent: float | None = None  # epsilon so far
    aligned: Mapping[str, Any] | None = None
    leaks: list[Leak] = field(default_factory=list[Leak])
    tuned: Tuned = field(default_factory=Tuned)  # of a language model
    baselines: dict[str, Baseline] = field(default_factory=dict[str, Baseline])
    bytes: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict[str, float])
    next: list[str] = field(default_factory=list[str])
    toml: str = ""
    env: Mapping[str, Any] = field(default_factory=dict[str, Any])
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def rounds_done(self) -> int:
        return self.rounds[-1].round if self.rounds else 0

    @property
    def main(self) -> str:
        """The metric that the run is judged by."""
        known = self.metric_names
        if self.watch in known:
            return str(self.watch)
        return next((m for m in ("auc", "accuracy", "rmse", *known) if m in known), "loss")

    @property
    def metric_names(self) -> list[str]:
        """Every metric that was reported, the job's order first."""
        seen = list(self.final or (self.last.metrics if self.last else {}))
        seen += list(self.start.metrics) if self.start else []
        return list(dict.fromkeys([*(m for m in self.metrics if m in seen or not seen), *seen]))

    def better(self, a: float, b: float, name: str | None = None) -> bool:
        """Whether a is better than b in a metric."""
        return a < b if (name or self.main) in LOWER_IS_BETTER else a > b

    def best(self) -> tuple[float, int] | None:
        """The best value of the main metric and its round."""
        known = [(v, r.round) for r in self.rounds if r.judged for v in [r.judged.metrics.get(self.main)]]
        found = [(v, r) for v, r in known if v is not None]
        sign = -1 if self.main in LOWER_IS_BETTER else 1
        return max(found, key=lambda p: (sign * p[0], -p[1]), default=None)

    def who(self, client: int) -> str:
        """A client's name."""
        return self.people[client].name if client in self.people else f"{self.client_word[0]} {client}"

    @property
    def role(self) -> str | None:
        """ "central" or "local" where this run is itself a baseline, "sweep" where it is a list of runs."""
        if self.record.get("kind") == "sweep" or self.algorithm == "sweep":
            return "sweep"
        return next((kind for kind, found in self.baselines.items() if found.run == self.id), None)

    @property
    def beside(self) -> dict[str, Baseline]:
        """The baselines to compare with: not the run itself."""
        return {kind: found for kind, found in self.baselines.items() if found.run != self.id}

    @property
    def vertical(self) -> bool:
        """Whether the parties hold different columns of the same rows; the label party is the last of them."""
        return self.aligned is not None or self.summary.get("kind") == "vertical"

    @property
    def language(self) -> bool:
        """Whether a language model is tuned on texts."""
        return self.target == "text"

    @property
    def judged_word(self) -> tuple[str, str]:
        """What an evaluation counts: a language model is judged by token."""
        return TOKENS if self.language else self.row_word

    @property
    def secure(self) -> bool:
        """Whether the hub saw only sums."""
        return bool(self.sums) or any(line.strip() == "[secure]" for line in self.toml.splitlines())

    @property
    def bytes_up(self) -> int:
        return self.bytes["train"]["up"] + self.bytes["secure"]["up"]

    @property
    def bytes_down(self) -> int:
        return self.bytes["train"]["down"] + self.bytes["secure"]["down"]
