"""Clipping by the L2 norm."""

from __future__ import annotations

import math
from typing import Annotated

import torch

from manyloom.core.parts import Transform
from manyloom.core.seeds import Draw
from manyloom.core.slots import Slots
from manyloom.core.validate import Above, checked
from manyloom.transforms.packed import norm


@checked
def clip(bound: Annotated[float, Above(0)], names: tuple[str, ...] = ("u",)) -> Transform:
    """u <- u min(1, C/||u||), the norm in float64.

    What is within C stays as it is, bit for bit; what is cut has at most C after rounding. Zero divides by nothing, and
    a row that is not finite stays one, for the gate to drop.

    Args:
        bound: C.
        names: the slots; the norm is that of all of them together.

    >>> import numpy as np
    >>> clip(5.0).apply({"u": torch.tensor([[6.0, 8.0], [0.0, 1.0]])}, {}, {}, Draw(0, 1, np.zeros(2, np.uint64)))[0]
    {'u': tensor([[3.0000, 4.0000],
            [0.0000, 1.0000]])}
    """

    def apply(message: Slots, memory: Slots, down: Slots, draw: Draw) -> tuple[Slots, Slots]:
        k = message[names[0]].shape[0]
        out = message | {name: message[name].clone() for name in names}
        for i in range(k):
            size = math.hypot(*(norm(message[name][i]) for name in names))
            if bound < size < math.inf:
                for name in names:
                    x = message[name][i]
                    shrink = 1 - torch.finfo(x.dtype).eps  # rounding goes up by half of that at most
                    out[name][i] = (x.double() * (bound / size * shrink)).to(x.dtype)
        return out, memory

    def least(norm: float) -> float:
        return min(norm, float(bound))

    return Transform("clip", apply, bound=least, summable=True)
