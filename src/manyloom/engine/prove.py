"""What a module is, found once at build: does vmap agree with autograd, is it random, how large does it get.

No walk over a module can promise that its forward doesn't mix samples or read its parameters in an odd way.
So each provider is proved on two small probes in float64, against autograd, client by client.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from manyloom.core.flat import Layout, running_layers
from manyloom.core.slots import Slots
from manyloom.engine.autograd import Autograd, seed_torch
from manyloom.engine.provider import Program, Provider
from manyloom.engine.vmapped import Vmap

TOLERANCE = 1e-9
Loss = Callable[[Tensor, Tensor], Tensor]


class Traits(NamedTuple):
    """What the choice of provider asks of a module."""

    convolution: bool
    random: bool
    saved_bytes: int  # for the backward pass, a row
    largest_bytes: int  # the largest single output of a layer, a row


def traits(program: Program, x: Tensor, y: Tensor) -> Traits:
    """Look at a module on a few real rows; torch's generator is left as it was."""
    module, n = program.module, max(1, len(x))
    convolution = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())  # pyright: ignore[reportPrivateUsage]
    mine = {p.data_ptr() for p in module.parameters()} | {x.data_ptr()}
    saved = 0
    outputs: list[int] = []

    def pack(t: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if t.data_ptr() in mine else t.numel() * t.element_size()
        return t

    def note(_: nn.Module, __: object, out: object) -> None:
        if isinstance(out, Tensor):
            outputs.append(out.numel() * out.element_size())

    frozen: dict[int, Any] = {id(p): p for p in module.parameters() if not p.requires_grad}
    copied = copy.deepcopy(module, frozen)  # BatchNorm's statistics stay; what nobody trains is there once
    probe = Program(copied, program.layout, program.loss)
    probe.train(True)
    hooks = [m.register_forward_hook(note) for m in probe.module.modules()]
    fork: AbstractContextManager[None] = torch.random.fork_rng(devices=[])  # pyright: ignore
    with fork, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        seed_torch(1)
        first = probe.loss(probe.module(x), y)
    for h in hooks:
        h.remove()
    return Traits(convolution, _draws(probe, x, y, first.detach()), saved // n, max(outputs, default=4) // n)


def _draws(probe: Program, x: Tensor, y: Tensor, first: Tensor) -> bool:
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # pyright: ignore[reportUnknownMemberType]
        for seed in (2, 3):
            seed_torch(seed)
            if not torch.equal(probe.loss(probe.module(x), y), first):
                return True
        return False


def refusal(program: Program, x: Tensor, y: Tensor, random: bool, anchors: Slots | None = None) -> str | None:
    """Why vmap can't run this module, or None: it agrees with autograd on both probes to 1e-9.

    Args:
        program: module, loss, objective.
        x, y: a few real rows.
        random: the module draws random numbers.
        anchors: an example of what the objective reads, for one client [1, ...] or shared [d].
    """
    if layers := running_layers(program.module):
        return f'layer "{next(iter(layers))}" keeps running statistics'
    if random:
        return "the module draws random numbers"
    if program.module.__class__ in _UNFIT or any(isinstance(m, _UNFIT) for m in program.module.modules()):
        return "recurrent layers are slower under vmap"
    module, layout = copy.deepcopy(program.module).double(), _double(program.layout)
    double = Program(module, layout, program.loss, program.objective)
    ground = replace(double, module=copy.deepcopy(module))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="There is a performance drop")
            vmapped = Vmap(double)
            plain = Autograd(ground)
            double.train(True)
            ground.train(True)
            for seed, (k, b) in enumerate(((3, 5), (2, 7))):
                off, padded = _differences(vmapped, plain, x, y, k, b, seed, anchors)
                if off > TOLERANCE and padded <= TOLERANCE:
                    return "the module mixes the rows of a batch, so clients can't be padded to one length"
                if off > TOLERANCE:
                    return f"differs from autograd by {off:.1g} on {k} clients of {b} rows"
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"
    return None


_UNFIT = (nn.RNNBase,)


def _differences(
    one: Provider, other: Provider, x: Tensor, y: Tensor, k: int, b: int, seed: int, anchors: Slots | None
) -> tuple[float, float]:
    """How far gradients and losses of padded batches are from those without, and from those with, the padding.

    Relative to the largest gradient (at least 1). The last row of each client is padding, of weight 0.
    """
    rng = torch.Generator().manual_seed(seed)
    layout = one.program.layout
    theta = 0.1 * torch.randn(k, layout.d, generator=rng, dtype=torch.float64)
    theta += layout.flatten(one.program.module)
    at = torch.randint(len(x), (k, b), generator=rng)
    xs, ys = x[at], y[at]
    if xs.is_floating_point():
        xs = xs.double() + 0.1 * torch.randn(xs.shape, generator=rng, dtype=torch.float64)
    ys = ys.double() if ys.is_floating_point() else ys
    w = torch.rand(k, b, generator=rng, dtype=torch.float64)
    w[:, -1] = 0.0
    known = None if anchors is None else {n: _example(a, k) for n, a in anchors.items()}

    def run(provider: Provider, rows: int) -> Tensor:
        out = torch.full_like(theta, torch.nan)
        loss = provider.accumulate(theta, xs[:, :rows], ys[:, :rows], w[:, :rows], out, anchors=known)
        return torch.cat([out, loss[:, None]], 1)

    want = run(one, b)
    offs = [float((run(other, n) - want).detach().abs().max()) / max(1.0, float(want.abs().max())) for n in (b - 1, b)]
    bare, padded = (off if off == off else float("inf") for off in offs)
    return bare, padded


def _example(anchor: Tensor, k: int) -> Tensor:
    a = anchor.double() if anchor.is_floating_point() else anchor
    return a.expand(k, *a.shape[1:]) if a.dim() >= 2 else a


def _double(layout: Layout) -> Layout:
    entries = tuple(replace(e, dtype=torch.float64) for e in layout.entries)
    return replace(layout, dtype=torch.float64, entries=entries)
