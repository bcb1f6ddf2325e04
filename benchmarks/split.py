"""A split network on default_credit: what the second party brings, fewer bits, a defence and its leak, a party lost.

    OMP_NUM_THREADS=1 python -m benchmarks.split [--data-dir DIR] [--part joint] [--seeds 3] [--json]

24,000 rows to train on, 6,000 held out (scikit-learn's stratified split, random_state 0, after joining on id); label
party 13 columns, feature party 10. Bottoms 13-32-16 and 10-32-16, top ReLU-32-1, Adam 2e-3, batches of 256, 8 passes.
A seed draws weights and batches; the rows held out stay. Parts:

    joint     both parties, and the label party alone
    bits      16, 8, 4 and 2 bits a number at the cut
    defence   none, isotropic, max-norm: AUC, and the leak meter (mean and 95 % quantile over a pass's batches)
    dropout   0, 0.25, 0.5: AUC with the feature party, and without it
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from manyloom.core.exchange import Ask, Exchange, Lost, Reply, play
from manyloom.core.metrics import auc, score
from manyloom.core.slots import Slots, size_bytes
from manyloom.models.split import SplitModel
from manyloom.privacy.source import Source
from manyloom.vertical import split
from manyloom.vertical.party import Party
from manyloom.vertical.passes import Leaked, held_out
from manyloom.vertical.settings import Cut

T = TypeVar("T")
SETTINGS = split.SplitLearning(lr=0.002, batch_size=256, optimiser="adam")
TEST = 0.2


class Rows(NamedTuple):
    """Joined rows: the label party's columns, the feature party's, labels, and whether a row is held out."""

    guest: Tensor
    host: Tensor
    y: Tensor
    held: Tensor


class Outcome(NamedTuple):
    """One run."""

    auc: float
    train: float
    alone: float  # without the feature party, where that can be made up for
    leaks: Sequence[Leaked]
    mb: float  # a pass, both ways
    seconds: float


def read(folder: Path) -> Rows:
    """The two files of default_credit, joined on id."""
    own = folder / "finance" / "fate_vertical"
    own = own if own.is_dir() else folder
    guest, host = (pd.read_csv(own / f"default_credit_hetero_{who}.csv.gz") for who in ("guest", "host"))
    both = guest.merge(host, on="id", suffixes=("", "_host"))
    y = both["y"].to_numpy()
    _, test = train_test_split(np.arange(len(y)), test_size=TEST, random_state=0, stratify=y)
    held = torch.zeros(len(y), dtype=torch.bool)
    held[test] = True
    a = len(guest.columns) - 2
    x = torch.tensor(both.drop(columns=["id", "y"]).to_numpy(np.float32))
    return Rows(x[:, :a].contiguous(), x[:, a:].contiguous(), torch.tensor(y), held)


def run(rows: Rows, seed: int, cut: Cut, *, passes: int = 8, host: bool = True, noise: Source | None = None) -> Outcome:
    """Train and judge; rows stand so that those held out by the seed are those held out by the split."""
    m = len(rows.y)
    train, test = held_out(m, TEST, seed)
    at = torch.empty(m, dtype=torch.long)
    at[train], at[test] = (~rows.held).nonzero().squeeze(1), rows.held.nonzero().squeeze(1)
    names = ["host"] if host else []
    party = Party("host", [], rows.host)
    memory: Slots = {"rows": at}
    there = True

    def answer(ask: Ask) -> list[Reply | Lost]:
        nonlocal memory
        if not there:
            return [Lost(int(k), "away", "switched off") for k in ask.to]
        handler = algorithm.handlers[ask.verb]
        body, changes = handler.run(ask.body | dict(ask.each.get(0, {})), {**handler.memory, **memory}, party)
        memory |= changes
        return [Reply(ask.to, body, sent=size_bytes(body))]

    def plays(exchange: Exchange[T]) -> T:
        return play(exchange, answer)

    algorithm = split.passes(
        SplitModel(), SETTINGS, cut, seed=seed, rounds=passes, x=rows.guest[at], y=rows.y[at], classes=2,
        parties=names, test=TEST, source=noise)  # fmt: skip
    began = time.process_time()
    state, leaks, mb, loss = algorithm.start(), [], 0.0, 0.0
    for r in range(1, passes + 1):
        one = plays(algorithm.one(state, r))
        state, loss, mb = one.state, one.loss, (one.sent_up + one.sent_down) / 1e6
        leaks += one.leaks
    seconds = time.process_time() - began
    judged = plays(algorithm.judge(state, passes))
    found = auc(score(judged.output), judged.y == 1)
    there = False
    alone = float("nan")
    if host and cut.on_missing == "impute":
        judged = plays(algorithm.judge(state, passes))
        alone = auc(score(judged.output), judged.y == 1)
    return Outcome(found, loss, alone, leaks, mb, seconds)


def line(name: str, got: Sequence[Outcome]) -> dict[str, object]:
    """One row of the table."""
    aucs = [round(o.auc, 4) for o in got]
    row: dict[str, object] = {"setting": name, "auc": aucs, "mean": round(float(np.mean(aucs)), 4)}
    row |= {"mb_a_pass": round(got[0].mb, 3), "cpu_s": round(float(np.mean([o.seconds for o in got])), 1)}
    if not np.isnan(got[0].alone):
        row["without host"] = [round(o.alone, 4) for o in got]
    if got[0].leaks:
        each = np.array([[x.norm_mean, x.norm_q95, x.cosine_mean, x.cosine_q95] for o in got for x in o.leaks])
        row["norm mean, q95, cosine mean, q95"] = [round(float(v), 3) for v in each.mean(0)]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("MANYLOOM_DATA"))
    parser.add_argument("--part", choices=["joint", "bits", "defence", "dropout"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passes", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.data_dir is None:
        parser.error("give --data-dir, or set MANYLOOM_DATA")
    rows = read(Path(args.data_dir))
    plain = Cut(defence="none")
    table: dict[str, list[tuple[str, Cut, bool]]] = {
        "joint": [("joint, no defence", plain, True), ("label party alone", plain, False)],
        "bits": [(f"{b} bits, no defence", plain._replace(bits=b), True) for b in (16, 8, 4, 2)],
        "defence": [
            ("none", plain, True),
            ("isotropic, t = 0.25", Cut(defence="isotropic", strength=0.25), True),
            ("isotropic, t = 1", Cut(defence="isotropic", strength=1.0), True),
            ("max-norm", Cut(), True),
        ],
        "dropout": [
            (f"dropout {p}, no defence", plain._replace(dropout=p, on_missing="impute"), True) for p in (0, 0.25, 0.5)
        ],
    }
    for part, settings in table.items():
        if args.part in (None, part):
            for name, cut, host in settings:
                got = [run(rows, s, cut, passes=args.passes, host=host) for s in range(args.seeds)]
                row = {"part": part, "passes": args.passes} | line(name, got)
                print(json.dumps(row) if args.json else "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
