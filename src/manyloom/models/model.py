"""A named model: a record of how to build a plain module for data of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

from torch import nn

from manyloom.core.errors import bad

LossName = Literal["cross-entropy", "binary", "mse"]
# (shape of one row, numbers that come out, classes or None for a number) -> module
Make = Callable[[tuple[int, ...], int, int | None], nn.Module]


@dataclass(frozen=True)
class Model:
    """What the factories of this room make, and `[model]` names.

    `make(features, outputs, classes)` builds the module with torch's global generator, as every `nn.Module`
    does: seed it around the call. Weights and biases of Linear, Conv2d and LSTM start uniform in +-1 /
    sqrt(fan in), which is torch's own rule; logistic starts at 0.
    """

    name: str
    make: Make = field(repr=False, compare=False)
    table: Mapping[str, object] = field(default_factory=dict[str, object])
    one_logit: bool = True  # whether two classes are one logit, not two

    def loss(self, classes: int | None) -> LossName:
        """The default loss: "mse" for a number, "binary" (one logit) for two classes, else "cross-entropy"."""
        if classes is None:
            return "mse"
        return "binary" if classes == 2 and self.one_logit else "cross-entropy"

    def build(self, features: Sequence[int], classes: int | None, loss: str | None = None) -> nn.Module:
        """The module for rows of shape `features`: one output for "binary" and "mse", else one a class.

        >>> from manyloom.models import mlp
        >>> sum(p.numel() for p in mlp(hidden=[16]).build((13,), 2).parameters())
        241
        """
        outputs = 1 if (loss or self.loss(classes)) in ("binary", "mse") else classes or 1
        return self.make(tuple(features), outputs, classes)


def flat(features: tuple[int, ...]) -> tuple[list[nn.Module], int]:
    """What makes a row a vector, and its length."""
    return ([] if len(features) == 1 else [nn.Flatten()]), prod(features)


def misfit(model: str, features: tuple[int, ...], rule: str, mend: str) -> Exception:
    """The error of data that a model can't take."""
    return bad(
        "model-input",
        f'model "{model}" can\'t take this data',
        got=f"rows of shape {list(features)}",
        rule=rule,
        mend=mend,
    )
