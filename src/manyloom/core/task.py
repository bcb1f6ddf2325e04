"""What is learned: a module, its loss a sample, the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.flat import running_layers
from manyloom.core.metrics import METRICS
from manyloom.core.validate import nearest, show

LossName = Literal["cross-entropy", "binary", "mse"]
Loss = Callable[[Tensor, Tensor], Tensor]  # (output [N, ...], y [N, ...]) -> [N]
Buffers = Literal["refuse", "average", "local"]


class Shape(NamedTuple):
    """What a model must fit: the shape of one input row, the classes (None: a number is predicted)."""

    features: tuple[int, ...]
    classes: int | None


def _cross_entropy(output: Tensor, y: Tensor) -> Tensor:
    if output.dim() == 2:
        return F.cross_entropy(output, y, reduction="none")
    return F.cross_entropy(output.flatten(0, -2), y.flatten(), reduction="none").view(y.shape).flatten(1).mean(1)


def _binary(output: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output.squeeze(-1), y.to(output.dtype), reduction="none")


def _mse(output: Tensor, y: Tensor) -> Tensor:
    return (output.squeeze(-1) - y.to(output.dtype)).square()


LOSSES: Mapping[str, Loss] = {"cross-entropy": _cross_entropy, "binary": _binary, "mse": _mse}


class Own(NamedTuple):
    """What a task does in its own way beside training."""

    about: Mapping[str, object]  # told once, in the run's record
    save: Callable[[Path, nn.Module, Mapping[str, object]], str]  # (folder, trained module, facts) -> SHA-256
    say: Callable[[nn.Module], Sequence[tuple[str, str]]]  # what it answers to the job's prompts
    prompts: Sequence[str] = ()


@dataclass(frozen=True)
class Task:
    """A module factory, a loss per sample, metrics.

    Args:
        module: a factory of the module, or (with `needs_shape`) a function of the data's `Shape`.
        loss: "cross-entropy" (logits [N, C], or [N, T, C] a token), "binary" (one logit), "mse", or a function
            (output, y) -> [N]. A function of one batch mean does not fit: the engine weighs samples.
        metrics: beside the loss: accuracy, auc, f1; rmse, mae, r2.
        buffers: what to do with BatchNorm's running statistics: refuse, average, or keep local (FedBN).
        freeze: patterns of parameters that are not in theta.
        size: what one row counts, (y) -> [N]; None: one.
        serial: why clients can't be batched: their gradients are taken one by one.

    >>> Task(lambda: nn.Linear(4, 3), metrics=["accuracy"])
    Task(cross-entropy, accuracy)
    """

    module: Callable[..., nn.Module]
    loss: LossName | Loss = "cross-entropy"
    metrics: Sequence[str] = ("accuracy",)
    buffers: Buffers = "refuse"
    freeze: Sequence[str] = ()
    size: Callable[[Tensor], Tensor] | None = None
    serial: str = ""
    needs_shape: bool = False
    name: str = ""
    own: Own | None = None  # a language model saves its adapter, not a state dict
    table: Mapping[str, object] | None = None  # the [model] table that makes it again

    def __post_init__(self) -> None:
        wrong: list[Problem] = []
        if isinstance(self.loss, str) and self.loss not in LOSSES:
            wrong.append(
                Problem(
                    "unknown-name",
                    f'there is no loss "{self.loss}"',
                    f"loss = {show(self.loss)}",
                    mend=_mean(self.loss, LOSSES),
                )
            )
        for m in self.metrics:
            if m not in METRICS:
                wrong.append(
                    Problem(
                        "unknown-name",
                        f'there is no metric "{m}"',
                        f"metrics = {show(list(self.metrics))}",
                        mend=_mean(m, METRICS),
                    )
                )
        if self.buffers not in ("refuse", "average", "local"):
            wrong.append(
                Problem(
                    "out-of-range", 'buffers must be "refuse", "average" or "local"', f"buffers = {show(self.buffers)}"
                )
            )
        if wrong:
            raise BadInput(*wrong)

    def __repr__(self) -> str:
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", "loss")
        return f"Task({', '.join([self.name] * bool(self.name) + [loss, *self.metrics])})"

    def build(self, shape: Shape) -> nn.Module:
        """The module for data of this shape; `batchnorm` is refused here unless `buffers` says what to do."""
        module = self.module(shape) if self.needs_shape else self.module()
        layers = running_layers(module)
        if layers and self.buffers == "refuse":
            name, layer = next(iter(layers.items()))
            channels = cast(int, getattr(layer, "num_features", 0))
            raise bad(
                "batchnorm",
                "BatchNorm keeps running statistics that an average would falsify",
                got=f'layer "{name}" ({channels} channels) in {self.name or type(module).__name__}',
                rule='[model] buffers is "refuse" by default',
                mend='buffers = "local" keeps them at each client (FedBN);\n'
                'buffers = "average" averages the float ones; or use GroupNorm',
            )
        return module

    def losses(self, output: Tensor, y: Tensor) -> Tensor:
        """The loss of each sample, [N]."""
        return LOSSES[self.loss](output, y) if isinstance(self.loss, str) else self.loss(output, y)

    def check(self, module: nn.Module, x: Tensor, y: Tensor, shape: Shape) -> None:
        """Refuse a model whose output does not fit the labels, on a few real rows (`model-labels`)."""
        was = module.training
        module.eval()
        try:
            with torch.no_grad():
                out = module(x)
        except Exception as error:
            raise bad(
                "model-input",
                "the model can't take a batch of this data",
                got=f"input {list(x.shape)}: {type(error).__name__}: {str(error).splitlines()[0]}",
                rule=f"a row has the shape {list(shape.features)}",
                mend="check the model's first layer, or choose another model",
            ) from error
        finally:
            module.train(was)
        n, c = len(x), shape.classes
        want = {"binary": [[n, 1], [n]], "mse": [[n, 1], [n]]}.get(str(self.loss), [[*y.shape, c]])
        if isinstance(self.loss, str) and list(out.shape) not in want:
            labels = f"labels 0 to {c - 1}" if c else "a number a row"
            need = (
                f"{c} classes need an output of [batch, {c}]"
                if self.loss == "cross-entropy"
                else "one number a row: an output of [batch, 1]"
            )
            raise bad(
                "model-labels",
                "the model's output does not fit the labels",
                got=f"output {list(out.shape)}, {labels}",
                rule=need,
                mend=f'set classes = {c} in [model], or use loss = "binary" for two classes',
            )
        if not isinstance(self.loss, str) and list(self.losses(out, y).shape) != [n]:
            raise bad(
                "loss-shape",
                "the loss must be one number a sample",
                rule=f"got a batch of {n}: need [{n}]",
                got=f"shape {list(self.losses(out, y).shape)}",
                mend='use reduction="none"',
            )


def _mean(word: str, words: Mapping[str, object]) -> str:
    near = nearest(word, words)
    return f'did you mean "{near}"?' if near else "one of " + ", ".join(words)
