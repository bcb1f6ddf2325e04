"""Distillation over a small overlap: who has labels teaches who has none, by one message.

    teacher  t(x_label): trained at the label party on all its rows, those that are in no other party's file included
    message  q_i = sigma(t(x_i)), or the softmax, for the aligned rows that are trained on
    student  min_s mean_i CE(q_i, s(x_i)), at the feature party, of its own columns

The held-out aligned rows train neither of the two. After that one message nothing of the label party's travels: the
student is the feature party's own model, and needs nobody to predict. (Hinton et al. 2015, arXiv:1503.02531; as a way
between parties that share few rows, e.g. Ren et al. 2022, doi:10.1109/TNNLS.2022.3147446 are near.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.core.exchange import Ask, Exchange, Handler, Lost, Reply
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.task import LOSSES
from manyloom.core.tensors import ints
from manyloom.core.validate import Above, AtLeast
from manyloom.models.split import Part, SplitModel, bottom_part, first_bottom
from manyloom.vertical.party import Party
from manyloom.vertical.passes import Judged, Pass, Passes, held_out, shuffled
from manyloom.vertical.steps import fresh, stepped
from manyloom.work.local import Local, local

KEPT = ("theta", "m", "v", "t")  # of a part that Adam trains
BEGAN = "start/"  # the same as they were when the pass began
BODY = 8 << 20  # bytes of a message


class Distil(NamedTuple):
    """A student at each feature party learns what the label party's teacher says of the rows both have.

    Teacher and student are `[model] bottom` with one more linear layer; both are trained by Adam.

    Args:
        lr: step size of teacher and student.
        steps: minibatch steps of the student in a pass; passes are [job] rounds.
        batch_size: aligned rows of such a step.
        teacher_steps: of the teacher, before the first pass.
        teacher_batch_size: rows of such a step, of all rows of the label party that are not held out.
        weight_decay: L2 in the gradient of both.
        labels: what the students learn: the teacher's soft labels; or "hard", the labels themselves, handed over.
    """

    lr: Annotated[float, Above(0)] = 0.005
    steps: Annotated[int, AtLeast(1)] = 30
    batch_size: Annotated[int, AtLeast(1)] = 512
    teacher_steps: Annotated[int, AtLeast(1)] = 300
    teacher_batch_size: Annotated[int, AtLeast(1)] = 2048
    weight_decay: Annotated[float, AtLeast(0)] = 0.001
    labels: Literal["soft", "hard"] = "soft"

    @property
    def local(self) -> Local:
        """The same as options of the flat optimisers; every wrong one is told."""
        own: dict[str, object] = {"lr": self.lr, "batch_size": self.batch_size, "weight_decay": self.weight_decay}
        return local({"optimiser": "adam", **own})  # pyright: ignore[reportArgumentType]


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
        theta = first_bottom(_net(model, classes), x.shape[1], seed=seed, party="teacher")
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


def _net(model: SplitModel, classes: int | None) -> SplitModel:
    """The same widths with the outputs at the end."""
    return replace(model, cut=model.outputs(classes))


def net(model: SplitModel, features: int, classes: int | None) -> Part:
    """Teacher or student: F columns -> `bottom` -> the outputs."""
    return bottom_part(_net(model, classes), features)


def loss_of(name: str, output: Tensor, target: Tensor) -> Tensor:
    """Mean loss of outputs [n, C] against what a teacher says [n, C]: probabilities, or numbers.

    >>> q = torch.tensor([[0.25, 0.75]])
    >>> round(float(loss_of("cross-entropy", torch.zeros(1, 2), q)), 4)  # log 2, whatever it says
    0.6931
    """
    if name == "binary":
        return F.binary_cross_entropy_with_logits(output, target)
    if name == "cross-entropy":
        return F.cross_entropy(output, target)
    return F.mse_loss(output, target)


def said(name: str, output: Tensor) -> Tensor:
    """What a teacher's outputs [n, C] say: sigma, softmax, or the numbers themselves."""
    return output.sigmoid() if name == "binary" else output.softmax(1) if name == "cross-entropy" else output


def one_hot(name: str, y: Tensor, outputs: int) -> Tensor:
    """Labels [n] as a student takes them [n, C]."""
    return F.one_hot(y, outputs).float() if name == "cross-entropy" else y.float()[:, None]


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
        for k, part in enumerate(soft.split(at_once(here.outputs))):
            body: Slots = {"at": torch.tensor([k]), "soft": part}
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
                                f"pass {round}, lr = {here.how.lr:g}", mend=f"try lr = {here.how.lr / 10:g}"))  # fmt: skip
    n = len(here.split[0])
    return Pass(state, loss, here.how.steps, n, up, down)


def _judge(here: _Here, round: int) -> Exchange[Judged]:
    """What the students say of the held-out rows, judged where the labels are; of several students the mean."""
    rows, everybody, up, down = here.split[1], np.arange(len(here.parties)), 0, 0
    found: list[Tensor] = []
    for k, part in enumerate(rows.split(at_once(here.outputs))):
        body: Slots = {"at": torch.tensor([k])}
        down += size_bytes(body) * len(everybody)
        answers = yield Ask(everybody, "distil.forward", body, round=round, deadline_s=here.deadline_s)
        up += sum(a.sent for a in answers if isinstance(a, Reply))
        shape = len(part), here.outputs
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


