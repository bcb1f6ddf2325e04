"""Noise on the gradients that feature parties get, against reading labels off them.

    isotropic   g_i + N(0, (t^2 / D) max_j ||g_j||^2 I)
    max-norm    g_i (1 + s_i e_i), e_i ~ N(0, 1), s_i^2 = ||g_max||^2 / ||g_i||^2 - 1: all rows have the same expected
                squared norm; where g_i = 0, e_i ||g_max|| times a random direction, else the zero would show

Li et al. 2022, arXiv:2102.08504. The noise is drawn from the operating system's generator, never from the job's seed,
which the other side knows; it is stored nowhere, so a resumed run draws afresh. No guarantee follows from it.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from manyloom.core.tensors import from_numpy
from manyloom.privacy.source import Source
from manyloom.vertical.settings import Cut


def defended(g: Tensor, cut: Cut, source: Source) -> Tensor:
    """Gradients [n, D] as one party may see them; new noise at every call."""
    if cut.defence == "none" or not len(g):
        return g
    rows = g.double()
    size = rows.square().sum(1).sqrt()
    largest = float(size.max())
    if cut.defence == "isotropic":
        spread = cut.strength * largest / math.sqrt(g.shape[1])
        return (rows + spread * normal(source, *rows.shape)).to(g.dtype)
    direction = rows / size.clamp_min(1e-300)[:, None]
    zero = size == 0
    if zero.any():
        drawn = normal(source, int(zero.sum()), g.shape[1])
        direction[zero] = drawn / drawn.square().sum(1, keepdim=True).sqrt()
    spread = (largest**2 - size.square()).clamp_min(0).sqrt()
    return (rows + direction * (spread * normal(source, len(rows), 1)[:, 0])[:, None]).to(g.dtype)


def normal(source: Source, n: int, d: int) -> Tensor:
    """Standard normal numbers, float64 [n, d], by Box and Muller (1958) from 53-bit uniforms."""
    half = -(-n * d // 2)
    words = np.frombuffer(source.draw(16 * half), "<u8").reshape(2, half) >> np.uint64(11)
    u = words.astype(np.float64) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log1p(-u[0])), 2 * math.pi * u[1]
    drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: n * d]
    return from_numpy(drawn).view(n, d)


def says(cut: Cut) -> str:
    """What a feature party learns of the labels, for the threats row."""
    if cut.defence == "none":
        return "dl/dz: labels, nearly surely (no defence)"
    strength = f", t = {cut.strength:g}" if cut.defence == "isotropic" else ""
    return f"dl/dz with {cut.defence} noise{strength}: labels in part (see the leak meter)"
