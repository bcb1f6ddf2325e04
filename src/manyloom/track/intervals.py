"""How sure a number is: 95 % intervals, which always stand beside how many rows they rest on.

Hanley and McNeil (1982) for AUC, Wilson (1927) for accuracy; for other metrics a bootstrap over clients where there
are eight, else none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from manyloom.track.record import Judged

Z = 1.959963984540054
FEW = 10  # with fewer rows of a class an AUC says little
Interval = tuple[float, float]


def auc_error(auc: float, positives: int, negatives: int) -> float:
    """Standard error of an AUC (Hanley and McNeil 1982).

    >>> round(auc_error(0.887, 128, 102), 4)
    0.0217
    """
    q1, q2 = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    spread = auc * (1 - auc) + (positives - 1) * (q1 - auc * auc) + (negatives - 1) * (q2 - auc * auc)
    return math.sqrt(max(0.0, spread) / (positives * negatives))


def wilson(share: float, n: int) -> Interval:
    """95 % interval of a share (Wilson 1927).

    >>> [round(v, 3) for v in wilson(0.83, 230)]
    [0.776, 0.873]
    """
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def error_of(name: str, value: float | None, rows: int | None, positives: int | None) -> float | None:
    """Standard error of a metric over so many rows, where a formula is known."""
    if value is None or not rows:
        return None
    if name == "accuracy":
        return math.sqrt(max(value * (1 - value), 0.25 / rows) / rows)
    if name == "auc" and positives and 0 < positives < rows and 0 <= value <= 1:
        return auc_error(value, positives, rows - positives)
    return None


def interval(name: str, value: float | None, rows: int | None, positives: int | None = None) -> Interval | None:
    """95 % interval of a metric over so many rows, where a formula is known.

    >>> interval("auc", 0.9, 100, 0) is None, interval("rmse", 1.0, 100) is None
    (True, True)
    """
    if name == "accuracy" and value is not None and rows:
        return wilson(min(1.0, max(0.0, value)), rows)
    error = error_of(name, value, rows, positives)
    if error is None or value is None:
        return None
    return max(0.0, value - Z * error), min(1.0, value + Z * error)


def bootstrap(values: Sequence[float], weights: Sequence[float], draws: int = 2000) -> Interval | None:
    """95 % interval of a weighted mean over clients, from resamples of them; None below eight."""
    if len(values) < 8:
        return None
    v, w = np.asarray(values), np.asarray(weights)
    picks = np.random.default_rng(0).integers(0, len(v), (draws, len(v)))
    means = (v[picks] * w[picks]).sum(1) / w[picks].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def judged_interval(judged: Judged, name: str) -> Interval | None:
    """The interval of one evaluation's metric over all."""
    found = interval(name, judged.metrics.get(name), judged.rows, judged.positives)
    if found is not None:
        return found
    pairs = [(m.get(name), judged.counts.get(i, (1, None))[0] or 1) for i, m in judged.clients.items()]
    known = [(v, n) for v, n in pairs if v is not None]
    return bootstrap([v for v, _ in known], [float(n) for _, n in known]) if known else None


def says_little(rows: int | None, positives: int | None) -> bool:
    """Whether an AUC rests on fewer than ten rows of a class."""
    return rows is not None and positives is not None and min(positives, rows - positives) < FEW
