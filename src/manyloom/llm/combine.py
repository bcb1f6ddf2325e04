"""Combining adapters at the hub: the plain mean of factors, and the best rank-R of the exact product average.

    I = sum_k p_k s_k B_k A_k    the ideal, which neither mean of factors is

All in float64, from factors: no m x n matrix is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from manyloom.core.flat import Layout
from manyloom.core.parts import Aggregator
from manyloom.core.seeds import counters, key, name_id
from manyloom.core.slots import Slots
from manyloom.core.tensors import floats, from_numpy
from manyloom.llm.adapters import Pair

_linalg = cast(Any, torch.linalg)  # its stubs say little
DEAD = 1e-9  # of the largest singular value: below it a direction is nothing


class Stack(NamedTuple):
    """A sum of products L diag(c) R: columns L [m, S], rows R [S, n], coefficients c [S]."""

    left: Tensor
    right: Tensor
    c: Tensor


class Factored(NamedTuple):
    """A product s B A at rank R: B [m, R], A [R, n]; `live` directions, the others are zero in both."""

    b: Tensor
    a: Tensor
    live: int


def stack(b: Tensor, a: Tensor, weights: Tensor) -> Stack:
    """sum_k w_k B_k A_k as one stack: b [K, m, r], a [K, r, n], weights [K] (p_k s_k)."""
    k, m, r = b.shape
    left = b.double().permute(1, 0, 2).reshape(m, k * r)
    return Stack(left, a.double().reshape(k * r, -1), weights.double().repeat_interleave(r))


def refactored(of: Stack, rank: int, scale: float, energy: float | None = None) -> Factored:
    """The best rank-R of a stack as s B A with balanced factors (Eckart-Young; QR-SVD).

        Q_B R_B = qr(L sqrt(c)), Q_A R_A = qr((sqrt(c) R)^T), U S V^T = svd(R_B R_A^T)
        B = (Q_B U)_R diag(h), A = diag(h) (V^T Q_A^T)_R, h = sqrt(S_R / s)

    The largest entry of each left vector is positive, so a run repeats.

    Args:
        of: the sum to be factored; its coefficients are not negative.
        rank: R, the rows of A.
        scale: s, by which the product is scaled when it is used.
        energy: tau: keep the fewest directions that hold this share of the squared singular values.

    >>> a, b = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0], [2.0]]])
    >>> f = refactored(stack(b, a, torch.tensor([1.0])), 1, 1.0)
    >>> (f.b @ f.a).round(decimals=6).tolist(), f.live
    ([[0.0, 0.0], [6.0, 0.0]], 1)
    """
    w = of.c.sqrt()
    qb, rb = _qr(of.left * w)
    qa, ra = _qr((of.right * w[:, None]).T)
    u, sigma, vt = cast("tuple[Tensor, Tensor, Tensor]", _linalg.svd(rb @ ra.T, full_matrices=False))
    left, right = qb @ u, vt @ qa.T
    at = left.abs().argmax(0)
    sign = torch.where(left.gather(0, at[None])[0] < 0, -1.0, 1.0).to(left)
    live = min(rank, len(sigma), _alive(sigma))
    if energy is not None and live:
        share = sigma.square().cumsum(0) / sigma.square().sum()
        live = min(live, int((share < energy).sum()) + 1)
    h = (sigma[:live] / scale).sqrt() * sign[:live]
    b = left.new_zeros(left.shape[0], rank)
    a = right.new_zeros(rank, right.shape[1])
    b[:, :live] = left[:, :live] * h
    a[:live] = right[:live] * h[:, None]
    return Factored(b, a, live)


def error_of(new: Stack, ideal: Stack, before: Stack) -> Tensor:
    """How far s B A is from the ideal, against how far the ideal moved: ||sBA - I|| / (||I - s B0 A0|| + 1e-12).

    ||L diag(c) R||_F = ||R_L diag(c) R_R^T||_F with the QR factors of L and R^T, which all three share.
    """
    sizes = [len(new.c), len(ideal.c), len(before.c)]
    rl = _qr(torch.cat([new.left, ideal.left, before.left], 1), "r")[1]
    rr = _qr(torch.cat([new.right, ideal.right, before.right]).T, "r")[1]
    zero = [torch.zeros(n, dtype=torch.float64) for n in sizes]
    off = torch.cat([new.c, -ideal.c, zero[2]]).to(rl)
    moved = torch.cat([zero[0], ideal.c, -before.c]).to(rl)
    return _size(rl * off @ rr.T) / (_size(rl * moved @ rr.T) + 1e-12)


def averaged(pairs: Sequence[Pair], layout: Layout) -> Aggregator:
    """FedIT: each factor is averaged, A = sum p_k A_k, B = sum p_k B_k (Zhang et al. 2024, arXiv:2305.05644).

    Not the average of the products: the cross terms B_i A_j are the error, which is told.

    Args:
        pairs: of the layout.
        layout: of theta.
    """

    def reduce(rows: Slots, weights: Tensor, state: Slots) -> tuple[Slots, Slots]:
        p, out = _means(rows, weights)
        if not weights.double().sum() > 0:
            return out | {"agg_error": torch.zeros(2, dtype=torch.float64)}, state
        return _told(pairs, layout, rows["u"], p, out, state)

    return Aggregator("fedavg", "each", reduce, _start, {"rule": "fedavg"})


def svd(pairs: Sequence[Pair], layout: Layout, seed: int = 0, energy: float | None = None) -> Aggregator:
    """The exact average of products, at the best rank r (FlexLoRA: Bai et al. 2024, arXiv:2402.11505).

    Directions that no client has any more get a fresh row of A, from (seed, round, module), at the norm of the
    weakest one that is left; their column of B is zero, so nothing is added. Tensors outside pairs are averaged.

    Args:
        pairs: of the layout.
        layout: of theta.
        seed: of the job.
        energy: keep the fewest directions with this share of the squared singular values; None: all r.
    """

    def reduce(rows: Slots, weights: Tensor, state: Slots) -> tuple[Slots, Slots]:
        p, out = _means(rows, weights)
        count = int(state["round"])
        if not weights.double().sum() > 0:
            return out | {"agg_error": torch.zeros(2, dtype=torch.float64)}, state
        u = out["u"].clone()
        mine, theirs = layout.views(u), _clients(layout, pairs, rows["u"], state["start"])
        start = layout.views(state["start"])
        for pair in pairs:
            b, a = theirs[pair.b], theirs[pair.a]
            found = refactored(stack(b, a, p * pair.scale), a.shape[1], pair.scale, energy)
            new_a = _alive_again(found, start[pair.a], seed, count, pair.module)
            mine[pair.b].copy_(found.b - start[pair.b].double())
            mine[pair.a].copy_(new_a - start[pair.a].double())
        told, state = _told(pairs, layout, rows["u"], p, out | {"u": u}, state)
        return told, state | {"round": torch.tensor(count + 1)}

    def init(theta: Tensor) -> Slots:
        return _start(theta) | {"round": torch.tensor(1)}

    return Aggregator("svd", "each", reduce, init, {"rule": "svd"})


def _qr(x: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    return cast("tuple[Tensor, Tensor]", tuple(_linalg.qr(x, mode=mode)))


def _size(x: Tensor) -> Tensor:
    """The Frobenius norm."""
    return cast(Tensor, _linalg.norm(x))


def _start(theta: Tensor) -> Slots:
    return {"start": theta.clone()}


def _means(rows: Slots, weights: Tensor) -> tuple[Tensor, Slots]:
    """Weights p [n] of sum 1, and the mean of each slot, in its rows' type."""
    total = weights.double().sum()
    p = weights.double() / total if total > 0 else torch.zeros_like(weights, dtype=torch.float64)
    means = {n: torch.einsum("k,k...->...", p.to(r.device), r.double()).to(r.dtype) for n, r in rows.items()}
    return p.to(next(iter(rows.values())).device), means


