"""The example jobs on their real data, over seeds, against the levels they must reach.

    OMP_NUM_THREADS=1 python -m benchmarks.scenarios --data-dir DIR [--only NAME,NAME] [--seeds 0,1,2] [--table]

Each (scenario, seed) is one line of results.jsonl beside this file, with the digest of the job that it belongs to. What
stands there already is not run again, so a stopped benchmark goes on where it was; a changed job is run anew. `--table`
runs nothing and prints what is known. Heart disease has a file of its own: heart.py.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.outputs import outputs
from manyloom.core.metrics import decided
from manyloom.job import baseline
from manyloom.job.events import Evaluated, RoundDone, RunDone
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.prepare import prepare
from manyloom.runtime.local import Local

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results.jsonl"
Values = dict[str, float]


class Trained(NamedTuple):
    job: Job
    fitted: baseline.Fitted
    curve: list[float]  # accuracy of every evaluation
    bytes_up: int
    clock: list[tuple[float, int]]  # after every round: virtual seconds, updates that came back


class Scenario(NamedTuple):
    """A job of examples/, what is measured of it, and the level of each measure ("at least")."""

    job: str
    measure: Callable[[Trained], Values]
    accept: Mapping[str, float]
    seeds: tuple[int, ...] = (0, 1, 2)
    change: Mapping[str, object] = {}


def train(job: Job) -> Trained:
    """The job to its end, without a run folder."""
    runtime, curve, up, last = Local(), [], 0, None
    clock, now, back = [], 0.0, 0
    ready = prepare(job, runtime)
    for last in loop(job, runtime, ready, start(job, ready)):
        match last:
            case Evaluated():
                curve.append(last.metrics["accuracy"])
                print(f"  round {last.round}/{job.rounds}  accuracy {curve[-1]:.4f}", file=sys.stderr, flush=True)
            case RoundDone():
                up += last.bytes_up
                now, back = now + (last.virtual_s or 0.0), back + last.back
                clock.append((now, back))
            case _:
                pass
    runtime.close()
    assert isinstance(last, RunDone) and last.status == "done" and last.state, last
    return Trained(job, baseline.fitted(job, last.state, ready.preprocess), curve, up, clock)


# ---- what is measured


def at_the_end(run: Trained) -> Values:
    return {"accuracy": run.curve[-1]}


def last_five(run: Trained) -> Values:
    """The mean of the last five evaluations: the last one alone swings by a point."""
    return {"accuracy": run.curve[-1], "last five": statistics.mean(run.curve[-5:])}


def by_role(run: Trained) -> Values:
    """Over all held-out characters, and the tenth percentile of roles with at least four held-out windows."""
    found = baseline.judge(run.job, run.fitted, Local()).clients.values()
    roles = [role["accuracy"] for role in found if role["rows"] >= 4]
    return {"accuracy": run.curve[-1], "tenth percentile": float(np.quantile(roles, 0.1))}


def by_voice(run: Trained) -> Values:
    """The shared model and its worst speaker; each speaker's own model on the own voice and on the others'."""
    job, everyone = run.job, range(len(run.job.federation))
    shared = baseline.judge(job, run.fitted, Local())
    alone = {i: found.clients for i, _, found in baseline.each_alone(job, Local)}
    others = [statistics.mean(alone[i][j]["accuracy"] for j in everyone if j != i) for i in everyone]
    new = [newcomer(job, i) for i in everyone]
    return {
        "accuracy": run.curve[-1],
        "worst speaker": min(c["accuracy"] for c in shared.clients.values()),
        "alone, own voice": statistics.mean(alone[i][i]["accuracy"] for i in everyone),
        "alone, other voices": statistics.mean(others),
        "newcomer": statistics.mean(new),
        "worst newcomer": min(new),
        "newcomer above alone": statistics.mean(new) - statistics.mean(others),
    }


def newcomer(job: Job, client: int) -> float:
    """Accuracy on all clips of a speaker who did not train."""
    fitted = baseline.fit(baseline.leave_one_out(job, client), Local())
    hits = rows = 0.0
    for part in ("train", "test"):
        out, y = outputs(job, fitted, [client], part)
        hits, rows = hits + float((decided(out) == y).sum()), rows + len(y)
    return hits / rows


SCENARIOS: Mapping[str, Scenario] = {
    "spoken": Scenario("spoken_digits/spoken.toml", by_voice,
                       {"accuracy": 0.94, "newcomer": 0.72, "newcomer above alone": 0.15}),
    "mnist": Scenario("mnist_writers/mlp.toml", at_the_end, {"accuracy": 0.945}),
    "mnist-cnn-s": Scenario("mnist_writers/cnn_s.toml", at_the_end, {"accuracy": 0.965}),
    "mnist-cnn": Scenario("mnist_writers/cnn.toml", last_five, {"last five": 0.97}, (0,)),
    "fashion": Scenario("fashion_mnist/fedavg.toml", last_five, {"last five": 0.82}),
    "fashion-fedprox": Scenario("fashion_mnist/fedprox.toml", last_five, {}),
    "fashion-scaffold": Scenario("fashion_mnist/scaffold.toml", last_five, {}),
    "fashion-fedadam": Scenario("fashion_mnist/fedadam.toml", last_five, {}),
    "fashion-cnn": Scenario("fashion_mnist/cnn.toml", last_five, {"last five": 0.85}, (0,)),
    "shakespeare": Scenario("shakespeare/fedavg.toml", by_role, {"accuracy": 0.455}),
    "shakespeare-fedadam": Scenario("shakespeare/fedadam.toml", by_role, {"accuracy": 0.465}),
}  # fmt: skip


# ---- running and showing


def job_of(scenario: Scenario, seed: int, data_dir: str | None, spoken: Path) -> Job:
    change = {"job.seed": seed, **scenario.change}
    if scenario.job.startswith("spoken"):
        change["data.path"] = str(spoken)
    return Job.from_toml(str(ROOT / "examples" / scenario.job), change, data_dir)


def known() -> dict[tuple[str, int, str], dict[str, Any]]:
    """What results.jsonl holds, by scenario, seed and job."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    return {(r["scenario"], r["seed"], r["job"]): r for r in map(json.loads, lines)}


