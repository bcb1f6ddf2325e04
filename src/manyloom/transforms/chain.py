"""Transforms one after another."""

from __future__ import annotations

from functools import reduce

from manyloom.core.parts import Transform
from manyloom.core.seeds import Draw
from manyloom.core.slots import Slots


def chain(*transforms: Transform) -> Transform:
    """One transform that applies all in order and undoes them in reverse; bounds compose, f_n(...f_1(C)).

    >>> chain(Transform(bound=lambda c: min(c, 2.0)), Transform(bound=lambda c: 3 * c)).bound(5.0)
    6.0
    """
    used = [t for t in transforms if t.name != "none" or t.apply is not None]
    if len(used) == 1:
        return used[0]

    def apply(message: Slots, memory: Slots, down: Slots, draw: Draw) -> tuple[Slots, Slots]:
        for t in transforms:
            if t.apply is not None:
                message, memory = t.apply(message, memory, down, draw)
        return message, memory

    def undo(message: Slots, draw: Draw) -> Slots:
        return reduce(lambda m, t: t.undo(m, draw), reversed(transforms), message)

    def bound(norm: float) -> float:
        for t in transforms:
            norm = t.bound(norm)
        return norm

    def size(message: Slots) -> Slots:
        return reduce(lambda m, t: t.size(m), transforms, message)

    return Transform(
        name=", ".join(t.name for t in used) or "none",
        apply=apply if any(t.apply for t in transforms) else None,
        undo=undo,
        bound=bound,
        memory={name: length for t in transforms for name, length in t.memory.items()},
        size=size,
        summable=all(t.summable for t in used),
    )
