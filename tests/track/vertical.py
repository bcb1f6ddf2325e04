"""Event streams of vertical runs, made by a formula: a bank with labels, a shop (and more) that is asked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from tests.track.streams import START, bend

TOML = """[job]
name = "bank-and-shop"
kind = "vertical"
rounds = 8
seed = 0

[data]
source = "default-credit"
test = 0.2

[cut]
defence = "max-norm"

[model]
name = "split-mlp"

[algorithm]
name = "split-learning"
lr = 0.002
"""
LEAKS = {"none": ((0.88, 0.992), (0.999, 1.0)), "max-norm": ((0.538, 0.594), (0.652, 0.767)),
         "isotropic": ((0.665, 0.77), (0.727, 0.93))}  # fmt: skip
COMMON = 24_000


def started(features: Sequence[str], rounds: int, **more: Any) -> dict[str, Any]:
    names = [*features, "bank"]
    clients = [
        {"client": i, "name": n, "train": COMMON + 1500 * i, "test": 0, "labels": []} for i, n in enumerate(names)
    ]
    return {
        "type": "run_started",
        "run": "bank-and-shop-x4t7",
        "name": "bank-and-shop",
        "job_digest": "9f2c41aa07de5b1066c3e0f81d92a7b4",
        "rounds": rounds,
        "clients": clients,
        "population": {"clients": len(names), "kind": "vertical"},
        "runtime": "sequential",
        "algorithm": "split-learning",
        "paper": "Gupta and Raskar 2018, arXiv 1810.06060",
        "execution": {},
        "model": {"name": "split-mlp", "parameters": 2113},
        "client_word": ["party", "parties"],
        "row_word": ["customer", "customers"],
        "source": {"name": "default-credit", "title": "Default of credit card clients", "licence": "CC BY 4.0"},
        "seed": 0,
        "metrics": ["accuracy", "auc"],
        "watch": "auc",
        "target": "class",
        "classes": ["paid", "default"],
        **more,
    }


def evaluated(r: int) -> dict[str, Any]:
    auc = 0.5 if r == 0 else 0.779 - 0.12 * math.exp(-r / 1.5) + 0.001 * bend(r, 3)
    metrics = {"loss": 0.43 + 0.26 * math.exp(-r), "accuracy": 0.82 - 0.04 * math.exp(-r), "auc": auc}
    return {"type": "evaluated", "round": r, "split": "test", "metrics": metrics, "clients": {}, "spread": {},
            "rows": 4800, "positives": 1062, "bytes_up": 384_000, "bytes_down": 0, "seconds": 0.1}  # fmt: skip


def run(
    features: Sequence[str] = ("shop",),
    rounds: int = 8,
    *,
    planned: int | None = None,
    defence: str = "max-norm",
    lost: int | None = None,
    end: str | None = "done",
    met: bool = True,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """All events of a vertical run, stamped."""
    events = [started(features, planned or rounds, **more)]
    if met:
        sizes = {c["name"]: c["train"] for c in events[0]["clients"]}
        events.append({"type": "aligned", "parties": sizes, "left_out": {n: 3 if n == "bank" else 0 for n in sizes},
                       "common": COMMON, "train": 19_200, "test": 4_800, "reveal": "both", "order": "5d" * 32,
                       "bytes_up": 1_070_000, "bytes_down": 1_063_000, "seconds": 6.4})  # fmt: skip
        events.append({"type": "planned", "bytes_up_round": 1_228_800, "bytes_down_round": 1_228_800,
                       "seconds_estimate": 4.0, "privacy": None, "secure": None})  # fmt: skip
        events.append(evaluated(0))
    for r in range(1, rounds + 1):
        events.append({"type": "round_started", "round": r, "cohort": list(range(len(features))), "attempt": 0,
                       "asked": len(features), "quorum": len(features)})  # fmt: skip
        events.append({"type": "phase", "round": r, "phase": "train"})
        if r == lost:
            events.append({"type": "client_lost", "round": r, "client": 0, "name": features[0], "reason": "away",
                           "text": "connection closed"})  # fmt: skip
            events.append({"type": "round_failed", "round": r, "attempt": 0, "reason": f"{features[0]} is lost"})
            break
        for i, name in enumerate(features):
            (a, b), (c, d) = LEAKS[defence]
            wave = 0.004 * bend(r, i)
            events.append({"type": "client_done", "round": r, "client": i, "samples": 19_200, "steps": 75, "loss": None,
                           "bytes_up": 1_228_800})  # fmt: skip
            events.append({"type": "leak", "round": r, "party": name, "defence": defence, "batches": 75,
                           "norm_mean": a + wave, "norm_q95": min(1.0, b + wave), "cosine_mean": min(1.0, c + wave),
                           "cosine_q95": min(1.0, d + wave)})  # fmt: skip
        events.append(evaluated(r))
        events.append({"type": "round_done", "round": r, "rounds": planned or rounds, "attempt": 0,
                       "asked": len(features), "back": len(features), "lost": 0, "loss_train": 0.45,
                       "metrics": events[-1]["metrics"], "watch": "auc", "seconds": 0.6,
                       "bytes_up": 1_228_800 * len(features), "bytes_down": 1_228_800 * len(features),
                       "phases": {"train": 0.5, "evaluate": 0.1}})  # fmt: skip
        events.append({"type": "saved", "round": r, "path": f"checkpoints/{r:05d}", "sha256": "ab" * 32})
    if end is not None:
        final = evaluated(rounds)["metrics"] if met else {}
        events.append({"type": "run_done", "status": end, "reason": None if lost is None else f"{features[0]} is lost",
                       "final": final, "rounds": rounds, "model_digest": "c07b9e31f4a288d6",
                       "next": ["manyloom report bank-and-shop-x4t7"]})  # fmt: skip
    t = START
    for seq, event in enumerate(events, 1):
        t += timedelta(seconds=float(event.get("seconds", 0.001)))
        yield {"v": 1, "seq": seq, "t": t.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **event}
