"""Parties with different columns of the same people: your own files, and two public sets cut by columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from manyloom.core import seeds
from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.text import count
from manyloom.core.validate import AtLeast, Below, checked, nearest, show
from manyloom.data.arrays import I64
from manyloom.data.parties import Holding, Parties, holding, lacking, texts_of
from manyloom.data.rows import PARQUET, read_file
from manyloom.data.sources.found import find
from manyloom.data.sources.frame import Cells, Frame, infer, read_csv
from manyloom.data.sources.registry import BREAST_CANCER, CSV, DEFAULT_CREDIT
from manyloom.data.sources.shape import Choice, labelled, unlabelled
from manyloom.data.table import MISSING, Column, Table, TableSchema, Target

Columns = Sequence[str]
Share = Annotated[float, Below(1)]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class _File(NamedTuple):
    """One party's file as read."""

    party: str
    name: str
    columns: Mapping[str, Cells]


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
    if wrong := [*_names(parties), *_types(ids, id_types, label), *_separator(separator)]:
        raise BadInput(*wrong)
    files = _read(parties, missing, separator, header, {*categorical, *ids})
    if wrong := [*_whose(files, label), *_unknown(files, choice, ids)]:
        raise BadInput(*wrong)
    made: dict[str, Holding] = {}
    kind: tuple[Target, tuple[str, ...]] = "class", ()
    for file in files:
        try:
            made[file.party], told = _holding(file, choice, ids, standardise, separator, header)
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


def _holding(
    file: _File, choice: Choice, ids: Columns, standardise: bool, separator: str, header: bool
) -> tuple[Holding, tuple[Target, tuple[str, ...]] | None]:
    """A party's rows, and what its label is if it has one."""
    frame = Frame(file.name, file.columns)
    never = {choice.label, *ids, *choice.drop}
    wanted = list(file.columns) if choice.features is None else choice.features
    names = [c for c in wanted if c in file.columns and c not in never]
    table = unlabelled(frame, names, choice)
    rows, y, told = np.arange(len(frame), dtype=np.int64), None, None
    if choice.label in file.columns:
        rows, y, target, labels = labelled(frame, choice)
        told = target, labels
        schema = TableSchema(table.schema.columns, choice.label, target, labels, choice.missing)
        table = Table(schema, table.numbers, table.codes, table.values, table.y).take(rows)
    elif not names:
        raise bad("out-of-range", f'party "{file.party}" has no column to learn from',
                  got=f"columns {show(list(file.columns))} of {file.name}", rule="a party without the label has one",
                  mend=f'leave "{file.party}" out of [parties], or check features and drop in [data]')  # fmt: skip
    texts = dict(zip(ids, texts_of(file.columns, ids), strict=True))
    mine = {n: [t[i] for i in rows.tolist()] for n, t in texts.items()}
    made = holding(table, file.party, mine, standardise=standardise, y=y, separator=separator, header=header)
    return made, told


def _read(parties: Mapping[str, str], missing: Columns, separator: str, header: bool, names: set[str]) -> list[_File]:
    """The file of each party; a column of names or ids keeps its texts as they are: "007" is not 7."""
    files: list[_File] = []
    wrong: list[Problem] = []
    for party, path in parties.items():
        file = Path(path).expanduser()
        if not file.is_file():
            near = nearest(file.name, [f.name for f in file.parent.iterdir()]) if file.parent.is_dir() else None
            wrong.append(Problem("data-missing", f'there is no file "{path}"', f"{party} = {show(path)} in [parties]",
                                 rule="a CSV or Parquet file, relative to the job file",
                                 mend=f"did you mean {file.parent / near}?" if near else None))  # fmt: skip
            continue
        try:
            raw = read_file(file, missing=missing, separator=separator, header=header)
        except BadInput as error:
            wrong += error.problems
            continue
        keep = file.suffix.lower() in PARQUET
        cells = {n: c if keep or n in names else infer(c.texts) for n, c in raw.items()}
        files.append(_File(party, file.name, cells))
    if wrong:
        raise BadInput(*wrong)
    return files


# ---- what may be wrong


