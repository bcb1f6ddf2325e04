"""The next-character model of the FedAvg paper."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from manyloom.core.validate import checked
from manyloom.models.model import Model, misfit


class CharLSTM(nn.Module):
    """Characters [N, T] int64 -> logits of the next one [N, T, symbols]; the state is 0 at each window's start."""

    def __init__(self, symbols: int, embed: int = 8, hidden: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, embed)
        self.lstm = nn.LSTM(embed, hidden, layers, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, x: Tensor) -> Tensor:
        h = cast(Tensor, self.lstm(self.embed(x))[0])
        return self.out(h)


@checked
def lstm() -> Model:
    """Characters: embedding of 8, two LSTM layers of 256, a linear layer.

    McMahan et al. 2017, AISTATS.

    >>> sum(p.numel() for p in lstm().build((80,), 80).parameters())
    819920
    """
    return Model("lstm", _make, one_logit=False)


def _make(features: tuple[int, ...], outputs: int, classes: int | None) -> nn.Module:
    if len(features) != 1 or outputs < 2:
        raise misfit(
            "lstm",
            features,
            "windows of characters, [length], and a class a character",
            '[data] source = "shakespeare"; numbers take model name = "mlp"',
        )
    return CharLSTM(outputs)
