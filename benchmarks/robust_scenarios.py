"""Clients that lie, differ or have a thin pipe: the example jobs and variants of them, against the levels to reach.

    OMP_NUM_THREADS=1 python -m benchmarks.robust_scenarios --data-dir DIR [--only NAME,NAME] [--seeds 0,1] [--table]

A name ending in a dot takes all that begin so: `--only banks.`. A seed draws held-out rows, first weights, shuffles and
who attacks; the five banks are the same for all seeds, the five hospitals are dealt by the seed. Each (name, seed) is a
line of results.jsonl beside this file; what stands there is not run again. `--table` runs nothing.

Three questions, never mixed: "all" is one model on the held-out rows of everybody (beside pooled records); "own" is the
mean over clients, each on its own held-out rows (AUC only of clients with five of either class there); "left out" is
the same for a client that did not train. Variants under attack are judged by "all" alone.
"""

import argparse
import copy
import hashlib
import json
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.outputs import outputs
from benchmarks.scenarios import RESULTS, ROOT, Trained, known, train
from examples.banks_against_fraud import prepare as banks
from examples.companies import prepare as companies
from manyloom.core.metrics import auc, score
from manyloom.data.store import Slab
from manyloom.job import baseline
from manyloom.job.job import Job, shape_of
from manyloom.job.prepare import module_of
from manyloom.job.toml import write
from manyloom.runtime.local import Local

Tables = dict[str, dict[str, Any]]
Values = dict[str, float]
NNM = {"rule": "trimmed-mean", "pre": "nnm"}
IPM = {"name": "ipm", "scale": 10.0}
FLIP = {"name": "label-flip"}
EXAMPLES = ROOT / "examples"
RATE = 0.0017  # of frauds among all payments of the original file


class Variant(NamedTuple):
    """A job of examples/ with other tables, what is measured of it, and the levels of its measures."""

    job: str
    measure: Callable[[Trained], Values]
    change: Mapping[str, Mapping[str, object]] = {}  # of a table: "=" replaces it whole
    at_least: Mapping[str, float] = {}
    at_most: Mapping[str, float] = {}


# ---- what is measured


def accuracy(run: Trained) -> Values:
    return {"accuracy": run.curve[-1], "bytes up": float(run.bytes_up)}


def reached(run: Trained) -> Values:
    """Virtual seconds and updates until three evaluations in a row have a mean accuracy of .85."""
    curve = run.curve[-len(run.clock) :]  # without the one before round 1
    found = (i for i in range(2, len(curve)) if statistics.mean(curve[i - 2 : i + 1]) >= 0.85)
    now, back = run.clock[i] if (i := next(found, None)) is not None else (float("inf"), 0)
    return {"virtual s to .85": now, "updates to .85": float(back), "last five": statistics.mean(curve[-5:])}


def ranks(run: Trained) -> Values:
    """AUC, average precision and balanced accuracy of the one model on everybody's held-out rows."""
    said, true = judged(run.job, run.fitted)
    return {"all: AUC": auc(said, true), "all: AP": precision(said, true), "all: balanced": balanced(said, true)}


def beside(run: Trained) -> Values:
    """`ranks`, the same of pooled records and of each client's own model; the mean client on its own rows."""
    job, out = run.job, ranks(run)
    pooled = baseline.fit(baseline.central(job), Local())
    out |= {f"pooled, {k}": v for k, v in ranks(run._replace(fitted=pooled)).items()}
    out["pooled above federated, AUC"] = out["pooled, all: AUC"] - out["all: AUC"]
    found = {i: (own, judged) for i, own, judged in baseline.each_alone(job, Local)}
    each = [ranks(run._replace(fitted=own)) for own, _ in found.values()]
    for name in ("all: AUC", "all: AP", "all: balanced"):
        out[f"alone, {name}, mean"] = statistics.mean(e[name] for e in each)
        out[f"alone, {name}, worst"] = min(e[name] for e in each)
    out["federated above mean alone, AUC"] = out["all: AUC"] - out["alone, all: AUC, mean"]
    if not int(job.federation.tests.sum()):
        return out
    shared = baseline.judge(job, run.fitted, Local()).clients
    alone = {i: own.clients[i] for i, (_, own) in found.items()}
    for name, clients in (("federated", shared), ("alone", alone)):
        values = [c["auc"] for c in enough(clients)]
        out |= {f"own: AUC, {name}, mean": statistics.mean(values), f"own: AUC, {name}, worst": min(values)}
    return out


def carried(run: Trained) -> Values:
    """`beside`, and each client judged by a model that it had no part in."""
    left = {i: found.clients[i] for i, found in baseline.left_out(run.job, Local).items()}
    values = [c["auc"] for c in enough(left)]
    return beside(run) | {"left out: AUC, mean": statistics.mean(values), "left out: AUC, worst": min(values)}


