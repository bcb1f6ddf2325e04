"""numpy and torch side by side: the few crossings, typed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manyloom.core.tensors import from_numpy

Array = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


def as_tensor(array: Tensor | Array) -> Tensor:
    """A tensor over the array's own memory, also of a read-only memory map (which is never written)."""
    if isinstance(array, Tensor):
        return array
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return from_numpy(array)


def offsets(sizes: I64) -> I64:
    """Running sums with a leading 0: sizes [k] -> off [k + 1].

    >>> offsets(np.array([2, 3]))
    array([0, 2, 5])
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def any_of_row(mask: Tensor) -> Tensor:
    """Which rows hold a True: [n, ...] -> [n]."""
    return mask.flatten(1).any(1) if mask.dim() > 1 else mask
