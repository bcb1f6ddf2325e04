"""Distances between the rows of a cohort by one Gram matrix: everything after it costs O(n^2).

    G = B B^T,  B = X - c,  D_ij = ||x_i - x_j||^2 = G_ii + G_jj - 2 G_ij

float32 products of blocks, summed in float64. What makes it exact is the centre c: a row of median norm, never the
mean, which one large row pulls away from all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from manyloom.aggregate.cohort import F64, I64, Cohort, digests
from manyloom.aggregate.order import Block
from manyloom.aggregate.screen import row_norms

COLUMNS = 8192  # of a block: numpy's A A^T does half the work of a product, in the cache
FAR = 1e4  # squared distance from the centre, over the radius of the half around the medoid: then centre there
PLAIN = 1e14  # a norm and a distance below it: every norm is below 2e14, and none absurd
TIE = 1e-6  # relative: scores that float32 products can't tell apart


def gram(c: Cohort, name: str, centre: Block | None = None) -> F64:
    """G [n, n] of a slot, of the rows as the rule sees them less `centre` [d] (None: as they are)."""
    d, n = c.slots[name].shape[1], c.n
    total = np.zeros((n, n))
    buffer = np.empty((n, min(COLUMNS, d)), c.work(name))
    for a in range(0, d, COLUMNS):
        columns = slice(a, min(a + COLUMNS, d))
        block = c.read(name, columns, mixed=False)
        if centre is not None:
            block = np.subtract(block, centre[columns], out=buffer[:, : block.shape[1]])
        total += block @ block.T
    return total if c.mix is None else c.mix @ total @ c.mix.T


def centred(c: Cohort, name: str) -> F64:
    """G [n, n] of a slot, less the row of median norm; less the medoid if that row lies far from most."""
    order = np.argsort(c.norms[name], kind="stable")
    row = int(order[c.n // 2])
    g = gram(c, name, _row(c, name, row))
    if c.mix is None and c.n > 2:
        radius = np.partition(distances(g), c.n // 2, axis=1)[:, c.n // 2]  # half of the rows are so near
        medoid = int(np.argmin(radius))
        if g[medoid, medoid] > FAR * radius[medoid]:
            g = gram(c, name, _row(c, name, medoid))
    return g


def _row(c: Cohort, name: str, row: int) -> Block:
    return Cohort(c.slots, c.index[row : row + 1], {}, 0).read(name, slice(None))[0]


def distances(g: F64) -> F64:
    """Squared distances D [n, n] of a Gram matrix: never negative, zero on the diagonal.

    >>> distances(np.array([[1.0, 0.0], [0.0, 4.0]]))
    array([[0., 5.],
           [5., 0.]])
    """
    size = np.diag(g)
    d = np.maximum(size[:, None] + size[None, :] - 2 * g, 0)
    np.fill_diagonal(d, 0)
    return d


def joint(c: Cohort) -> F64:
    """The centred G of all slots as one vector, each other slot in the unit of the update.

    Slots differ in scale (a gradient's mean, a running variance); weighed alike by the median distance between
    rows, none hides in another: who lies in any of them is far from the others.
    """
    if c.gram is not None:
        return c.gram if c.mix is None else c.mix @ c.gram @ c.mix.T
    return together({name: centred(c, name) for name in c.names})


def plainly(c: Cohort) -> Cohort | None:
    """The cohort with its joint G, if G shows that every row is finite and far from absurd; else None.

    Spares the pass over all rows that a screening is: row 0 is looked at, the others by their distance from it.
    """
    found: dict[str, F64] = {}
    with np.errstate(all="ignore"):
        for name in c.names:
            g = centred(c, name)
            first = row_norms(c.slots[name][int(c.index[0])][None])[0]
            if not (np.isfinite(g).all() and first < PLAIN and distances(g)[0].max() < PLAIN**2):
                return None
            found[name] = g
    return replace(c, gram=together(found))


def together(found: Mapping[str, F64]) -> F64:
    """The Gram matrices of slots as one, each in the unit of the first."""
    g, *others = found.values()
    unit = _typical(g)
    for other in others:
        own = _typical(other)
        if own > 0:
            g = g + other * ((unit or 1.0) / own)
    return g


def _typical(g: F64) -> float:
    """The median squared distance between two rows; the largest where that is 0."""
    if len(g) < 2:
        return 0.0
    d = distances(g)[np.triu_indices(len(g), 1)]
    return float(np.median(d)) or float(d.max())


def smallest(scores: F64, m: int, c: Cohort) -> I64:
    """The rows of the m smallest scores [m]; ties at the border are broken by the rows' content, not their order."""
    last = np.partition(scores, m - 1)[m - 1]
    slack = TIE * abs(last)
    inside = np.flatnonzero(scores < last - slack)
    tied = np.flatnonzero(np.abs(scores - last) <= slack)
    if len(inside) + len(tied) > m:
        told = digests(c, tied)
        order = sorted(range(len(tied)), key=told.__getitem__)
        tied = tied[order[: m - len(inside)]]
    return np.sort(np.concatenate([inside, tied])).astype(np.int64)


def even(rows: npt.NDArray[np.int64], n: int) -> F64:
    """Weights [n] of the mean of some rows."""
    w = np.zeros(n)
    w[rows] = 1 / len(rows)
    return w
