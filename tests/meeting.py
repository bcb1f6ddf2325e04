"""A toy vertical job that many tests share: logistic regression whose columns lie at several parties."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.core.exchange import Ask, Handler, Lost, Reply
from manyloom.core.slots import Slots, size_bytes
from manyloom.job.state import State
from manyloom.job.vertical.loop import loop, start
from manyloom.job.vertical.makers import MAKERS, Maker
from manyloom.job.vertical.prepare import Line, prepare
from manyloom.runtime.parties import LocalParties
from manyloom.vertical import psi
from manyloom.vertical.party import Party
from manyloom.vertical.passes import Judged, Leaked, Pass, Passes, held_out
from manyloom.vertical.settings import Align, Cut


@dataclass(frozen=True)
class Rows:
    """The sums of a row, x w, at each party, and one step of gradient descent a pass: all by hand."""

    lr: float = 0.5
    go_on: bool = False  # without a party that is lost


@dataclass(frozen=True)
class Toy:
    """What the loop reads of a vertical job."""

    parties: Any
    algorithm: Rows
    align: Align = Align()
    cut: Cut = Cut()
    rounds: int = 3
    seed: int = 0
    test: float = 0.25
    eval_every: int = 1
    watch: str = "auc"
    stop_at: float | None = None
    patience: int | None = None
    deadline_s: float = 3600.0
    name: str = "meeting"
    base: str = ""
    metrics: tuple[str, ...] = ("accuracy", "auc")
    digest: str = 64 * "d"

    model = SimpleNamespace(table={"name": "rows"})

    @property
    def data(self) -> Any:
        """The parties before anything was left out."""
        holdings = (*self.parties.features, self.parties.label)
        return SimpleNamespace(id_types=("int",), row_word=("row", "rows"), info=None, holdings=holdings)

    @property
    def watched(self) -> str:
        return self.watch

    def to_toml(self) -> str:
        raise bad("unnamed-part", "a toy has no file")


def handlers_of(job: Toy) -> Mapping[str, Handler]:
    seed, test, lr = job.seed, job.test, job.algorithm.lr

    def places(memory: Slots, held: bool) -> torch.Tensor:
        train, out = held_out(len(memory["rows"]), test, seed)
        return memory["rows"][out if held else train]

    def weights(memory: Slots, data: Party) -> torch.Tensor:
        return memory["w"] if len(memory["w"]) else torch.zeros(data.x.shape[1])

    def sums(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        held = bool(body["held"])
        return {"z": data.x[places(memory, held)] @ weights(memory, data)}, {} if held else {
            "asked": memory["asked"] + 1
        }

    def step(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        x = data.x[places(memory, False)]
        return {}, {"w": weights(memory, data) - lr * x.T @ body["g"], "secret.g": body["g"]}

    kept = {"w": torch.zeros(0), "asked": torch.zeros(1)}
    return {"rows.sums": Handler(sums, ("z",), kept), "rows.step": Handler(step, (), kept, ("secret.g",))}


def passes_of(job: Toy, rows: torch.Tensor) -> Passes:
    label = job.parties.label
    assert label.y is not None
    x, y = label.x[rows], label.y[rows]
    train, test = held_out(len(y), job.test, job.seed)
    k, lr, go_on = len(job.parties.features), job.algorithm.lr, job.algorithm.go_on
    everybody = np.arange(k, dtype=np.int64)
    count = [0, 0]

    def ask(verb: str, number: int, body: Slots):
        answers = yield Ask(everybody, verb, body, round=number, deadline_s=job.deadline_s)
        back = [a for a in answers if isinstance(a, Reply)]
        count[0] += sum(a.sent for a in back)
        count[1] += size_bytes(body) * k
        return back, [a for a in answers if isinstance(a, Lost)]

    def output(state: Slots, at: torch.Tensor, back: list[Reply]) -> torch.Tensor:
        own = x[at] @ state["w"] + state["b"]
        return own + sum((a.body["z"] for a in back), torch.zeros(len(at)))

    def one(state: Slots, number: int):
        count[:] = [0, 0]
        back, lost = yield from ask("rows.sums", number, {"held": torch.zeros(1, dtype=torch.bool)})
        if lost and not go_on:
            return Pass(state, float("nan"), 0, 0, *count, (), lost, False)
        z = output(state, train, back)
        target = y[train].float()
        g = (torch.sigmoid(z) - target) / len(train)
        _, later = yield from ask("rows.step", number, {"g": g})
        if later and not go_on:
            return Pass(state, float("nan"), 0, 0, *count, (), later, False)
        made = {"w": state["w"] - lr * x[train].T @ g, "b": state["b"] - lr * g.sum()}
        loss = float(torch.nn.functional.binary_cross_entropy_with_logits(z, target))
        leaks = [Leaked(i, 1, 0.9, 0.95, 0.8, 0.85) for i in range(k)]
        return Pass(made, loss, 1, len(train), *count, leaks, [*lost, *later])

    def judge(state: Slots, number: int):
        count[:] = [0, 0]
        back, lost = yield from ask("rows.sums", number, {"held": torch.ones(1, dtype=torch.bool)})
        if lost and not go_on:
            return Judged(torch.zeros(0, 1), y[:0], float("nan"), *count, lost)
        z = output(state, test, back)
        loss = float(torch.nn.functional.binary_cross_entropy_with_logits(z, y[test].float()))
        return Judged(z[:, None], y[test], loss, *count, lost)

    return Passes(
        "rows",
        lambda: {"w": torch.zeros(x.shape[1]), "b": torch.zeros(())},
        one,
        judge,
        handlers_of(job),
        ("each row's sum", "the error of each row, hence the labels", "sizes", "nothing"),
        lambda n, held: ((4 * n * k, (4 * n + 1) * k), (4 * held * k, k)),
        lambda state: state,
    )


def sizes_of(job: Toy) -> Mapping[str, int]:
    own = {p.name: p.x.shape[1] for p in (*job.parties.features, job.parties.label)}
    return own | {job.parties.label.name: own[job.parties.label.name] + 1}


MAKERS[Rows] = Maker("rows", "", passes_of, handlers_of, sizes_of)


def key(i: int) -> bytes:
    """The canonical key of a whole number in one column."""
    word = str(i).encode()
    return len(word).to_bytes(4, "little") + word


def party(name: str, ids: list[int], x: torch.Tensor, y: torch.Tensor | None = None) -> Party:
    return Party(name, [key(i) for i in ids], x, tuple(f"{name}_{j}" for j in range(x.shape[1])), y)


def parties(n=60, k=2, seed=0, features=3, missing=7) -> Any:
    """A label party and k feature parties: n people of whom each party lacks some, in its own order."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(n, features * (k + 1))).astype(np.float32))
    y = (x.sum(1) + torch.from_numpy(rng.normal(size=n).astype(np.float32)) > 0).long()
    made = []
    for i in range(k + 1):
        ids = rng.permutation(n)[: n - missing]
        own = x[ids, i * features : (i + 1) * features]
        made.append(party("bank" if i == k else ("shop", "phone", "rail")[i], [1000 + j for j in ids], own,
                          y[ids] if i == k else None))  # fmt: skip
    return SimpleNamespace(
        label=made[-1], features=tuple(made[:-1]), target="class", classes=2, labels=("no", "yes"), left_out={}
    )


