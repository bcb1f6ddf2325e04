"""What a vertical job will do, before anything is trained: parties, rows in common, bytes, time, who learns what."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from manyloom.core import text as say
from manyloom.job.events import RoundDone
from manyloom.job.vertical import tell
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.loop import loop, start
from manyloom.job.vertical.prepare import (
    Between,
    Line,
    Prepared,
    in_the_clear,
    matching_bytes,
    meet,
    passes_of,
    prepare,
)
from manyloom.vertical import curve
from manyloom.vertical.split import SplitLearning

TIMED = 100  # ids that an estimate of the alignment is made of
LEARNS = ("label party", "feature party", "hub", "rests on")
REVEAL = {
    "both": "all parties learn which",
    "label": "the label party alone learns which",
    "count": "nobody learns which",
}


@dataclass(frozen=True)
class Plan:
    """A dry run of a vertical job: `str()` is what `manyloom plan` prints.

    Args:
        job: name, digest, toml (None for a job that no file can hold).
        parties: name, rows with an id, rows left out, columns, numbers it trains, whether it has the label.
        rows: common to all, counted in the clear since this process has all ids; to train on; held out.
        model: name and number of parameters.
        bytes: up_round, down_round, up, down of training; align_up, align_down; evaluate_up, evaluate_down in all.
        align: how rows are matched.
        cut: what happens to what crosses the cut; None: nothing is cut.
        threats: a step -> what label party, feature party and hub learn, and on what that rests.
        rounds: passes over the aligned rows.
        seconds_estimate: from passes that were tried on throw-away state, or None.
        execution: how it runs.
        warnings: what will work but should be known.
    """

    job: Mapping[str, Any]
    parties: list[dict[str, Any]]
    rows: Mapping[str, int]
    model: Mapping[str, Any]
    bytes: Mapping[str, int]
    align: Mapping[str, Any]
    cut: Mapping[str, Any] | None
    threats: Mapping[str, Sequence[str]]
    rounds: int
    seconds_estimate: float | None
    execution: Mapping[str, Any]
    warnings: list[str] = field(default_factory=list[str])

    def to_json(self) -> dict[str, Any]:
        """The body of `manyloom plan --json`: what every plan has, and under "vertical" what only this kind has."""
        sizes = sorted(p["rows"] for p in self.parties)
        return {
            "job": dict(self.job),
            "model": dict(self.model),
            "clients": [{"name": p["name"], "train": p["rows"], "test": 0, "labels": []} for p in self.parties],
            "population": {
                "clients": len(sizes),
                "train": sum(sizes),
                "test": 0,
                "sizes": [sizes[0], sizes[len(sizes) // 2], sizes[-1]],
            },
            "skew": {"label_tv": [], "entropy": []},
            "bytes": {k: self.bytes[k] for k in ("up_round", "down_round", "up", "down")},
            "seconds_estimate": self.seconds_estimate,
            "memory_bytes": None,
            "execution": dict(self.execution),
            "privacy": None,
            "secure": None,
            "refusals": [],
            "warnings": list(self.warnings),
            "sites": None,
            "vertical": {
                "parties": self.parties,
                "rows": dict(self.rows),
                "bytes": {k: v for k, v in self.bytes.items() if k not in ("up_round", "down_round", "up", "down")},
                "align": dict(self.align),
                "cut": dict(self.cut) if self.cut is not None else None,
                "threats": {step: dict(zip(LEARNS, row)) for step, row in self.threats.items()},
            },
        }

    def __str__(self) -> str:
        return "\n".join(lines(self))


def plan(job: Vertical, runtime: Between, *, tried: int = 0) -> Plan:
    """What a vertical job will do; `tried` passes are run on throw-away state and timed, and some ids matched.

    Raises:
        BadInput: everything that a run would refuse.
    """
    ready, line = prepare(job, runtime), Line(runtime)
    try:
        line.play(meet(job, runtime, align=False))  # that all are there and agree is seen now
        opened = line.up, line.down
        seconds = _try(job, line, ready, tried) if tried else None
    finally:
        runtime.close()
    return of(job, ready, opened, seconds)


def of(job: Vertical, ready: Prepared, opened: tuple[int, int], seconds: float | None = None) -> Plan:
    """The plan of a job that is prepared; `opened` are the bytes of its opening."""
    train, held = tell.split(job, ready.common)
    passes = passes_of(job, torch.arange(ready.common))  # of any rows: what is asked here follows from their number
    (up, down), (judge_up, judge_down) = passes.traffic(train, held)
    align_up, align_down = (a + b for a, b in zip(opened, matching_bytes(job)))
    times = job.rounds // job.eval_every + bool(job.rounds % job.eval_every) + (job.eval_every == 1)
    try:
        toml = job.to_toml()
    except Exception:
        toml = None
    label = job.parties.label
    return Plan(
        job={"name": job.name, "digest": job.digest, "toml": toml},
        parties=[
            {
                "name": p.name,
                "rows": len(p.keys),
                "left_out": tell.left_out(job)[p.name],
                "columns": p.x.shape[1],
                "parameters": ready.parameters.get(p.name, 0),
                "label": p is label,
            }
            for p in (label, *job.parties.features)
        ],
        rows={"common": ready.common, "train": train, "test": held},
        model={"name": str(job.model.table["name"]), "parameters": sum(ready.parameters.values())},
        bytes={
            "up_round": up,
            "down_round": down,
            "up": up * job.rounds,
            "down": down * job.rounds,
            "align_up": align_up,
            "align_down": align_down,
            "evaluate_up": judge_up * times if held else 0,
            "evaluate_down": judge_down * times if held else 0,
        },
        align=job.align._asdict(),
        cut=job.cut._asdict() | {"dropout": job.cut.dropped} if isinstance(job.algorithm, SplitLearning) else None,
        threats=tell.threats(job, passes),
        rounds=job.rounds,
        seconds_estimate=seconds,
        execution=dict(ready.execution),
        warnings=_warnings(job),
    )


def _warnings(job: Vertical) -> list[str]:
    told: list[str] = []
    if job.cut.defence == "none":
        told.append("no defence: a feature party can read nearly every label off its gradients")
    return told


def _try(job: Vertical, line: Line, ready: Prepared, tried: int) -> float:
    """Seconds of the whole job: its alignment, from some ids, and its passes, from a few on throw-away state."""
    short = replace(job, rounds=min(tried, job.rounds), eval_every=1, patience=None, stop_at=None)
    state = in_the_clear(job, start(job, ready))
    took = [e.seconds for e in loop(short, line, ready, state) if isinstance(e, RoundDone)]
    line.runtime.restore({})
    return _matching(job) + min(took, default=0.0) * job.rounds


def _matching(job: Vertical) -> float:
    """Seconds of the alignment, were all at one place: a few ids are hashed and masked twice, as each would be."""
    label, features = job.parties.label, job.parties.features
    some = [os.urandom(16) for _ in range(TIMED)]
    with curve.masking(curve.scalar(), bytes(32), 1) as masks:
        began = time.perf_counter()
        masks.points(masks.ids(some, of=len(label.keys))(), 12)()
        each = (time.perf_counter() - began) / TIMED
    return each * sum(len(label.keys) + len(p.keys) for p in features)


def lines(p: Plan) -> list[str]:
    """The plan as a terminal shows it, at most 80 columns."""
    label = next(x["name"] for x in p.parties if x["label"])
    others = say.listed(x["name"] for x in p.parties if not x["label"])
    does = f"{say.plural(p.rounds, ('pass', 'passes'))} over the rows that all have; {label} has the label and asks " \
           f"{others}, and each party keeps its own part of the model"  # fmt: skip
    out = [f"{'job':9}{p.job['name']:<40}digest {say.digest(str(p.job['digest']))}"]
    out += say.field("does", does).split("\n")
    wide = max(len(x["name"]) for x in p.parties)
    for i, x in enumerate(p.parties):
        lacks = f", {say.count(x['left_out'])} without an id" if x["left_out"] else ""
        has = f"{say.plural(x['columns'], ('column', 'columns'))}{' and the label' if x['label'] else ''}"
        out += [f"{'parties' if not i else '':9}{x['name']:<{wide}}  {say.count(x['rows'])} rows{lacks}, {has}"]
    r, b = p.rows, p.bytes
    out += say.field(
        "rows", f"{say.count(r['common'])} in common, counted in the clear since this process has all ids; "
        f"{say.count(r['train'])} to train on, {say.count(r['test'])} held out"
    ).split("\n")  # fmt: skip
    out += say.field(
        "ids", f"matched by private set intersection: {REVEAL[p.align['reveal']]}; "
        f"up {say.size(b['align_up'])}, down {say.size(b['align_down'])}"
    ).split("\n")  # fmt: skip
    each = ", ".join(f"{x['name']} {say.count(x['parameters'])}" for x in p.parties)
    out += say.field("model", f"{p.model['name']}, {say.count(p.model['parameters'])} parameters: {each}").split("\n")
    if p.cut is not None:
        out += say.field("cut", _cut(p.cut)).split("\n")
    out += say.field(
        "bytes", f"up {say.size(b['up_round'])}, down {say.size(b['down_round'])} a pass; "
        f"{say.size(b['up'])} and {say.size(b['down'])} in all, beside the ids and evaluation"
    ).split("\n")  # fmt: skip
    if p.seconds_estimate is not None:
        out += [f"{'time':9}about {say.seconds(p.seconds_estimate)}, matching of ids included"]
    for step, row in p.threats.items():
        for i, (who, what) in enumerate(zip(LEARNS, row)):
            said = f"{who} learns: {what}" if who != "rests on" else f"which rests on: {what}"
            out += say.field(f"{step}" if not i else "", said).split("\n")
    out += say.field("privacy", "none: nothing bounds what embeddings tell of a row").split("\n")
    for w in p.warnings:
        out += say.field("warning", w).split("\n")
    return [*out, f"{'refused':9}nothing"]


def _cut(cut: Mapping[str, Any]) -> str:
    bits = "float32" if cut["bits"] == 32 else f"{cut['bits']} bits a number"
    said = f"embeddings and gradients as {bits}, both ways"
    strength = f" (strength {cut['strength']:g})" if cut["defence"] == "isotropic" else ""
    said += f"; gradients defended by {cut['defence']}{strength}" if cut["defence"] != "none" else "; no defence"
    return said + (f"; each party left out of a step with chance {cut['dropout']:g}" if cut["dropout"] else "")
