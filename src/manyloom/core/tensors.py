"""Crossings between torch and plain Python, typed: torch's own annotations leave them open."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import Tensor

from_numpy = cast("Callable[[npt.NDArray[Any]], Tensor]", torch.from_numpy)  # pyright: ignore[reportUnknownMemberType]


def floats(t: Tensor) -> list[float]:
    """A vector as Python numbers.

    >>> floats(torch.tensor([1, 2]))
    [1.0, 2.0]
    """
    return cast("list[float]", t.double().flatten().cpu().numpy().tolist())


def ints(t: Tensor) -> list[int]:
    """A vector of whole numbers as Python's.

    >>> ints(torch.tensor([1.0, 2.0]))
    [1, 2]
    """
    return cast("list[int]", t.long().flatten().cpu().numpy().tolist())


@contextmanager
def torch_seeded(seed: int) -> Generator[None, None, None]:
    """Seed torch's own generator for a while; afterwards it is as it was."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
    try:
        yield
    finally:
        torch.set_rng_state(state)
