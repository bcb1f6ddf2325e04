"""Clients that lie, for simulation: what they send in place of their update, or learn in place of their labels.

An attacker acts after local training and before transforms and gate; its own finite check is skipped, as a malicious
site would skip it. Each attack is a pure function of what the honest sent, [h, d], and what the attackers would have
sent, [k, d], in every slot; what is random comes from one key an attacker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Annotated, NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Ids
from manyloom.core.seeds import U64, key
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import AtLeast, IntOrShare, checked, share_of


def as_trained(honest: Slots, own: Slots, keys: U64) -> Slots:
    """The attackers' own messages, unchanged."""
    return own


def true_labels(y: Tensor, classes: int) -> Tensor:
    """Labels as they are."""
    return y


class Attack(NamedTuple):
    """Who attacks and how.

    `send(honest, own, keys)` makes the attackers' messages, a row each; `label(y, classes)` what they train on.
    """

    name: str
    clients: int | float
    send: Callable[[Slots, Slots, U64], Slots] = as_trained
    label: Callable[[Tensor, int], Tensor] = true_labels
    table: Mapping[str, object] = {}


def attackers(clients: int | float, ids: U64, seed: int) -> Ids:
    """Who attacks, by index, ascending: those of the population's ids [N] with the smallest hash of (seed, id).

    Args:
        clients: how many, or their share of the population.
        ids: the clients' stable ids.
        seed: the job's.

    >>> attackers(0.4, np.arange(5, dtype=np.uint64), seed=0)
    array([1, 3])
    """
    drawn = key(seed, 0, ids, "attackers")
    return np.sort(np.argsort(drawn, kind="stable")[: share_of(clients, len(ids))]).astype(np.int64)


def flipped(y: Tensor, classes: int) -> Tensor:
    """y -> C-1-y, of any integer type.

    >>> flipped(torch.tensor([0, 1, 9]), 10).tolist()
    [9, 8, 0]
    """
    return classes - 1 - y


@checked
def label_flip(clients: IntOrShare) -> Attack:
    """Honest training on flipped labels, y -> C-1-y.

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
    """
    return Attack("label-flip", clients, label=flipped, table=_table("label-flip", clients))


@checked
def sign_flip(clients: IntOrShare, scale: float = 1.0) -> Attack:
    """-s x of the attacker's own honest update x.

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
        scale: s.
    """
    return _sends("sign-flip", clients, scale, lambda honest, own, keys: -scale * own)


@checked
def ipm(clients: IntOrShare, scale: float = 0.5) -> Attack:
    """-s mu, mu the mean of the honest updates: inner-product manipulation (Xie et al. 2020, UAI, arXiv:1903.03936).

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
        scale: s; .1 to .5 is hard to see, above (n-f)/f it turns the mean around.
    """
    return _sends("ipm", clients, scale, lambda honest, own, keys: (-scale * honest.mean(0)).expand_as(own))


@checked
def alie(clients: IntOrShare, scale: float | None = None) -> Attack:
    """mu - z sigma of the honest updates: "a little is enough" (Baruch et al. 2019, NeurIPS, arXiv:1902.06156).

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
        scale: z; without it what a majority of the cohort still hides, `hidden(n, f)`.
    """

    def send(honest: Tensor, own: Tensor, keys: U64) -> Tensor:
        z = hidden(len(honest) + len(own), len(own)) if scale is None else scale
        sigma = honest.std(0) if len(honest) > 1 else torch.zeros_like(honest[0])
        return (honest.mean(0) - z * sigma).expand_as(own)

    return _sends("alie", clients, scale, send)


@checked
def gaussian(clients: IntOrShare, scale: Annotated[float, AtLeast(0)] = 0.1) -> Attack:
    """N(0, s^2) in every coordinate.

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
        scale: s.
    """

    def send(honest: Tensor, own: Tensor, keys: U64) -> Tensor:
        def noise(k: int) -> Tensor:
            drawn = np.random.Generator(np.random.Philox(key=k)).standard_normal(own[0].shape, np.float32)
            return from_numpy(np.asarray(drawn))

        return torch.stack([noise(int(k)) for k in keys]).to(own.device) * scale

    return _sends("gaussian", clients, scale, send)


@checked
def nan(clients: IntOrShare) -> Attack:
    """NaN in every coordinate: a client that is broken rather than malicious.

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
    """
    return _sends("nan", clients, None, lambda honest, own, keys: torch.full_like(own, math.nan))


@checked
def inf(clients: IntOrShare) -> Attack:
    """Infinity in every coordinate.

    Args:
        clients: who attacks, drawn from the seed: how many, or their share of all.
    """
    return _sends("inf", clients, None, lambda honest, own, keys: torch.full_like(own, math.inf))


ATTACKS = {
    "label-flip": label_flip,
    "sign-flip": sign_flip,
    "gaussian": gaussian,
    "alie": alie,
    "ipm": ipm,
    "nan": nan,
    "inf": inf,
}


def hidden(n: int, f: int) -> float:
    """ALIE's z = Phi^-1((n-f-s) / (n-f)), s = floor(n/2 + 1) - f: as far as s honest clients hide f liars; at least 0.

    >>> round(hidden(20, 4), 3), round(hidden(50, 10), 3)
    (0.157, 0.253)
    """
    honest = n - f
    others = max(1, n // 2 + 1 - f)
    return NormalDist().inv_cdf((honest - others) / honest) if 2 * others < honest else 0.0


def _sends(
    name: str, clients: int | float, scale: float | None, change: Callable[[Tensor, Tensor, U64], Tensor]
) -> Attack:
    """An attack that changes each slot, in at least float32, and keeps its type."""

    def send(honest: Slots, own: Slots, keys: U64) -> Slots:
        out: Slots = {}
        for slot, rows in own.items():
            seen = honest[slot] if len(honest[slot]) else rows  # nobody honest to look at: each other
            made = change(_wide(seen), _wide(rows), keys) if len(rows) else rows
            out[slot] = made.to(rows.dtype, copy=True)
        return out

    return Attack(name, clients, send, table=_table(name, clients, scale))


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _table(name: str, clients: int | float, scale: float | None = None) -> dict[str, object]:
    table: dict[str, object] = {"name": name, "clients": clients}
    return table if scale is None else {**table, "scale": scale}
