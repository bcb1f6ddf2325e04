"""The provider that takes everything: one resident module whose parameters are views of a client's row."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from manyloom.core.flat import Layout, running_buffers
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots
from manyloom.engine.provider import Program, add_scaled


class Autograd:
    """PyTorch's own autograd, one client at a time; several rows are taken in turn.

    The module's parameters are re-pointed at a row's memory, so a step on the row is a step of the module: no
    state dict, no copy, no optimiser object. BatchNorm's statistics are views of `running` [b] likewise.
    """

    name = "autograd"

    def __init__(self, program: Program, buffers: Layout | None = None, device: str = "cpu") -> None:
        self.program = program
        self.most: int | None = 1
        self.device = device
        named = dict(program.module.named_parameters(remove_duplicate=False))
        self._params = [named[e.name] for e in program.layout.entries]
        for p in program.module.parameters():
            p.requires_grad_(False)
        for p in self._params:
            p.requires_grad_(True)
        self._mixed = [p.dtype != program.layout.dtype for p in self._params]
        self._bound: Tensor | None = None
        self._out: tuple[Tensor, list[Tensor]] | None = None
        self.running = torch.empty(0)
        self._counters: list[Tensor] = []
        if buffers is not None and buffers.d:
            self.running = buffers.flatten(program.module).to(device)
            buffers.bind(program.module, self.running)
            self._counters = _counters(program.module)

    def start(self, running: Tensor | None) -> None:
        """Begin with a client: its running statistics [b], its counters at zero."""
        if running is not None:
            self.running.copy_(running)
            for c in self._counters:
                c.zero_()

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
        """See `Provider.accumulate`; `rng` seeds torch's generator before each row."""
        found: list[Tensor] = []
        for k in range(theta.shape[0]):
            if rng is not None:
                seed_torch(int(rng[k] >> 1), self.device)
            if anchors is not None:
                own = {n: a[k] if a.dim() >= 2 else a for n, a in anchors.items()}
                found.append(self._objective(theta[k], x[k], y[k], w[k], out[k], beta, alpha, own))
                continue
            row, weights = theta[k], w[k]
            self._bind(row)
            with torch.enable_grad():
                losses = self.program.loss(self.program.module(x[k]), y[k])
                weights = weights if weights.dtype == losses.dtype else weights.to(losses.dtype)
                grads = torch.autograd.grad(losses, self._params, weights, allow_unused=True)
            add_scaled(self._views(out[k]), self._whole(grads), beta, alpha)
            found.append(torch.dot(losses.detach(), weights))
        return found[0][None] if len(found) == 1 else torch.stack(found)

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([self.program.loss(o, y[k]) for k, o in enumerate(self._each(theta, x))])

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        return torch.stack(self._each(theta, x))

    def _each(self, theta: Tensor, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        with torch.no_grad():
            for k in range(theta.shape[0]):
                self._bind(theta[k])
                found.append(self.program.module(x[k]))
        return found

    def _objective(
        self,
        row: Tensor,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        out: Tensor,
        beta: float,
        alpha: float,
        anchors: Slots,
    ) -> Tensor:
        with torch.enable_grad():
            vector = row.detach().requires_grad_()
            loss = (self.program.lost(vector, x, y, anchors) * w).sum()
            (grad,) = torch.autograd.grad(loss, vector)
        add_scaled([out], [grad], beta, alpha)
        return loss.detach()

    def show(self, row: Tensor) -> None:
        """Let the module be this vector [d]: what it is judged by."""
        self._bind(row)

    def _bind(self, row: Tensor) -> None:
        """Point the parameters at this row, if they aren't (it is kept alive, so its address is its own)."""
        if self._bound is not None and self._bound.data_ptr() == row.data_ptr():
            if any(self._mixed):
                self._copy_in(row)
            return
        for p, view, mixed in zip(self._params, self.program.layout.views(row).values(), self._mixed):
            if not mixed:
                p.data = view
        self._bound = row
        if any(self._mixed):
            self._copy_in(row)

    def _copy_in(self, row: Tensor) -> None:
        """Parameters of another dtype than theta's can't be views of it."""
        for p, view, mixed in zip(self._params, self.program.layout.views(row).values(), self._mixed):
            if mixed:
                p.data.copy_(view)

    def _views(self, out: Tensor) -> list[Tensor]:
        if self._out is None or self._out[0].data_ptr() != out.data_ptr():
            self._out = (out, list(self.program.layout.views(out).values()))
        return self._out[1]

    def _whole(self, grads: tuple[Tensor | None, ...]) -> list[Tensor]:
        """A parameter that the loss doesn't reach has gradient zero."""
        if all(g is not None for g in grads):
            return list(cast("tuple[Tensor, ...]", grads))
        return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, self._params)]


def seed_torch(seed: int, device: str = "cpu") -> None:
    """Seed the generator that modules draw from; the caller has saved its state."""
    torch.default_generator.manual_seed(seed)
    if device.startswith("cuda"):
        torch.cuda.manual_seed(seed)


def _counters(module: nn.Module) -> list[Tensor]:
    return [b for b in running_buffers(module).values() if not b.is_floating_point()]
