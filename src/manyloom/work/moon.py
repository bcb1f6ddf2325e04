"""MOON's client."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend


class Forward(Protocol):
    """A model at any vector [d]: x -> (output, features [B, f]); and the task's loss a sample [B]."""

    def __call__(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]: ...

    def loss(self, output: Tensor, y: Tensor) -> Tensor: ...


def moon(opt: Local, mu: float, temperature: float) -> Work:
    """loss + mu l: features near those of the global model, far from those of the client's own last result.

        l = -log( e^(sim(z, z_glob) / t) / (e^(sim(z, z_glob) / t) + e^(sim(z, z_prev) / t)) )

    sim is the cosine; z, z_glob, z_prev are what enters the last layer under w, theta and the client's last y_i, which
    is its memory [d]. A client without one has l = 0. Three passes a step.

    Li et al. 2021, CVPR, arXiv:2103.16257.
    """

    def constants(down: Slots, kept: Slots, seen: Seen) -> State:
        return {"prev": kept["prev"], "met": kept["met"]}

    def objective(forward: Forward, w: Tensor, batch: tuple[Tensor, Tensor], anchors: Slots) -> Tensor:
        x, y = batch
        output, z = forward(w, x)
        near, far = (cosine(z, forward(anchors[name], x)[1]) for name in ("theta", "prev"))
        return forward.loss(output, y) + mu * anchors["met"] * F.softplus((far - near) / temperature)

    def report(u: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        return {}, {"prev": down["theta"] + u, "met": torch.ones_like(kept["met"])}

    if not mu:
        return descend(opt)
    work = descend(opt, constants=constants, report=report, memory={"prev": "d", "met": "1"})
    return work._replace(objective=objective)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of rows [B, f], [B]; 0 with a row of zeros, and no gradient there."""
    return (_unit(a) * _unit(b)).sum(-1)


def _unit(z: Tensor) -> Tensor:
    square = z.square().sum(-1, keepdim=True)
    return z / torch.where(square > 0, square, 1).sqrt()
