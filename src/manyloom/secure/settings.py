"""`[secure]`: what a job says of its secure sums."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from manyloom.core.validate import Above, AtLeast, Below, Within


class Secure(NamedTuple):
    """The hub learns sums, never one client's update: `[secure]`; its presence switches it on.

    Args:
        mode: "active" holds against a hub that deviates; "semi" trusts it to follow the protocol.
        fidelity: in a simulation every message, or the same integers and bytes without masks.
        neighbours: with how many others each client shares masks, k; computed.
        threshold: how many shares open a secret, t; computed.
        gamma: which share of a cohort may collude with the hub.
        delta_drop: which share of a cohort may be lost.
        alpha: which share of a cohort must be in the sum.
        kappa: statistical security in bits; 80 active, 40 semi.
        scale: integers to a unit, S; the largest power of two up to 2^18 that can't overflow.
        range: without [privacy]: coordinates beyond are cut to it, and counted, R.
        weight_cap: samples from which on a client counts no more; the largest client's.
    """

    mode: Literal["active", "semi"] = "active"
    fidelity: Literal["full", "ideal"] = "full"
    neighbours: Annotated[int | None, AtLeast(1)] = None
    threshold: Annotated[int | None, AtLeast(1)] = None
    gamma: Annotated[float, Below(1)] = 0.1
    delta_drop: Annotated[float, Below(1)] = 0.1
    alpha: Annotated[float, Within(0, 1)] = 2 / 3
    kappa: Annotated[int | None, AtLeast(1)] = None
    scale: Annotated[int | None, AtLeast(1)] = None
    range: Annotated[float, Above(0)] = 8.0
    weight_cap: Annotated[int | None, AtLeast(1)] = None

    @property
    def bits(self) -> int:
        """kappa, with its default."""
        return self.kappa if self.kappa is not None else (80 if self.mode == "active" else 40)
