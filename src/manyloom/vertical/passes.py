"""A vertical algorithm as the run sees it: a first state, a pass over the aligned rows, a judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.exchange import Exchange, Handler, Lost
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy

I64 = npt.NDArray[np.int64]


class Leaked(NamedTuple):
    """How much of the labels one party can read off its gradients, over a pass: AUCs, 1/2 is nothing."""

    party: int
    batches: int
    norm_mean: float
    norm_q95: float
    cosine_mean: float
    cosine_q95: float


class Pass(NamedTuple):
    """What a pass came to."""

    state: Slots  # the driver's next state
    loss: float  # mean over the pass
    steps: int
    rows: int
    sent_up: int  # bytes of the feature parties' tensors
    sent_down: int  # bytes sent to them
    leaks: Sequence[Leaked] = ()
    lost: Sequence[Lost] = ()
    enough: bool = True  # False: a party was lost, and the state is what it was


class Judged(NamedTuple):
    """What the joint model says of held-out rows: outputs [m, C] and labels [m], at the label party alone."""

    output: Tensor
    y: Tensor
    loss: float
    sent_up: int
    sent_down: int
    lost: Sequence[Lost] = ()


@dataclass(frozen=True)
class Passes:
    """A vertical algorithm.

    Args:
        name: as `[algorithm]` calls it.
        start: the driver's state before the first pass.
        one: (state, round) -> a pass; round counts from 1.
        judge: (state, round) -> outputs for the held-out aligned rows.
        handlers: what feature parties answer, verb -> handler.
        threats: who learns what: (label party, feature party, hub, rests on).
        traffic: (aligned rows to train on, of them held out) -> bytes up and down of a pass and of a judgement.
        parts: what the label party's part of the model is, by name, for saving: state -> tensors.
    """

    name: str
    start: Callable[[], Slots]
    one: Callable[[Slots, int], Exchange[Pass]]
    judge: Callable[[Slots, int], Exchange[Judged]]
    handlers: Mapping[str, Handler]
    threats: tuple[str, str, str, str]
    traffic: Callable[[int, int], tuple[tuple[int, int], tuple[int, int]]]
    parts: Callable[[Slots], Slots] = lambda state: {}


def held_out(m: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Which of m aligned rows are trained on and which are held out: places in the agreed order, ascending.

    Both sides know m, the share and the seed, so no places travel.

    >>> train, test = held_out(10, 0.2, seed=0)
    >>> len(train), len(test), sorted(train.tolist() + test.tolist()) == list(range(10))
    (8, 2, True)
    """
    order = shuffled(m, seed, 0, "aligned/held out")
    k = int(m * share)
    return order[k:].sort().values, order[:k].sort().values


def shuffled(m: int, seed: int, round: int, purpose: str) -> Tensor:
    """A permutation of range(m) that both sides draw alike, int64 [m]."""
    keys = seeds.key(seed, round, np.zeros(1, np.uint64), purpose)
    return from_numpy(seeds.permutations(keys, np.array([m], np.int64))[0])
