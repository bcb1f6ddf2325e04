"""The files of parties as they are: read, checked against what `[data]` says of them, made into holdings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.validate import nearest, show
from manyloom.data.parties import Holding, holding, lacking, texts_of
from manyloom.data.rows import PARQUET, read_file
from manyloom.data.sources.frame import Cells, Frame, infer
from manyloom.data.sources.shape import Choice, labelled, unlabelled
from manyloom.data.table import Table, TableSchema, Target

Columns = Sequence[str]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class OwnFile(NamedTuple):
    """One party's file as read."""

    party: str
    name: str
    columns: Mapping[str, Cells]


def party_of(
    file: OwnFile, choice: Choice, ids: Columns, standardise: bool, separator: str, header: bool
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
    try:
        made = holding(table, file.party, mine, standardise=standardise, y=y, separator=separator, header=header)
    except BadInput as error:  # an infinite number: of which file?
        raise BadInput(*(replace(p, where=file.name) for p in error.problems)) from error
    return made, told


def read_all(
    parties: Mapping[str, str], missing: Columns, separator: str, header: bool, names: set[str]
) -> list[OwnFile]:
    """The file of each party; a column of names or ids keeps its texts as they are: "007" is not 7."""
    files: list[OwnFile] = []
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
        files.append(OwnFile(party, file.name, cells))
    if wrong:
        raise BadInput(*wrong)
    return files


# ---- what may be wrong


def wrong_names(parties: Mapping[str, str]) -> list[Problem]:
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


def wrong_ids(ids: Columns, types: Columns, label: str) -> list[Problem]:
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


def wrong_separator(separator: str) -> list[Problem]:
    if len(separator) == 1:
        return []
    return [Problem("out-of-range", "separator must be one character", f"separator = {separator!r} in [data]",
                    mend='separator = "," or ";" or "\\t"')]  # fmt: skip


def wrong_label(files: Sequence[OwnFile], label: str) -> list[Problem]:
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


def wrong_columns(files: Sequence[OwnFile], choice: Choice, ids: Columns) -> list[Problem]:
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
