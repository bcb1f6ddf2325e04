"""How a module becomes one flat vector: names, shapes and dtypes live here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import reduce
from math import prod
from typing import cast

import torch
from torch import Tensor, nn

from manyloom.core.errors import bad


@dataclass(frozen=True)
class Entry:
    """One tensor's place in the vector."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """Names, shapes, dtypes <-> one contiguous vector theta [d].

    `theta` holds the trainable parameters only (frozen ones and buffers are left out), each tensor once however many
    names it has (tied weights). Tensors of several dtypes share a vector of their common dtype; `state_dict` gives
    each its own dtype back. Views are zero-copy: writing to one writes to the vector.

    >>> layout = Layout.of(nn.Linear(2, 1))
    >>> layout
    Layout(2 tensors, 3 float32)
    >>> theta = torch.arange(3.0)
    >>> layout.views(theta)["bias"].add_(1.0)
    tensor([3.])
    >>> theta
    tensor([0., 1., 3.])
    """

    entries: tuple[Entry, ...]
    dtype: torch.dtype
    ties: tuple[tuple[str, str], ...] = ()  # (further name, name of the entry)

    @staticmethod
    def of(module: nn.Module, freeze: Sequence[str] = ()) -> Layout:
        """The layout of a module's trainable parameters, in the module's order.

        Args:
            module: any module.
            freeze: patterns (`backbone.*`) of parameters that stay out of theta.

        Raises:
            BadInput: `nothing-to-train` if no parameter is left.
        """
        names: dict[int, str] = {}
        kept: dict[str, Tensor] = {}
        ties: list[tuple[str, str]] = []
        for name, p in module.named_parameters(remove_duplicate=False):
            if not p.requires_grad or _matches(name, freeze):
                continue
            if id(p) in names:
                ties.append((name, names[id(p)]))
            else:
                names[id(p)] = name
                kept[name] = p
        if not kept:
            raise bad(
                "nothing-to-train",
                "the model has no trainable parameter",
                rule="theta holds the parameters that require a gradient and are not frozen",
                mend="unfreeze a layer, or check [model] freeze",
            )
        return Layout(*_entries(kept), ties=tuple(ties))

    @staticmethod
    def of_buffers(module: nn.Module) -> Layout:
        """The layout of running statistics: float buffers of layers that update them (integer ones never travel)."""
        kept = {name: b for name, b in running_buffers(module).items() if b.is_floating_point()}
        return Layout(*_entries(kept))

    @property
    def d(self) -> int:
        """Length of theta."""
        return self.entries[-1].offset + self.entries[-1].size if self.entries else 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(e.name for e in self.entries)

    def __repr__(self) -> str:
        return f"Layout({len(self.entries)} tensors, {self.d} {str(self.dtype).removeprefix('torch.')})"

    def views(self, theta: Tensor) -> dict[str, Tensor]:
        """Named views [..., *shape] of theta [..., d]; nothing is copied."""
        return {e.name: _view(theta, e) for e in self.entries}

    def flatten(self, source: nn.Module | Mapping[str, Tensor]) -> Tensor:
        """A new theta [d] with a module's (or a state dict's) values."""
        have = _named(source) if isinstance(source, nn.Module) else source
        theta = torch.empty(self.d, dtype=self.dtype)
        for e in self.entries:
            _view(theta, e).copy_(have[e.name].detach())
        return theta

    def load(self, module: nn.Module, theta: Tensor) -> None:
        """Copy theta [d] into a module's own tensors (their dtypes are kept)."""
        have = _named(module)
        with torch.no_grad():
            for e in self.entries:
                have[e.name].copy_(_view(theta, e))

    def bind(self, module: nn.Module, theta: Tensor) -> None:
        """Re-point a module's tensors at views of theta [d], so that a step on theta is a step of the module."""
        have = _named(module)
        for e in self.entries:
            have[e.name].data = _view(theta, e)

    def state_dict(self, theta: Tensor) -> dict[str, Tensor]:
        """Names (tied ones too) -> tensors of their own dtype, as `load_state_dict(strict=False)` takes them."""
        own = {e.name: _view(theta, e).to(e.dtype) for e in self.entries}
        return own | {name: own[first] for name, first in self.ties}

    def mask(self, patterns: Sequence[str]) -> Tensor:
        """A boolean mask [d] of the coordinates whose names match a pattern.

        >>> Layout.of(nn.Linear(2, 1)).mask(["bias"])
        tensor([False, False,  True])
        """
        found = torch.zeros(self.d, dtype=torch.bool)
        for e in self._matching(patterns):
            found[e.offset : e.offset + e.size] = True
        return found

    def part(self, patterns: Sequence[str]) -> tuple[Layout, Tensor]:
        """The layout of a named part, and the index [p] of its coordinates in theta: part = theta[..., index]."""
        chosen = self._matching(patterns)
        layout = Layout(*_entries({e.name: torch.empty(e.shape, dtype=e.dtype, device="meta") for e in chosen}))
        return layout, self.mask(patterns).nonzero().squeeze(1)

    def _matching(self, patterns: Sequence[str]) -> list[Entry]:
        for p in patterns:
            if not any(_matches(e.name, [p]) for e in self.entries):
                raise bad(
                    "unknown-part",
                    f'no parameter is called "{p}"',
                    got=f'"{p}"',
                    rule="patterns match " + ", ".join(self.names[:8]),
                    mend='* stands for any letters: "head.*"',
                )
        return [e for e in self.entries if _matches(e.name, patterns)]


