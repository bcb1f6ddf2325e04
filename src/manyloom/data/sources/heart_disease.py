"""UCI Heart Disease: four hospitals, shipped with Manyloom."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import numpy as np

from manyloom.core.validate import AtLeast, checked
from manyloom.data.build import federate
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.registry import HEART_DISEASE
from manyloom.data.table import Column, Table, TableSchema

COLUMNS = (
    "age",
    "sex",
    "cp",
    "trestbps",
    "chol",
    "fbs",
    "restecg",
    "thalach",
    "exang",
    "oldpeak",
    "slope",
    "ca",
    "thal",
)
HOSPITALS = {
    "cleveland": ("Cleveland", "cleveland"),
    "hungarian": ("Hungary", "hungary"),
    "switzerland": ("Switzerland", "switzerland"),
    "va": ("Long Beach VA", "long-beach-va"),
}


@checked
def heart_disease(
    *,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = True,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Does a patient have heart disease? 920 patients of four hospitals, 13 columns with gaps.

    Codes are used as numbers. Cholesterol of 0, which means unknown, is left as it is: all of Switzerland.

    Args:
        partition: how patients are dealt; by default each hospital is a client.
        test: share held out at each client, of each class; 0.2 by default.
        standardise: federated means and scales; gaps get the mean.
        seed: of partition and held-out rows.

    >>> heart_disease()
    Federation(heart-disease, 4 hospitals, 740 patients + 180 held out, 2 classes)
    """
    folder = files("manyloom.data").joinpath("files", "heart_disease")
    blocks = [_read(folder.joinpath(f"processed.{stem}.data").read_text("utf-8")) for stem in HOSPITALS]
    raw = np.concatenate(blocks)
    hospital = np.repeat(np.arange(len(blocks)), [len(b) for b in blocks])
    schema = TableSchema(tuple(Column(c) for c in COLUMNS), "disease", "class", ("healthy", "disease"))
    table = Table(schema, raw[:, :13], np.zeros((len(raw), 0), np.int32), (), (raw[:, 13] > 0).astype(np.int64))
    return federate(
        table,
        HEART_DISEASE,
        partition=partition,
        test=test,
        seed=seed,
        standardise=standardise,
        groups=([h[0] for h in HOSPITALS.values()], [h[1] for h in HOSPITALS.values()], hospital),
        client_word=("hospital", "hospitals"),
        row_word=("patient", "patients"),
    )


def _read(text: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    rows = [[np.nan if v == "?" else float(v) for v in line.split(",")] for line in text.splitlines() if line]
    return np.array(rows, np.float64).reshape(len(rows), 14)
