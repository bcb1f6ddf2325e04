"""Event streams made by a formula: what a run of so many clients and rounds would write, without training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "Long Beach VA")
START = datetime(2026, 11, 24, 10, 41, 2, tzinfo=UTC)
TOML = """[job]
name = "heart"
rounds = 20
seed = 7

[data]
source = "heart-disease"
test = 0.2

[algorithm]
name = "fedavg"
lr = 0.1
"""
ENV = {
    "manyloom": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "platform": "Linux x86-64",
    "cores": 2,
    "device": "cpu",
    "threads": 2,
    "git": {"commit": "3f1c9ab", "dirty": False},
}


def bend(x: float, seed: int) -> float:
    """A number in [-1, 1] that looks random and is always the same."""
    return math.sin(12.9898 * x + 78.233 * seed) * math.cos(4.1 * x + seed)


def clients(names: Sequence[str], size: int = 120, classes: int = 2) -> list[dict[str, Any]]:
    made = []
    for i, name in enumerate(names):
        rows = int(size * (1.3 + bend(i, 3)))
        share = 0.55 + 0.38 * bend(i, 11)
        if classes == 2:
            labels = [rows - int(rows * share), int(rows * share)]
        else:
            labels = [max(0, int(rows / classes * (1 + 0.9 * bend(i, c + 5)))) for c in range(classes)]
        made.append({"client": i, "name": name, "train": rows, "test": max(1, rows // 4), "labels": labels})
    return made


def started(names: Sequence[str], rounds: int, *, name: str = "heart", **more: Any) -> dict[str, Any]:
    return {
        "type": "run_started",
        "run": "-".join("".join(c if c.isalnum() else " " for c in name).split()) + "-k3q9",
        "name": name,
        "job_digest": "9f2c41aa07de5b1066c3e0f81d92a7b4",
        "rounds": rounds,
        "clients": clients(names),
        "runtime": "sequential",
        "algorithm": "fedavg",
        "model": {"name": "logistic", "parameters": 14},
        "client_word": ["hospital", "hospitals"],
        "row_word": ["patient", "patients"],
        "source": {
            "name": "heart-disease",
            "title": "UCI Heart Disease",
            "licence": "CC BY 4.0",
            "attribution": "Janosi, Steinbrunn, Pfisterer, Detrano (1988), UCI Machine Learning Repository",
        },
        "seed": 7,
        "metrics": ["accuracy", "auc"],
        "watch": "auc",
        "target": "class",
        "classes": ["no disease", "disease"],
        **more,
    }


def judged(i: int, r: int, harm: float = 0.0) -> dict[str, float]:
    """Metrics of client i after round r."""
    fall = math.exp(-r / 4)
    loss = 0.36 + 0.07 * (1 + bend(i, 2)) + 0.33 * fall + 0.004 * bend(r, i) + harm * r
    auc = min(0.99, 0.86 + 0.07 * bend(i, 4) - 0.05 * fall + 0.004 * bend(r, i + 9) - harm * 0.1)
    return {"loss": loss, "accuracy": min(0.99, 0.8 + 0.08 * bend(i, 4) - 0.1 * fall), "auc": auc}


def evaluated(cohort: Sequence[dict[str, Any]], r: int, harm: float = 0.0, each: bool = True) -> dict[str, Any]:
    rows = {c["client"]: c["test"] for c in cohort}
    per = {c["client"]: judged(c["client"], r, harm) for c in cohort}
    n = sum(rows.values())
    overall = {k: sum(per[i][k] * rows[i] for i in per) / n for k in ("loss", "accuracy", "auc")}
    told = {}
    for c in cohort:
        labels = c.get("labels") or [1, 1]
        positives = round(c["test"] * labels[-1] / max(1, sum(labels)))
        told[str(c["client"])] = {**per[c["client"]], "rows": c["test"], "positives": positives}
    return {
        "type": "evaluated",
        "round": r,
        "split": "test",
        "metrics": overall,
        "clients": told if each else {},
        "covered": False,
        "spread": {k: {"mean": sum(m[k] for m in per.values()) / len(per), "worst_tenth": 0.5} for k in overall},
        "rows": n,
        "positives": sum(v["positives"] for v in told.values()),
        "bytes_up": 64 * len(cohort),
        "bytes_down": 120 * len(cohort),
    }


def missing(count: int) -> dict[str, Any]:
    columns = ["age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope"]
    columns += ["ca", "thal"]
    shares = {str(i): [0.0] * 10 + [0.0, 0.0, 0.0] for i in range(count)}
    for i, (chol, slope, ca, thal) in enumerate([(0, 0, 0.01, 0.01), (0.08, 0.65, 0.99, 0.9), (1, 0.14, 0.96, 0.42)]):
        if i < count:
            shares[str(i)][4], shares[str(i)][10:] = chol, [slope, ca, thal]
    return {"type": "missing", "columns": columns, "clients": shares}


def run(
    names: Sequence[str] = HOSPITALS,
    rounds: int = 20,
    *,
    planned: int | None = None,
    lost: Sequence[tuple[int, int]] = ((4, 2), (5, 2), (13, 3)),
    end: str | None = "done",
    reason: str | None = None,
    baselines: bool = True,
    harm: float = 0.0,
    privacy: bool = False,
    **more: Any,
) -> Iterator[dict[str, Any]]:
    """All events of a run, stamped."""
    first = started(names, planned or rounds, **more)
    cohort, t = first["clients"], START
    events: list[dict[str, Any]] = [first]
    guarantee = {"epsilon": 3.978, "budget": 4.0, "delta": 1e-5, "unit": "client"} if privacy else None
    events.append({"type": "planned", "bytes_up_round": 56 * len(names), "bytes_down_round": 56 * len(names),
                   "seconds_estimate": 1.8, "privacy": guarantee})  # fmt: skip
    events.append({"type": "statistics", "columns": 13, "bytes_up": 2912, "bytes_down": 800, "seconds": 0.02})
    events.append(missing(len(names)))
    if len(names) > 2:
        events.append({"type": "note", "level": "note", "code": "column-empty",
                       "text": f"{names[2]} has no value of chol; the federated mean is used"})  # fmt: skip
    events.append(evaluated(cohort, 0, harm))
    final: dict[str, Any] | None = None
    for r in range(1, rounds + 1):
        gone = [i for at, i in lost if at == r and i < len(names)]
        events.append({"type": "round_started", "round": r, "cohort": list(range(len(names))), "quorum": 3})
        events.append({"type": "phase", "round": r, "phase": "train"})
        for c in cohort:
            i = c["client"]
            if i in gone:
                events.append({"type": "client_lost", "round": r, "client": i, "reason": "simulated",
                               "text": "no reply (simulated)", "detail": None})  # fmt: skip
            else:
                events.append({"type": "client_done", "round": r, "client": i, "steps": 15, "samples": c["train"],
                               "seconds": 0.011, "bytes_up": 56, "bytes_down": 56})  # fmt: skip
        if privacy:
            events.append({"type": "released", "round": r, "what": "update", "delta": 1e-5,
                           "epsilon": 3.978 * math.sqrt(r / (planned or rounds))})  # fmt: skip
        judgement = evaluated(cohort, r, harm)
        final = judgement["metrics"]
        events.append(judgement)
        back = len(names) - len(gone)
        events.append({"type": "round_done", "round": r, "attempt": 0, "back": back, "lost": len(gone),
                       "seconds": 0.1 + (5 if gone else 0), "bytes_up": 56 * back, "bytes_down": 56 * len(names),
                       "phases": {"send": 0.005, "train": 0.07, "evaluate": 0.02, "save": 0.005,
                                  "wait": 5.0 if gone else 0.0}})  # fmt: skip
        events.append({"type": "saved", "round": r, "path": f"checkpoints/{r:05d}", "sha256": "ab" * 32})
    if baselines:
        base = {str(c["client"]): judged(c["client"], rounds + 5) for c in cohort}
        for i in base:
            base[i] |= {"rows": cohort[int(i)]["test"]}
        alone = {i: {k: v - (0.01 if k != "loss" else -0.02) + 0.03 * bend(int(i), 21) for k, v in m.items()}
                 for i, m in base.items()}  # fmt: skip
        on_all = {i: {"auc": 0.8 + 0.05 * bend(int(i), 31), "accuracy": 0.75, "loss": 0.5} for i in base}
        if final:
            pooled = {k: v + (0.002 if k != "loss" else -0.002) for k, v in final.items()}
            events.append({"type": "baseline", "kind": "central", "run": "heart-central-m2c9", "metrics": pooled,
                           "clients": base, "alone_on_all": {}})  # fmt: skip
            events.append({"type": "baseline", "kind": "local", "run": "heart-local-p7d2", "metrics": final,
                           "clients": alone, "alone_on_all": on_all})  # fmt: skip
    if end is not None:
        events.append({"type": "run_done", "status": end, "reason": reason, "final": final, "rounds": rounds,
                       "model_digest": "c07b9e31f4a288d6", "next": ["manyloom report heart-k3q9"]})  # fmt: skip
    for seq, event in enumerate(events, 1):
        t += timedelta(seconds=float(event.get("seconds", 0.001)))
        yield {"v": 1, "seq": seq, "t": t.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **event}
