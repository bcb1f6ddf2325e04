"""From the columns of a file to a table: what is predicted, what is learnt from, whose row is whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.validate import nearest, show
from manyloom.data.arrays import F64, I64
from manyloom.data.sources.frame import Cells, Frame, infer
from manyloom.data.table import Column, Table, TableSchema, Target, encode_labels

FEW = 20  # whole numbers of at most so many values are classes


class Choice(NamedTuple):
    """The keys of `[data]` that say what the columns are."""

    label: str
    target: Target | None = None
    key: str | None = None
    features: Sequence[str] | None = None
    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    missing: tuple[str, ...] = ()


def shape(
    frame: Frame, choice: Choice, files: tuple[Sequence[str], I64] | None
) -> tuple[Table, tuple[list[str], I64] | None]:
    """The table of all rows that have a label, and their natural clients: names, and the number of each row's.

    `files` says which file a row came from; a key column goes before it.
    """
    _known(frame, choice)
    features = _features(frame, choice)
    rows, y, target, labels = labelled(frame, choice)
    raw = unlabelled(frame, features, choice)
    schema = replace(raw.schema, label=choice.label, target=target, labels=labels)
    table = Table(schema, raw.numbers[rows], raw.codes[rows], raw.values, y)
    return table, _groups(frame, choice, files, rows)


def labelled(frame: Frame, choice: Choice) -> tuple[I64, I64 | F64, Target, tuple[str, ...]]:
    """The rows that have a label, their labels, what kind it is, and the names of classes."""
    label = frame.columns[choice.label]
    here = np.array([bool(t) for t in label.as_texts()])
    if not here.any():
        raise bad(
            "data-corrupt",
            f"no row of {frame.name} has a label",
            got=f'label = "{choice.label}" in [data]',
            rule="a row needs a label to learn from",
            mend="choose another column, or check missing in [data]",
        )
    target = choice.target or guess(label)
    rows = np.flatnonzero(here)
    y, labels = _labels(label, target, rows, choice)
    if target == "class" and len(labels) < 2:
        raise bad(
            "out-of-range",
            "there is nothing to tell apart: every row has the same label",
            got=f'label = "{choice.label}" is "{next(iter(labels))}" in all {len(rows)} rows of {frame.name}',
            rule="a class needs a second one",
            mend="choose another label",
        )
    return rows, y, target, labels


def unlabelled(frame: Frame, features: Sequence[str], choice: Choice) -> Table:
    """The feature columns of all rows, with y of zeros; the schema names no label."""
    columns: list[Column] = []
    numbers: list[F64] = []
    codes: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    values: list[tuple[str, ...]] = []
    for name in features:
        cells = frame.columns[name]
        if cells.numbers is not None and name not in choice.categorical:
            columns.append(Column(name, "number"))
            numbers.append(cells.numbers)
            continue
        if name not in choice.categorical:
            _stray(name, cells, frame.name)
        columns.append(Column(name, "category"))
        code, known = categories(cells.as_texts())
        codes.append(code)
        values.append(known)
    n = len(frame)
    return Table(
        TableSchema(tuple(columns), "", missing=choice.missing),
        np.stack([*numbers], axis=1) if numbers else np.zeros((n, 0)),
        np.stack([*codes], axis=1) if codes else np.zeros((n, 0), np.int32),
        tuple(values),
        np.zeros(n),
    )


def guess(label: Cells) -> Target:
    """Class for texts, booleans and whole numbers of at most 20 values; else number."""
    if label.numbers is None or label.kind == "bool":
        return "class"
    here = label.numbers[~np.isnan(label.numbers)]
    return "class" if label.kind == "int" and len(np.unique(here)) <= FEW else "number"


def categories(texts: Sequence[str]) -> tuple[np.ndarray[tuple[int], np.dtype[np.int32]], tuple[str, ...]]:
    """Codes of texts and what they stand for; -1 where there is none.

    >>> categories(["b", "", "a"])
    (array([ 1, -1,  0], dtype=int32), ('a', 'b'))
    """
    known = sorted({t for t in texts if t})
    code: dict[str, int] = {t: i for i, t in enumerate(known)} | {"": -1}
    return np.array([code[t] for t in texts], np.int32), tuple(known)


def _labels(cells: Cells, target: Target, rows: I64, choice: Choice) -> tuple[I64 | F64, tuple[str, ...]]:
    if target == "class":
        texts = cells.as_texts()
        return encode_labels([texts[int(i)] for i in rows])
    if cells.numbers is None:
        example = next(t for t in cells.texts if t and infer([t]).numbers is None)
        raise bad(
            "wrong-type",
            f'label "{choice.label}" holds text, so it is no number',
            got=f'"{example}"',
            rule='target = "number" in [data] predicts numbers',
            mend='target = "class"',
        )
    y = cells.numbers[rows]
    if not np.isfinite(y).all():
        raise bad(
            "not-finite",
            f'label "{choice.label}" holds infinite values',
            got=f"first in row {int(rows[np.flatnonzero(~np.isfinite(y))[0]]) + 1}",
            mend="clean it",
        )
    return y, ()


def _features(frame: Frame, choice: Choice) -> list[str]:
    never = {choice.label, choice.key, *choice.drop}
    if choice.features is None:
        features = [c for c in frame.columns if c not in never]
    else:
        features = [c for c in choice.features if c not in choice.drop]
        for name in (choice.label, choice.key):
            if name in features:
                raise bad(
                    "out-of-range",
                    f'column "{name}" can\'t be a feature',
                    got="features in [data]",
                    rule="neither the label nor the key is one",
                    mend=f'leave "{name}" out of features',
                )
    if not features:
        raise bad(
            "out-of-range",
            "there is no column to learn from",
            got=f"columns {show(list(frame.columns))}",
            rule="at least one feature",
            mend="name some: features = [...] in [data]",
        )
    return features


def _groups(
    frame: Frame, choice: Choice, files: tuple[Sequence[str], I64] | None, rows: I64
) -> tuple[list[str], I64] | None:
    if choice.key is not None:
        texts = frame.columns[choice.key].as_texts()
        if nowhere := sum(not texts[i] for i in rows.tolist()):
            raise bad(
                "out-of-range",
                f"{nowhere} rows belong to no client",
                got=f'no value of key "{choice.key}"',
                rule="every row names its client",
                mend="mend or remove these rows",
            )
        code, names = encode_labels(texts)
        if names and names[0] == "":  # only rows without a label have no key
            code, names = code - 1, names[1:]
        return list(names), code[rows]
    return (list(files[0]), files[1][rows]) if files else None


def _known(frame: Frame, choice: Choice) -> None:
    wrong: list[Problem] = []
    asked: Mapping[str, Sequence[str]] = {
        "label": [choice.label],
        "key": [choice.key] if choice.key is not None else [],
        "features": choice.features or [],
        "drop": choice.drop,
        "categorical": choice.categorical,
    }
    for key, names in asked.items():
        for name in names:
            if name not in frame.columns:
                near = nearest(name, frame.columns)
                value = f'"{name}"' if key in ("label", "key") else f'[..., "{name}", ...]'
                some = ", ".join(list(frame.columns)[:12]) + (", ..." if len(frame.columns) > 12 else "")
                wrong.append(
                    Problem(
                        "unknown-name",
                        f'{frame.name} has no column "{name}"',
                        f"{key} = {value} in [data]",
                        rule=f"it has {some}",
                        mend=f'did you mean "{near}"?' if near else None,
                    )
                )
    if wrong:
        raise BadInput(*wrong)


def _stray(name: str, cells: Cells, file: str) -> None:
    """Refuse a column of numbers that a few texts would turn into hundreds of categories."""
    here = [t for t in cells.texts if t]
    texts = {t for t in set(here) if infer([t]).numbers is None}
    if len(texts) <= 3 and len(set(here)) > FEW and sum(t in texts for t in here) <= 0.05 * len(here):
        first = next(t for t in here if t in texts)
        raise bad(
            "wrong-type",
            f'column "{name}" of {file} is numbers, but for {sum(t in texts for t in here)} values',
            got=f'"{first}", first in row {list(cells.texts).index(first) + 1}',
            rule="a column is numbers, or names",
            mend=f'if it means "no value", add "{first}" to missing in [data]; or categorical = ["{name}"]',
        )
