"""What both sides of a cut do alike: which rows a step has, and a step of their own optimiser."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from manyloom.core.slots import Slots
from manyloom.core.validate import Above, AtLeast, Below
from manyloom.vertical.passes import held_out, shuffled
from manyloom.work.local import OPTIMISERS, Local, local, norms


class SplitLearning(NamedTuple):
    """How every party trains its part of a split network.

    Args:
        lr: step size of every party's optimiser.
        batch_size: aligned rows of a step.
        optimiser: of each party's own part; its state is kept over all passes.
        momentum: of SGD.
        weight_decay: L2 in the gradient (sgd, adam), decoupled (adamw).
        clip_grad: largest L2 norm of a party's gradient, each for itself.
    """

    lr: Annotated[float, Above(0)] = 0.002
    batch_size: Annotated[int, AtLeast(1)] = 256
    optimiser: Literal["sgd", "adam", "adamw"] = "adam"
    momentum: Annotated[float, Below(1)] = 0.0
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    clip_grad: Annotated[float | None, Above(0)] = None

    @property
    def local(self) -> Local:
        """The same as options of the flat optimisers; every wrong one is told."""
        return local({
            "lr": self.lr,
            "batch_size": self.batch_size,
            "optimiser": self.optimiser,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "clip_grad": self.clip_grad,
        })  # fmt: skip

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of what the optimiser remembers."""
        return (("momentum",) if self.momentum else ()) if self.optimiser == "sgd" else ("m", "v", "t")


def fresh(opt: Local, theta: Tensor) -> Slots:
    """theta [d] and the optimiser's first state, as tensors."""
    state: dict[str, Any] = OPTIMISERS[opt.optimiser][0](opt, theta, 1)
    return {"theta": theta} | {n: torch.tensor(v[0]) if n == "t" else v[0] for n, v in state.items()}


def stepped(opt: Local, own: Slots, grad: Tensor) -> Slots:
    """The part after one step along grad [d]; what was given is left as it was."""
    state: dict[str, Any] = {n: [int(t)] if n == "t" else t[None].clone() for n, t in own.items()}
    w, g = state.pop("theta"), grad[None].clone()
    if opt.clip_grad is not None:
        g.mul_((opt.clip_grad / norms(g)).clamp_(max=1.0).to(g.dtype))
    OPTIMISERS[opt.optimiser][1](opt, w, g, state | {"lr": opt.lr})
    return {"theta": w[0]} | {n: torch.tensor(v[0]) if n == "t" else v[0] for n, v in state.items()}


def walk(m: int, test: float, seed: int, round: int) -> Tensor:
    """The places of the rows trained on, of m aligned ones, in the order of this pass; both sides draw it alike."""
    train, _ = held_out(m, test, seed)
    return train[shuffled(len(train), seed, round, "cut/batches")]


def steps_of(rows: int, size: int) -> int:
    """Batches of a pass; the last one may be short.

    >>> steps_of(24_000, 256)
    94
    """
    return math.ceil(rows / size)


def batch(order: Tensor, size: int, step: int) -> Tensor:
    """The places of one step's rows."""
    return order[step * size : (step + 1) * size]
