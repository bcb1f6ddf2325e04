"""Distillation over a small overlap: who has labels teaches who has none, by one message.

    teacher  t(x_label): trained at the label party on all its rows, those that are in no other party's file included
    message  q_i = sigma(t(x_i)), or the softmax, for the aligned rows that are trained on
    student  min_s mean_i CE(q_i, s(x_i)), at the feature party, of its own columns

The held-out aligned rows train neither of the two. After that one message nothing of the label party's travels: the
student is the feature party's own model, and needs nobody to predict. (Hinton et al. 2015, arXiv:1503.02531.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.core.exchange import Ask, Exchange, Lost, Reply
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.task import LOSSES
from manyloom.models.split import Part, SplitModel, first_bottom
from manyloom.vertical.distil_party import (
    Distil,
    at_once,
    batches,
    handlers,
    in_parts,
    net,
    one_hot,
    part,
    said,
    widened,
)
from manyloom.vertical.passes import Judged, Pass, Passes, held_out
from manyloom.vertical.steps import fresh, stepped


class _Here(NamedTuple):
    """What the label party knows."""

    model: SplitModel
    how: Distil
    seed: int
    x: Tensor
    y: Tensor
    rows: Tensor
    parties: tuple[str, ...]
    classes: int | None
    test: float
    deadline_s: float

    @property
    def outputs(self) -> int:
        return self.model.outputs(self.classes)

    @property
    def side(self) -> Part:
        return net(self.model, self.x.shape[1], self.classes)

    @property
    def split(self) -> tuple[Tensor, Tensor]:
        """Row numbers of the aligned rows that are trained on, and of those held out, in the agreed order."""
        train, test = held_out(len(self.rows), self.test, self.seed)
        return self.rows[train], self.rows[test]


def passes(
    model: SplitModel,
    how: Distil,
    *,
    seed: int,
    rounds: int,
    x: Tensor,
    y: Tensor,
    rows: Tensor,
    classes: int | None,
    parties: Sequence[str],
    test: float = 0.2,
    deadline_s: float = 3600.0,
) -> Passes:
    """Distillation as a run sees it.

    Args:
        model: `bottom`, the hidden widths of teacher and student.
        how: how both are trained.
        seed: of the job; every party knows it.
        rounds: passes in all.
        x: all rows of the label party, aligned or not [n, F].
        y: their labels [n].
        rows: row numbers of the aligned ones, in the agreed order [m].
        classes: how many there are; None: a number is predicted.
        parties: names of the feature parties, in the order of their numbers.
        test: share of the aligned rows that is held out, and no part of the teacher's rows.
        deadline_s: of an ask.

    Raises:
        BadInput: nothing to train on, or no columns to teach from.
    """
    opt = how.local  # tells every wrong option
    here = _Here(model, how, seed, x, y, rows, tuple(parties), classes, test, deadline_s)
    if not len(here.split[0]):
        raise bad("nothing-aligned", "no aligned row is left to train on",
                  got=f"{len(rows)} aligned rows, a share of {test:g} held out",
                  mend="check [data] ids and id_types: they decide which rows match")  # fmt: skip
    if not x.shape[1]:
        raise bad("no-columns", "a teacher without columns has nothing to say", got="0 columns at the label party",
                  mend='labels = "hard" hands the labels over, or take split-learning')  # fmt: skip

    def start() -> Slots:
        theta = first_bottom(widened(model, classes), x.shape[1], seed=seed, party="teacher")
        return fresh(opt, theta.to(x.dtype))

    return Passes(
        name="distil",
        start=start,
        one=lambda state, round: _one(here, state, round),
        judge=lambda state, round: _judge(here, round),
        handlers=handlers(model, how, classes=classes, seed=seed, test=test),
        threats=threats(how),
        traffic=lambda rows, held: traffic(here, rounds, rows, held),
        parts=lambda state: here.side.layout.state_dict(state["theta"]),
    )


def threats(how: Distil) -> tuple[str, str, str, str]:
    """Who learns what: label party, feature party, hub, and what that rests on."""
    told = "soft labels" if how.labels == "soft" else "the labels"
    label = "what a student says of held-out rows, and its mean loss a pass"
    return label, f"{told} of the aligned rows it is trained on", "sizes", "none: no noise covers what it is told"


# ---- the label party


def taught(here: _Here, state: Slots) -> Slots:
    """The teacher after its training: on every row of the label party that is not held out."""
    opt, how, side = here.how.local, here.how, here.side
    keep = torch.ones(len(here.x), dtype=torch.bool)
    keep[here.split[1]] = False
    rows, loss, own = keep.nonzero().squeeze(1), here.model.loss_of(here.classes), state
    for places in batches(len(rows), how.teacher_batch_size, how.teacher_steps, here.seed, 0, "distil/teacher"):
        at = rows[places]
        theta = own["theta"].detach().requires_grad_()
        (grad,) = torch.autograd.grad(LOSSES[loss](side(theta, here.x[at]), here.y[at]).mean(), theta)
        own = stepped(opt, own, grad)
    if not own["theta"].isfinite().all():
        raise RunFailed(Problem("diverged", "the teacher's weights are no longer numbers", f"lr = {how.lr:g}",
                                mend=f"try lr = {how.lr / 10:g}"))  # fmt: skip
    return own


def lesson(here: _Here, theta: Tensor) -> Tensor:
    """What the aligned rows that are trained on are said to be [n, C], in the agreed order."""
    rows, name = here.split[0], here.model.loss_of(here.classes)
    if here.how.labels == "hard":
        return one_hot(name, here.y[rows], here.outputs).to(here.x.dtype)
    with torch.no_grad():
        return said(name, here.side(theta, here.x[rows]))


def _one(here: _Here, state: Slots, round: int) -> Exchange[Pass]:
    """A pass; the first begins with the teacher and the one message."""
    everybody = np.arange(len(here.parties))
    up = down = 0
    if round == 1:
        state = taught(here, state) if here.how.labels == "soft" else state
        soft = lesson(here, state["theta"])
        for k, some in enumerate(in_parts(soft, at_once(here.outputs))):
            body: Slots = {"at": torch.tensor([k]), "soft": some}
            down += size_bytes(body) * len(everybody)
            answers = yield Ask(everybody, "distil.labels", body, round=round, deadline_s=here.deadline_s)
            if lost := _lost(answers, len(everybody), f"distil.labels, pass {round}"):
                return Pass(state, math.nan, 0, 0, up, down, lost=lost, enough=False)
            up += sum(a.sent for a in answers if isinstance(a, Reply))
    body = {"at": torch.tensor([round])}
    down += size_bytes(body) * len(everybody)
    answers = yield Ask(everybody, "distil.train", body, round=round, deadline_s=here.deadline_s)
    up += sum(a.sent for a in answers if isinstance(a, Reply))
    if lost := _lost(answers, len(everybody), f"distil.train, pass {round}", {"loss": (1,)}):
        return Pass(state, math.nan, 0, 0, up, down, lost=lost, enough=False)
    loss = float(torch.cat([a.body["loss"] for a in answers if isinstance(a, Reply)]).mean())
    if not math.isfinite(loss):
        raise RunFailed(Problem("diverged", "the student's loss is no longer a number",
                                f"pass {round}, lr = {here.how.lr:g}",
                                mend=f"try lr = {here.how.lr / 10:g}"))  # fmt: skip
    n = len(here.split[0])
    return Pass(state, loss, here.how.steps, n, up, down)


def _judge(here: _Here, round: int) -> Exchange[Judged]:
    """What the students say of the held-out rows, judged where the labels are; of several students the mean."""
    rows, everybody, up, down = here.split[1], np.arange(len(here.parties)), 0, 0
    found: list[Tensor] = []
    for k, some in enumerate(in_parts(rows, at_once(here.outputs))):
        body: Slots = {"at": torch.tensor([k])}
        down += size_bytes(body) * len(everybody)
        answers = yield Ask(everybody, "distil.forward", body, round=round, deadline_s=here.deadline_s)
        up += sum(a.sent for a in answers if isinstance(a, Reply))
        shape = len(some), here.outputs
        if lost := _lost(answers, len(everybody), f"distil.forward after pass {round}", {"output": shape}):
            return Judged(here.x.new_zeros(0, here.outputs), here.y[:0], math.nan, up, down, lost)
        found.append(torch.stack([a.body["output"] for a in answers if isinstance(a, Reply)]).mean(0))
    output, y = torch.cat(found), here.y[rows]
    loss = float(LOSSES[here.model.loss_of(here.classes)](output, y).double().mean()) if len(y) else math.nan
    return Judged(output, y, loss, up, down)


def _lost(
    answers: Sequence[Reply | Lost], n: int, phase: str, shapes: dict[str, tuple[int, ...]] | None = None
) -> list[Lost]:
    """Who gave no answer, or one of another shape than was asked for."""
    lost = [replace(a, text=f"{phase}: {a.text}") for a in answers if isinstance(a, Lost)]
    there = {int(a.clients[0]): a.body for a in answers if isinstance(a, Reply)}
    for k, body in there.items():
        for name, shape in (shapes or {}).items():
            t = body.get(name)
            if t is None or tuple(t.shape) != shape or not t.is_floating_point():
                lost.append(Lost(k, "malformed", f'{phase}: "{name}" must be numbers {list(shape)}'))
    silent = set(range(n)) - set(there) - {a.client for a in lost}
    return [*lost, *(Lost(k, "away", f"{phase}: no answer") for k in sorted(silent))]


def traffic(here: _Here, rounds: int, rows: int, held: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes up and down of a pass (the mean: the labels go down in the first) and of a judgement.

    Args:
        here: the label party.
        rounds: passes in all.
        rows: aligned rows to train on.
        held: of them held out.
    """
    c, item, k = here.outputs, here.x.element_size(), len(here.parties)
    labels = rows * c * item + 8 * -(-rows // at_once(c))
    judged = k * held * c * item, k * 8 * -(-held // at_once(c))
    return (k * item, round(k * (labels + 8 * rounds) / rounds)), judged


__all__ = ["Distil", "handlers", "net", "part", "passes", "threats"]
