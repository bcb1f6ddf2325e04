"""Who is asked in a round: a draw over the population that costs nothing when the population is large."""

from __future__ import annotations

from typing import Literal

import numpy as np

from manyloom.core.exchange import Ids
from manyloom.core.seeds import generator

Sampling = Literal["uniform", "poisson"]


def cohort(
    eligible: Ids, size: int, *, sampling: Sampling, rate: float, seed: int, round: int, purpose: str = "cohort/0"
) -> Ids:
    """The clients of a round, sorted.

    uniform: `size` of the eligible without replacement. poisson: each on its own with probability `rate`, drawn
    exactly as n ~ Binomial(N, q), then n without replacement. Everybody is asked without a draw.

    >>> cohort(np.arange(5), 2, sampling="uniform", rate=0.4, seed=1, round=1)
    array([0, 1])
    """
    n = len(eligible)
    if sampling == "uniform" and size >= n:
        return eligible
    rng = generator(seed, round, purpose)
    m = int(rng.binomial(n, rate)) if sampling == "poisson" else size
    return eligible[np.sort(rng.choice(n, m, replace=False, shuffle=False))]