def enough(clients: Mapping[int, Mapping[str, float]]) -> Iterator[Mapping[str, float]]:
    """Those with at least five held-out rows of either class: an AUC of fewer says nothing."""
    for c in clients.values():
        if min(c["positives"], c["rows"] - c["positives"]) >= baseline.FEW:
            yield c


def judged(job: Job, fitted: baseline.Fitted) -> tuple[Tensor, Tensor]:
    """Scores [n] and whether positive [n], of the source's own test set or of everybody's held-out rows."""
    own = job.federation.central()
    out, y = outputs(job, fitted, range(len(job.federation))) if own is None else central(job, fitted, own)
    return score(out), y == 1


def central(job: Job, fitted: baseline.Fitted, own: Slab) -> tuple[Tensor, Tensor]:
    """Outputs and labels of the source's own test set."""
    module = module_of(job.task, shape_of(job.federation), job.seed, dict(fitted.model), fitted.model["theta"])
    x, y = own.gather()
    with torch.no_grad():
        return module(x), y


def precision(said: Tensor, true: Tensor) -> float:
    """Average precision: the mean, over positives from the highest score down, of the share of positives so far."""
    hits = true[torch.argsort(said, descending=True, stable=True)].double()
    return float((hits.cumsum(0) / torch.arange(1, len(hits) + 1) * hits).sum() / hits.sum())


def balanced(said: Tensor, true: Tensor) -> float:
    """The mean of the shares of positives and of negatives that are told right at a logit of 0."""
    return float(((said > 0)[true].double().mean() + (said <= 0)[~true].double().mean()) / 2)


# ---- the variants


def lied(job: str, least: float, attacks: Mapping[str, Mapping[str, object]], liars: int, below: Mapping[str, float],
         measure: Callable[[Trained], Values] = ranks, key: str = "all: AUC") -> dict[str, Variant]:  # fmt: skip
    """Mean and rule, without attack and under each; `below` are levels that the mean must fall under."""
    rule = {"aggregate": NNM | {"f": liars}}
    out = {"nnm": Variant(job, measure, rule)}
    for name, attack in attacks.items():
        table = {"attack": {**attack, "clients": liars}}
        out[f"{name}-mean"] = Variant(job, measure, table, at_most={key: below[name]} if name in below else {})
        out[f"{name}-nnm"] = Variant(job, measure, rule | table, {key: least})
    return out


def attacked(deal: Mapping[str, object] | None = None) -> dict[str, Variant]:
    change = {"partition": deal} if deal else {}
    files = (("calm", "calm"), ("mean", "mean"), ("nnm", "robust"))
    out = {n: Variant(f"under_attack/{file}.toml", accuracy, change) for n, file in files}
    out["calm-nnm"] = Variant("under_attack/calm.toml", accuracy, change | {"aggregate": NNM | {"f": 4}})
    return out


BANKS, COMPANIES, PNEUMONIA = "banks_against_fraud/banks.toml", "companies/companies.toml", "pneumonia/pneumonia.toml"
GROUPS: Mapping[str, Mapping[str, Variant]] = {
    "under-attack": attacked(),
    "under-attack-two-classes": attacked({"=": True, "scheme": "shards", "clients": 20, "classes_per_client": 2}),
    "thin-pipe": {n: Variant(f"thin_pipe/{n}.toml", accuracy) for n in ("float32", "one_bit")},
    "differs": {n: Variant(f"everyone_differs/{n}.toml", accuracy) for n in ("fedavg", "scaffold", "feddyn", "ditto")}
    | {f"{n}-all": Variant(f"everyone_differs/{n}.toml", accuracy, {"job": {"cohort": 20}})
       for n in ("fedavg", "scaffold", "feddyn", "ditto")}
    | {n: Variant(f"everyone_differs/{n}.toml", reached) for n in ("waiting", "buffered")},
    "banks": {
        "logistic": Variant(BANKS, beside, {}, {"all: AUC": 0.965, "all: AP": 0.95,
                            "federated above mean alone, AUC": 0.008}, {"pooled above federated, AUC": 0.005}),
        "mlp": Variant(BANKS, beside, {"model": {"name": "mlp", "hidden": [16]}}),
        "eden": Variant(BANKS, ranks, {"uplink": {"eden": 1}}),
        **lied(BANKS, 0.955, {"ipm": IPM, "flip": FLIP}, 1, {}),
    },
    "companies": {
        "logistic": Variant(COMPANIES, carried, {}, {"all: AUC": 0.887, "left out: AUC, mean": 0.855},
                            {"pooled above federated, AUC": 0.004}),
        "mlp": Variant(COMPANIES, ranks, {"model": {"name": "mlp", "hidden": [32]}}, {"all: AUC": 0.893}),
        **lied(COMPANIES, 0.885, {"ipm": IPM, "flip": FLIP}, 3, {"ipm": 0.5}),
    },
    "pneumonia": {
        "cnn": Variant(PNEUMONIA, beside, {}, {"all: AUC": 0.92}),
        "logistic": Variant(PNEUMONIA, beside, {"model": {"=": True, "name": "logistic"}, "algorithm": {"lr": 0.02}},
                            {"all: AUC": 0.90}),
        "eden": Variant(PNEUMONIA, ranks, {"uplink": {"eden": 1}}, {"all: AUC": 0.918}),
        **{n: v for n, v in lied(PNEUMONIA, 0.0, {"ipm": IPM, "flip": FLIP}, 1, {}).items()
           if n != "ipm-mean"},  # its updates grow until they are no numbers: the run ends below quorum
    },
}  # fmt: skip
VARIANTS = {f"{group}.{name}": v for group, found in GROUPS.items() for name, v in found.items()}


