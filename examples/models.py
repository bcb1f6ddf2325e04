"""Networks of the examples' own, named in a job as `module:function`: (features, classes, own keys) -> nn.Module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def cnn_s(features: tuple[int, ...], classes: int, *, channels: Sequence[int] = (8, 16)) -> nn.Module:
    """Two convolutions 5x5 of stride 2, then a linear layer: fast on one core.

    >>> sum(p.numel() for p in cnn_s((1, 28, 28), 10).parameters())
    5994
    >>> sum(p.numel() for p in cnn_s((1, 28, 28), 10, channels=[16, 32]).parameters())
    18378
    """
    first, second = channels
    side = features[-1]
    for _ in channels:
        side = (side - 5) // 2 + 1
    return nn.Sequential(
        nn.Unflatten(1, (1, features[0])) if len(features) == 2 else nn.Identity(),
        nn.Conv2d(1, first, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(first, second, 5, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * side * side, classes),
    )


class _Gru(nn.Module):
    """A gated recurrent unit written out, so that many clients can run it at once."""

    def __init__(self, classes: int, embedding: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, embedding)
        self.inputs = nn.Linear(embedding, 3 * hidden)
        self.state = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, text: Tensor) -> Tensor:
        """Characters [n, T] -> logits [n, T, classes]; the state starts at 0 in each window."""
        inputs = self.inputs(self.embed(text))  # [n, T, 3H]
        h = inputs.new_zeros(text.shape[0], self.state.in_features)
        states: list[Tensor] = []
        for x in inputs.unbind(1):
            xr, xz, xn = x.chunk(3, -1)
            hr, hz, hn = self.state(h).chunk(3, -1)
            z = torch.sigmoid(xz + hz)
            n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
            h = n + z * (h - n)
            states.append(h)
        return self.out(torch.stack(states, 1))


def gru(features: tuple[int, ...], classes: int, *, embedding: int = 8, hidden: int = 64) -> nn.Module:
    """The next character: embedding, one GRU layer, linear.

    >>> model = gru((80,), 78)
    >>> sum(p.numel() for p in model.parameters()), tuple(model(torch.zeros(2, 80, dtype=torch.long)).shape)
    (19902, (2, 80, 78))
    """
    return _Gru(classes, embedding, hidden)
