"""Parts of the model that are trained in turn: a round trains and sends one, the others stay as they are.

RoLoRA: B at the first accepted aggregate, A at the second, and so on (Chen et al. 2025, NeurIPS, arXiv:2409.02346).
To everything that handles messages (transforms, rules, sums, noise) the model of such a round is its part, of length p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from manyloom.core.errors import bad
from manyloom.core.flat import Layout
from manyloom.core.parts import Aggregator
from manyloom.core.slots import Slots


class Turn(NamedTuple):
    """One part of theta [d]."""

    layout: Layout  # of the part
    places: Tensor  # [p], where it lies in theta
    rest: Tensor  # [d - p], all else


def turns_of(layout: Layout, parts: Sequence[Sequence[str]]) -> tuple[Turn, ...]:
    """The parts that patterns name, in their order; `turns-overlap` if two share a parameter.

    >>> from torch import nn
    >>> a, b = turns_of(Layout.of(nn.Linear(2, 1)), [["weight"], ["bias"]])
    >>> a.places.tolist(), b.places.tolist(), b.rest.tolist()
    ([0, 1], [2], [0, 1])
    """
    found: list[Turn] = []
    taken = torch.zeros(layout.d, dtype=torch.bool)
    for patterns in parts:
        mask = layout.mask(patterns)
        if (mask & taken).any():
            raise bad("turns-overlap", "a parameter is trained in two turns", got=", ".join(patterns),
                      rule="each parameter belongs to one turn", mend="name parts that share nothing")  # fmt: skip
        taken |= mask
        part, index = layout.part(patterns)
        found.append(Turn(part, index, (~mask).nonzero().squeeze(1)))
    return tuple(found)


def rules(aggregate: Aggregator, theta: Tensor, turns: Sequence[Turn]) -> Slots:
    """The rule's first state: one a turn, since its vectors are as long as the part."""
    if not turns:
        return aggregate.init(theta)
    return {f"{i}/{n}": t for i, turn in enumerate(turns) for n, t in aggregate.init(theta[turn.places]).items()}


def part_of(server: Slots, rule: Slots, turns: Sequence[Turn], number: int) -> tuple[Slots, Slots]:
    """Server and rule as a round of this turn knows them: theta is the part, "rest" rides along."""
    turn, theta = turns[number], server["theta"]
    own = {n.removeprefix(f"{number}/"): t for n, t in rule.items() if n.startswith(f"{number}/")}
    return {**server, "theta": theta[turn.places], "rest": theta[turn.rest], "turn": torch.tensor([number])}, own


def whole(
    server: Slots, rule: Slots, turns: Sequence[Turn], number: int, after: Slots, own: Slots
) -> tuple[Slots, Slots]:
    """Server and rule with what a round of this turn made of them."""
    theta = server["theta"].clone()
    theta[turns[number].places] = after["theta"]
    kept = {n: t for n, t in after.items() if n not in ("rest", "turn")}
    return {**kept, "theta": theta}, {**rule, **{f"{number}/{n}": t for n, t in own.items()}}
