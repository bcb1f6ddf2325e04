"""What privacy costs: accuracy beside the run without it, and seconds beside the round without it.

    OMP_NUM_THREADS=1 python -m benchmarks.private --data-dir DIR [--only NAME,NAME] [--seeds 0,1,2] [--table]
    OMP_NUM_THREADS=1 python -m benchmarks.private --overhead [--rounds 5]

The first trains examples/private_writers at several epsilons and once without [privacy] (a fixed cohort of 270 of the
539 writers, the rest the same), by seeds. Noise and cohorts come from the operating system: a seed draws only the first
weights and the order of batches, so another run gives other digits. Each run is one line of results.jsonl beside this
file; what stands there is not run again. `--table` runs nothing and prints what is known.

The second takes rounds with and without [privacy] in turn, on made images: the network of McMahan et al. 2017, 100
clients asked in each round.
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

import manyloom as ml
from benchmarks.scenarios import RESULTS, ROOT, known
from manyloom.data.federation import Federation
from manyloom.job.events import Evaluated, RoundDone, RunDone
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.prepare import prepare
from manyloom.job.toml import write
from manyloom.models import cnn as network
from manyloom.privacy.settings import Privacy
from manyloom.runtime.local import Local

EXAMPLE = ROOT / "examples" / "private_writers" / "writers.toml"
MODELS: Mapping[str, Mapping[str, Any]] = {
    "cnn-s8": {},
    "logistic": {"model": {"name": "logistic"}, "algorithm": {"lr": 0.1}},
}
WRITERS = 270  # of the run without [privacy]: what half of 539 come to on average
OPEN = "none"
LEVELS = {("cnn-s8", "8"): 0.93, ("cnn-s8", "2"): 0.915, ("logistic", "8"): 0.88, ("logistic", "2"): 0.845}
RUNS = [
    ("logistic", "8"), ("logistic", "2"), ("logistic", OPEN), ("cnn-s8", "8"), ("cnn-s8", "2"), ("cnn-s8", OPEN),
    ("logistic", "1"), ("logistic", "4"), ("cnn-s8", "1"), ("cnn-s8", "4"),
]  # fmt: skip
MOST = 1.1  # of a round without [privacy]


# ---- accuracy


def tables_of(model: str, epsilon: str) -> dict[str, dict[str, Any]]:
    """The example's tables with this model, at this epsilon or without [privacy]."""
    tables = copy.deepcopy(tomllib.loads(EXAMPLE.read_text()))
    for table, keys in MODELS[model].items():
        tables[table] = dict(keys) if table == "model" else tables[table] | dict(keys)
    if epsilon == OPEN:
        del tables["privacy"]
        tables["job"]["cohort"] = WRITERS
        tables["algorithm"]["weights"] = "uniform"
    else:
        tables["privacy"]["epsilon"] = float(epsilon)
    return tables


def mark_of(model: str, epsilon: str) -> str:
    """What a line of results.jsonl belongs to."""
    tables = tables_of(model, epsilon)
    tables.pop("runtime", None)
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()[:12]


def name_of(model: str, epsilon: str) -> str:
    return f"private-{model}-{epsilon}"


def job_of(model: str, epsilon: str, seed: int, data_dir: str | None) -> Job:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.toml"
        path.write_text(write(tables_of(model, epsilon)))
        return Job.from_toml(str(path), {"job.seed": seed}, data_dir, str(EXAMPLE.parent))


def run(model: str, epsilon: str, seed: int, data_dir: str | None) -> None:
    """Train once, if it is not known, and add its line."""
    name, mark = name_of(model, epsilon), mark_of(model, epsilon)
    if (name, seed, mark) in known():
        return
    print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
    began = time.perf_counter()
    job, runtime = job_of(model, epsilon, seed, data_dir), Local()
    ready = prepare(job, runtime)
    accuracy, up, last = float("nan"), 0, None
    for last in loop(job, runtime, ready, start(job, ready)):
        match last:
            case Evaluated():
                accuracy = last.metrics["accuracy"]
                print(f"  round {last.round}/{job.rounds}  accuracy {accuracy:.4f}", file=sys.stderr, flush=True)
            case RoundDone():
                up += last.bytes_up
            case _:
                pass
    runtime.close()
    assert isinstance(last, RunDone) and last.status == "done", last
    values = {"accuracy": round(accuracy, 5)}
    if last.privacy is not None:
        values["epsilon"] = last.privacy["epsilon"]
        values["epsilon without amplification"] = last.privacy["others"][0]["epsilon"]
        values["noise multiplier"] = last.privacy["noise_multiplier"]
    line = {"scenario": name, "seed": seed, "job": mark, "seconds": round(time.perf_counter() - began, 1),
            "rounds": job.rounds, "bytes_up": up, "values": values}  # fmt: skip
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


class Found(NamedTuple):
    """All runs of one model at one epsilon."""

    model: str
    epsilon: str
    accuracy: list[float]  # by seed
    values: Mapping[str, float]  # what does not depend on the seed; empty without [privacy]
    seconds: float


