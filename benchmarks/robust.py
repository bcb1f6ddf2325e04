"""How fast robust rules are, beside one product X @ X.T and one torch.sort over the clients, and beside byzfl.

    OMP_NUM_THREADS=1 python -m benchmarks.robust [--n 50 100] [--d 1000000] [--byzfl PYTHON] [--json]

One thread, CPU seconds of the process, the variants interleaved, the median of the repetitions; f = n/5, float32. A
rule is timed as the round calls it: screened, its condition checked, the aggregate and who was filtered. Memory is the
peak beyond what the process held with the cohort in it, in a process of its own, over the bytes of the cohort.

*Target* is what numpy and torch were seen to reach on another machine (seconds, d = 1M): compare ratios, not seconds.

PYTHON is the interpreter of an environment with byzfl; `benchmarks/robust_byzfl.py` says what is timed there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from manyloom.aggregate import RULES, screen
from manyloom.core.parts import Aggregator

PRODUCT, SORT = "X @ X.T", "torch.sort"
TARGET = {  # n -> seconds at d = 1M
    50: {"median": 0.167, "trimmed-mean": 0.196, "krum": 0.117, "multi-krum": 0.130, "geometric-median": 0.137},
    100: {"median": 0.472, "trimmed-mean": 0.559, "krum": 0.409, "multi-krum": 0.504, "geometric-median": 0.401},
}
LEVELS = {  # rule -> (against, at most so many times its seconds)
    "median": (SORT, 1 / 5), "trimmed-mean": (SORT, 1 / 5), "krum": (PRODUCT, 1.5), "geometric-median": (PRODUCT, 1.5),
}  # fmt: skip
MEMORY = 0.25


def rules(n: int) -> dict[str, Aggregator]:
    """Every rule with f = n/5, and the two mixed ones."""
    f = n // 5
    plain = {name: make(f=f) for name, make in RULES.items() if name != "mean"}
    mixed = {f"nnm, {name}": RULES[name](f=f, pre="nnm") for name in ("trimmed-mean", "geometric-median")}
    return plain | mixed


def cohort(n: int, d: int) -> Tensor:
    """Updates [n, d], standard normal, seeded."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def timed(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def memory(name: str, n: int, d: int) -> float:
    """Peak bytes of one reduce beyond the cohort's own, over the cohort's bytes. In a process of its own."""
    small, x = cohort(n, 1000), cohort(n, d)
    rules(n)[name].reduce({"u": small}, torch.ones(n), {})
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is held now
    held = resident("VmRSS")
    rules(n)[name].reduce({"u": x}, torch.ones(n), {})
    return max(0.0, resident("VmHWM") - held) / (x.numel() * x.element_size())


def resident(what: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most so far (VmHWM). Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


class Peer:
    """byzfl in its own process: one line asks for a rule, one line answers with seconds."""

    def __init__(self, python: str, n: int, d: int) -> None:
        script = Path(__file__).with_name("robust_byzfl.py")
        self.process = subprocess.Popen(
            [python, str(script), str(n), str(d)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.names = set(self.process.stdout.readline().strip().split("|"))

    def __call__(self, name: str) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def measure(n: int, d: int, repeats: int, python: str | None) -> list[dict[str, object]]:
    """A row a variant: seconds, ratios, target, memory."""
    x = cohort(n, d)
    ones = torch.ones(n, dtype=torch.float64)
    variants: dict[str, Callable[[], object]] = {
        PRODUCT: lambda: x @ x.T,
        SORT: lambda: x.sort(dim=0),
        "screen": lambda: screen({"u": x}),
    }
    for name, rule in rules(n).items():
        variants[name] = lambda rule=rule: rule.reduce({"u": x}, ones, {})
    peer = Peer(python, n, d) if python else None
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    theirs: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            seconds[name].append(timed(run))
            if peer and name in peer.names:
                theirs[name].append(peer(name))
    took = {name: median(s) for name, s in seconds.items()}
    rows: list[dict[str, object]] = []
    for name, s in took.items():
        against, most = LEVELS.get(name, (None, 0.0))
        taken = None
        if name in rules(n):
            command = [sys.executable, "-m", "benchmarks.robust", "--memory", name, "--n", str(n), "--d", str(d)]
            taken = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append({
            "rule": name, "n": n, "d": d, "seconds": s, "over_product": s / took[PRODUCT],
            "sort_over": took[SORT] / s, "target_seconds": TARGET.get(n, {}).get(name) if d == 1_000_000 else None,
            "memory": taken, "byzfl_seconds": median(theirs[name]) if theirs[name] else None,
            "level": f"{'at least 5 x faster than' if most < 1 else 'at most 1.5 x'} {against}" if against else None,
            "reached": None if against is None else s <= most * took[against],
            "memory_reached": None if taken is None else taken <= MEMORY,
        })  # fmt: skip
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""

    def cell(value: object, form: str = ".3f") -> str:
        return format(value, form) if isinstance(value, float) else ""

    lines = ["| rule | s | target, s | over X @ X.T | torch.sort over it | memory | byzfl, s | level | |",
             "|---|---:|---:|---:|---:|---:|---:|---|---|"]  # fmt: skip
    for r in rows:
        verdict = {None: "", True: "reached", False: "NOT REACHED"}[r["reached"]]  # pyright: ignore[reportArgumentType]
        if r["memory_reached"] is False:
            verdict = "MEMORY"
        taken = f"+{cell(100 * r['memory'], '.0f')} %" if isinstance(r["memory"], float) else ""
        lines.append(
            f"| {r['rule']} | {cell(r['seconds'])} | {cell(r['target_seconds'])} | {cell(r['over_product'], '.2f')} "
            f"| {cell(r['sort_over'], '.1f')} | {taken} | {cell(r['byzfl_seconds'])} | {r['level'] or ''} | {verdict} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, nargs="+", default=[50])
    parser.add_argument("--d", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--byzfl", metavar="PYTHON", help="interpreter of an environment with byzfl")
    parser.add_argument("--memory", metavar="RULE", help="only the peak memory of one rule")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory:
        print(memory(given.memory, given.n[0], given.d))
        return
    found: list[dict[str, object]] = []
    for n in given.n:
        rows = measure(n, given.d, given.repeats, given.byzfl)
        found += rows
        if not given.json:
            print(f"\nn = {n}, d = {given.d}, f = {n // 5}, one thread, median of {given.repeats}\n\n{table(rows)}")
    if given.json:
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
