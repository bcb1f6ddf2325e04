"""Many clients at once by `torch.func`: vmap of the gradient of a functional call over views of the rows."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap  # pyright: ignore[reportPrivateImportUsage]

from manyloom.core.seeds import U64
from manyloom.core.slots import Slots
from manyloom.engine.provider import Program, add_scaled


class Vmap:
    """One call for K clients, for modules that mix no samples and draw no random numbers (`engine.prove`)."""

    name = "vmap"

    def __init__(self, program: Program) -> None:
        self.program = program
        self.most: int | None = None
        self._names = program.layout.names
        self._grad = vmap(grad_and_value(self._loss))

    def _loss(self, views: dict[str, Tensor], x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return (self.program.loss(self.program.call(views, x), y) * w).sum()

    def accumulate(
        self,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        out: Tensor,
        beta: float = 0.0,
        alpha: float = 1.0,
        rng: U64 | None = None,
        anchors: Slots | None = None,
    ) -> Tensor:
        """See `Provider.accumulate`."""
        if anchors is not None:
            return self._objective(theta, x, y, w, out, beta, alpha, anchors)
        views = self.program.layout.views
        grads, loss = cast("tuple[dict[str, Tensor], Tensor]", self._grad(views(theta), x, y, w))
        add_scaled(list(views(out).values()), [grads[n] for n in self._names], beta, alpha)
        return loss

    def _objective(
        self,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        out: Tensor,
        beta: float,
        alpha: float,
        anchors: Slots,
    ) -> Tensor:
        def loss(vector: Tensor, x: Tensor, y: Tensor, w: Tensor, own: Slots) -> Tensor:
            return (self.program.lost(vector, x, y, own) * w).sum()

        axes = {n: 0 if a.dim() >= 2 else None for n, a in anchors.items()}
        call = vmap(grad_and_value(loss), in_dims=(0, 0, 0, 0, axes))
        grad, value = cast("tuple[Tensor, Tensor]", call(theta, x, y, w, anchors))
        add_scaled([out], [grad], beta, alpha)
        return value

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        def one(views: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return self.program.loss(self.program.call(views, x), y)

        with torch.no_grad():
            return vmap(one)(self.program.layout.views(theta), x, y)

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            return vmap(self.program.call)(self.program.layout.views(theta), x)
