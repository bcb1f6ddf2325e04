"""Two small sets that scikit-learn carries: no files needed."""

from __future__ import annotations

from typing import Annotated, Any, cast

import numpy as np

from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import AtLeast, checked
from manyloom.data.build import federate
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.registry import BREAST_CANCER, DIGITS
from manyloom.data.table import Column, Table, TableSchema


@checked
def digits(
    *,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Handwritten digits, 8 x 8 pixels as 64 numbers in [0, 1]: 1 797 rows, 10 classes.

    Args:
        partition: how rows are dealt; required, as digits have no writers.
        test: share held out at each client, of each class; 0.2 by default.
        standardise: pixels are in [0, 1] already; must stay false.
        seed: of partition and held-out rows.

    >>> from manyloom.data.partition import dirichlet
    >>> digits(partition=dirichlet(clients=50, alpha=0.3), seed=7).classes
    10
    """
    not_a_table(standardise, "digits")
    from sklearn.datasets import load_digits  # pyright: ignore[reportMissingTypeStubs]

    bunch = cast(Any, load_digits())
    x = from_numpy(np.asarray(bunch.data, np.float32) / np.float32(16))
    y = from_numpy(np.asarray(bunch.target, np.int64))
    return federate(
        (x, y),
        DIGITS,
        partition=partition,
        test=test,
        seed=seed,
        labels=[str(i) for i in range(10)],
        row_word=("image", "images"),
    )


@checked
def breast_cancer(
    *,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = True,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Is a tumour benign? 569 patients, 30 measurements of cell nuclei, 2 classes.

    Args:
        partition: how rows are dealt; required, as the set names no hospitals.
        test: share held out at each client, of each class; 0.2 by default.
        standardise: federated means and scales.
        seed: of partition and held-out rows.
    """
    from sklearn.datasets import load_breast_cancer  # pyright: ignore[reportMissingTypeStubs]

    bunch = cast(Any, load_breast_cancer())
    names = [str(n) for n in bunch.feature_names]
    schema = TableSchema(tuple(Column(n) for n in names), "diagnosis", "class", tuple(map(str, bunch.target_names)))
    numbers = np.asarray(bunch.data, np.float64)
    table = Table(schema, numbers, np.zeros((len(numbers), 0), np.int32), (), np.asarray(bunch.target, np.int64))
    return federate(
        table,
        BREAST_CANCER,
        partition=partition,
        test=test,
        seed=seed,
        standardise=standardise,
        row_word=("patient", "patients"),
    )


def not_a_table(standardise: bool, source: str) -> None:
    """Refuse to standardise what is no table."""
    if standardise:
        raise bad(
            "out-of-range",
            f"{source} can't be standardised",
            got="standardise = true in [data]",
            rule="only tables are: heart-disease, breast-cancer, csv, parquet",
            mend="standardise = false",
        )