def _names(parties: Mapping[str, str]) -> list[Problem]:
    """Two parties at least, whose names may be names of folders."""
    found: list[Problem] = []
    if len(parties) < 2:
        told = ", ".join(f"{n} = {show(p)}" for n, p in parties.items()) or "none"
        found.append(Problem("missing-key", "[parties] needs two parties at least", f"{told} in [parties]",
                             rule="one whose file has the label, and others that have features of the same people",
                             mend='add a line: shop = "shop.csv"'))  # fmt: skip
    seen: dict[str, str] = {}
    for name, path in parties.items():
        if not NAME.fullmatch(name):
            found.append(Problem("out-of-range", "the name of a party is a word", f"{name} = {show(path)} in [parties]",
                                 rule="letters, digits, - and _; at most 40",
                                 mend='as in shop = "shop.csv"'))  # fmt: skip
        if (other := seen.setdefault(name.casefold(), name)) != name:
            found.append(Problem("out-of-range", f'"{name}" and "{other}" differ in case alone',
                                 f"{name} = {show(path)} in [parties]", rule="a party's part is a folder of its name",
                                 mend="rename one"))  # fmt: skip
    return found


def _types(ids: Columns, types: Columns, label: str) -> list[Problem]:
    got = f"ids = {show(list(ids))} in [data]"
    found: list[Problem] = []
    if not ids:
        found.append(Problem("out-of-range", "rows need an id", got, rule="by it parties find the rows they share",
                             mend='ids = ["id"]'))  # fmt: skip
    elif len(set(ids)) < len(ids) or label in ids:
        what = "the label can't be an id" if label in ids else "an id column is named twice"
        found.append(Problem("contradiction", what, got, mend="name each column once"))
    if ids and len(ids) != len(types):
        found.append(Problem("contradiction", "ids and id_types must be as many",
                             f"id_types = {show(list(types))} in [data]", rule=f"ids = {show(list(ids))}",
                             mend="a type a column: " + show(["int"] * len(ids))))  # fmt: skip
    return found


def _separator(separator: str) -> list[Problem]:
    if len(separator) == 1:
        return []
    return [Problem("out-of-range", "separator must be one character", f"separator = {separator!r} in [data]",
                    mend='separator = "," or ";" or "\\t"')]  # fmt: skip


def _whose(files: Sequence[_File], label: str) -> list[Problem]:
    """One file has the label."""
    having = [f for f in files if label in f.columns]
    if len(having) == 1:
        return []
    got = f"label = {show(label)} in [data]"
    if having:
        names = " and ".join(f.name for f in having)
        return [Problem("contradiction", f'two parties have the label "{label}"', got, rule=f"a column of {names}",
                        mend="only the label party's file may have it: rename or remove the other")]  # fmt: skip
    near = [f'"{n}" of {f.name}' for f in files if (n := nearest(label, f.columns))]
    some = "; ".join(f"{f.name} has {', '.join(list(f.columns)[:6])}" for f in files[:3])
    return [Problem("unknown-name", f'no party has the label "{label}"', got, rule=some,
                    mend=f"did you mean {near[0]}?" if near else None)]  # fmt: skip


def _unknown(files: Sequence[_File], choice: Choice, ids: Columns) -> list[Problem]:
    """Id columns that a file lacks, and columns that no file has."""
    found = [p for f in files for p in lacking(f.columns, ids, f.name, f.party)]
    every = list(dict.fromkeys(n for f in files for n in f.columns))
    asked = {"features": choice.features or (), "drop": choice.drop, "categorical": choice.categorical}
    for key, names in asked.items():
        for name in names:
            got = f'{key} = [..., "{name}", ...] in [data]'
            if name not in every:
                near = nearest(name, every)
                found.append(Problem("unknown-name", f'no party has a column "{name}"', got,
                                     mend=f'did you mean "{near}"?' if near else None))  # fmt: skip
            elif key == "features" and name in (choice.label, *ids):
                found.append(Problem("out-of-range", f'column "{name}" can\'t be a feature', got,
                                     rule="neither the label nor an id is one",
                                     mend=f'leave "{name}" out of features'))  # fmt: skip
    return found
