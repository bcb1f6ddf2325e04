"""All parties of a split network in one process, small enough to look at."""

from __future__ import annotations

import torch

from manyloom.models.split import SplitModel
from manyloom.vertical import split
from manyloom.vertical.party import Party
from manyloom.vertical.settings import Cut
from tests.vertical.playing import Players

PLAIN = Cut(defence="none")
M, WIDTHS, NAMES = 150, (3, 2, 4), ("shop", "telco", "post")
MODEL = SplitModel(bottom=(8,), cut=4, top=(8,))
IMPUTE = Cut(defence="none", on_missing="impute")
HOW = split.SplitLearning(lr=0.01, batch_size=32)


def table(k=1, features=5, classes=2, dtype=torch.float32, m=M):
    g = torch.Generator().manual_seed(7)
    x = torch.randn(m, features, generator=g, dtype=torch.float64)
    xs = [torch.randn(m, w, generator=g, dtype=torch.float64) for w in WIDTHS[:k]]
    told = xs[0][:, 0] * 2 + (x[:, 0] if features else 0) + 0.3 * torch.randn(m, generator=g, dtype=torch.float64)
    y = told.to(dtype) if classes is None else torch.bucketize(told, torch.linspace(-2, 2, classes - 1)).long()
    return x.to(dtype), [t.to(dtype) for t in xs], y


class Game:
    """All parties of one run in this process."""

    def __init__(self, k=1, *, cut=PLAIN, how=HOW, model=MODEL, features=5, classes=2, dtype=torch.float32, seed=3,
                 rounds=4, memory=None, names=NAMES, data=None, **players):  # fmt: skip
        self.x, self.xs, self.y = data or table(k, features, classes, dtype)
        self.names, self.classes, self.seed = list(names[:k]), classes, seed
        self.model, self.how, self.cut = model, how, cut
        self.passes = split.passes(
            model, how, cut, seed=seed, rounds=rounds, x=self.x, y=self.y, classes=classes, parties=self.names
        )
        parties = [Party(n, [], x) for n, x in zip(self.names, self.xs)]
        start = memory or [{"rows": torch.arange(len(self.y))} for _ in parties]
        self.players = Players(self.passes.handlers, parties, [dict(m) for m in start], **players)

    def run(self, state, *rounds):
        for r in rounds:
            self.last = self.players.play(self.passes.one(state, r))
            state = self.last.state
        return state

    def judge(self, state, round=1):
        return self.players.play(self.passes.judge(state, round))


OPTIMISERS = {
    "adam": (split.SplitLearning(lr=0.01, batch_size=32), lambda p: torch.optim.Adam(p, lr=0.01)),
    "adamw": (
        split.SplitLearning(lr=0.01, batch_size=32, optimiser="adamw", weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    ),
    "sgd": (
        split.SplitLearning(lr=0.05, batch_size=50, optimiser="sgd", momentum=0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    ),
}
