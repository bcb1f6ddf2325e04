"""Sending some of the coordinates: the largest, or random ones."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from manyloom.core.parts import Transform
from manyloom.core.seeds import U64, counters
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import Above, Within, checked, share_of
from manyloom.transforms.packed import Code, like, packed

Part = Annotated[float, Above(0), Within(0, 1)]


@checked
def top_k(share: Part, names: tuple[str, ...] = ("u",), d: int | None = None) -> Transform:
    """The k largest magnitudes (Stich et al. 2018, arXiv:1809.07599): biased, so best under error feedback.

    Of equal magnitudes the first. Values float32 [k] under the slot's own name, places int32 [k], ascending.

    Args:
        share: k = share d, rounded up.
        names: the slots it acts on, each alone.
        d: their length, where it is known.
    """
    part = float(share)

    def encode(x: Tensor, size: float, key: U64) -> Slots:
        k = share_of(part, len(x))
        at = largest(x, k)
        return {"": x[at].float(), "at": at.int()}

    def decode(parts: Slots, n: int, key: U64) -> Tensor:
        at = parts["at"].long()
        if int(at.min()) < 0 or int(at.max()) >= n:
            raise ValueError(f"a place is not one of {n}")
        return scattered(parts[""], at, n)

    def size(n: int) -> Slots:
        k = share_of(part, n)
        return {"": like(k, torch.float32), "at": like(k, torch.int32)}

    return packed(Code("top_k", encode, decode, size, lambda n: 1.0), names, d)


@checked
def random_k(
    share: Part,
    names: tuple[str, ...] = ("u",),
    d: int | None = None,
    *,
    shared: bool = False,
    biased: bool = False,
) -> Transform:
    """k random coordinates times d/k: unbiased, vNMSE d/k - 1.

    Both ends draw the places, so only the values travel, float32 [k]. With one mask for all, packing is linear: the sum
    of packed messages is the packed sum, which a secure channel can carry.

    Args:
        share: k = share d, rounded up.
        names: the slots it acts on, each alone.
        d: their length, where it is known.
        shared: one mask for all clients of a round.
        biased: without the factor d/k, as error feedback needs.
    """
    part = float(share)

    def encode(x: Tensor, size: float, key: U64) -> Slots:
        k = share_of(part, len(x))
        kept = x[drawn(key, len(x), k)]
        return {"": (kept if biased else kept.double() * (len(x) / k)).float()}

    def decode(parts: Slots, n: int, key: U64) -> Tensor:
        return scattered(parts[""], drawn(key, n, share_of(part, n)), n)

    code = Code(
        "random_k",
        encode,
        decode,
        lambda n: {"": like(share_of(part, n), torch.float32)},
        lambda n: 1.0 if biased else n / share_of(part, n),
        shared,
    )

    def bound(norm: float) -> float:  # where d is unknown, d/k is 1/share at most
        return norm * (code.factor(d) if d is not None else 1.0 if biased else 1 / part)

    return packed(code, names, d)._replace(bound=bound, summable=shared)


def largest(x: Tensor, k: int) -> Tensor:
    """Where the k largest magnitudes of x [n] are, ascending; of equal ones the first.

    >>> largest(torch.tensor([1.0, -3.0, 1.0, 2.0]), 3).tolist()
    [0, 1, 3]
    """
    size = x.abs()
    least = torch.topk(size, k, sorted=False).values.min()
    above = size > least
    ties = (size == least).nonzero().flatten()[: k - int(above.sum())]
    above[ties] = True
    return above.nonzero().flatten()


def drawn(key: U64, n: int, k: int) -> Tensor:
    """k of n places, all choices alike, ascending: where the smallest of n hashes are."""
    if k == n:
        return torch.arange(n)
    return from_numpy(np.sort(np.argpartition(counters(key, n)[0], k - 1)[:k]))


def scattered(values: Tensor, at: Tensor, n: int) -> Tensor:
    """A vector [n] that is 0 where no value is."""
    return torch.zeros(n, dtype=values.dtype).index_copy_(0, at, values)
