"""Your own tables: CSV and Parquet."""

from __future__ import annotations

import glob
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np

from manyloom.core.errors import bad
from manyloom.core.validate import AtLeast, checked, nearest
from manyloom.data.arrays import I64
from manyloom.data.build import federate
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.frame import Cells, Frame, infer, join, read_csv, read_parquet
from manyloom.data.sources.info import SourceInfo
from manyloom.data.sources.registry import CSV, PARQUET
from manyloom.data.sources.shape import Choice, shape
from manyloom.data.table import MISSING

Columns = Sequence[str]
SUFFIXES = {
    "csv": (".csv", ".csv.gz", ".tsv", ".txt"),
    "parquet": (".parquet", ".pq"),
    "jsonl": (".jsonl", ".jsonl.gz", ".json", ".json.gz"),
    "text": (".txt", ".txt.gz"),
}


@checked
def csv(
    *,
    path: str,
    label: str,
    target: Literal["class", "number"] | None = None,
    key: str | None = None,
    features: Columns | None = None,
    drop: Columns = (),
    categorical: Columns = (),
    vocabulary: str = "federated",
    missing: Columns = MISSING,
    header: bool = True,
    separator: str = ",",
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = True,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """CSV files (also gzipped): rows of one file by a key column, or a file a client.

    Args:
        path: a file, or a folder or glob whose files are the clients; relative to the job file.
        label: the column to predict; rows without a label are left out.
        target: "class" or "number"; class for text, booleans and integers of at most 20 values.
        key: the column that says which client a row belongs to; never a feature.
        features: columns to learn from; all others by default.
        drop: columns to leave out.
        categorical: columns whose values are names, not amounts; text columns always are.
        vocabulary: of categorical columns: "federated" (each client names its values in the clear), or the
            path of a
            JSON file {column: [values]}.
        missing: texts that mean that there is no value.
        header: whether the first line names the columns; without one they are "0", "1", and so on.
        separator: between values.
        partition: how rows are dealt; by default a client a value of `key`, or a client a file.
        test: share held out at each client, of each class; 0.2 by default.
        standardise: federated means and scales; gaps get the mean.
        seed: of partition and held-out rows.
    """
    if len(separator) != 1:
        raise bad(
            "out-of-range",
            "separator must be one character",
            got=f"separator = {separator!r} in [data]",
            mend='separator = "," or ";" or "\\t"',
        )
    paths = expand(path, "csv")
    texts = [read_csv(p, missing, header, separator) for p in paths]
    _same_columns(paths, texts)
    joined = {name: [t for part in texts for t in part[name]] for name in texts[0]}
    # a column of names keeps its texts as they are: "007" is not 7
    columns = {name: Cells("text", t) if name in categorical else infer(t) for name, t in joined.items()}
    sizes = [len(next(iter(t.values()))) for t in texts]
    chosen = Choice(label, target, key, features, drop, categorical, tuple(missing))
    keys = {"path": path, "header": header, "separator": separator}
    return _federate(CSV, paths, columns, sizes, chosen, keys, vocabulary, partition, test, standardise, seed)


@checked
def parquet(
    *,
    path: str,
    label: str,
    target: Literal["class", "number"] | None = None,
    key: str | None = None,
    features: Columns | None = None,
    drop: Columns = (),
    categorical: Columns = (),
    vocabulary: str = "federated",
    missing: Columns = MISSING,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = True,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Parquet files (extra "parquet"): rows of one file by a key column, or a file a client.

    Args:
        path: a file, or a folder or glob whose files are the clients; relative to the job file.
        label: the column to predict; rows without a label are left out.
        target: "class" or "number"; class for text, booleans and integers of at most 20 values.
        key: the column that says which client a row belongs to; never a feature.
        features: columns to learn from; all others by default.
        drop: columns to leave out.
        categorical: columns whose values are names, not amounts; text columns always are.
        vocabulary: of categorical columns: "federated" (each client names its values in the clear), or the
            path of a
            JSON file {column: [values]}.
        missing: texts that mean that there is no value, beside null.
        partition: how rows are dealt; by default a client a value of `key`, or a client a file.
        test: share held out at each client, of each class; 0.2 by default.
        standardise: federated means and scales; gaps get the mean.
        seed: of partition and held-out rows.
    """
    paths = expand(path, "parquet")
    parts = [read_parquet(p, '[data] source = "parquet"', categorical) for p in paths]
    _same_columns(paths, parts)
    gone = {m.strip() for m in missing}
    joined = {name: _without(join([part[name] for part in parts]), gone) for name in parts[0]}
    sizes = [len(next(iter(p.values()))) for p in parts]
    chosen = Choice(label, target, key, features, drop, categorical, tuple(missing))
    return _federate(
        PARQUET, paths, joined, sizes, chosen, {"path": path}, vocabulary, partition, test, standardise, seed
    )


def expand(path: str, kind: str) -> list[Path]:
    """The files that a path names: itself, those of a folder, or those of a glob, by name."""
    p = Path(path).expanduser()
    if p.is_file():
        return [p]
    if p.is_dir():
        found = sorted(f for f in p.iterdir() if f.is_file() and f.name.lower().endswith(SUFFIXES[kind]))
    else:
        found = sorted(f for f in map(Path, glob.glob(str(p))) if f.is_file())
    if not found:
        near = nearest(p.name, [f.name for f in p.parent.iterdir()]) if p.parent.is_dir() else None
        what = f'there is no {kind} file in "{path}"' if p.is_dir() else f'there is no file "{path}"'
        raise bad(
            "data-missing",
            what,
            got=f'path = "{path}" in [data]',
            where=f"looked in {p.parent.resolve()}",
            rule="a file, a folder or a glob; relative to the job file",
            mend=f"did you mean {p.parent / near}?" if near else f"files that end in {', '.join(SUFFIXES[kind])}",
        )
    return found


def stems(paths: Sequence[Path]) -> list[str]:
    """Names of files as clients: up to the first dot, or whole where two would be alike."""
    short = [p.name.split(".")[0] for p in paths]
    return short if len(set(short)) == len(short) else [p.name for p in paths]


def _federate(
    info: SourceInfo,
    paths: Sequence[Path],
    columns: Mapping[str, Cells],
    sizes: Sequence[int],
    chosen: Choice,
    keys: Mapping[str, object],
    vocabulary: str,
    partition: Partition | None,
    test: TestKey,
    standardise: bool,
    seed: int,
) -> Federation:
    file = paths[0].name if len(paths) == 1 else f"{len(paths)} files of {paths[0].parent.name}"
    origin = (stems(paths), np.repeat(np.arange(len(paths)), sizes)) if len(paths) > 1 else None
    table, groups = shape(Frame(file, columns), chosen, origin)
    words = None if vocabulary == "federated" else _vocabulary(vocabulary, table.schema.categories)
    given = {
        **keys,
        "label": chosen.label,
        "target": table.schema.target,
        "key": chosen.key,
        "features": None if chosen.features is None else list(chosen.features),
        "drop": list(chosen.drop),
        "categorical": list(chosen.categorical),
        "vocabulary": vocabulary,
        "missing": list(chosen.missing),
    }
    place = f' of key "{chosen.key}"' if chosen.key else ""
    named: tuple[Sequence[str], Sequence[str], I64] | None = (groups[0], groups[0], groups[1]) if groups else None
    return federate(
        table,
        info,
        partition=partition,
        test=test,
        seed=seed,
        groups=named,
        standardise=standardise,
        keys={k: v for k, v in given.items() if v is not None},
        vocabulary=words,
        empty=f"{place}: no row has a label",
    )


def _same_columns(paths: Sequence[Path], parts: Sequence[Mapping[str, Any]]) -> None:
    for path, part in zip(paths, parts, strict=True):
        lacks = [name for name in parts[0] if name not in part]
        more = [name for name in part if name not in parts[0]]
        if lacks or more:
            got = " and ".join([f"lacks {_quoted(lacks)}"] * bool(lacks) + [f"has also {_quoted(more)}"] * bool(more))
            raise bad(
                "columns-missing",
                f"{path.name} has other columns than {paths[0].name}",
                got=f"it {got}",
                rule="the files of a folder have the same columns",
                mend="rename, add or remove columns",
            )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f'"{n}"' for n in names[:8]) + (", ..." if len(names) > 8 else "")


def _without(cells: Cells, gone: set[str]) -> Cells:
    return cells if cells.numbers is not None else Cells("text", ["" if t in gone else t for t in cells.texts])


def _vocabulary(path: str, columns: Sequence[str]) -> dict[str, list[str]]:
    file = Path(path).expanduser()
    rule = 'a JSON file {"column": ["value", ...]}, or vocabulary = "federated"'
    if not file.is_file():
        raise bad(
            "data-missing",
            f'there is no vocabulary file "{path}"',
            got=f'vocabulary = "{path}" in [data]',
            rule=rule,
            mend='vocabulary = "federated" asks the clients',
        )
    try:
        value: object = json.loads(file.read_text("utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is no table of columns")
        words = cast("dict[str, list[Any]]", value)
        return {c: [v if isinstance(v, str) else json.dumps(v) for v in words[c]] for c in columns if c in words}
    except (ValueError, TypeError) as error:
        raise bad("data-corrupt", f"{file.name} is no vocabulary", got=str(error), rule=rule) from error
