"""Writes the Adult census rows as one CSV of companies: a row a person, the occupation as the key column.

    python examples/companies/prepare.py DIR/enterprise/adult [OUT.csv]

Both files, 48,842 rows. A company is an occupation; those without one are a company too ("unknown"), Armed-Forces (15
rows) is left out. `fnlwgt`, a weight of the census, is dropped; gains and losses become log(1 + x).
"""

import csv
import gzip
import math
import sys
from collections.abc import Iterator
from pathlib import Path

COLUMNS = ("age", "workclass", "fnlwgt", "education", "education_num", "marital", "company", "relationship", "race",
           "sex", "gain", "loss", "hours", "country", "income")  # fmt: skip
KEPT = [name for name in COLUMNS if name != "fnlwgt"]
FILES = ("adult.data.gz", "adult.test.gz")
LEFT_OUT = "Armed-Forces"


def people(lines: Iterator[str]) -> Iterator[list[str]]:
    """Rows with the columns KEPT, from the lines of one of the original files.

    >>> line = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Own-child, White, Male, 2174, 0, 40, ?, <=50K."
    >>> next(people(iter(["|1x3 Cross validator", line])))[5:11]
    ['unknown', 'Own-child', 'White', 'Male', '7.6848', '0.0000']
    """
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(COLUMNS):
            continue  # a heading, an empty line
        row = dict(zip(COLUMNS, cells))
        if row["company"] == LEFT_OUT:
            continue
        row["company"] = "unknown" if row["company"] == "?" else row["company"]
        row["income"] = row["income"].rstrip(".")  # the test file writes a full stop
        row |= {name: f"{math.log1p(float(row[name])):.4f}" for name in ("gain", "loss")}
        yield [row[name] for name in KEPT]


def write(out: Path, folder: Path) -> list[list[str]]:
    """Both files of a folder as one CSV; the rows."""
    rows: list[list[str]] = []
    for name in FILES:
        with gzip.open(folder / name, "rt") as file:
            rows += people(file)
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(KEPT)
        writer.writerows(rows)
    return rows


def main() -> None:
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).parent / "companies.csv"
    rows = write(out, Path(sys.argv[1]))
    print(f"{out}: {len(rows)} people of {len({row[KEPT.index('company')] for row in rows})} companies")


if __name__ == "__main__":
    main()
