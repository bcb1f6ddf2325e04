"""Nearest-neighbour mixing, before a rule (Allouah et al. 2023, AISTATS, arXiv:2302.01772)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from manyloom.aggregate.cohort import Cohort
from manyloom.aggregate.gram import distances, even, joint, smallest


def mixed(c: Cohort) -> Cohort:
    """Each row becomes the mean of its n - f nearest, itself included: x_i <- sum_j M_ij x_j.

    Only M [n, n] is kept: a rule by distances sees M G M^T, a rule by coordinates M times a block of columns.
    """
    g = joint(c)
    d = distances(g)
    np.fill_diagonal(d, -1.0)  # a row is its own nearest, also among copies of it
    mix = np.stack([even(smallest(d[i], c.n - c.f, c), c.n) for i in range(c.n)])
    return replace(c, mix=mix, gram=g)
