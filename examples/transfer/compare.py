"""Who gains what: a site without labels by alignment, a shop without labels by distillation; three seeds each.

python -m examples.transfer.compare digits [DOMAIN ...] [--seeds 3 4 5]
python -m examples.transfer.compare credit [OVERLAP ...] [--seeds 0 1 2] --data-dir DIR
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

import manyloom as ml
from manyloom.job.kinds import AnyJob
from manyloom.job.toml import read

HERE = Path(__file__).parent
DOMAINS = ("rotated", "blurred", "inverted")


def digits(domain: str, eta: float, seed: int, rounds: int = 400) -> float:
    """Accuracy on the target's own held-out digits, after the last round; eta = 0 never looks at the target."""
    changes = {"data.domain": domain, "algorithm.eta": eta, "job.seed": seed, "data.seed": seed, "job.rounds": rounds,
               "job.eval_every": rounds}  # fmt: skip
    last = _last(read(HERE / "digits.toml", changes), "evaluated")
    return float(last.clients[3]["accuracy"])  # type: ignore[attr-defined]


def credit(overlap: int, labels: str, seed: int, data_dir: str | None, rounds: int = 10) -> float:
    """AUC of the shop's student on 6 000 held-out customers, by the shop's columns alone, after the last pass."""
    changes = {"data.overlap": overlap, "algorithm.labels": labels, "job.seed": seed, "job.rounds": rounds,
               "job.eval_every": rounds}  # fmt: skip
    last = _last(read(HERE / "credit.toml", changes, data_dir=data_dir), "run_done")
    return float(last.final["auc"])  # type: ignore[attr-defined]


def _last(job: AnyJob, kind: str) -> object:
    with tempfile.TemporaryDirectory() as home:
        return [e for e in ml.run(job, home=home) if e.type == kind][-1]


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[float], Sequence[float]]]) -> list[tuple[str, float]]:
    """Print rows of two columns, by seed and mean; the difference of the means of each."""
    print(f"{head[0]:<12}{head[1]:<36}{head[2]:<36}gain")
    found: list[tuple[str, float]] = []
    for name, one, other in rows:
        cells = ["  ".join(f"{v:.3f}" for v in values) + f"  mean {fmean(values):.3f}" for values in (one, other)]
        found.append((name, fmean(other) - fmean(one)))
        print(f"{name:<12}{cells[0]:<36}{cells[1]:<36}{found[-1][1]:+.3f}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> list[tuple[str, float]]:
    ask = argparse.ArgumentParser(description="who gains what by transfer")
    ask.add_argument("what", choices=["digits", "credit"])
    ask.add_argument("which", nargs="*")
    ask.add_argument("--seeds", type=int, nargs="+")
    ask.add_argument("--data-dir")
    ask.add_argument("--rounds", type=int)
    given = ask.parse_args(arguments)
    if given.what == "digits":
        seeds, rounds = given.seeds or [3, 4, 5], given.rounds or 400
        rows = ((d, [digits(d, 0.0, s, rounds) for s in seeds], [digits(d, 0.3, s, rounds) for s in seeds])
                for d in given.which or DOMAINS)  # fmt: skip
        return table(("target", "unaligned head", "aligned"), rows)
    seeds, rounds = given.seeds or [0, 1, 2], given.rounds or 10
    pairs = ((n, [credit(int(n), how, s, given.data_dir, rounds) for s in seeds])
             for n in given.which or ("100", "500", "2000") for how in ("hard", "soft"))  # fmt: skip
    halves = list(pairs)
    return table(("overlap", "labels handed over", "distilled"),
                 [(n, hard, soft) for (n, hard), (_, soft) in zip(halves[::2], halves[1::2])])  # fmt: skip


if __name__ == "__main__":
    main()
