"""Parties with different columns of the same people: your own files, and two public sets cut by columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.core.errors import BadInput, bad
from manyloom.core.text import count
from manyloom.core.validate import AtLeast, Below, checked
from manyloom.data.arrays import I64
from manyloom.data.parties import Holding, Parties, holding
from manyloom.data.sources.found import find
from manyloom.data.sources.frame import Cells, infer, read_csv
from manyloom.data.sources.own_files import (
    party_of,
    read_all,
    wrong_columns,
    wrong_ids,
    wrong_label,
    wrong_names,
    wrong_separator,
)
from manyloom.data.sources.registry import BREAST_CANCER, CSV, DEFAULT_CREDIT
from manyloom.data.sources.shape import Choice
from manyloom.data.table import MISSING, Column, Table, TableSchema, Target

Columns = Sequence[str]
Share = Annotated[float, Below(1)]


@checked
def csv_parties(
    *,
    parties: Mapping[str, str],
    label: str,
    ids: Columns,
    id_types: Sequence[Literal["int", "text", "bytes"]],
    target: Literal["class", "number"] | None = None,
    features: Columns | None = None,
    drop: Columns = (),
    categorical: Columns = (),
    missing: Columns = MISSING,
    header: bool = True,
    separator: str = ",",
    test: Share = 0.2,
    standardise: bool = True,
) -> Parties:
    """CSV (also gzipped) or Parquet files, one a party; the one whose file has the label is the label party.

    Args:
        parties: name of a party -> its file; `[parties]` in a job file.
        label: the column to predict, in one party's file alone; its rows without a label are left out.
        ids: the columns that say whose row it is, called alike in all files, in the agreed order; never features.
        id_types: what each id column is, whatever it is stored as: "int", "text" or "bytes".
        target: "class" or "number"; class for text, booleans and integers of at most 20 values.
        features: columns to learn from, of whichever file has them; all others by default.
        drop: columns to leave out, of whichever file has them.
        categorical: columns whose values are names, not amounts; text columns always are. Each party has a vocabulary
            of its own.
        missing: texts that mean that there is no value.
        header: whether the first line names the columns; without one they are "0", "1", and so on.
        separator: between values.
        test: share of the aligned rows that is held out.
        standardise: each party scales its columns by its own means and deviations; gaps get the mean.
    """
    choice = Choice(label, target, None, features, drop, categorical, tuple(missing))
    if wrong := [*wrong_names(parties), *wrong_ids(ids, id_types, label), *wrong_separator(separator)]:
        raise BadInput(*wrong)
    files = read_all(parties, missing, separator, header, {*categorical, *ids})
    if wrong := [*wrong_label(files, label), *wrong_columns(files, choice, ids)]:
        raise BadInput(*wrong)
    made: dict[str, Holding] = {}
    kind: tuple[Target, tuple[str, ...]] = "class", ()
    for file in files:
        try:
            made[file.party], told = party_of(file, choice, ids, standardise, separator, header)
            kind = told or kind
        except BadInput as error:
            wrong += error.problems
    if wrong:
        raise BadInput(*wrong)
    given: dict[str, object] = {"source": "csv", "label": label, "ids": list(ids), "id_types": list(id_types),
             "target": kind[0], "features": None if features is None else list(features), "drop": list(drop),
             "categorical": list(categorical), "missing": list(missing), "header": header, "separator": separator,
             "test": test, "standardise": standardise}  # fmt: skip
    tables = {"data": {k: v for k, v in given.items() if v is not None}, "parties": dict(parties)}
    first = next(f.party for f in files if label in f.columns)
    others = tuple(made[f.party] for f in files if f.party != first)
    return Parties(made[first], others, tuple(id_types), kind[0], len(kind[1]) or None, kind[1], test, info=CSV,
                   tables=tables)  # fmt: skip


@checked
def default_credit(
    *,
    overlap: Annotated[int | None, AtLeast(1)] = None,
    test: Share = 0.2,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
    data_dir: str | None = None,
) -> Parties:
    """Does a customer of the bank default? 30 000 people: the bank has 13 columns and the label, the shop 10.

    The columns are standardised as they come: the bank's are limit, bills and payments, the shop's are who somebody is
    and how late payments came. With `overlap = k` few people are known to both: of the 30 000, `test` of them (6 000)
    and k more are in the shop's file, drawn by `seed`, while the bank has all. Then k + 6 000 rows are aligned, 6 000
    of them are held out (`Parties.test` is that share of the aligned rows), and k are common to train on; the bank's
    other 24 000 - k rows have labels, and nothing of the shop.

    Args:
        overlap: so many rows to train on are common to both, for transfer; all by default.
        test: share of all rows that is held out.
        standardise: the columns are scaled already; true scales each party's again by its own rows.
        seed: of the rows that are common.
        data_dir: folder in which finance/fate_vertical lies.
    """
    contents = find(DEFAULT_CREDIT, data_dir, "two gzipped CSV files", instead="breast-cancer")
    bank, shop = (
        {n: infer(t) for n, t in read_csv(Path(f.name), (), content=content).items()}
        for f, content in zip(DEFAULT_CREDIT.files, contents, strict=True)
    )
    rows, share = np.arange(len(shop["id"]), dtype=np.int64), test
    if overlap is not None:
        rows, share = _common(len(rows), overlap, test, seed)
    y = np.asarray(bank["y"].numbers).astype(np.int64)
    keys = {"overlap": overlap, "test": test, "standardise": standardise, "seed": seed}
    return Parties(
        _of_numbers("bank", bank, np.arange(len(y)), standardise, "y", y),
        (_of_numbers("shop", shop, rows, standardise),),
        ("int",),
        "class",
        2,
        ("paid", "default"),
        share,
        ("customer", "customers"),
        DEFAULT_CREDIT,
        {"data": {"source": "default-credit", **{k: v for k, v in keys.items() if v is not None}}},
    )


@checked
def breast_cancer_parties(
    *,
    test: Share = 0.2,
    standardise: bool = True,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Parties:
    """Is a tumour benign? 569 patients: a clinic has the 10 mean measurements and the label, a lab the other 20.

    Args:
        test: share of the aligned rows that is held out.
        standardise: each party scales its columns by its own means and deviations.
        seed: of the order of the lab's rows, which is another than the clinic's.
    """
    from sklearn.datasets import load_breast_cancer  # pyright: ignore[reportMissingTypeStubs]

    bunch = cast(Any, load_breast_cancer())
    numbers, y = np.asarray(bunch.data, np.float64), np.asarray(bunch.target, np.int64)
    cells = {str(n): Cells("float", numbers=numbers[:, i]) for i, n in enumerate(bunch.feature_names)}
    cells["id"] = Cells("int", numbers=np.arange(len(y), dtype=np.float64))
    first = [n for n in cells if n.startswith("mean ")] + ["id"]
    clinic = {n: cells[n] for n in first}
    lab = {n: c for n, c in cells.items() if n == "id" or n not in first}
    labels = tuple(str(n) for n in bunch.target_names)
    return Parties(
        _of_numbers("clinic", clinic, np.arange(len(y)), standardise, "diagnosis", y, labels),
        (_of_numbers("lab", lab, _drawn(len(y), seed, "parties/order"), standardise),),
        ("int",),
        "class",
        2,
        labels,
        test,
        ("patient", "patients"),
        BREAST_CANCER,
        {"data": {"source": "breast-cancer", "test": test, "standardise": standardise, "seed": seed}},
    )


# ---- what is common, and who has what


def _common(n: int, overlap: int, test: float, seed: int) -> tuple[I64, float]:
    """The rows of n that the feature party has, ascending, and the share of them that is held out."""
    held = int(n * test)
    if overlap + held > n:
        raise bad("out-of-range", "the overlap is larger than what is there to train on",
                  got=f"overlap = {overlap} in [data]", rule=f"{count(n)} rows, of which {count(held)} are held out",
                  mend=f"overlap = {n - held}, or leave it out")  # fmt: skip
    both = overlap + held
    # half a row more: the whole part of (share x rows) is then `held`, however the division rounds
    return np.sort(_drawn(n, seed, "parties/overlap")[:both]), (held + 0.5) / both if held else 0.0


def _drawn(n: int, seed: int, purpose: str) -> I64:
    keys = seeds.key(seed, 0, np.zeros(1, np.uint64), purpose)
    return seeds.permutations(keys, np.array([n], np.int64))[0]


def _of_numbers(
    name: str,
    cells: Mapping[str, Cells],
    rows: npt.NDArray[np.int64],
    standardise: bool,
    label: str = "",
    y: I64 | None = None,
    labels: tuple[str, ...] = ("paid", "default"),
) -> Holding:
    """A party of columns of numbers and an id."""
    names = [n for n in cells if n not in ("id", label)]
    schema = TableSchema(tuple(Column(n) for n in names), label, "class", labels if label else ())
    x = np.stack([np.asarray(cells[n].numbers) for n in names], axis=1)[rows]
    table = Table(schema, x, np.zeros((len(rows), 0), np.int32), (), np.zeros(len(rows)))
    texts = cells["id"].as_texts()
    ids = {"id": [str(texts[i]) for i in rows.tolist()]}
    return holding(table, name, ids, standardise=standardise, y=None if y is None else y[rows])
