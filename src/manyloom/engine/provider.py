"""The seam: who accumulates the gradient of a weighted loss of K clients into K rows.

Providers differ in how (one resident module, or `torch.func` over clients), never in what. A new way to be
fast is a new provider.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]

from manyloom.core.flat import Layout, running_buffers
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots

# (forward, w [d], (x, y), anchors) -> loss a sample [B]; forward is a `Forward`
Objective = Callable[..., Tensor]


class Provider(Protocol):
    """A source of gradients. `theta`, `out` [K, d] are rows, one a client; x, y [K, B, ...]; w [K, B]."""

    name: str
    program: Program
    most: int | None  # the largest group it accepts; None: any

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
        """out <- beta out + alpha grad of sum_i w[k, i] loss_i; returns that loss [K], known anyway.

        With beta = 0 what `out` held before doesn't matter (it may be NaN); `out` may be `theta` itself.

        Args:
            rng: a key a client [K], for modules that draw random numbers themselves.
            anchors: take the `Work`'s objective, which reads these beside w: constants a client [K, ...], or
                shared [d]; None: the task's loss.
        """
        ...

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The task's loss of each sample [K, B], without gradient, as in evaluation."""
        ...

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        """What the modules put out [K, B, ...], without gradient, as in evaluation."""
        ...


@dataclass(frozen=True)
class Program:
    """What providers differentiate: a resident module and its loss.

    Args:
        module: the engine's own; providers may re-point its parameters.
        layout: of its trainable part.
        loss: (output [N, ...], y [N, ...]) -> [N].
        objective: in place of the loss, if a Work has one.
    """

    module: nn.Module
    layout: Layout
    loss: Callable[[Tensor, Tensor], Tensor]
    objective: Objective | None = None

    def train(self, on: bool) -> None:
        """Training or evaluation mode; walks the module only if it changes."""
        if self.module.training != on:
            self.module.train(on)

    def call(self, views: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The module's output at parameters that are given by name."""
        return cast(Tensor, functional_call(self.module, dict(views), (x,)))

    def forward(self, vector: Tensor, x: Tensor, aside: bool = False) -> tuple[Tensor, Tensor]:
        """(output, features) at any vector [d]: features are what enters the last layer, flattened a row.

        `aside`: running statistics are not to move.
        """
        seen: list[Tensor] = []
        copies = {n: b.clone() for n, b in running_buffers(self.module).items()} if aside else {}

        def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen[:] = args[:1]

        hook = last_layer(self.module).register_forward_pre_hook(keep)
        try:
            output = self.call(self.layout.views(vector) | copies, x)
        finally:
            hook.remove()
        return output, seen[0].flatten(1)

    def lost(self, vector: Tensor, x: Tensor, y: Tensor, anchors: Slots) -> Tensor:
        """The objective of each sample at `vector`, [B]."""
        assert self.objective is not None
        return self.objective(Forward(self, vector), vector, (x, y), anchors)


@dataclass(frozen=True)
class Forward:
    """What an objective sees of the model: `forward(vector, x) -> (output, features)`, and the task's loss.

    Args:
        program: module and loss.
        w: where the client stands; only the pass at this very vector moves running statistics.
    """

    program: Program
    w: Tensor

    def __call__(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.program.forward(vector, x, aside=vector is not self.w)

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """The task's loss of each sample [B]."""
        return self.program.loss(output, y)


def last_layer(module: nn.Module) -> nn.Module:
    """The last module, in the order of definition, that owns a parameter."""
    own = [m for m in module.modules() if next(m.parameters(recurse=False), None) is not None]
    return own[-1] if own else module


_copy, _mul, _add = (getattr(torch, f"_foreach_{op}_") for op in ("copy", "mul", "add"))


def add_scaled(outs: list[Tensor], grads: list[Tensor], beta: float, alpha: float) -> None:
    """out <- beta out + alpha grad for lists of tensors; with beta = 0 `out` is only written."""
    if beta == 0.0:
        _copy(outs, grads)
        if alpha != 1.0:
            _mul(outs, alpha)
    else:
        if beta != 1.0:
            _mul(outs, beta)
        _add(outs, grads, alpha=alpha)
