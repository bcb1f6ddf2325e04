"""Metrics as sums: what a client sends is a sum over its rows, so a total is a sum of sums, over any channel.

Each metric says what one row adds (`sums`, [N, s] in float64) and how sums become a number (`value`). AUC needs a
second question: histograms of the score, one a class, over bins that the hub derives from the first sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

BINS = 512
_SPAN = math.asinh(100.0)


class Metric(NamedTuple):
    """One metric: what a row adds, and what the sums mean."""

    name: str
    sums: Callable[[Tensor, Tensor], Tensor]  # (output [N, ...], y [N, ...]) -> [N, s], float64
    value: Callable[[Tensor, Tensor], Tensor]  # (sums [.., s], rows [..]) -> [..]
    better: str = "max"
    target: str = "class"
    full: str = ""


def decided(output: Tensor) -> Tensor:
    """The class a model decides for: the largest output, or a positive logit. [N, ...] -> [N, ...]."""
    if output.shape[-1] == 1:
        return (output.squeeze(-1) > 0).long()
    return output.argmax(-1)


def score(output: Tensor) -> Tensor:
    """The logit of the second of two classes, float64 [N]."""
    out = output.double()
    return out.squeeze(-1) if out.shape[-1] == 1 else out[..., 1] - out[..., 0]


def _hits(output: Tensor, y: Tensor) -> Tensor:
    hit = (decided(output) == y).double()
    return hit.flatten(1).mean(1, keepdim=True) if hit.dim() > 1 else hit[:, None]


def _confusion(output: Tensor, y: Tensor) -> Tensor:
    classes = max(2, output.shape[-1])
    one = torch.nn.functional.one_hot
    true, said = one(y.long(), classes).double(), one(decided(output), classes).double()
    rows = torch.cat([true * said, said * (1 - true), true * (1 - said)], -1)  # hits, false alarms, misses a class
    return rows.flatten(1, -2).mean(1) if rows.dim() > 2 else rows


def _macro_f1(sums: Tensor, rows: Tensor) -> Tensor:
    tp, fp, fn = sums.chunk(3, -1)
    there = (tp + fn) > 0  # classes that occur
    f1 = torch.where(there, 2 * tp / (2 * tp + fp + fn).clamp_min(1e-300), torch.zeros_like(tp))
    return f1.sum(-1) / there.sum(-1).clamp_min(1)


def _errors(output: Tensor, y: Tensor) -> Tensor:
    t = y.double().flatten()
    e = output.double().flatten() - t
    return torch.stack([t, t * t, e.abs(), e * e], -1)


def _r2(sums: Tensor, rows: Tensor) -> Tensor:
    y, yy, _, ee = sums.unbind(-1)
    total = yy - y * y / rows.clamp_min(1)
    return torch.where(total > 0, 1 - ee / total.clamp_min(1e-300), torch.full_like(total, math.nan))


def _tokens(output: Tensor, y: Tensor) -> Tensor:
    return output.double()  # a row of a language model: its mean loss, its share of hits


def _perplexity(sums: Tensor, rows: Tensor) -> Tensor:
    return (sums[..., 0] / rows).exp()


def _second(sums: Tensor, rows: Tensor) -> Tensor:
    return sums[..., 1] / rows


def _first(sums: Tensor, rows: Tensor) -> Tensor:
    return sums[..., 0] / rows


def _later(sums: Tensor, rows: Tensor) -> Tensor:
    return torch.full_like(rows, math.nan)  # AUC needs the second ask


def _rmse(sums: Tensor, rows: Tensor) -> Tensor:
    return (sums[..., 3] / rows).sqrt()


def _mae(sums: Tensor, rows: Tensor) -> Tensor:
    return sums[..., 2] / rows


def _scores(output: Tensor, y: Tensor) -> Tensor:
    s = score(output)
    return torch.stack([s, s * s, (y == 1).double()], -1)


METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        Metric("accuracy", _hits, _first, full="share of right decisions"),
        Metric("auc", _scores, _later, full="area under the ROC curve"),
        Metric("f1", _confusion, _macro_f1, full="macro F1: the mean over the classes that occur"),
        Metric("rmse", _errors, _rmse, "min", "number", "root of the mean squared error"),
        Metric("mae", _errors, _mae, "min", "number", "mean absolute error"),
        Metric("r2", _errors, _r2, "max", "number", "explained share of the variance"),
        Metric("perplexity", _tokens, _perplexity, "min", "text", "exp of the mean loss of a token"),
        Metric("token_accuracy", _tokens, _second, "max", "text", "share of tokens that are the likeliest"),
    )
}


def better(metric: str) -> str:
    """ "max" or "min": which way a metric improves; a loss falls."""
    return METRICS[metric].better if metric in METRICS else "min"


def auc(scores: Tensor, positive: Tensor) -> float:
    """The exact area under the ROC curve: P(s+ > s-) + P(s+ = s-)/2 (Mann-Whitney); nan without both classes.

    >>> auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([False, False, True, True]))
    0.75
    """
    pos, neg = scores[positive].double(), scores[~positive].double()
    if not len(pos) or not len(neg):
        return math.nan
    order = neg.sort().values
    below = torch.searchsorted(order, pos, side="left").double()
    not_above = torch.searchsorted(order, pos, side="right").double()
    return float((below + not_above).sum() / (2 * len(pos) * len(neg)))


def bins_of(scores: Tensor, mean: float, sd: float) -> Tensor:
    """The bin 0 .. 511 of each score: equal widths of asinh(10 (s - mean) / sd) on +-asinh(100), clamped."""
    z = torch.asinh(10 * (scores.double() - mean) / (sd if sd > 0 else 1.0))
    return ((z + _SPAN) / (2 * _SPAN) * BINS).floor().clamp(0, BINS - 1).long()


def histograms(scores: Tensor, positive: Tensor, mean: float, sd: float) -> Tensor:
    """Two histograms of the scores, [2, 512]: of the negatives, of the positives."""
    at = bins_of(scores, mean, sd) + BINS * positive.long()
    return torch.bincount(at, minlength=2 * BINS).view(2, BINS).double()


def auc_of(h: Tensor) -> float:
    """The AUC of two summed histograms [2, 512]; ties within a bin count half."""
    neg, pos = h[0], h[1]
    if neg.sum() == 0 or pos.sum() == 0:
        return math.nan
    below = neg.cumsum(0) - neg
    return float((pos * (below + neg / 2)).sum() / (neg.sum() * pos.sum()))
