"""Every transform there is, found by the keys of `uplink`: a new key without values here fails a test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from manyloom.core.parts import Transform
from manyloom.core.seeds import Draw
from manyloom.core.signature import keys
from manyloom.transforms import uplink

PARTS = {"names", "d", "private", "secure"}
COMPRESSORS: dict[str, list[float]] = {  # the first of each under error feedback too
    "top_k": [0.3],
    "random_k": [0.5, 1.0],
    "qsgd": [16, 1, 127],
    "eden": [1, 2, 3, 8],
    "uniform": [3, 1, 8],
}
MIXES = [
    {"top_k": 0.3, "eden": 2},
    {"random_k": 0.5, "qsgd": 16},
    {"clip": 1.0, "random_k": 0.5, "eden": 4},
]
UNSEEN = set(keys(uplink)) - PARTS - {"clip", "error_feedback"} - set(COMPRESSORS)


class Case(NamedTuple):
    table: dict
    unbiased: bool
    drawn: bool  # by the seed

    def make(self, d: int | None = None, **more) -> Transform:
        return uplink(**self.table, d=d, **more)

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.table.items())


def _drawn(table: dict) -> bool:
    return bool(set(table) - {"clip", "top_k", "error_feedback"}) and table.get("random_k") != 1.0


def _case(table: dict) -> Case:
    feedback = table.get("error_feedback", False)
    return Case(table, not (feedback or "top_k" in table or "clip" in table), _drawn(table))


ONES = [{key: v} for key, values in COMPRESSORS.items() for v in values]
PLAIN = [_case(t) for t in [{"clip": 1.0}, *ONES, *MIXES]]
FEEDBACK = [_case(t | {"error_feedback": True}) for t in [*({k: v[0]} for k, v in COMPRESSORS.items()), MIXES[0]]]
CASES = [*PLAIN, *FEEDBACK]


def draw(k: int = 1, round: int = 1, seed: int = 0, first: int = 0) -> Draw:
    return Draw(seed, round, np.arange(first, first + k, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def nothing(t: Transform, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """The memory of strangers."""
    return {n: torch.zeros(rows.shape[0], rows.shape[1] if s == "d" else 1) for n, s in t.memory.items()}


def sent(t: Transform, rows: torch.Tensor, by: Draw | None = None) -> dict[str, torch.Tensor]:
    return t.apply({"u": rows}, nothing(t, rows), {}, by or draw(len(rows)))[0]


def through(t: Transform, rows: torch.Tensor, by: Draw | None = None) -> torch.Tensor:
    """What the server decodes."""
    by = by or draw(len(rows))
    return t.undo(sent(t, rows, by), by)["u"]


def normal(k: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed))


def error(x: torch.Tensor, xhat: torch.Tensor) -> float:
    """vNMSE, the mean over rows."""
    x, xhat = x.double(), xhat.double()
    return float(((x - xhat).square().sum(1) / x.square().sum(1)).mean())
