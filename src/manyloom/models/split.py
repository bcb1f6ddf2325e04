"""A network cut between parties: every party has a bottom of its own, the label party the top.

z_k = f_k(x_k; th_k) [n, D];   output = g(ReLU(z_label | z_1 | ... | z_K); phi)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple, cast

import torch
from torch import Tensor, nn

from manyloom.core import seeds
from manyloom.core.errors import bad
from manyloom.core.flat import Layout
from manyloom.core.tensors import torch_seeded
from manyloom.core.validate import AtLeast, checked
from manyloom.models.model import LossName

OWN = "label party"  # whose block of the top the label party's own embedding is


@dataclass(frozen=True)
class SplitModel:
    """Widths of a split network of linear layers with ReLU between them.

    Args:
        bottom: hidden widths of each party's bottom; none is one linear layer.
        cut: D, numbers of an embedding.
        top: hidden widths of the top.
        loss: "cross-entropy", "binary" or "mse"; None: by what is predicted.
        metrics: beside the loss; None: by what is predicted.

    >>> model = SplitModel()
    >>> sum(p.numel() for p in model.bottom_of(13).parameters()), model.bottom_of(0)
    (976, None)
    """

    bottom: tuple[int, ...] = (32,)
    cut: int = 16
    top: tuple[int, ...] = (32,)
    loss: LossName | None = None
    metrics: tuple[str, ...] | None = None

    @property
    def table(self) -> Mapping[str, object]:
        """The `[model]` table that makes it again."""
        own: dict[str, object] = {"name": "split-mlp", "bottom": list(self.bottom), "cut": self.cut}
        own |= {"top": list(self.top)} | ({"loss": self.loss} if self.loss else {})
        return own | ({"metrics": list(self.metrics)} if self.metrics is not None else {})

    def loss_of(self, classes: int | None) -> LossName:
        """The loss a sample: "mse" for a number, "binary" for two classes, else "cross-entropy"."""
        return self.loss or ("mse" if classes is None else "binary" if classes == 2 else "cross-entropy")

    def outputs(self, classes: int | None) -> int:
        """How many numbers come out of the top."""
        return classes or 1 if self.loss_of(classes) == "cross-entropy" else 1

    def bottom_of(self, features: int) -> nn.Sequential | None:
        """f_k: [n, F] -> [n, D]; None for a party without columns."""
        return _stack([features, *self.bottom, self.cut]) if features else None

    def top_of(self, blocks: int, outputs: int) -> nn.Sequential:
        """g: [n, blocks D] -> [n, outputs], the ReLU on the embeddings included."""
        return nn.Sequential(nn.ReLU(), *_stack([blocks * self.cut, *self.top, outputs]))


@checked
def split_mlp(
    *,
    bottom: Sequence[Annotated[int, AtLeast(1)]] = (32,),
    cut: Annotated[int, AtLeast(1)] = 16,
    top: Sequence[Annotated[int, AtLeast(1)]] = (32,),
) -> SplitModel:
    """A network cut between parties: bottoms and a top of linear layers with ReLU between them.

    Args:
        bottom: hidden widths of each party's bottom; none is one linear layer.
        cut: numbers of an embedding, what a party sends of a row.
        top: hidden widths of the top, at the label party.
    """
    return SplitModel(tuple(bottom), cut, tuple(top))


class LabelSide(nn.Module):
    """The label party's part: its own bottom, if it has columns, and the top."""

    def __init__(self, model: SplitModel, features: int, parties: int, outputs: int) -> None:
        super().__init__()
        self.bottom = model.bottom_of(features)
        self.top = model.top_of(parties + (self.bottom is not None), outputs)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """x [n, F], z [n, K D] -> output [n, C]."""
        return self.top(z if self.bottom is None else torch.cat([self.bottom(x), z], 1))


class Part(NamedTuple):
    """One party's part as a function of its flat weights; the module has no storage of its own."""

    module: nn.Module
    layout: Layout

    def __call__(self, theta: Tensor, *inputs: Tensor) -> Tensor:
        """The part's output with weights theta [d]; differentiable in theta."""
        views = self.layout.views(theta)
        return cast(Tensor, torch.func.functional_call(self.module, views, inputs))


@lru_cache(maxsize=64)
def bottom_part(model: SplitModel, features: int) -> Part:
    """A feature party's part."""
    with torch.device("meta"):
        module = model.bottom_of(features)
    if module is None:
        raise bad(
            "no-columns",
            "a feature party has no columns",
            got="0 columns",
            rule="a party without labels adds nothing but its columns",
            mend="leave the party out of [parties]",
        )
    return Part(module, Layout.of(module))


@lru_cache(maxsize=64)
def label_part(model: SplitModel, features: int, parties: int, outputs: int) -> Part:
    """The label party's part."""
    with torch.device("meta"):
        module = LabelSide(model, features, parties, outputs)
    return Part(module, Layout.of(module))


def first_bottom(model: SplitModel, features: int, *, seed: int, party: str) -> Tensor:
    """A party's initial weights [d]: a function of the job's seed and the party's name."""
    layout = bottom_part(model, features).layout
    with torch_seeded(seeds.scalar(seed, 0, f"split/bottom/{party}")):
        module = model.bottom_of(features)
    assert module is not None  # bottom_part refuses it
    return layout.flatten(module)


def first_label_side(model: SplitModel, features: int, *, seed: int, parties: Sequence[str], outputs: int) -> Tensor:
    """The label party's initial weights [d].

    The columns of the top's first layer that read a party's embedding follow from that party's name, uniform in
    +-1 / sqrt(fan in) as torch draws them, so the order of parties only permutes columns.
    """
    with torch_seeded(seeds.scalar(seed, 0, "split/label side")):
        module = LabelSide(model, features, len(parties), outputs)
    first = cast(nn.Linear, module.top[1])
    blocks = [*([OWN] if features else []), *parties]
    for k, party in enumerate(blocks):
        with torch_seeded(seeds.scalar(seed, 0, f"split/top/{party}")), torch.no_grad():
            first.weight[:, k * model.cut : (k + 1) * model.cut].uniform_(-1, 1).mul_(first.in_features**-0.5)
    return label_part(model, features, len(parties), outputs).layout.flatten(module)


def _stack(widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for a, b in zip(widths[1:], widths[2:]):
        layers += [nn.ReLU(), nn.Linear(a, b)]
    return nn.Sequential(*layers)
