"""The state of a run: one value, one field a part."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from manyloom.core.slots import Slots


@dataclass(frozen=True)
class State:
    """All that decides how a run goes on; a checkpoint is this value.

    Args:
        round: the last round that is done.
        server: model and server optimiser ("theta", "m", "v", "c", "buffers").
        rule: the aggregator's.
        clients: what clients remember, as the runtime gives it (never what is secret).
        preprocess: federated means, scales, vocabularies.
        open: of asynchronous rounds, the asks that are open, with what they were sent and when.
        record: small numbers: best value and round, evaluations since, totals of bytes and seconds.
        execution: what the runtime chose; kept on resume.
    """

    round: int
    server: Slots
    rule: Slots = field(default_factory=dict[str, Tensor])
    clients: Slots = field(default_factory=dict[str, Tensor])
    preprocess: Slots = field(default_factory=dict[str, Tensor])
    open: Slots = field(default_factory=dict[str, Tensor])
    record: dict[str, Any] = field(default_factory=dict[str, Any])
    execution: dict[str, Any] = field(default_factory=dict[str, Any])
