"""What a vertical run needs before its first pass: parties that know each other, and the rows they share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.exchange import Ask, Exchange, Handler, Lost, Reply, Runtime, play
from manyloom.core.slots import size_bytes
from manyloom.core.tensors import from_numpy, ints
from manyloom.engine.engine import quiet
from manyloom.job.state import State
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.makers import maker_of
from manyloom.vertical import opening, psi
from manyloom.vertical.party import Party
from manyloom.vertical.passes import Passes
from manyloom.vertical.psi_wire import agreed_order

T = TypeVar("T")
PHASES = {"open": "opening", "ids": "alignment"}  # by the family of a verb


class Between(Runtime, Protocol):
    """A runtime in which this process is the label party: whom it speaks for, and whom it knows."""

    @property
    def me(self) -> opening.Node: ...
    @property
    def pins(self) -> Mapping[str, bytes]: ...


@dataclass
class Line:
    """The label party's line to the others: what went over it, who was lost, and where the talk had come to."""

    runtime: Between
    up: int = 0
    down: int = 0
    sent: dict[int, int] = field(default_factory=dict[int, int])  # bytes up, a party
    lost: list[Lost] = field(default_factory=list[Lost])
    phase: str = ""

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        answers = self.runtime.ask(ask)
        for a in answers:
            if isinstance(a, Lost):
                self.lost.append(a)
                continue
            self.up += a.sent
            for client in a.clients.tolist():
                self.sent[client] = self.sent.get(client, 0) + a.sent // len(a.clients)
        self.down += size_bytes(ask.body) * len(ask.to) + sum(size_bytes(own) for own in ask.each.values())
        self.phase = PHASES.get(ask.verb.split(".")[0], self.phase)
        return answers

    def play(self, exchange: Exchange[T]) -> T:
        """A conversation to its end, counted from nought; on one thread, so that a run repeats bit for bit."""
        self.up, self.down, self.sent, self.lost, self.phase = 0, 0, {}, [], ""
        with quiet(1, True, "cpu"):
            return play(exchange, self.ask)


class Prepared(NamedTuple):
    """What is known before a run exists: rows in common, counted in the clear, since this process has all ids."""

    common: int
    parameters: Mapping[str, int]  # a party
    has: Mapping[str, str]  # a fingerprint of each party's rows
    execution: Mapping[str, Any]


class Met(NamedTuple):
    """What the parties found that they share: the label party's row numbers [m] in the agreed order, its digest.

    Of the same people the digest is the same in every run; what the parties compared is masked, and never is.
    """

    rows: Tensor
    order: str
    sizes: Mapping[str, int]


def prepare(job: Vertical, runtime: Between, state: State | None = None) -> Prepared:
    """Open the runtime and refuse what can't be trained.

    Args:
        job: the job.
        runtime: who answers.
        state: of a run that goes on: another machine is told, other rows are refused.

    Raises:
        BadInput: the parties share too few rows, or (`data-changed`) have others than the run began with.
    """
    runtime.open(job)
    has = {p.name: fingerprint(p) for p in (*job.parties.features, job.parties.label)}
    had = state.record.get("has", has) if state else has
    if other := [name for name in has if had.get(name) != has[name]]:
        raise bad("data-changed", f"the rows of {' and '.join(other)} are not those that this run began with",
                  got="another number, order or content of rows or ids",
                  rule="a run goes on with rows by their number, as they were matched when it began",
                  mend="give it the data it had, or run the job anew")  # fmt: skip
    common = len(shared(job))
    if problem := too_few(job, common):
        raise BadInput(problem)
    passes_of(job, torch.arange(common))  # whatever the algorithm refuses, it refuses now
    now, was = dict(runtime.describe()), dict(state.execution if state else {})
    kept = ("provider", "device", "threads", "torch", "capability")
    if changed := [k for k in kept if k in was and was[k] != now.get(k)]:
        now["changed"] = {k: [was[k], now.get(k)] for k in changed}
    return Prepared(common, maker_of(job).sizes(job), has, now)


def fingerprint(party: Party) -> str:
    """SHA-256 of a party's rows, in their order: ids, encoded columns, labels."""
    found = hashlib.sha256()
    for key in party.keys:
        found.update(len(key).to_bytes(4, "little") + key)
    for t in (party.x, party.y):
        found.update(b"" if t is None else t.contiguous().numpy().tobytes())
    return found.hexdigest()


