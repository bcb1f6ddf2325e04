"""How near compressed updates are, how small, and how fast they are made.

    OMP_NUM_THREADS=1 python benchmarks/compression.py [--case error] [--case speed] [--json]

One thread. Two tables of one run:

    error   vNMSE = E||x - xhat||^2 / ||x||^2 of EDEN, of rows of normal and of lognormal numbers and of rows with two
            large coordinates, beside D/(1 - D) of the Lloyd-Max quantiser; within 2 % of it
    speed   CPU milliseconds to pack and to unpack one update of a million coordinates, the median of the repetitions,
            and the bytes of its message; EDEN at 1 bit within 60 ms
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyloom.core.parts import Transform
from manyloom.core.seeds import Draw
from manyloom.core.slots import size_bytes
from manyloom.transforms import eden, qsgd, random_k, top_k, uniform

TABLE = {1: 0.570796, 2: 0.133121, 3: 0.035784, 4: 0.009592, 8: 0.000041}
DIGIT = 5e-7  # half of the table's last
WITHIN = 0.02
MOST_MS = 60.0
WIDE = 1_000_000


def two(rows: int, d: int, rng: torch.Generator) -> Tensor:
    x = torch.zeros(rows, d)
    x[:, :2] = 1.0
    return x


INPUTS: dict[str, Callable[[int, int, torch.Generator], Tensor]] = {
    "normal": lambda rows, d, rng: torch.randn(rows, d, generator=rng),
    "lognormal": lambda rows, d, rng: torch.randn(rows, d, generator=rng).exp(),
    "e1 + e2": two,
}
SPEED: dict[str, Transform] = {
    **{f"eden {bits}": eden(bits) for bits in (1, 2, 4, 8)},
    "qsgd 16": qsgd(16),
    "uniform 8": uniform(8),
    "top_k 1 %": top_k(0.01),
    "random_k 1 %": random_k(0.01),
}


def through(t: Transform, x: Tensor) -> Tensor:
    draw = Draw(0, 1, np.arange(len(x), dtype=np.uint64))
    assert t.apply is not None
    return t.undo(t.apply({"u": x}, {}, {}, draw)[0], draw)["u"]


def errors(rows: int, d: int) -> list[dict[str, Any]]:
    """A line a number of bits."""
    found: list[dict[str, Any]] = []
    inputs = {n: make(rows, d, torch.Generator().manual_seed(0)).double() for n, make in INPUTS.items()}
    for bits, table in TABLE.items():
        each = {
            n: float(((x - through(eden(bits), x.float())).square().sum(1) / x.square().sum(1)).mean())
            for n, x in inputs.items()
        }
        ok = all(abs(v - table) <= WITHIN * table + DIGIT for v in each.values())
        found.append({"bits": bits, "table": table, "measured": each, "ok": ok})
    return found


def speeds(repeats: int) -> list[dict[str, Any]]:
    """A line a transform."""
    x = torch.randn(1, WIDE, generator=torch.Generator().manual_seed(0))
    draw = Draw(0, 1, np.zeros(1, np.uint64))
    found: list[dict[str, Any]] = []
    for name, t in SPEED.items():
        assert t.apply is not None
        ms: dict[str, list[float]] = {"encode": [], "decode": []}
        message = t.apply({"u": x}, {}, {}, draw)[0]
        told = size_bytes(t.size({"u": torch.empty(WIDE, device="meta")}))
        assert told == size_bytes(message)
        t.undo(message, draw)
        halves = {"encode": partial(t.apply, {"u": x}, {}, {}, draw), "decode": partial(t.undo, message, draw)}
        for _ in range(repeats):
            for what, half in halves.items():
                began = time.process_time()
                half()
                ms[what].append(1e3 * (time.process_time() - began))
        line: dict[str, Any] = {
            "transform": name,
            "bytes": told,
            **{f"{what}_ms": statistics.median(v) for what, v in ms.items()},
        }
        found.append(line | ({"ok": line["encode_ms"] <= MOST_MS} if name == "eden 1" else {}))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=["error", "speed"], action="append")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--d", type=int, default=131_072)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cases = asked.case or ["error", "speed"]
    found: dict[str, Any] = {"torch": torch.__version__}
    if "error" in cases:
        found |= {"rows": asked.rows, "d": asked.d, "error": errors(asked.rows, asked.d)}
    if "speed" in cases:
        found["speed"] = speeds(asked.repeats)
    if asked.json:
        print(json.dumps(found, indent=2))
        return
    if "error" in found:
        print(f"vNMSE of EDEN, {asked.rows} rows of {asked.d} coordinates")
        print(f"{'bits':>4} {'table':>10} " + " ".join(f"{n:>10}" for n in INPUTS) + "   within 2 %")
        for line in found["error"]:
            each = " ".join(f"{v:10.6f}" for v in line["measured"].values())
            print(f"{line['bits']:4} {line['table']:10.6f} {each}   {'yes' if line['ok'] else 'NO'}")
    if "speed" in found:
        print(f"one update of {WIDE} coordinates, {4 * WIDE} bytes as float32, one thread")
        print(f"{'transform':14} {'encode ms':>10} {'decode ms':>10} {'bytes':>10} {'times less':>11}")
        for line in found["speed"]:
            ok = f"   {'within' if line['ok'] else 'NOT within'} {MOST_MS:g} ms" if "ok" in line else ""
            print(f"{line['transform']:14} {line['encode_ms']:10.1f} {line['decode_ms']:10.1f} {line['bytes']:10} "
                  f"{4 * WIDE / line['bytes']:11.1f}{ok}")  # fmt: skip


if __name__ == "__main__":
    main()