# ---- both


def at_once(outputs: int) -> int:
    """Rows of one message.

    >>> at_once(1)
    2097150
    """
    return (BODY - 8) // (4 * outputs)


def batches(n: int, size: int, steps: int, seed: int, round: int, purpose: str) -> list[Tensor]:
    """Places of n rows of each step, one shuffle of them all cycled through; all of them where they are few.

    >>> [len(b) for b in batches(5, 2, 3, 0, 1, "x")], [len(b) for b in batches(5, 8, 2, 0, 1, "x")]
    ([2, 2, 2], [5, 5])
    """
    order = shuffled(n, seed, round, purpose)
    return [order[torch.arange(s * size, (s + 1) * size) % n] if size < n else order for s in range(steps)]


# ---- a feature party


def handlers(model: SplitModel, how: Distil, *, classes: int | None, seed: int, test: float) -> dict[str, Handler]:
    """What a feature party answers, the same for all: its name and its columns come with its rows.

    Its memory must have `rows` [m], its row numbers in the agreed order; kept are `theta` [d] and Adam's state, `soft`,
    `at` (the last pass), and the student as it was when that pass began.

    Args:
        model: `bottom`, the hidden widths of teacher and student.
        how: how both are trained.
        classes: how many there are; None: a number is predicted.
        seed: of the job.
        test: share of the aligned rows that is held out.
    """
    opt, outputs, loss = how.local, model.outputs(classes), model.loss_of(classes)

    @lru_cache(maxsize=1)
    def parted(m: int) -> tuple[Tensor, Tensor]:
        return held_out(m, test, seed)

    def own(memory: Slots, data: Party) -> Slots:
        if memory["theta"].numel():
            return {n: memory[n] for n in KEPT}
        theta = first_bottom(_net(model, classes), data.x.shape[1], seed=seed, party=data.name)
        return fresh(opt, theta.to(data.x.dtype))

    def labels(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        (k,) = _at(body)
        n, size = len(parted(len(memory["rows"]))[0]), at_once(outputs)
        soft, had = body["soft"], memory["soft"].reshape(-1, outputs)[: k * size]
        if len(had) != k * size or list(soft.shape) != [min(size, n - k * size), outputs]:
            raise ValueError(f'"soft" must be [{max(0, min(size, n - k * size))}, {outputs}], part {k + 1} of a lesson')
        if not soft.isfinite().all() or (loss != "mse" and bool(((soft < 0) | (soft > 1)).any())):
            raise ValueError('"soft" must be ' + ("numbers" if loss == "mse" else "probabilities"))
        return {}, {"soft": torch.cat([had.to(soft.dtype), soft])}

    def train(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        (round,), was = _at(body), ints(memory["at"])[0]
        rows, soft = memory["rows"][parted(len(memory["rows"]))[0]], memory["soft"]
        if len(soft) != len(rows):
            raise ValueError(f"{len(soft)} of {len(rows)} rows have a label: distil.labels comes before distil.train")
        if round not in (was, was + 1):
            raise ValueError(f"pass {round} does not follow pass {was}")
        state = {n: memory[BEGAN + n] for n in KEPT} if round == was else own(memory, data)
        changes: Slots = {BEGAN + n: t for n, t in state.items()} | {"at": body["at"]}
        side, total = net(model, data.x.shape[1], classes), 0.0
        for places in batches(len(rows), how.batch_size, how.steps, seed, round, "distil/student"):
            theta = state["theta"].detach().requires_grad_()
            value = loss_of(loss, side(theta, data.x[rows[places]]), soft[places])
            (grad,) = torch.autograd.grad(value, theta)
            state, total = stepped(opt, state, grad), total + float(value.detach())
        return {"loss": torch.tensor([total / how.steps], dtype=data.x.dtype)}, changes | state

    def outputs_of(memory: Slots, data: Party, places: Tensor, k: int) -> tuple[Slots, Slots]:
        size = at_once(outputs)
        at = memory["rows"][places[k * size : (k + 1) * size]]
        if k < 0 or (k and not len(at)):
            raise ValueError(f"{len(places)} rows have no part {k + 1}")
        with torch.no_grad():
            return {"output": net(model, data.x.shape[1], classes)(own(memory, data)["theta"], data.x[at])}, {}

    def forward(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        return outputs_of(memory, data, parted(len(memory["rows"]))[1], _at(body)[0])

    nothing = torch.zeros(0)
    start = dict.fromkeys((*KEPT, *(BEGAN + n for n in KEPT), "soft"), nothing) | {"at": torch.tensor([0])}
    return {
        "distil.labels": Handler(labels, (), start),
        "distil.train": Handler(train, ("loss",), start),
        "distil.forward": Handler(forward, ("output",), start),
    }


def part(model: SplitModel, features: int, memory: Slots, classes: int | None) -> Slots:
    """A feature party's student by name, for saving alone."""
    return net(model, features, classes).layout.state_dict(memory["theta"])


def _at(body: Slots) -> list[int]:
    at = body.get("at")
    if at is None or at.dtype != torch.int64 or list(at.shape) != [1]:
        raise ValueError('"at" must be int64 [1]')
    return ints(at)