def shared(job: Vertical) -> set[bytes]:
    """The ids that all parties have, in the clear: for a simulation, where they lie in one process."""
    found = set(job.parties.label.keys)
    for party in job.parties.features:
        found &= set(party.keys)
    return found


def in_the_clear(job: Vertical, state: State) -> State:
    """`state` with all rows matched in the clear, in the agreed order: for an estimate of time, where no run is."""
    found = sorted(shared(job))
    keys: list[bytes] = [found[i] for i in ints(from_numpy(agreed_order(found)))]

    def rows(party: Party) -> Tensor:
        at = {k: i for i, k in enumerate(party.keys)}
        return torch.tensor([at[k] for k in keys], dtype=torch.int64)

    own = rows(job.parties.label)
    clients = {remembered(i, "rows"): rows(p) for i, p in enumerate(job.parties.features)}
    return replace(state, server=passes_of(job, own).start(), clients=clients, preprocess={"rows": own})


def remembered(number: int, name: str) -> str:
    """What a party's memory is called in the state of a run."""
    return f"{number}/{name}"


def too_few(job: Vertical, m: int) -> Problem | None:
    """Why so many rows in common are not enough."""
    held = int(m * job.test)
    if m - held >= 1:
        return None
    names = [p.name for p in (job.parties.label, *job.parties.features)]
    sizes = ", ".join(f"{p.name} {len(p.keys)}" for p in (job.parties.label, *job.parties.features))
    return Problem(
        "no-common-rows",
        f"{' and '.join(names)} share {'no row' if not m else 'too few rows'}",
        got=f"{sizes} rows with an id; {m} in common",
        rule="rows are matched by the ids of [data], each read as its type in id_types",
        mend="look at the ids and at their types: manyloom psi LEFT RIGHT --key COLUMN --type TYPE",
    )


def meet(job: Vertical, runtime: Between, *, align: bool = True) -> Exchange[Met | None]:
    """Opening and, unless the rows are known from a checkpoint, alignment: the parties keep theirs as "rows"."""
    features = job.parties.features
    names = [p.name for p in features]
    opened = yield from opening.opened(
        len(features),
        runtime.me,
        runtime.pins,
        names=names,
        schema=schema(job),
        parameters=parameters(job),
        deadline_s=job.deadline_s,
    )
    if not align:
        return None
    label = job.parties.label
    found = yield from psi.aligned_all(
        label.keys, len(features), xid=opened.xid, settings=job.align, deadline_s=job.deadline_s
    )
    assert found.rows is not None
    rows = from_numpy(found.rows)
    sizes = {label.name: len(label.keys), **dict(zip(names, found.sizes[1:]))}
    order = hashlib.sha256(b"manyloom/order/v1" + b"".join(label.keys[i] for i in ints(rows)))
    return Met(rows, order.hexdigest(), sizes)


def schema(job: Vertical) -> bytes:
    """A digest of how ids are read, which all parties must agree on: an empty intersection says nothing."""
    return opening.digest("schema", {"types": list(job.data.id_types), "casefold": job.align.casefold})


def parameters(job: Vertical) -> bytes:
    """A digest of all that is public and must be the same everywhere."""
    return opening.digest("parameters", {"job": job.digest})


def handlers(job: Vertical, node: opening.Node, pins: Mapping[str, bytes]) -> dict[str, Handler]:
    """All that one feature party answers in a job."""
    own = maker_of(job).handlers(job)
    return {**opening.handlers(node, pins, schema(job), parameters(job)), **psi.handlers(job.align), **own}


def passes_of(job: Vertical, rows: Tensor) -> Passes:
    """The job's algorithm on the label party's aligned rows."""
    return maker_of(job).passes(job, rows)


def matching_bytes(job: Vertical) -> tuple[int, int]:
    """Bytes up and down of the alignment, without the opening; the overlaps are counted in the clear."""
    label, features = job.parties.label, job.parties.features
    overlaps = [len(set(label.keys) & set(p.keys)) for p in features]
    sizes = [len(p.keys) for p in features]
    return psi.traffic(len(label.keys), sizes, overlaps, len(shared(job)), job.align)
