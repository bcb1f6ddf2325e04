"""Models of vectors: logistic, linear, mlp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from manyloom.core.validate import AtLeast, checked
from manyloom.models.model import Model, flat, misfit


@checked
def logistic() -> Model:
    """Logistic regression: logits W x + b, one for two classes; starts at 0.

    >>> logistic().build((13,), 2)
    Sequential(
      (0): Linear(in_features=13, out_features=1, bias=True)
    )
    """

    def make(features: tuple[int, ...], outputs: int, classes: int | None) -> nn.Module:
        if classes is None:
            raise misfit("logistic", features, "it predicts a class, these labels are numbers", 'model name = "linear"')
        module = _linear(features, outputs, classes)
        for p in module.parameters():
            nn.init.zeros_(p)
        return module

    return Model("logistic", make)


@checked
def linear() -> Model:
    """One linear layer, W x + b: a number, or a logit a class; starts uniform in +-1 / sqrt(fan in)."""
    return Model("linear", _linear)


@checked
def mlp(*, hidden: Sequence[Annotated[int, AtLeast(1)]] = (64,)) -> Model:
    """Linear layers with ReLU between them.

    Args:
        hidden: widths of the hidden layers; none is linear.
    """
    widths = tuple(hidden)

    def make(features: tuple[int, ...], outputs: int, classes: int | None) -> nn.Module:
        layers, width = flat(features)
        for h in widths:
            layers += [nn.Linear(width, h), nn.ReLU()]
            width = h
        return nn.Sequential(*layers, nn.Linear(width, outputs))

    return Model("mlp", make, {"hidden": list(widths)})


def _linear(features: tuple[int, ...], outputs: int, classes: int | None) -> nn.Module:
    layers, width = flat(features)
    return nn.Sequential(*layers, nn.Linear(width, outputs))
