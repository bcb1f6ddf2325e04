"""Heart disease at four hospitals: federated beside pooled, each hospital alone, and each hospital left out.

    OMP_NUM_THREADS=1 python -m benchmarks.heart [--splits 10] [--models logistic,mlp]

A split draws the held-out rows, the first weights and the order of batches. All models of a split are judged on the
same held-out patients; a model that left a hospital out also got its means and scales from the others. Switzerland has
no AUC of its own here: one or two healthy patients are held out there.
"""

import argparse
import statistics
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.outputs import outputs
from manyloom.core.metrics import auc, score
from manyloom.job import baseline
from manyloom.job.job import Job
from manyloom.runtime.local import Local

JOB = Path(__file__).parents[1] / "examples" / "heart" / "heart.toml"
MODELS = {"logistic": {}, "mlp": {"model.name": "mlp", "model.hidden": [16]}}
ROWS = ("federated", "pooled", "alone, own patients", "left out")
SHOWN = (0, 1, 3)  # Cleveland, Hungary, Long Beach VA
Row = dict[str, float]


def split(number: int, model: Mapping[str, object]) -> dict[str, Row]:
    """All rows of one split: {row: {column: value}}."""
    job = Job.from_toml(str(JOB), {"data.seed": number, "job.seed": number, "job.eval_every": 40, **model})
    fitted = baseline.fit(job, Local())
    shared = baseline.judge(job, fitted, Local())
    pooled = baseline.pooled(job, Local)
    alone = {i: found for i, _, found in baseline.each_alone(job, Local)}
    out = {
        "federated": columns(shared.metrics, shared.clients),
        "pooled": columns(pooled.metrics, pooled.clients),
        "alone, own patients": columns({}, {i: found.clients[i] for i, found in alone.items()}),
        "left out": left_out(job),
    }
    return out | {f"{job.federation.names[i]} alone, all patients": columns(f.metrics, {}) for i, f in alone.items()}


def columns(whole: Mapping[str, float], clients: Mapping[int, Mapping[str, float]]) -> Row:
    """The columns of the table from metrics over all and of each client."""
    found = {name: whole[name] for name in ("auc", "accuracy") if name in whole}
    own = {f"auc {i}": clients[i]["auc"] for i in SHOWN if i in clients}
    return found | own | ({"auc of three": statistics.mean(own.values())} if own else {})


def left_out(job: Job) -> Row:
    """Each hospital judged by the model that the three others made."""
    scores, labels, clients = [], [], {}
    hits = 0
    for i in range(len(job.federation)):
        fitted = baseline.fit(baseline.leave_one_out(job, i), Local())
        clients[i] = baseline.judge(job, fitted, Local(), [i]).clients[i]
        out, y = outputs(job, fitted, [i])
        scores.append(score(out))
        labels.append(y == 1)
        hits += clients[i]["accuracy"] * len(y)
    said, true = torch.cat(scores), torch.cat(labels)
    return columns({"auc": auc(said, true), "accuracy": hits / len(true)}, clients)


def table(splits: list[dict[str, Row]]) -> str:
    """Mean ± deviation over splits, as Markdown."""
    heads = {"auc": "AUC, all", "accuracy": "accuracy, all", "auc 0": "Cleveland", "auc 1": "Hungary", "auc 3": "VA",
             "auc of three": "mean of the three"}  # fmt: skip
    lines = ["| | " + " | ".join(heads.values()) + " |", "|---|" + "---:|" * len(heads)]
    for row in splits[0]:
        cells = [cell([s[row][c] for s in splits]) if c in splits[0][row] else "" for c in heads]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    spread = f"±{statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def accepted(splits: list[dict[str, Row]], model: str) -> list[tuple[str, float, bool]]:
    """(level, value, reached), over the mean of the splits; the level of hospitals left out is the logistic model's."""

    def mean(row: str, column: str) -> float:
        return statistics.mean(s[row][column] for s in splits)

    found = mean("federated", "auc")
    below = mean("pooled", "auc") - found
    right, newcomer = mean("federated", "accuracy"), mean("left out", "auc")
    levels = [
        ("AUC at least .860", found, found >= 0.86),
        ("AUC below pooled by at most .010", below, below <= 0.01),
        ("accuracy at least .770", right, right >= 0.77),
    ]
    return levels + (
        [("AUC of hospitals left out at least .820", newcomer, newcomer >= 0.82)] if model == "logistic" else []
    )


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--splits", type=int, default=10)
    options.add_argument("--models", default="logistic,mlp")
    given = options.parse_args()
    good = True
    for name in given.models.split(","):
        splits = [split(number, MODELS[name]) for number in range(given.splits)]
        print(f"### {name}, {given.splits} splits\n\n{table(splits)}\n")
        for level, value, reached in accepted(splits, name):
            print(f"- {level}: {value:.3f}, {'reached' if reached else 'NOT reached'}")
            good = good and reached
        print(flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
