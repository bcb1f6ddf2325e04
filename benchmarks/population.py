"""A large population: what a million clients cost before the first round, in memory, and in rounds a second.

    OMP_NUM_THREADS=1 python -m benchmarks.population [--rounds 100] [--sizes 1000000,100000,10000]

Synthetic clients of 20 samples each (64 features, 10 classes), made when they are asked; a cohort of 1,000 trains a
logistic model. The largest comes first, so its row pays for the imports and sets the peak. Accept: round 1 begins
within 10 s, less than 2 GiB beyond what was there before; and rounds a second that do not depend on the population.
"""

import argparse
import resource
import sys
import tempfile
import time
from typing import NamedTuple

import torch

import manyloom as ml

COHORT = 1000
FIRST_ROUND_S, MEMORY_GIB = 10.0, 2.0


class Measured(NamedTuple):
    clients: int
    first_round_s: float
    rounds_per_s: float
    memory_gib: float  # peak of the process so far, beyond its size before the first job


def resident_gib() -> float:
    """The most memory this process has had, GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30


def measure(clients: int, rounds: int, before: float, home: str) -> Measured:
    """One job from nothing: seconds until round 1 starts, then the median round."""
    began = time.perf_counter()
    fed = ml.data.synthetic(samples_per_client=20, features=64, classes=10, partition=ml.data.iid(clients=clients))
    task = ml.Task(lambda: torch.nn.Linear(64, 10), loss="cross-entropy", metrics=["accuracy"])
    algorithm = ml.algorithms.fedavg(lr=0.1, epochs=1, batch_size=20)
    job = ml.Job(
        task, algorithm, fed, rounds=rounds, cohort=COHORT, eval_every=rounds, eval_cohort=COHORT, name="population"
    )
    first, seconds = 0.0, []
    for event in ml.run(job, home=home):
        if event.type == "round_started" and not first:
            first = time.perf_counter() - began
        if event.type == "round_done":
            seconds.append(event.seconds)
    middle = sorted(seconds[1:-1])  # the first warms up, the last evaluates
    return Measured(clients, first, 1 / middle[len(middle) // 2], resident_gib() - before)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=100)
    options.add_argument("--sizes", default="1000000,100000,10000")
    given = options.parse_args()
    before = resident_gib()
    with tempfile.TemporaryDirectory() as home:
        rows = [measure(int(n), given.rounds, before, home) for n in given.sizes.split(",")]
    print("| clients | round 1 begins after | rounds a second | peak memory beyond the start |\n|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {row.clients:,} | {row.first_round_s:.2f} s | {row.rounds_per_s:.2f} | {row.memory_gib:.2f} GiB |")
    rates = [row.rounds_per_s for row in rows]
    good = all(row.first_round_s <= FIRST_ROUND_S and row.memory_gib <= MEMORY_GIB for row in rows)
    print(f"\nslowest over fastest {min(rates) / max(rates):.2f}; {'accepted' if good else 'NOT accepted'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
