"""A job: everything that decides the result of a run, as one record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import numpy as np

from manyloom.aggregate import Attack
from manyloom.core.errors import BadInput, bad
from manyloom.core.exchange import Ids
from manyloom.core.parts import Algorithm
from manyloom.core.seeds import Draws
from manyloom.core.signature import keys, wrong
from manyloom.core.task import Shape, Task
from manyloom.core.validate import Above, AtLeast, IntOrShare, share_of
from manyloom.data.federation import Federation
from manyloom.data.held import hold_back, with_file
from manyloom.data.names import client_index
from manyloom.job.protection import Protection, protection_of
from manyloom.job.record import digest, filled, plain, watched
from manyloom.job.settings import Execution, Simulate, Validation
from manyloom.privacy.settings import Privacy
from manyloom.secure.settings import Secure

if TYPE_CHECKING:
    from manyloom.job.kinds import AnyJob


@dataclass(frozen=True)
class Job:
    """Who learns what, how long, and how: `[job]`.

    Args:
        task: module, loss, metrics.
        algorithm: a recipe of `manyloom.algorithms`.
        federation: the clients and their data.
        rounds: counted from 1.
        seed: of everything that is drawn but privacy's secrets.
        cohort: clients asked a round: a number, a share, or all.
        sampling: fixed size without replacement, or each client on its own ("poisson"): the default under [privacy]
            with a share as cohort.
        quorum: the least replies, of those asked.
        min_available: a round waits until so many clients are reachable.
        retries: further attempts of a round below quorum.
        failed_round: after that: end as failed, resumable; or keep the model and go on.
        deadline_s: seconds an ask may take; in a simulation only with [simulate] speed or trace, virtual ones.
        over_provision: ask so many times the cohort and close at the first replies that make one.
        partial: at the deadline a client sends what it has, with its steps.
        eval_every: evaluation after every k-th round and the last; with 1 also before round 1.
        eval_cohort: clients that evaluate: a number, a share, or all.
        watch: what early stopping, best checkpoint and sweep look at.
        stop_at: stop when `watch` reaches it.
        patience: stop after so many evaluations without a better `watch`.
        client_metrics: with [privacy] or [secure] the hub gets metrics as totals alone; "release" gives it each
            client's, uncovered.
        name: runs are called `<name>-<4 signs>`.
        privacy: the claim: clip, noise, budget.
        secure: secure sums instead of single updates.
        attack: clients that lie, in a simulation.
        validation: rows of the hub's own, by which a round's model is judged before it is taken.
        simulate: faults, in a simulation.
        execution: where and how; not in the digest.
        card: what only a person knows: use, misuse, contact, licence; not in the digest.
        base: folder of the job file, where its relative paths and modules are looked up; not in the digest.
    """

    PARTS: ClassVar = frozenset(
        {
            "task",
            "algorithm",
            "federation",
            "privacy",
            "secure",
            "attack",
            "validation",
            "simulate",
            "execution",
            "card",
            "base",
        }
    )

    task: Task
    algorithm: Algorithm
    federation: Federation
    _: KW_ONLY
    rounds: Annotated[int, AtLeast(1)]
    seed: Annotated[int, AtLeast(0)] = 0
    cohort: IntOrShare | None = None
    sampling: Literal["uniform", "poisson"] | None = None
    quorum: IntOrShare = 2 / 3
    min_available: Annotated[int | None, AtLeast(1)] = None
    retries: Literal[0, 1] = 1
    failed_round: Literal["stop", "skip"] = "stop"
    deadline_s: Annotated[float, Above(0)] = 3600.0
    over_provision: Annotated[float, AtLeast(1)] = 1.0
    partial: bool = False
    eval_every: Annotated[int, AtLeast(1)] = 1
    eval_cohort: IntOrShare | None = None
    watch: str | None = None
    stop_at: float | None = None
    patience: Annotated[int | None, AtLeast(1)] = None
    client_metrics: Literal["auto", "release"] = "auto"
    name: str = "job"
    privacy: Privacy | None = None
    secure: Secure | None = None
    attack: Attack | None = None
    validation: Validation | None = None
    simulate: Simulate = Simulate()
    execution: Execution = Execution()
    card: Mapping[str, str] = field(default_factory=dict[str, str])
    base: str = ""

    def __post_init__(self) -> None:
        from manyloom.job.check import against_population  # they read jobs
        from manyloom.job.sound import unsound
        from manyloom.job.timely import untimely

        self._follow()
        found = wrong(keys(Job), {k: getattr(self, k) for k in SETTINGS}, "job")
        found += wrong(keys(Simulate), self.simulate._asdict(), "simulate")
        found += wrong(keys(Execution), self.execution._asdict(), "runtime")
        tables = ((self.privacy, "privacy"), (self.secure, "secure"), (self.validation, "validation"))
        for record, table in tables:
            found += wrong(keys(type(record)), record._asdict(), table) if record is not None else []
        found = found or against_population(self) or [*unsound(self), *untimely(self)]
        if found:
            raise BadInput(*found)
        if self.protection is not None:
            object.__setattr__(self, "privacy", self.protection.privacy)
            object.__setattr__(self, "secure", self.protection.secure)

    def _follow(self) -> None:
        """What follows from the rest of the job where it was not said: sampling, weights."""
        if self.sampling is None:
            share = isinstance(self.cohort, float)
            object.__setattr__(self, "sampling", "poisson" if self.privacy is not None and share else "uniform")
        if self.validation is not None and self.federation.held is None:
            object.__setattr__(self, "federation", self._judged(self.validation))
        if self.algorithm.weights is None:
            uniform = self.privacy is not None or self.algorithm.aggregate.needs == "each"
            weights = "uniform" if uniform else "samples"
            tables = dict(self.algorithm.tables)
            if "algorithm" in tables and ":" not in str(tables["algorithm"].get("name", "")):
                tables["algorithm"] = {**tables["algorithm"], "weights": weights}
            algorithm = replace(self.algorithm, weights=weights, tables=tables)
            object.__setattr__(self, "algorithm", algorithm)

    def _judged(self, v: Validation) -> Federation:
        """The federation with the rows that the hub holds."""
        if (v.rows is None) == (v.path is None):
            raise bad("contradiction", "[validation] needs rows or path, one of them",
                      got=f"rows = {v.rows}, path = {v.path}",
                      rule="rows of the clients, in a simulation, or a file of the hub's own",
                      mend="add rows = 200 to [validation]")  # fmt: skip
        if v.rows is not None:
            return hold_back(self.federation, v.rows, self.seed)
        return with_file(self.federation, str(Path(self.base) / str(v.path)))

    # ---- what follows from the rest

    @cached_property
    def eligible(self) -> Ids:
        """The clients that train: found once, since a population may be a million."""
        found = np.flatnonzero(self.federation.sizes > 0).astype(np.int64)
        idle = self.algorithm.before is not None and self.algorithm.before.idle
        return found[found != self.apart] if idle else found

    @cached_property
    def apart(self) -> int | None:
        """The client whose labels are not used; None: there is none, or it isn't found."""
        before = self.algorithm.before
        return client_index(self.federation, before.client) if before else None

    @property
    def draws(self) -> Draws:
        """What messages are drawn from."""
        return Draws(self.seed, self.federation.ids)

    @cached_property
    def protection(self) -> Protection | None:
        """[privacy] and [secure] with all that follows from the rest of the job; None: neither."""
        return protection_of(self)

    @property
    def alone(self) -> bool:
        """Whether the hub may see each client's metrics."""
        return self.client_metrics == "release" or (self.privacy is None and self.secure is None)

    @property
    def cohort_size(self) -> int:
        n = len(self.eligible)
        return n if self.cohort is None else share_of(self.cohort, n)

    @property
    def asked_size(self) -> int:
        """Clients asked a round: the cohort, over-provisioned."""
        return min(len(self.eligible), math.ceil(round(self.over_provision * self.cohort_size, 9)))

    @property
    def rate(self) -> float:
        """q of Poisson sampling: the share, or m/N."""
        if self.cohort is None:
            return 1.0
        return self.cohort if isinstance(self.cohort, float) else self.cohort / max(1, len(self.eligible))

    def quorum_of(self, asked: int) -> int:
        """The least replies of so many asked."""
        return max(1, min(asked, share_of(self.quorum, asked)))

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self.task.metrics)

    @property
    def watched(self) -> str:
        """`watch`, or the first of auc, accuracy, rmse that is measured, or the loss."""
        return self.watch or watched(self.metrics)

    # ---- as data

    @property
    def tables(self) -> dict[str, dict[str, object]]:
        """The job as TOML tables with every default filled in; `unnamed-part` if a part has no name."""
        fed, task = self.federation.tables, self.task.table
        for part, table in (("federation", fed), ("task", task)):
            if table is None:
                raise bad(
                    "unnamed-part",
                    f"the {part} has no name that a job file could give",
                    rule="a job file holds names; a lambda, a tensor or a local function has none",
                    mend='write it as module:function, as in [model] name = "my_models:net"',
                )
        job = {k: getattr(self, k) for k in SETTINGS} | {"watch": self.watched}
        out: dict[str, dict[str, Any]] = {"job": job}
        out |= {k: dict(v) for k, v in cast("Mapping[str, Mapping[str, object]]", fed).items()}
        for table, part in (("uplink", self.algorithm.uplink), ("downlink", self.algorithm.downlink)):
            if part.apply is not None and not part.table:
                raise bad("unnamed-part", f"the {table} has no name that a job file could give", got=part.name,
                          rule=f"a job file holds keys of [{table}]",
                          mend=f"make it by ml.transforms.{table}(...)")  # fmt: skip
            out[table] = dict(part.table)
        out["aggregate"] = dict(self.algorithm.aggregate.table)
        out["model"] = dict(cast("Mapping[str, object]", task))
        out |= {k: dict(v) for k, v in self.algorithm.tables.items()}
        for table, part in (("validation", self.validation), ("privacy", self.privacy), ("secure", self.secure)):
            out[table] = part._asdict() if part is not None else {}
        out["attack"] = dict(self.attack.table) if self.attack is not None else {}
        out["simulate"] = self.simulate._asdict() if self.simulate != Simulate() else {}
        out["runtime"] = self.execution._asdict()
        out["card"] = dict(self.card)
        from manyloom.job.tables import canonical

        return canonical(filled(out))

    @property
    def digest(self) -> str:
        """SHA-256 of the job as data: all tables filled in, without [runtime], [card] and data_dir.

        A job whose parts have no names gets the digest of what can be told of it, marked by a leading "~".
        """
        try:
            return digest(self.tables)
        except BadInput:
            told = {"job": {k: plain(getattr(self, k)) for k in SETTINGS if getattr(self, k) is not None}}
            told |= {k: {n: plain(x) for n, x in v.items()} for k, v in self.algorithm.tables.items()}
            told |= {k: p._asdict() for k, p in (("privacy", self.privacy), ("secure", self.secure)) if p is not None}
            return "~" + digest(told)[1:]

    def to_toml(self) -> str:
        """The job as a TOML file with every default filled in."""
        from manyloom.job.toml import write

        return write(self.tables)

    @staticmethod
    def from_toml(
        path: str,
        overrides: Mapping[str, object] | None = None,
        data_dir: str | None = None,
        base: str | None = None,
    ) -> AnyJob:
        """The job of a TOML file, of either kind; overrides are `{"algorithm.lr": 0.1}`. Every problem is told at once.

        Args:
            path: the file, or the name of a shipped job.
            overrides: "table.key" -> value.
            data_dir: where files of named sources lie; else MANYLOOM_DATA.
            base: folder that relative paths and modules refer to; the file's own by default.
        """
        from manyloom.job.toml import read

        return read(path, overrides or {}, data_dir=data_dir, base=base)

    def __repr__(self) -> str:
        source = self.federation.info.name if self.federation.info else "data"
        model = self.task.name or "model"
        return (
            f"Job({self.algorithm.name}, {model}, {source} x{len(self.federation)}, rounds={self.rounds}, "
            f"seed={self.seed}, digest={self.digest[:8]})"
        )[:119]


SETTINGS = tuple(k for k in keys(Job) if k not in Job.PARTS)


def shape_of(federation: Federation) -> Shape:
    """What a model must fit, once the federation is prepared."""
    if federation.features is None:
        raise RuntimeError("the federation is not prepared: its statistics come first")
    return Shape(tuple(federation.features), federation.classes if federation.target == "class" else None)