def meeting(algorithm: Any = None, federation: Any = None, **settings: Any) -> Toy:
    """A vertical job over `parties`, three passes unless said otherwise."""
    return Toy(federation or parties(), algorithm or Rows(), **settings)


class Clear:
    """Matching of ids in the clear, in psi's place where a test is not about it: the same answers in no time."""

    @staticmethod
    def aligned_all(keys: Any, parties: int, *, xid: bytes, settings: Align, deadline_s: float) -> Any:
        found, sizes, up, down = set(keys), [len(keys)], 0, 0
        for k in range(parties):
            [theirs] = yield Ask(np.array([k], np.int64), "ids.masked", {}, deadline_s=deadline_s)
            if isinstance(theirs, Lost):
                raise RunFailed(Problem("alignment-failed", f"feature party {k} was lost"))
            there = [key(int(i)) for i in theirs.body["ids"]]
            sizes, up, found = [*sizes, len(there)], up + theirs.sent, found & set(there)
        order = sorted(found, key=lambda k: hashlib.sha256(k).digest())
        body = {"ids": torch.tensor([int(k[4:]) for k in order], dtype=torch.int64)}
        for k in range(parties):
            [kept] = yield Ask(np.array([k], np.int64), "ids.keep", body, deadline_s=deadline_s)
            if isinstance(kept, Lost):
                raise RunFailed(Problem("alignment-failed", f"feature party {k} was lost"))
            down += size_bytes(body)
        at = {k: i for i, k in enumerate(keys)}
        rows = np.array([at[k] for k in order], np.int64)
        return psi.AlignedAll(len(order), rows, b"", tuple(sizes), up, down, ())

    @staticmethod
    def handlers(settings: Align) -> Mapping[str, Handler]:
        def masked(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
            assert len(memory["xid"]) == 32  # the opening's
            return {"ids": torch.tensor([int(k[4:]) for k in data.keys])}, {}

        def keep(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
            at = {k: i for i, k in enumerate(data.keys)}
            return {}, {"rows": torch.tensor([at[key(int(i))] for i in body["ids"]], dtype=torch.int64)}

        none = {"rows": torch.zeros(0, dtype=torch.int64)}
        return {"ids.masked": Handler(masked, ("ids",)), "ids.keep": Handler(keep, (), none)}

    @staticmethod
    def traffic(n_label: int, n_features: Any, common: Any, final: int, settings: Align) -> tuple[int, int]:
        return 8 * sum(n_features), 8 * final * len(n_features)


@pytest.fixture
def in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids are matched in the clear in this test."""
    monkeypatch.setattr("manyloom.job.vertical.prepare.psi", Clear)


class Losing(LocalParties):
    """A runtime that loses a party at the n-th ask of a verb, and keeps all that was asked."""

    def __init__(self, verb: str = "", nth: int = 1, number: int = 0, for_ever: bool = False) -> None:
        self.verb, self.nth, self.number, self.for_ever = verb, nth, number, for_ever
        self.heard: list[tuple[Ask, list[Reply | Lost]]] = []
        self.seen = 0

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        mine = ask.verb == self.verb and self.number in ask.to.tolist()
        self.seen += mine
        if mine and (self.seen == self.nth or (self.for_ever and self.seen > self.nth)):
            rest = replace(ask, to=ask.to[ask.to != self.number])
            gone = Lost(self.number, "away", "the line is dead", None, ask.number)
            answers = [*(super().ask(rest) if len(rest.to) else []), gone]
        else:
            answers = super().ask(ask)
        self.heard.append((ask, answers))
        return answers


def play(job: Toy, runtime: LocalParties | None = None, state: State | None = None, **more: Any) -> list[Any]:
    """All events of a vertical job in memory, without a store."""
    runtime = runtime or LocalParties()
    ready = prepare(job, runtime, state)
    return list(loop(job, Line(runtime), ready, state or start(job, ready), **more))