def _clients(layout: Layout, pairs: Sequence[Pair], u: Tensor, start: Tensor) -> dict[str, Tensor]:
    """The factors of each client [K, ...], float64: theta_start + u_k."""
    first, moved = layout.views(start), layout.views(u)
    names = [n for pair in pairs for n in (pair.a, pair.b)]
    return {n: first[n].double() + moved[n].double() for n in names}


def _told(pairs: Sequence[Pair], layout: Layout, u: Tensor, p: Tensor, out: Slots, state: Slots) -> tuple[Slots, Slots]:
    """The aggregate with its error over matrices (mean, max), and the state after it."""
    start = state["start"]
    new = (start + out["u"]).to(start.dtype)  # as the plain server step adds it
    theirs, after, before = _clients(layout, pairs, u, start), layout.views(new), layout.views(start)
    found: list[Tensor] = []
    for pair in pairs:
        one = torch.full((1,), pair.scale, dtype=torch.float64, device=u.device)
        ideal = stack(theirs[pair.b], theirs[pair.a], p * pair.scale)
        ends = [stack(v[pair.b][None], v[pair.a][None], one) for v in (after, before)]
        found.append(error_of(ends[0], ideal, ends[1]))
    errors = torch.stack(found).cpu() if found else torch.zeros(1, dtype=torch.float64)
    return out | {"agg_error": torch.stack([errors.mean(), errors.max()])}, state | {"start": new}


def _alive(sigma: Tensor) -> int:
    """How many singular values are not nothing beside the largest."""
    return int((sigma > DEAD * sigma[0]).sum()) if len(sigma) and float(sigma[0]) > 0 else 0


def _alive_again(found: Factored, start: Tensor, seed: int, round: int, module: str) -> Tensor:
    """A [R, n] whose dead rows are drawn anew; where nothing lives the A that was sent stays."""
    if not found.live:
        return start.double()
    a, live = found.a, found.live
    rows, n = a.shape[0] - live, a.shape[1]
    if rows:
        ids = np.array([name_id(module)], np.uint64)
        words = counters(key(seed, round, ids, "dead directions"), rows * n) >> np.uint64(11)
        fresh = from_numpy(words.astype(np.float64)).view(rows, n).to(a.device) * 2.0**-52 - 1.0
        weakest = math.sqrt(min(floats(a[:live].square().sum(1))))
        a[live:] = fresh * (weakest / fresh.square().sum(1, keepdim=True).sqrt())
    return a
