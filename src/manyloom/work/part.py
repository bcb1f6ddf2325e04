"""Training a part of the model while the rest stays where the server left it."""

from __future__ import annotations

from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots


def partly(work: Work, index: Tensor, rest: Tensor) -> Work:
    """`work` on w[index] [p]; w[rest] is the server's "rest": no gradient, no decay, nothing sent.

    Args:
        work: any rule that keeps no memory.
        index, rest: where the part and all else lie in theta, [p] and [d - p].
    """

    def begin(down: Slots, kept: Slots, seen: Seen) -> tuple[Tensor, State]:
        part, state = work.begin(down, kept, seen)
        w = part.new_empty(*part.shape[:-1], len(index) + len(rest))
        w[..., index], w[..., rest] = part, down["rest"]
        return w, state

    def step(w: Tensor, grad: Tensor, state: State) -> None:
        part = w[..., index]
        work.step(part, grad[..., index], state)
        w[..., index] = part

    def finish(w: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        return work.finish(w[..., index], down, state, kept, seen)

    return work._replace(begin=begin, step=step, finish=finish)
