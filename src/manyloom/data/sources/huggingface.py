"""Sets of the Hugging Face hub, where the package `datasets` is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import numpy as np
import torch

from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import AtLeast, checked, nearest
from manyloom.data.build import federate
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.frame import Frame, arrow_cells, extra_missing
from manyloom.data.sources.registry import HUGGINGFACE
from manyloom.data.sources.shape import Choice, shape
from manyloom.data.table import MISSING, encode_labels


@checked
def huggingface(
    *,
    dataset: str,
    split: str = "train",
    label: str = "label",
    key: str | None = None,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
    data_dir: str | None = None,
) -> Federation:
    """A set of the Hugging Face hub, or a folder that `datasets` reads: images, or a table of numbers and texts.

    Args:
        dataset: name on the hub, or a path.
        split: which of its splits.
        label: the column to predict.
        key: the column that says which client a row belongs to.
        partition: how rows are dealt; by default a client a value of `key`.
        test: share held out at each client, of each class; 0.2 by default.
        standardise: federated means and scales, of a table.
        seed: of partition and held-out rows.
        data_dir: where `datasets` keeps its files; its own cache by default.
    """
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        raise extra_missing("huggingface", '[data] source = "huggingface"') from error
    try:
        rows: Any = datasets.load_dataset(dataset, split=split, cache_dir=data_dir)
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        raise bad(
            "data-missing",
            f'can\'t load the set "{dataset}"',
            got=str(error).splitlines()[0],
            rule="a name on the Hugging Face hub, or a folder; and one of its splits",
        ) from error
    names: list[str] = list(rows.column_names)
    for what, name in (("label", label), ("key", key)):
        if name is not None and name not in names:
            near = nearest(name, names)
            raise bad(
                "unknown-name",
                f'{dataset} has no column "{name}"',
                got=f'{what} = "{name}" in [data]',
                rule="it has " + ", ".join(names),
                mend=f'did you mean "{near}"?' if near else None,
            )
    images = next((n for n in names if type(rows.features[n]).__name__ == "Image"), None)
    keys: dict[str, object] = {"dataset": dataset, "split": split, "label": label}
    keys |= {} if key is None else {"key": key}
    groups = None
    if key is not None:
        code, known = encode_labels([str(v) for v in rows[key]])
        groups = (list(known), list(known), code)
    if images is None:
        table: Any = rows.with_format("arrow")[:]
        frame = Frame(dataset, {n: arrow_cells(table.column(n), n, dataset) for n in names})
        data, _ = shape(frame, Choice(label, None, key, missing=MISSING), None)
        if len(data) < len(frame) and groups is not None:
            kept = [i for i, t in enumerate(frame.columns[label].as_texts()) if t]
            groups = (groups[0], groups[1], groups[2][kept])
        return federate(
            data,
            HUGGINGFACE,
            partition=partition,
            test=test,
            seed=seed,
            groups=groups,
            keys=keys,
            standardise=standardise,
        )
    x = np.stack([_pixels(image) for image in rows[images]])
    feature: Any = rows.features[label]
    y = torch.tensor(list(rows[label]), dtype=torch.int64)
    labels = list(feature.names) if hasattr(feature, "names") else []
    return federate(
        (from_numpy(x), y),
        HUGGINGFACE,
        partition=partition,
        test=test,
        seed=seed,
        groups=groups,
        keys=keys,
        labels=labels,
        classes=len(labels) or None,
        row_word=("image", "images"),
    )


def _pixels(image: Any) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    array = np.asarray(image, np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)  # [channels, height, width]