def results() -> list[Found]:
    """What results.jsonl holds of these jobs as they are now, strongest noise first."""
    out: list[Found] = []
    for model, epsilon in sorted(RUNS, key=lambda r: (r[0], float("inf") if r[1] == OPEN else float(r[1]))):
        is_it = (name_of(model, epsilon), mark_of(model, epsilon))
        rows = [r for (name, _, mark), r in known().items() if (name, mark) == is_it]
        if rows:
            seconds = statistics.mean(r["seconds"] for r in rows)
            told = {k: v for k, v in rows[0]["values"].items() if k != "accuracy"}
            out.append(Found(model, epsilon, [r["values"]["accuracy"] for r in rows], told, seconds))
    return out


def table() -> tuple[str, bool]:
    """Accuracy at each epsilon beside the run without privacy, and whether every level is reached."""
    heads = ("model", "epsilon", "without amplification", "noise multiplier", "seeds", "accuracy", "beside no privacy",
             "at least", "", "s a run")  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * 7 + "|---|---:|"]
    good, found = True, results()
    free = {f.model: statistics.mean(f.accuracy) for f in found if f.epsilon == OPEN}
    for f in found:
        mean, level = statistics.mean(f.accuracy), LEVELS.get((f.model, f.epsilon))
        spread = f" ± {statistics.stdev(f.accuracy):.3f}" if len(f.accuracy) > 1 else ""
        beside = f"{mean - free[f.model]:+.3f}" if f.model in free and f.epsilon != OPEN else ""
        reached = level is None or mean >= level
        good = good and reached
        told = [OPEN, "", ""]
        if f.values:
            told = [f"{f.values['epsilon']:.3f}", f"{f.values['epsilon without amplification']:.1f}",
                    f"{f.values['noise multiplier']:.4g}"]  # fmt: skip
        said = "" if level is None else "reached" if reached else "NOT reached"
        cells = [f.model, *told, str(len(f.accuracy)), f"{mean:.3f}{spread}", beside, f"{level:.3f}" if level else "",
                 said, f"{f.seconds:.0f}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines), good


# ---- seconds


def made(clients: int, rows: int) -> Federation:
    """Images of noise: the time of a round does not depend on what they show."""
    x = torch.rand(clients * rows, 28, 28, generator=torch.Generator().manual_seed(0))
    each = [range(i * rows, (i + 1) * rows) for i in range(clients)]
    return Federation.of_tensors(x, torch.arange(len(x)) % 10, each)


def steps(private: bool, clients: int, rows: int) -> Iterator[float]:
    """Seconds of one round after the other: each `next` runs one."""
    task = ml.Task(lambda: network().build((28, 28), 10, "cross-entropy"), metrics=[])
    job = Job(task, ml.algorithms.fedavg(lr=0.05, epochs=1, batch_size=32, weights="uniform"), made(clients, rows),
              rounds=10**6, seed=0, eval_every=10**6,
              privacy=Privacy(clip=1.0, noise_multiplier=1.0) if private else None)  # fmt: skip
    runtime = Local()
    ready = prepare(job, runtime)
    for event in loop(job, runtime, ready, start(job, ready)):
        if isinstance(event, RoundDone):
            yield event.seconds


def overhead(rounds: int, clients: int, rows: int) -> tuple[str, bool]:
    """Seconds of a round with and without [privacy], taken in turn, and the median of their ratios.

    Processor seconds: a round takes a minute, and what else the machine does in it must not decide.
    """
    both = {private: steps(private, clients, rows) for private in (False, True)}
    took: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for private, one in both.items():
            began = time.process_time()
            wall = next(one)
            seconds = time.process_time() - began
            if number:  # the first warms up
                took[private].append(seconds)
            print(f"  {'with   ' if private else 'without'}  {seconds:.2f} s, {wall:.2f} s by the clock"
                  + ("" if number else ", not counted"), file=sys.stderr, flush=True)  # fmt: skip
    free, dear = (statistics.median(took[p]) for p in (False, True))
    ratio = statistics.median(b / a for a, b in zip(took[False], took[True]))
    good = ratio <= MOST
    said = (f"{clients} clients of {rows} images, 1,663,370 parameters, {rounds} rounds each, in turn: a round takes "
            f"{free:.2f} s without [privacy], {dear:.2f} s with it; ratio {ratio:.3f}, at most {MOST}: "
            f"{'reached' if good else 'NOT reached'}")  # fmt: skip
    return said, good


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default=",".join(name_of(*r) for r in RUNS))
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--data-dir")
    options.add_argument("--table", action="store_true")
    options.add_argument("--overhead", action="store_true")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--clients", type=int, default=100)
    options.add_argument("--rows", type=int, default=600, help="images a client, as in Fashion-MNIST over 100 clients")
    given = options.parse_args()
    if given.overhead:
        text, good = overhead(given.rounds, given.clients, given.rows)
    else:
        names = given.only.split(",")
        for seed in [int(s) for s in given.seeds.split(",")] if not given.table else []:
            for model, epsilon in RUNS:
                if name_of(model, epsilon) in names:
                    run(model, epsilon, seed, given.data_dir)
        text, good = table()
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