def shared(module: nn.Module, layout: Layout, local: Sequence[str] | str) -> tuple[Layout, Tensor, Tensor]:
    """What travels of theta [d] if `local` stays at the client: its layout, its index [p], the index of the rest.

    Args:
        module: whose layout it is.
        layout: of theta.
        local: patterns of names, or "batchnorm": the weights of such layers.

    >>> net = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    >>> part, index, rest = shared(net, Layout.of(net), "batchnorm")
    >>> part.names, index.tolist(), rest.tolist()
    (('0.weight', '0.bias'), [0, 1, 2], [3, 4])
    """
    if isinstance(local, str):
        kind = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage]
        every = cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
        layers = {n for n, m in every if isinstance(m, kind)}
        local = [n for n in layout.names if n.rpartition(".")[0] in layers]
    rest = layout.mask(local)
    if rest.all():
        raise bad(
            "nothing-shared",
            "every parameter stays at the client",
            got="local = [" + ", ".join(f'"{p}"' for p in local) + "]",
            rule="what is not local is averaged",
            mend=f'name the last layer alone: local = ["{layout.names[-1].rpartition(".")[0]}.*"]',
        )
    part, index = layout.part([n for n in layout.names if not _matches(n, local)]) if rest.any() else (layout, ~rest)
    return part, index.nonzero().squeeze(1) if index.dtype == torch.bool else index, rest.nonzero().squeeze(1)


def running_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that keep running statistics (BatchNorm and its kin), by name."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # pyright: ignore[reportPrivateUsage]
    every = cast("Iterable[tuple[str, nn.Module]]", module.named_modules())
    return {n: m for n, m in every if isinstance(m, kinds) and m.track_running_stats}


def running_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers of `running_layers`, by full name."""
    found: dict[str, Tensor] = {}
    for layer, m in running_layers(module).items():
        found |= {f"{layer}.{n}" if layer else n: b for n, b in m.named_buffers(recurse=False)}
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, p) for p in patterns)


def _named(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _entries(tensors: Mapping[str, Tensor]) -> tuple[tuple[Entry, ...], torch.dtype]:
    entries: list[Entry] = []
    offset = 0
    for name, t in tensors.items():
        entries.append(Entry(name, tuple(t.shape), t.dtype, offset))
        offset += t.numel()
    dtypes = [t.dtype for t in tensors.values()]
    common = reduce(torch.promote_types, dtypes, dtypes[0]) if dtypes else torch.float32
    return tuple(entries), common


def _view(theta: Tensor, e: Entry) -> Tensor:
    part = theta.narrow(-1, e.offset, e.size)
    return part.view(*theta.shape[:-1], *e.shape) if e.shape else part.squeeze(-1)
