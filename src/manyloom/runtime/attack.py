"""Malicious clients in a simulation: what they learn from, and what they send in place of what they trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from manyloom.aggregate import Attack, attackers
from manyloom.core import seeds
from manyloom.core.exchange import Ids
from manyloom.core.seeds import U64
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.data.federation import Federation
from manyloom.data.store import Part, Slab
from manyloom.engine.loop import Failed, Group
from manyloom.job.job import Job


def liars_of(job: Job) -> Ids:
    """Who attacks, of those that have rows to train on."""
    if job.attack is None:
        return np.zeros(0, np.int64)
    return job.eligible[attackers(job.attack.clients, job.federation.ids[job.eligible], job.seed)]


@dataclass(frozen=True)
class Mislabelled:
    """A federation in which some clients train on other labels: what an engine asks of one."""

    federation: Federation
    attack: Attack
    liars: Ids

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return self.federation.sizes

    @property
    def ids(self) -> U64:
        return self.federation.ids

    def slab(self, clients: Ids, part: Part = "train") -> Slab:
        """Rows as they are, with the liars' labels changed."""
        found = self.federation.slab(clients, part)
        lying = np.isin(clients, self.liars)
        if part != "train" or not lying.any() or self.federation.classes is None:
            return found
        own = [found.rows[found.off[j] : found.off[j + 1]] for j in np.flatnonzero(lying).tolist()]
        rows = from_numpy(np.concatenate(own))
        y = found.y.clone()
        y[rows] = self.attack.label(y[rows], self.federation.classes)
        return found._replace(y=y)


def staged(
    groups: Iterator[Group | Failed], attack: Attack, liars: Ids, ids: U64, seed: int, round: int
) -> Iterator[Group | Failed]:
    """The groups; the liars' come last, changed, since they look at what the honest sent.

    Args:
        groups: what the engine trained.
        attack: what is sent instead.
        liars: who attacks.
        ids: of the population [N].
        seed, round: what the attack is drawn from.
    """
    honest: list[Slots] = []
    lying: list[Group] = []
    for group in groups:
        if isinstance(group, Failed):
            yield group
            continue
        bad = np.isin(group.clients, liars)
        if bad.any():
            lying.append(_some(group, bad))
        if not bad.all():
            kept = group if not bad.any() else _some(group, ~bad)
            honest.append({n: t.clone() for n, t in kept.up.items()})
            yield kept
    if not lying:
        return
    own = _joined(lying)
    seen = {n: torch.cat([h[n] for h in honest]) if honest else t[:0] for n, t in own.up.items()}
    keys = seeds.key(seed, round, ids[own.clients], "attack")
    yield own._replace(up=attack.send(seen, own.up, keys))


def _some(group: Group, which: npt.NDArray[np.bool_]) -> Group:
    """Copies of some clients' rows: the group's own stay valid only until the next is asked for."""
    rows = from_numpy(np.flatnonzero(which))

    def of(slots: Slots) -> Slots:
        return {n: t[rows] for n, t in slots.items()}

    return Group(group.clients[which], of(group.up), of(group.memory), group.samples[rows], group.steps[rows],
                 group.loss[rows], group.seconds)  # fmt: skip


def _joined(groups: Sequence[Group]) -> Group:
    def all_of(parts: list[Slots]) -> Slots:
        return {n: torch.cat([p[n] for p in parts]) for n in parts[0]}

    return Group(
        np.concatenate([g.clients for g in groups]),
        all_of([g.up for g in groups]),
        all_of([g.memory for g in groups]),
        torch.cat([g.samples for g in groups]),
        torch.cat([g.steps for g in groups]),
        torch.cat([g.loss for g in groups]),
        sum(g.seconds for g in groups),
    )
