"""Writes a file a party with customers that were not trained on, as if they had come in today: 500 of those held out.

    python -m examples.bank_and_shop.new_customers OUT [DIR]

OUT is where bank.csv and shop.csv are written, each in an order of its own; DIR holds the sets. Without DIR they are
clinic.csv and lab.csv of the breast-cancer set, which comes with scikit-learn.
"""

import csv
import sys
from pathlib import Path

import torch

from examples.bank_and_shop.alone import aligned
from manyloom.data.parties import Holding, Parties
from manyloom.data.sources.vertical import breast_cancer_parties, default_credit
from manyloom.vertical.passes import held_out


def write(
    parties: Parties, out: Path, *, test: float = 0.2, seed: int = 0, most: int = 500, unknown: int = 0
) -> list[Path]:
    """A file a party; `seed` is the joint job's. The last `unknown` rows of the label party's are in no other file."""
    rows = aligned(parties)
    new = held_out(len(rows[0]), test, seed)[1][:most]
    out.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []
    for i, (party, at) in enumerate(zip(parties.holdings, rows, strict=True)):
        mine = at[new] if party is parties.label else at[new[: len(new) - unknown]]
        shuffled = mine[torch.randperm(len(mine), generator=torch.Generator().manual_seed(i))]
        made.append(_file(party, shuffled, parties.labels, out / f"{party.name}.csv"))
    return made


def _file(party: Holding, rows: torch.Tensor, labels: tuple[str, ...], path: Path) -> Path:
    """Rows as the party has them: what it scaled is scaled back."""
    reader = party.reader
    x = (
        party.x[rows].double() * torch.from_numpy(reader.preprocess.sd) + torch.from_numpy(reader.preprocess.mean)
    ).tolist()
    label = [reader.preprocess.schema.label] if party.y is not None else []
    with path.open("w", newline="") as file:
        to = csv.writer(file)
        to.writerow([*reader.ids, *party.columns, *label])
        for values, row in zip(x, rows.tolist(), strict=True):
            own = [labels[int(party.y[row])]] if party.y is not None else []
            to.writerow([*(column[row] for column in party.ids), *(f"{v:.6g}" for v in values), *own])
    return path


if __name__ == "__main__":
    out, *rest = map(Path, sys.argv[1:])
    print(*write(default_credit(data_dir=str(rest[0])) if rest else breast_cancer_parties(), out))
