"""Judging a model on held-out rows: what clients send is a sum, so totals are sums of sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Ask, Exchange, Fold, Ids, Lost, Reply, stack
from manyloom.core.metrics import METRICS, auc_of
from manyloom.core.slots import Slots, size_bytes

HUB = np.array([-1])  # who is asked for the source's own test set, which lies at the hub
HELD = np.array([-2])  # who is asked for the rows that the hub holds to judge a round by


class Evaluation(NamedTuple):
    """Metrics in all, and a client: {metric: [k]}, in the order of `clients`; of sums alone there is no `each`."""

    metrics: Mapping[str, float]
    clients: Ids
    each: Mapping[str, Tensor]
    rows: Tensor  # [k]
    positives: Tensor | None  # [k], for two classes
    lost: list[Lost]
    sent_up: int
    sent_down: int
    channel: tuple[int, int] = (0, 0)


def evaluate(
    clients: Ids,
    model: Slots,
    metrics: Sequence[str],
    *,
    round: int,
    quorum: int = 1,
    deadline_s: float = 3600.0,
    alone: bool = True,
) -> Exchange[Evaluation]:
    """Ask clients to judge a model (slots `theta`, perhaps `buffers`) on their held-out rows.

    Each sends rows, the sum of losses and each metric's sums (`core.metrics`). For AUC a second ask brings two
    histograms of the score over bins that follow from the first sums; a client's own AUC it computes exactly.

    Args:
        clients: who is asked [n].
        model: what is judged.
        metrics: beside the loss.
        round, quorum, deadline_s: of the ask.
        alone: every client's sums come by themselves; else only their total, which a secure channel may hide the
            parts of.
    """
    fold = None if alone else Fold(("rows", "loss", *metrics))
    answers = yield Ask(clients, "evaluate", model, round=round, quorum=quorum, deadline_s=deadline_s, fold=fold)
    lost = [a for a in answers if isinstance(a, Lost)]
    came = [a for a in answers if isinstance(a, Reply)]
    up, down = sum(r.sent for r in came), len(clients) * size_bytes(model)
    secure = [sum(r.channel[i] for r in came) for i in (0, 1)]
    replies = [r for r in came if len(r.clients)]
    if not replies:
        return Evaluation({}, clients[:0], {}, torch.zeros(0), None, lost, up, down, (secure[0], secure[1]))
    back = np.concatenate([r.clients for r in replies])
    rows = stack(replies, "rows").double()
    total = rows.sum().clamp_min(1e-300)
    sums = {name: stack(replies, name).double() for name in ("loss", *metrics)}
    each: dict[str, Tensor] = {}
    if alone:
        each = {"loss": sums["loss"] / rows} | {m: METRICS[m].value(sums[m], rows) for m in metrics}
    whole = {"loss": float(sums["loss"].sum() / total)}
    whole |= {m: float(METRICS[m].value(sums[m].sum(0), rows.sum())) for m in metrics}
    if "auc" in metrics:
        if alone:
            each["auc"] = stack(replies, "auc_own").double()
        s, ss = (float(x) for x in sums["auc"].sum(0)[:2])
        centre = s / float(total)
        spread = math.sqrt(max(0.0, ss / float(total) - centre**2))
        whole["auc"] = math.nan
        if math.isfinite(centre) and math.isfinite(spread):
            at = torch.tensor([centre, spread], dtype=torch.float64)
            answers = yield Ask(
                back,
                "scores",
                model | {"at": at},
                round=round,
                quorum=quorum,
                deadline_s=deadline_s,
                fold=Fold(("histogram",)),
            )
            came = [a for a in answers if isinstance(a, Reply)]
            up, down = up + sum(r.sent for r in came), down + len(back) * (size_bytes(model) + 16)
            secure = [secure[i] + sum(r.channel[i] for r in came) for i in (0, 1)]
            found = [r for r in came if len(r.clients)]
            if found:
                whole["auc"] = auc_of(torch.stack([r.body["histogram"][0] for r in found]).sum(0))
    return Evaluation(whole, back, each, rows, sums["auc"][:, 2] if "auc" in sums else None, lost, up, down,
                      (secure[0], secure[1]))  # fmt: skip
