"""A plan as a terminal shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from manyloom.core import text as say
from manyloom.job import tuned
from manyloom.job.plan import Plan

LISTED = 12  # federations up to this size are printed client by client


def lines(p: Plan) -> list[str]:
    """The plan as a terminal shows it, at most 80 columns."""
    digest = str(p.job["digest"])
    out = [f"{'job':9}{p.job['name']:<40}digest {say.digest(digest)}"]
    out += say.field("does", p.does).split("\n")
    if "adapter" in p.model:
        out += tuned.lines(p.model)
    else:
        out += [f"{'model':9}{p.model['name']}, {say.plural(p.model['parameters'], ('parameter', 'parameters'))}"]
    out += _clients(p)
    b = p.bytes
    out += [
        f"{'bytes':9}up {say.size(b['up_round'])}, down {say.size(b['down_round'])} a round; "
        f"{say.size(b['up'])} and {say.size(b['down'])} in all"
    ]
    if p.seconds_estimate is not None:
        out += [f"{'time':9}about {say.seconds(p.seconds_estimate)}, memory {say.size(p.memory_bytes)} beside the data"]
    run = p.execution
    out += [f"{'engine':9}{run.get('provider')}, {say.plural(int(str(run.get('group', 1))), p.words)} at a time"]
    out += _protection(p)
    for w in p.warnings:
        out += say.field("warning", w).split("\n")
    return [*out, f"{'refused':9}nothing"]


def _protection(p: Plan) -> list[str]:
    """The guarantees with all that gives them a meaning; the secure sum."""
    out: list[str] = []
    if p.secure is not None:
        s = p.secure
        said = (
            f"sums of {s['least']} to {s['clients']} {p.words[1]}, {s['mode']}: each masked with {s['neighbours']} "
            f"others, {s['threshold']} shares open one; up to a share of {s['gamma']} may work with the hub"
            + ("" if s["fidelity"] == "full" else "; simulated: the same integers, no masks")
        )
        out += say.field("secure", said).split("\n")
    if p.privacy is None:
        saw = "the hub sees sums, no single update; nothing bounds what a sum tells" if p.secure else \
            f"the hub sees each {p.words[0]}'s update"  # fmt: skip
        return [*out, *say.field("privacy", f"none: {saw}").split("\n")]
    g = p.privacy
    budget = f"budget {g['budget']:g}; " if g["budget"] is not None else ""
    out += say.field("privacy", f"epsilon {g['epsilon']:.4f} at delta {g['delta']:.3g}, for one {g['unit']}, "
                     f"{g['adjacency']}; {budget}after {p.rounds} rounds").split("\n")  # fmt: skip
    for name in ("mechanism", "sampling", "accountant", "against"):
        out += say.field("", f"{name}: {g[name]}").split("\n")
    out += tuned.noise(p.model)
    for other in g["others"]:
        out += say.field(
            "", f"without amplification: epsilon {other['epsilon']:.4f}, against {other['against']}"
        ).split("\n")
    for name in ("assumes", "uncovered"):
        for line in g[name]:
            out += say.field("", f"{name}: {line}").split("\n")
    return out


def _clients(p: Plan) -> list[str]:
    if p.clients is None or len(p.clients) > LISTED:
        n = p.population
        low, mid, high = n["sizes"]
        rows = [
            f"{say.plural(n['clients'], p.words)}, {say.count(n['train'])} rows to train on "
            f"({low} / {mid} / {high}: least, median, most)"
        ]
    else:
        wide = min(20, max(len(c["name"]) for c in p.clients))
        rows = [f"{c['name'][:wide]:<{wide}} {c['train']:>6} + {c['test']} held out{_share(p, c)}" for c in p.clients]
    tv = p.skew["label_tv"]
    if tv:
        told = max(tv) if len(tv) <= LISTED else math.fsum(tv) / len(tv)
        strength = "strong" if told > 0.3 else "mild" if told > 0.1 else "little"
        shown = " ".join(f"{x:.2f}" for x in tv) if len(tv) <= LISTED else f"{math.fsum(tv) / len(tv):.2f} on average"
        rows += [f"label distance from the whole: {shown} ({strength} skew)"]
    return [f"{'data' if i == 0 else '':9}{row}" for i, row in enumerate(rows)]


def _share(p: Plan, c: Mapping[str, Any]) -> str:
    if len(p.labels) != 2 or not c["train"]:
        return ""
    share = c["labels"][1] / c["train"]
    cells = round(16 * share)
    return f"  {p.labels[1][:10]} {'█' * cells}{'░' * (16 - cells)} {say.percent(share)}"
