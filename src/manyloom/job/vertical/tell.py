"""What a vertical run says of its parties, passes and evaluations: values into events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from manyloom.core.exchange import Lost
from manyloom.core.metrics import METRICS, auc, score
from manyloom.job import events as ev
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.makers import maker_of
from manyloom.job.vertical.prepare import Line, Met, Prepared
from manyloom.vertical.passes import Judged, Pass, Passes


def run_started(job: Vertical, ready: Prepared, run: str) -> ev.RunStarted:
    """The first event. Feature parties are numbered as they are asked; the label party comes after them."""
    parties = [*job.parties.features, job.parties.label]
    clients: list[dict[str, Any]] = [
        {"client": i, "name": p.name, "train": len(p.keys), "test": 0, "labels": [], "columns": p.x.shape[1]}
        for i, p in enumerate(parties)
    ]
    sizes = sorted(len(p.keys) for p in parties)
    middle = sizes[len(sizes) // 2]
    info, maker = job.data.info, maker_of(job)
    return ev.RunStarted(
        run=run,
        name=job.name,
        job_digest=job.digest,
        rounds=job.rounds,
        seed=job.seed,
        algorithm=maker.name,
        paper=maker.paper,
        model={
            "name": str(job.model.table["name"]),
            "parameters": sum(ready.parameters.values()),
            "parts": dict(ready.parameters),
        },
        clients=clients,
        population={
            "kind": "vertical",
            "clients": len(parties),
            "train": sum(sizes),
            "test": 0,
            "sizes": [sizes[0], middle, middle, middle, sizes[-1]],
            "moved": 0,
        },
        runtime="sequential",
        execution=dict(ready.execution),
        source={k: getattr(info, k) for k in ("name", "title", "licence", "attribution")} if info else {},
        client_word=("party", "parties"),
        row_word=job.data.row_word,
        target=job.parties.target,
        classes=list(job.parties.labels),
        metrics=["loss", *job.metrics],
        watch=job.watched,
    )


def split(job: Vertical, m: int) -> tuple[int, int]:
    """Of so many aligned rows, how many are trained on and how many are held out."""
    held = int(m * job.test)
    return m - held, held


def aligned(job: Vertical, met: Met, line: Line, seconds: float) -> ev.Aligned:
    """What the parties found they share, and what it took."""
    assert met.rows is not None
    train, test = split(job, len(met.rows))
    return ev.Aligned(
        dict(met.sizes),
        dict(left_out(job)),
        len(met.rows),
        train,
        test,
        job.align.reveal,
        met.order,
        line.up,
        line.down,
        seconds,
    )


def left_out(job: Vertical) -> Mapping[str, int]:
    """Rows without an id (or, at the label party, without a label), a party."""
    have = {p.name: len(p.keys) for p in (*job.parties.features, job.parties.label)}
    return {h.name: len(h.x) - have[h.name] for h in job.data.holdings}


def threats(job: Vertical, passes: Passes) -> Mapping[str, Sequence[str]]:
    """Who learns what, step by step: label party, feature party, hub, and what it rests on."""
    many = "; with several feature parties also each party's overlap with it" if len(job.parties.features) > 1 else ""
    both = job.align.reveal == "both"
    ids = (
        f"which of its ids each party has, and how many the others have{many}",
        "which of its ids are common, and how many the label party has" if both else "how many the label party has",
        "sizes",
        "Diffie-Hellman on Curve25519; ids that can be guessed can be tried by a party that makes them up",
    )
    return {"align": ids, "train": passes.threats}


def planned(job: Vertical, passes: Passes, m: int) -> ev.Planned:
    """What a pass will send."""
    (up, down), _ = passes.traffic(*split(job, m))
    return ev.Planned(up, down, None, threats=threats(job, passes))


def once(lost: Sequence[Lost]) -> list[Lost]:
    """The first loss of each party."""
    return list({x.client: x for x in reversed(lost)}.values())[::-1]


def clients_lost(job: Vertical, number: int, lost: Sequence[Lost]) -> Iterator[ev.ClientLost]:
    """Each party that is gone, and why."""
    for x in lost:
        yield ev.ClientLost(number, x.client, job.parties.features[x.client].name, x.reason, x.text, x.traceback)


def clients_done(number: int, done: Pass, line: Line, gone: Sequence[Lost]) -> Iterator[ev.ClientDone]:
    """Each party that took part in a pass to its end."""
    out = {x.client for x in gone}
    for client, sent in sorted(line.sent.items()):
        if client not in out:
            yield ev.ClientDone(number, client, done.rows, done.steps, None, sent)


def leaks(job: Vertical, number: int, done: Pass) -> Iterator[ev.Leak]:
    """How well each party could have read labels off its gradients."""
    for x in done.leaks:
        name = job.parties.features[x.party].name
        yield ev.Leak(number, name, job.cut.defence, x.batches, x.norm_mean, x.norm_q95, x.cosine_mean, x.cosine_q95)


def evaluated(job: Vertical, found: Judged, number: int, seconds: float) -> ev.Evaluated:
    """An evaluation on the held-out rows."""
    metrics = {"loss": found.loss} | measured(job.metrics, found.output, found.y)
    positives = int((found.y == 1).sum()) if job.parties.classes == 2 else None
    return ev.Evaluated(
        number, "test", metrics, {}, len(found.y), positives, {}, found.sent_up, found.sent_down, seconds
    )


def measured(names: Sequence[str], output: Tensor, y: Tensor) -> dict[str, float]:
    """Metrics of rows that lie in one place: outputs [m, C], labels [m]; the AUC is exact.

    >>> measured(["accuracy", "auc"], torch.tensor([[-1.0], [2.0], [0.5]]), torch.tensor([0, 1, 0]))
    {'accuracy': 0.6666666666666666, 'auc': 1.0}
    """
    rows = torch.tensor(float(len(y)), dtype=torch.float64)
    found = {n: float(METRICS[n].value(METRICS[n].sums(output, y).sum(0), rows)) for n in names if n != "auc"}
    return {n: auc(score(output), y == 1) if n == "auc" else found[n] for n in names}
