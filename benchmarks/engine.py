"""How fast the engine is, against a plain loop and against training centrally, as ratios of one run.

    OMP_NUM_THREADS=1 python benchmarks/engine.py [--case lr] [--batch 10] [--json]

One thread, CPU seconds of the process, the variants interleaved, the median of the repetitions. All three read the
same number of batches of the same size:

    central   one model, one optimiser, all rows shuffled together: no clients at all
    plain     a client at a time: load the state dict, a new SGD, shuffle, train, subtract, add up
    engine    `Engine.train` and the sum of updates, by each provider that takes the model
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from manyloom.algorithms import fedavg
from manyloom.core.task import Shape, Task
from manyloom.data.federation import Federation
from manyloom.engine import Engine, Failed, build


def lr() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 10))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))


def cnn28() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {"lr": (lr, 100), "mlp": (mlp, 50), "cnn28": (cnn28, 8)}
ROWS = 50
RATE = 0.1


def central(make: Callable[[], nn.Module], x: Tensor, y: Tensor, batch: int, clients: int) -> Callable[[], None]:
    """As many steps of as many rows as the clients make, by one optimiser."""
    model = make()
    optimiser = torch.optim.SGD(model.parameters(), lr=RATE)

    def round() -> None:
        order = torch.randperm(len(x))
        for rows in order.split(batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()

    return round


def plain(make: Callable[[], nn.Module], x: Tensor, y: Tensor, batch: int, clients: int) -> Callable[[], None]:
    """The loop one writes first."""
    model, server = make(), make()
    start = {k: v.clone() for k, v in server.state_dict().items()}

    def round() -> None:
        total = {k: torch.zeros_like(v) for k, v in start.items()}
        for c in range(clients):
            model.load_state_dict(start)
            optimiser = torch.optim.SGD(model.parameters(), lr=RATE)
            own = torch.arange(c * ROWS, (c + 1) * ROWS)
            for rows in own[torch.randperm(ROWS)].split(batch):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimiser.step()
            for k, v in model.state_dict().items():
                total[k] += (v - start[k]) / clients

    return round


def engine(e: Engine, federation: Federation, clients: int) -> Callable[[], None]:
    """What a simulation does with a cohort, less the server's step."""
    ids, rounds = np.arange(clients), iter(range(1, 10**9))

    def round() -> None:
        total = torch.zeros(e.layout.d, dtype=torch.float64)
        for g in e.train(federation, ids, {"theta": e.initial}, lambda _: {}, next(rounds)):
            assert not isinstance(g, Failed), g
            rows = g.up["u"]
            if len(rows) <= 4:
                for row, weight in zip(rows, g.samples.tolist()):
                    total.add_(row, alpha=weight)
            else:
                total += torch.mv(rows.T, g.samples.to(rows))

    return round


def measure(case: str, batch: int, repeats: int) -> dict[str, Any]:
    """Medians and ratios of one case."""
    make, clients = CASES[case]
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(clients * ROWS, 784, generator=rng)
    y = torch.randint(0, 10, (len(x),), generator=rng)
    parts = np.arange(clients + 1) * ROWS
    federation = Federation.of_tensors(x, y, parts, test=0.0)
    engines: dict[str, Engine] = {}
    for name in ("auto", "sequential", "vectorised"):
        e = build(Task(make), Shape((784,), 10), fedavg(lr=RATE, batch_size=batch), seed=0, rounds=1, cohort=clients,
                  probe=(x[:8], y[:8]), name=name)  # fmt: skip
        if all(
            e.record["provider"] != o.record["provider"] or o.record["group"] != e.record["group"]
            for o in engines.values()
        ):
            engines[name] = e
    variants = {
        "central": central(make, x, y, batch, clients),
        "plain": plain(make, x, y, batch, clients),
        **{f"engine {name}": engine(e, federation, clients) for name, e in engines.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, run in variants.items():
            began = time.process_time()
            run()
            seconds[name].append(time.process_time() - began)
    median = {name: statistics.median(s[1:]) for name, s in seconds.items()}  # the first warms up
    least = {name: min(s[1:]) for name, s in seconds.items()}
    steps = clients * -(-ROWS // batch)
    rows = [
        {
            "variant": name,
            "us_step": median[name] / steps * 1e6,
            "over_plain": median["plain"] / median[name],
            "over_central": median["central"] / median[name],
            "noisy": abs(median["plain"] / median[name] / (least["plain"] / least[name]) - 1) > 0.15,
            **({k: engines[name.split()[1]].record[k] for k in ("provider", "group")} if " " in name else {}),
        }
        for name in variants
    ]
    return {
        "case": case,
        "batch": batch,
        "clients": clients,
        "rows": ROWS,
        "torch": torch.__version__,
        "variants": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), action="append")
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [measure(case, asked.batch, asked.repeats) for case in asked.case or CASES]
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'case':6} {'variant':18} {'provider':9} {'K':>4} {'us/step':>9} {'over plain':>11} {'over central':>13}")
    for one in found:
        for v in one["variants"]:
            print(f"{one['case']:6} {v['variant']:18} {v.get('provider', ''):9} {v.get('group', ''):>4} "
                  f"{v['us_step']:9.1f} {v['over_plain']:11.2f} {v['over_central']:13.2f}"
                  f"{'  noisy' if v['noisy'] else ''}")  # fmt: skip


if __name__ == "__main__":
    main()