# ---- running and showing


def tables_of(variant: Variant) -> Tables:
    """The job's tables as they are run: a last evaluation is enough, but where time counts."""
    tables: Tables = copy.deepcopy(tomllib.loads((EXAMPLES / variant.job).read_text()))
    for name, change in variant.change.items():
        base = {} if "=" in change else tables.get(name, {})
        tables[name] = base | {k: v for k, v in change.items() if k != "="}
    if "simulate" not in tables:
        tables["job"]["eval_every"] = tables["job"]["rounds"]
    return tables


def mark_of(variant: Variant) -> str:
    return hashlib.sha256(json.dumps(tables_of(variant), sort_keys=True).encode()).hexdigest()[:12]


def job_of(variant: Variant, seed: int, data_dir: str | None, folder: Path) -> Job:
    tables = tables_of(variant)
    if "path" in tables["data"]:
        tables["data"]["path"] = str(made(tables["data"]["path"], data_dir, folder))
    path = folder / "job.toml"
    path.write_text(write(tables))
    return Job.from_toml(str(path), {"job.seed": seed}, data_dir, str((EXAMPLES / variant.job).parent))


def made(name: str, data_dir: str | None, folder: Path) -> Path:
    """The CSV that an example's prepare.py writes, made once."""
    out = folder / name
    if not out.exists():
        if not data_dir:
            sys.exit(f"{name} is made of files under --data-dir")
        if name == "banks.csv":
            columns, x, fraud = banks.read(Path(data_dir) / "finance/ulb_creditcard_sample/creditcard_sample.csv")
            banks.write(out, columns, x, fraud, banks.deal(x, fraud))
        else:
            companies.write(out, Path(data_dir) / "enterprise/adult")
    return out


def run(name: str, seed: int, data_dir: str | None, folder: Path) -> None:
    """Train and measure once, if it is not known, and add its line."""
    variant = VARIANTS[name]
    if (name, seed, mark_of(variant)) in known():
        return
    print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
    job = job_of(variant, seed, data_dir, folder)
    began = time.process_time()
    trained = train(job)
    seconds = time.process_time() - began
    values = {k: round(v, 5) for k, v in variant.measure(trained).items()}
    line = {"scenario": name, "seed": seed, "job": mark_of(variant), "seconds": round(seconds, 1),
            "rounds": job.rounds, "bytes_up": trained.bytes_up, "values": values}  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def table(names: list[str]) -> tuple[str, bool]:
    """Means ± deviations over seeds beside the levels, and whether every level is reached."""
    lines = ["| job | seeds | measure | value | level | | CPU s a run |", "|---|---:|---|---:|---:|---|---:|"]
    found, good = known(), True
    for name in names:
        variant = VARIANTS[name]
        rows = [r for (n, _, mark), r in found.items() if n == name and mark == mark_of(variant)]
        for i, measure in enumerate(rows[0]["values"] if rows else ()):
            values = [r["values"][measure] for r in rows]
            mean, low, high = statistics.mean(values), variant.at_least.get(measure), variant.at_most.get(measure)
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            level = "" if low is high is None else f">= {low:g}" if high is None else f"<= {high:g}"
            reached = (low is None or mean >= low) and (high is None or mean <= high)
            good = good and reached
            head = (name, str(len(rows)), f"{statistics.mean(r['seconds'] for r in rows):.1f}") if not i else ("",) * 3
            shown = f"{mean:,.0f}" if mean > 1000 else f"{mean:.3f}{spread}"
            said = "" if not level else "reached" if reached else "NOT reached"
            lines.append(f"| {head[0]} | {head[1]} | {measure} | {shown} | {level} | {said} | {head[2]} |")
    return "\n".join(lines), good


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default=",".join(VARIANTS))
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--data-dir")
    options.add_argument("--table", action="store_true")
    given = options.parse_args()
    asked = given.only.split(",")
    names = [n for n in VARIANTS if n in asked or any(a.endswith(".") and n.startswith(a) for a in asked)]
    with tempfile.TemporaryDirectory() as folder:
        for seed in [int(s) for s in given.seeds.split(",")] if not given.table else []:
            for name in names:
                run(name, seed, given.data_dir, Path(folder))
    text, good = table(names)
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
