"""The convolutional net of the FedAvg paper."""

from __future__ import annotations

from torch import Tensor, nn

from manyloom.core.validate import checked
from manyloom.models.model import Model, misfit


class Channel(nn.Module):
    """Images without a channel axis get one: [N, H, W] -> [N, 1, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)


@checked
def cnn() -> Model:
    """The CNN of the FedAvg paper: 1 663 370 parameters for 28 x 28 pixels and 10 classes.

    Two 5 x 5 convolutions (32 and 64 channels, same size), each with ReLU and 2 x 2 max-pooling; 512 units; ReLU.

    McMahan et al. 2017, AISTATS.

    >>> sum(p.numel() for p in cnn().build((1, 28, 28), 10).parameters())
    1663370
    """
    return Model("cnn", _make)


def _make(features: tuple[int, ...], outputs: int, classes: int | None) -> nn.Module:
    if len(features) not in (2, 3) or min(features[-2:]) < 4:
        raise misfit(
            "cnn",
            features,
            "images: [height, width] or [channels, height, width], at least 4 x 4",
            'model name = "mlp" takes any numbers',
        )
    first: list[nn.Module] = [Channel()] if len(features) == 2 else []
    channels = 1 if len(features) == 2 else features[0]
    height, width = features[-2] // 2 // 2, features[-1] // 2 // 2
    return nn.Sequential(
        *first,
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * height * width, 512),
        nn.ReLU(),
        nn.Linear(512, outputs),
    )
