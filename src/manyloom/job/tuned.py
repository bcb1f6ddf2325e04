"""What a plan says of a tuned language model: which base, which adapters, how they are combined, what noise does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from manyloom.core import text as say
from manyloom.job.job import Job
from manyloom.job.prepare import Prepared

DOES = {
    "svd": "the best adapters of rank {r} for the mean of products",
    "fedavg": "the mean of each factor; inexact by its cross terms",
    "ffa": "A stays as it was drawn, B is averaged: exact",
    "rolora": "B and A are trained and averaged in turn: exact",
}
LOUD = 1.0  # noise on the mean is longer than the longest update


def told(job: Job, ready: Prepared, expected: float) -> dict[str, Any] | None:
    """`model.adapter` of the plan; None for other models.

    `noise_ratio` is z sqrt(d) / (q N): the noise on the mean of a round, over the longest that an update may be.
    """
    if job.task.own is None:
        return None
    about = {k: v for k, v in job.task.own.about.items() if k != "notes"}
    made = job.protection
    ratio = None
    if made is not None and made.privacy is not None and expected > 0:
        d = max((t.layout.d for t in ready.turns), default=ready.layout.d)
        ratio = made.z * math.sqrt(d) / expected
    return {**about, "noise_ratio": ratio}


def lines(model: Mapping[str, Any]) -> list[str]:
    """The plan's lines of it."""
    a: Mapping[str, Any] = model["adapter"]
    size = f"{say.count(model['parameters'])} of {say.count(a['base_parameters'])} parameters"
    adapters = say.plural(a["matched"], ("adapter", "adapters"))
    rule = str(a["combine"])
    out = say.field("model", f"{model['name']} over {a['base']}, {adapters} of rank {a['r']}: {size}").split("\n")
    out += say.field("", f"on {say.listed(map(str, a['targets']))}; base {a['dtype']}, digest "
                     f"{say.digest(a['base_digest'], 2)}").split("\n")  # fmt: skip
    does = DOES.get(rule, "").format(r=a["r"])
    return out + say.field("", f"combined by {rule}: {does}" if does else f"combined by {rule}").split("\n")


def noise(model: Mapping[str, Any]) -> list[str]:
    """How long the noise is, in the plan's words on privacy."""
    a: Mapping[str, Any] = model.get("adapter") or {}
    ratio = a.get("noise_ratio")
    if ratio is None:
        return []
    return say.field("", f"noise on the mean: {ratio:.2g} times the longest update (z sqrt(d) / qN)").split("\n")


def warnings(found: Mapping[str, Any] | None) -> list[str]:
    """What a plan warns of: noise that drowns what the adapters learn."""
    ratio = (found or {}).get("noise_ratio")
    if ratio is None or ratio <= LOUD:
        return []
    return [
        f"the noise on the mean of adapters is {ratio:.2g} times the longest update: little can be learned. "
        "More clients a round, fewer targets or a smaller r in [lora] shorten it"
    ]
