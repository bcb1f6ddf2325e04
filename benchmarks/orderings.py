"""Which algorithm learns best where: digits at twenty clients, means over three seeds, beside what must hold.

    OMP_NUM_THREADS=1 python -m benchmarks.orderings [--seeds 3] [--only shards,iid,personal] [--json]

    shards     one shard of one class each, 20 steps a round, 30 rounds; 5 of 20 clients a round, and all of them
    iid        the control, 5 of 20, 15 rounds
    personal   Dir(.1) and Dir(1), 10 steps, all clients, each judged on its own held-out rows: pooled / worst client

Batch 32, local rate .1, an MLP 64-64-10, uniform means. "Local" is Ditto with lam = 0: nobody pulls.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping

from manyloom import algorithms as A
from manyloom.core.parts import Algorithm
from manyloom.data.partition import Partition, dirichlet, iid, shards
from manyloom.data.sources.sklearn import digits
from manyloom.job.assemble import task_of
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.prepare import prepare
from manyloom.runtime.local import Local
from manyloom.server import adagrad, adam, momentum, yogi

CLIENTS = 20
LOCAL = {"lr": 0.1, "batch_size": 32, "weights": "uniform"}
Make = Callable[[dict[str, object]], Algorithm]
SHARED: Mapping[str, Make] = {
    "FedAvg": lambda o: A.fedavg(**o),
    "FedProx": lambda o: A.fedprox(mu=0.1, **o),
    "SCAFFOLD": lambda o: A.scaffold(**o),
    "FedDyn": lambda o: A.feddyn(alpha=0.1, **o),
    "AvgM": lambda o: A.fedavgm(server=momentum(lr=0.3), **o),
    "Adam": lambda o: A.fedadam(server=adam(lr=0.01), **o),
    "Yogi": lambda o: A.fedyogi(server=yogi(lr=0.01), **o),
    "Adagrad": lambda o: A.fedadagrad(server=adagrad(lr=0.03), **o),
    "FedNova": lambda o: A.fednova(**o),
    "FedSAM": lambda o: A.fedsam(rho=0.05, **o),
    "MOON": lambda o: A.moon(**o),
}
PERSONAL: Mapping[str, Make] = {
    "FedAvg": lambda o: A.fedavg(**o),
    "Local": lambda o: A.ditto(lam=0.0, **o),
    "FedAvg+FT": lambda o: A.fedavg(adapt=10, **o),
    "Ditto": lambda o: A.ditto(**o),
    "FedPer": lambda o: A.fedper(local=["2.*"], **o),
}
Score = tuple[float, float]  # pooled accuracy, worst client's, in per cent
Table = dict[str, list[Score]]


def played(algorithm: Algorithm, deal: Partition, seed: int, rounds: int, cohort: int | None, test: float) -> Score:
    """Accuracy after the last round: over all held-out rows, and of the worst client."""
    fed = digits(partition=deal, test=test, seed=seed)
    task = task_of({"name": "mlp", "hidden": [64], "metrics": ["accuracy"]}, ("class", 10))
    job = Job(task, algorithm, fed, rounds=rounds, cohort=cohort, seed=seed, eval_every=rounds)
    runtime = Local()
    ready = prepare(job, runtime)
    last = [e for e in loop(job, runtime, ready, start(job, ready)) if e.type == "evaluated"][-1]
    each = [m["accuracy"] for m in last.clients.values()]
    return 100 * last.metrics["accuracy"], 100 * min(each, default=float("nan"))


def table(make: Mapping[str, Make], deal: Partition, seeds: int, steps: int, rounds: int, cohort: int | None = None,
          test: float = 0.2) -> Table:  # fmt: skip
    """One row of the table: every algorithm on every seed."""
    return {n: [played(f({**LOCAL, "steps": steps}), deal, s, rounds, cohort, test) for s in range(seeds)]
            for n, f in make.items()}  # fmt: skip


def settings(seeds: int) -> Iterator[tuple[str, str, Callable[[], Table]]]:
    """(group, title, what makes the table)."""
    one = shards(clients=CLIENTS, classes_per_client=1)
    some = {n: SHARED[n] for n in ("FedAvg", "SCAFFOLD", "FedDyn", "FedNova")}
    yield "shards", "one shard each, 5 of 20", lambda: table(SHARED, one, seeds, 20, 30, 5)
    yield "shards", "one shard each, 20 of 20", lambda: table(SHARED, one, seeds, 20, 30)
    yield "iid", "IID, 5 of 20", lambda: table(some, iid(clients=CLIENTS), seeds, 20, 15, 5)
    for alpha in (0.1, 1.0):
        deal = dirichlet(clients=CLIENTS, alpha=alpha, min_samples=20)
        yield "personal", f"Dir({alpha:g})", lambda deal=deal: table(PERSONAL, deal, seeds, 10, 30, test=0.25)


def mean(row: Table, name: str) -> float:
    return statistics.mean(pooled for pooled, _ in row[name])


def orderings(found: Mapping[str, Table]) -> Iterator[tuple[str, float, float]]:
    """(what must hold, the difference seen, the least it may be)."""
    if (row := found.get("one shard each, 5 of 20")) is not None:
        for name, least in (("SCAFFOLD", 10), ("FedDyn", 10), ("Adam", 3), ("Yogi", 3), ("AvgM", 3)):
            yield f"5 of 20: {name} - FedAvg", mean(row, name) - mean(row, "FedAvg"), least
    if (row := found.get("one shard each, 20 of 20")) is not None:
        yield "20 of 20: SCAFFOLD - FedAvg", mean(row, "SCAFFOLD") - mean(row, "FedAvg"), 2
        yield "20 of 20: -|FedNova - FedAvg|, equal steps", -abs(mean(row, "FedNova") - mean(row, "FedAvg")), 0
    if (row := found.get("IID, 5 of 20")) is not None:
        yield "IID: -|SCAFFOLD - FedAvg|", -abs(mean(row, "SCAFFOLD") - mean(row, "FedAvg")), -2
    for title in ("Dir(0.1)", "Dir(1)"):
        if (row := found.get(title)) is not None:
            best = max(mean(row, "Local"), mean(row, "FedAvg"))
            yield f"{title}: Ditto - max(Local, FedAvg)", mean(row, "Ditto") - best, -1
    if (row := found.get("Dir(0.1)")) is not None:
        yield "Dir(0.1): Local - FedAvg", mean(row, "Local") - mean(row, "FedAvg"), 0
    if (row := found.get("Dir(1)")) is not None:
        yield "Dir(1): FedAvg - Local", mean(row, "FedAvg") - mean(row, "Local"), 5


def main() -> int:
    """Print the tables and what must hold; 1 if something doesn't."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--only", default="shards,iid,personal")
    ask.add_argument("--json", action="store_true")
    given = ask.parse_args()
    found: dict[str, Table] = {}
    for group, title, make in settings(given.seeds):
        if group not in given.only.split(","):
            continue
        began = time.process_time()
        row = found[title] = make()
        if not given.json:
            print(f"\n{title} ({time.process_time() - began:.0f} CPU s)")
            for name, scores in row.items():
                pooled, worst = zip(*scores)
                spread = statistics.stdev(pooled) if len(pooled) > 1 else 0.0
                own = f" / {statistics.mean(worst):.0f}" if group == "personal" else ""
                print(f"  {name:10} {statistics.mean(pooled):5.1f} +- {spread:3.1f}{own}", flush=True)
    rows = list(orderings(found))
    if given.json:
        held = [{"what": w, "seen": round(s, 2), "least": least, "holds": s >= least} for w, s, least in rows]
        print(json.dumps({"tables": found, "orderings": held}))
    else:
        print()
        for what, seen, least in rows:
            print(f"{'holds' if seen >= least else 'FAILS':6} {what:50} {seen:6.1f}  (least {least})")
    return int(any(seen < least for _, seen, least in rows))


if __name__ == "__main__":
    raise SystemExit(main())
