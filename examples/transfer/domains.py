"""Scikit-learn's digits at four sites: three write them as they are and know the labels, the target's look otherwise.

A source and a network for `[data] source` and `[model] name`.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyloom.core.validate import AtLeast, checked
from manyloom.data import Federation

Domain = Literal["rotated", "inverted", "blurred", "same"]
TARGET = "target"


@checked
def digits(*, domain: Domain = "rotated", sites: Annotated[int, AtLeast(1)] = 3,
           seed: Annotated[int, AtLeast(0)] = 0) -> Federation:  # fmt: skip
    """The 1 797 digits dealt to `sites` sites and a target alike; half of each site's rows are held out.

    Args:
        domain: what the target's digits look like: turned by 35 degrees, white on black, or out of focus.
        sites: beside the target; their digits are as they are.
        seed: of who has which row, and of the held-out rows.

    >>> digits(domain="blurred").names[-1]
    'target'
    """
    from sklearn.datasets import load_digits

    bunch = cast(Any, load_digits())
    x = torch.from_numpy(np.asarray(bunch.images, np.float32) / 16).unsqueeze(1)
    y = torch.from_numpy(np.asarray(bunch.target, np.int64))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    parts = [part.tolist() for part in order.tensor_split(sites + 1)]
    x[parts[-1]] = seen(x[parts[-1]], domain)
    names = [*(f"site {i + 1}" for i in range(sites)), TARGET]
    return Federation.of_tensors(x, y, parts, names=names, test=0.5, seed=seed, classes=10,
                                 labels=[str(i) for i in range(10)])  # fmt: skip


def seen(x: Tensor, domain: Domain) -> Tensor:
    """Digits [n, 1, 8, 8] as they look in a domain."""
    if domain == "inverted":
        return 1 - x
    if domain == "blurred":
        box = torch.full((1, 1, 3, 3), 1 / 9)
        return F.conv2d(F.conv2d(x, box, padding=1), box, padding=1)
    if domain == "rotated":
        c, s = math.cos(math.radians(35)), math.sin(math.radians(35))
        turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0]]).expand(len(x), -1, -1)
        return F.grid_sample(x, F.affine_grid(turn, list(x.shape), align_corners=False), align_corners=False)
    return x


class Backbone(nn.Module):
    """Filters of the job's seed that no site trains: two convolutions, and eight of mean zero whose size alone counts.

    What is bright and what is dark changes the sign of the eight, not their size: without them moments can't see that
    a digit is inverted.
    """

    def __init__(self, channels: int, contrasts: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.contrast = nn.Conv2d(1, contrasts, 3, bias=False)
        with torch.no_grad():
            self.contrast.weight -= self.contrast.weight.mean((2, 3), keepdim=True)
            self.contrast.weight *= 2

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 1, 8, 8] -> features [n, 16 (channels + contrasts)]."""
        plain = F.relu(self.second(F.max_pool2d(F.relu(self.first(x)), 2)))
        edges = self.contrast(F.pad(x, (1, 1, 1, 1), mode="replicate")).abs()
        return torch.cat([plain.flatten(1), F.max_pool2d(edges, 2).flatten(1)], 1)


class Net(nn.Module):
    """The backbone, an adapter, and a head on its D features."""

    def __init__(self, classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.backbone = Backbone(channels)
        self.adapter = nn.Sequential(nn.Linear(16 * (channels + 8), width), nn.Tanh())
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, 1, 8, 8] -> logits [n, classes]."""
        return self.head(self.adapter(self.backbone(x)))


def net(features: tuple[int, ...], classes: int, *, channels: int = 32, width: int = 32) -> nn.Module:
    """A backbone, an adapter and a head; `freeze = ["backbone.*"]` in `[model]` leaves the first as it is.

    >>> tuple(net((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape)
    (2, 10)
    """
    return Net(classes, channels, width)