def run(name: str, seed: int, data_dir: str | None, spoken: Path) -> None:
    """Train one scenario on one seed, if it is not known, and add its line."""
    scenario = SCENARIOS[name]
    if scenario.job.startswith("spoken") and not spoken.exists():
        prepare_spoken(data_dir, spoken)
    job = job_of(scenario, seed, data_dir, spoken)
    mark = digest_of(scenario)
    if (name, seed, mark) in known():
        return
    print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    trained = train(job)
    seconds = time.perf_counter() - began
    values = {k: round(v, 5) for k, v in scenario.measure(trained).items()}
    line = {"scenario": name, "seed": seed, "job": mark, "seconds": round(seconds, 1), "rounds": job.rounds,
            "bytes_up": trained.bytes_up, "values": values}  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


def digest_of(scenario: Scenario) -> str:
    """The tables of the job's file that decide the result: what a line of results.jsonl belongs to."""
    tables = tomllib.loads((ROOT / "examples" / scenario.job).read_text())
    tables.pop("runtime", None)
    return hashlib.sha256(json.dumps([tables, dict(scenario.change)], sort_keys=True).encode()).hexdigest()[:12]


def prepare_spoken(data_dir: str | None, out: Path) -> None:
    if not data_dir:
        sys.exit("spoken needs --data-dir, the folder in which mobile/fsdd/fsdd.tar.xz lies")
    script = ROOT / "examples" / "spoken_digits" / "prepare.py"
    subprocess.run(
        [sys.executable, str(script), f"{data_dir}/mobile/fsdd/fsdd.tar.xz", str(out)], check=True, stdout=sys.stderr
    )


def table(names: list[str]) -> tuple[str, bool]:
    """What is known of these scenarios, mean ± deviation over seeds, and whether every level is reached."""
    lines = ["| scenario | seeds | measure | value | at least | | s a run |", "|---|---|---|---:|---:|---|---:|"]
    found, good = known(), True
    for name in names:
        scenario = SCENARIOS[name]
        rows = [r for (n, _, mark), r in found.items() if n == name and mark == digest_of(scenario)]
        if not rows:
            lines.append(f"| {name} | none | | | | | |")
            continue
        seeds = ", ".join(str(r["seed"]) for r in sorted(rows, key=lambda r: r["seed"]))
        for i, measure in enumerate(rows[0]["values"]):
            values = [r["values"][measure] for r in rows]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            level = scenario.accept.get(measure)
            reached = level is None or statistics.mean(values) >= level
            good = good and reached
            said = "" if level is None else "reached" if reached else "NOT reached"
            head = (name, seeds, f"{statistics.mean(r['seconds'] for r in rows):.0f}") if i == 0 else ("", "", "")
            lines.append(f"| {head[0]} | {head[1]} | {measure} | {statistics.mean(values):.3f}{spread} | "
                         f"{'' if level is None else f'{level:.3f}'} | {said} | {head[2]} |")  # fmt: skip
    return "\n".join(lines), good


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default=",".join(SCENARIOS))
    options.add_argument("--seeds")
    options.add_argument("--data-dir")
    options.add_argument("--table", action="store_true")
    given = options.parse_args()
    names = given.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for name in names if not given.table else []:
            seeds = [int(s) for s in given.seeds.split(",")] if given.seeds else SCENARIOS[name].seeds
            for seed in seeds:
                run(name, seed, given.data_dir, Path(folder) / "spoken.csv")
    text, good = table(names)
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
