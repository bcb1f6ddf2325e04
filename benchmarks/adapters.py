"""Combining adapters: QR-SVD of stacked factors against the dense SVD, and the error both leave.

    OMP_NUM_THREADS=1 python benchmarks/adapters.py [--dense] [--json]

Eight clients, rank 8, unequal weights; seconds of the best of three, one thread. `--dense` also takes the SVD of the
m x n average, which is half a minute at 4096 x 4096; without it the error is told from factors alone.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from manyloom.llm.combine import error_of, refactored, stack

SIZES = ((1536, 576), (4096, 4096))
K, R, SCALE = 8, 8, 2.0


def best_of(n: int, what: Callable[[], Any]) -> tuple[float, Any]:
    """The shortest of n times, and what came out."""
    least, out = float("inf"), None
    for _ in range(n):
        began = time.perf_counter()
        out = what()
        least = min(least, time.perf_counter() - began)
    return least, out


def row(m: int, n: int, dense: bool) -> dict[str, Any]:
    """One size: seconds and errors."""
    rng = torch.Generator().manual_seed(0)
    b = torch.randn(K, m, R, generator=rng) / m**0.5
    a = torch.randn(K, R, n, generator=rng) / n**0.5
    p = torch.rand(K, generator=rng).double() + 0.5
    p /= p.sum()
    mean, _ = best_of(3, lambda: (torch.einsum("k,kmr->mr", p.float(), b), torch.einsum("k,krn->rn", p.float(), a)))
    qr, found = best_of(3, lambda: refactored(stack(b, a, p * SCALE), R, SCALE))
    one = torch.full((1,), SCALE).double()
    new = stack(found.b[None], found.a[None], one)
    ideal, before = stack(b, a, p * SCALE), stack(found.b[None] * 0, found.a[None], one)
    error, told = best_of(3, lambda: error_of(new, ideal, before))
    out: dict[str, Any] = {"m": m, "n": n, "clients": K, "r": R, "mean_ms": 1e3 * mean, "qr_ms": 1e3 * qr,
                           "error_ms": 1e3 * error, "error": float(told)}  # fmt: skip
    if dense:
        whole = torch.einsum("k,kmr,krn->mn", (p * SCALE).float(), b, a)
        began = time.perf_counter()
        u, s, vt = torch.linalg.svd(whole, full_matrices=False)
        out["dense_ms"] = 1e3 * (time.perf_counter() - began)
        best = (u[:, :R] * s[:R]) @ vt[:R]
        out["dense_error"] = float((best - whole).norm() / whole.norm())
        out["times"] = out["dense_ms"] / out["qr_ms"]
    return out


def main() -> None:
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("--dense", action="store_true", help="also the dense SVD")
    ask.add_argument("--json", action="store_true", help="one JSON document")
    given = ask.parse_args()
    rows = [row(m, n, given.dense) for m, n in SIZES]
    if given.json:
        print(json.dumps(rows))
        return
    for r in rows:
        print("  ".join(f"{k} {v:.4g}" for k, v in r.items()))


if __name__ == "__main__":
    main()
