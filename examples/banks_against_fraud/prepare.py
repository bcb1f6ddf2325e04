"""Deals the public sample of card payments to five banks and writes one CSV: a row a payment, the bank as its key.

    python examples/banks_against_fraud/prepare.py DIR/finance/ulb_creditcard_sample/creditcard_sample.csv [OUT.csv]

The file has no banks. Here each has a kind of fraud: frauds are clustered by k-means (5, scaled columns, seed 0), nine
of ten go to the bank of their kind and the rest anywhere; other payments are dealt 40, 25, 15, 12 and 8 %. `Time`
orders the rows of the sample and is left out; `Amount` becomes log(1 + x). Scales are left to the job, which federates
them.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

BANKS = ("bank-1", "bank-2", "bank-3", "bank-4", "bank-5")
OTHERS = (0.40, 0.25, 0.15, 0.12, 0.08)
STRAY = 0.1


def read(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the columns, x [n, 29] with the logarithm of the amount, fraud [n]."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    names = [f"V{i}" for i in range(1, 29)]
    x = np.array([[float(row[head.index(name)]) for name in (*names, "Amount")] for row in rows])
    x[:, -1] = np.log1p(x[:, -1])
    return [*names, "log_amount"], x, np.array([row[head.index("Class")] for row in rows]) == "1"


def deal(x: np.ndarray, fraud: np.ndarray, seed: int = 0) -> np.ndarray:
    """The bank of each row [n], 0 to 4; the commonest kind of fraud is that of bank 0.

    >>> x = np.repeat(np.eye(5), 40, axis=0) + np.random.default_rng(1).normal(0, 0.01, (200, 5))
    >>> bank = deal(np.vstack([x, x]), np.arange(400) < 200)
    >>> np.bincount(bank[200:]).tolist()
    [80, 50, 30, 24, 16]
    """
    draw, bank = np.random.default_rng(seed), np.empty(len(x), np.int64)
    scaled = (x - x.mean(0)) / x.std(0)
    kind = KMeans(len(BANKS), n_init=10, random_state=seed).fit_predict(scaled[fraud])
    rank = np.argsort(np.argsort(-np.bincount(kind, minlength=len(BANKS)), kind="stable"))
    bank[fraud] = np.where(draw.random(len(kind)) < STRAY, draw.integers(0, len(BANKS), len(kind)), rank[kind])
    rest = np.flatnonzero(~fraud)
    ends = np.round(np.cumsum(OTHERS) * len(rest)).astype(int)
    bank[draw.permutation(rest)] = np.searchsorted(ends, np.arange(len(rest)), side="right")
    return bank


def write(path: Path, names: list[str], x: np.ndarray, fraud: np.ndarray, bank: np.ndarray) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["bank", "fraud", *names])
        for i, row in enumerate(x):
            writer.writerow([BANKS[bank[i]], int(fraud[i]), *(f"{value:.6g}" for value in row)])


def main() -> None:
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "banks.csv"
    names, x, fraud = read(Path(sys.argv[1]))
    bank = deal(x, fraud)
    write(out, names, x, fraud, bank)
    sizes = ", ".join(f"{name} {(bank == i).sum()} ({(fraud & (bank == i)).sum()})" for i, name in enumerate(BANKS))
    print(f"{out}: {len(x)} payments (frauds): {sizes}")


if __name__ == "__main__":
    main()
