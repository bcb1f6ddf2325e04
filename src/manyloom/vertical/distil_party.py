"""Distillation, a feature party's half: a student that learns what it is told of its rows; and what both sides compute.

See `vertical.distil`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from manyloom.core.exchange import Handler
from manyloom.core.slots import Slots
from manyloom.core.tensors import ints
from manyloom.core.validate import Above, AtLeast
from manyloom.models.split import Part, SplitModel, bottom_part, first_bottom
from manyloom.vertical.party import Party
from manyloom.vertical.passes import held_out, shuffled
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


def widened(model: SplitModel, classes: int | None) -> SplitModel:
    """The same widths with the outputs at the end."""
    return replace(model, cut=model.outputs(classes))


def net(model: SplitModel, features: int, classes: int | None) -> Part:
    """Teacher or student: F columns -> `bottom` -> the outputs."""
    return bottom_part(widened(model, classes), features)


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


def at_once(outputs: int) -> int:
    """Rows of one message.

    >>> at_once(1)
    2097150
    """
    return (BODY - 8) // (4 * outputs)


def in_parts(t: Tensor, size: int) -> list[Tensor]:
    """Rows in pieces of a message each."""
    return [t[lo : lo + size] for lo in range(0, len(t), size)]


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
        theta = first_bottom(widened(model, classes), data.x.shape[1], seed=seed, party=data.name)
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
