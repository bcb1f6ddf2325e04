"""Result: status, a verdict in sentences, six figures, federated beside pooled and alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime

from markupsafe import Markup, escape

from manyloom.core import text
from manyloom.track import intervals, parties, promise, verdict
from manyloom.track.record import Judged, Metrics, Run
from manyloom.track.sections.parts import BARS, Data, Drawer, capital, ticks

ID = "result"
TONES = {"done": "good", "stopped": "good", "failed": "bad", "interrupted": "warn"}


def title(run: Run) -> str:
    return "Result"


def section(run: Run, draw: Drawer) -> Data:
    tone = "warn" if run.status == "done" and verdict.diverged(run) else TONES.get(run.status, "calm")
    done = f"{run.rounds_done} of {run.rounds_planned} rounds" if run.rounds_planned else ""
    meta = " · ".join(part for part in (run.id, date(run.started), done) if part)
    return {"tone": tone, "meta": meta, "lead": _lead(run, draw), "figures": _keys(run, draw), "ranges": _ranges(run)}


def date(t: str | None) -> str:
    """A time in words; empty where unknown."""
    try:
        return datetime.fromisoformat(str(t)).strftime("%d %B %Y, %H:%M UTC").lstrip("0")
    except ValueError:
        return ""


def _lead(run: Run, draw: Drawer) -> Markup:
    sentences = verdict.verdict(run)
    if draw.hides(run) and run.status == "failed":  # a reason may count replies
        sentences = [s.partition(": ")[0].rstrip(".") + "." if s.startswith("It failed ") else s for s in sentences]
    said = str(escape(" ".join(sentences) or "Nothing has happened yet."))
    name = text.metric(run.main)
    value = text.number((run.final or {}).get(run.main))
    found = re.escape(str(escape(f"{name} {value}")))
    return Markup(re.sub(found, lambda m: f"<b>{m[0]}</b>", said, count=1))


def _keys(run: Run, draw: Drawer) -> list[Data]:
    final, judged = run.final or {}, run.last
    others = [m for m in text.ordered(run.metric_names, run.main) if m != run.main]
    keys = [_metric_key(run, run.main, judged, final)]
    keys += [_metric_key(run, others[0], judged, final)] if others else []
    if run.role in ("local", "sweep"):
        return keys
    keys += [_privacy_key(run, draw)]
    if draw.hides(run):
        return keys + _planned_keys(run)
    moved = run.bytes_up + run.bytes_down
    ways = f"{text.size(run.bytes_up)} up, {text.size(run.bytes_down)} down"
    keys.append({"label": "Moved", "value": text.size(moved), "note": ways})
    waited = run.phases.get("wait", 0.0)
    per = f"{text.seconds(run.seconds / run.rounds_done, 2)} a round" if run.rounds_done else "no round done"
    note = f"{text.seconds(waited)} waiting" if waited >= 0.05 * max(run.seconds, 1e-9) else per
    took = text.seconds(run.seconds) if run.seconds < 600 else text.clock(run.seconds)
    keys.append({"label": "Time", "value": took, "note": note})
    back = run.asked - run.lost_total
    lost = f"{text.count(run.lost_total)} lost" if run.lost_total else "none lost"
    filtered = sum(run.filtered.values())
    note = f"{lost}, {text.count(filtered)} filtered" if filtered else lost
    value = f"{text.count(back)} of {text.count(run.asked)}" if run.asked else "none"
    if run.lost_total == 0 and run.asked:
        value = text.count(run.asked)
    elif run.asked >= 10_000:
        value, note = f"{100 * back / run.asked:.1f} %", f"{lost} of {text.count(run.asked)}"
    keys.append({"label": "Replies", "value": value, "note": note if run.asked else "nobody was asked"})
    return keys


def _planned_keys(run: Run) -> list[Data]:
    """What a run cost where exact numbers would tell how many took part: as planned, about."""
    up, down = (text.finite(run.planned.get(f"bytes_{way}_round")) for way in ("up", "down"))
    done = text.plural(run.rounds_done, ("round", "rounds"))
    moved = text.size((up + down) * run.rounds_done) if up is not None and down is not None else text.UNKNOWN
    return [
        {"label": "Moved, as planned", "value": f"{moved}", "note": f"in {done}"},
        {"label": "Time", "value": f"about {text.about(run.seconds)}", "note": f"for {done}"},
        {"label": "Replies", "value": "left out", "note": "who took part stays with the operator"},
    ]


def _metric_key(run: Run, name: str, judged: Judged | None, final: Metrics) -> Data:
    value, note = final.get(name), ""
    pooled = run.beside.get("central")
    found = intervals.judged_interval(judged, name) if judged and value is not None else None
    if value is not None and not run.rounds and run.role is None:
        note = "before training"
    elif found is not None and name == run.main:
        note = f"95 %: {text.short(found[0])} to {text.short(found[1])}"
    elif pooled and pooled.metrics.get(name) is not None:
        note = f"pooled {text.number(pooled.metrics[name])}"
    elif run.start and (before := run.start.metrics.get(name)) is not None and run.rounds:
        note = f"{text.number(before)} before training"
    label = f"{capital(text.metric(name))}, held out" if name == run.main and judged and judged.split != "own" else None
    return {"label": label or capital(text.metric(name)), "value": text.number(value), "note": note}


def _leak_key(run: Run) -> Data:
    found = parties.worst_leak(run)
    if parties.taught(run):
        return {"label": "Labels told", "value": "once", "note": "of the rows in common; see Privacy"}
    if found is None:
        return {"label": "Label leak", "value": text.UNKNOWN, "note": "no gradient was measured"}
    note = "undefended" if found.defence == "none" else parties.DEFENCES.get(found.defence, found.defence)
    return {"label": "Label leak, AUC", "value": text.number(found.mean), "note": f"{note}; 0.5 is guessing"}


def _privacy_key(run: Run, draw: Drawer) -> Data:
    if run.role == "central":
        return {"label": "Privacy", "value": "none", "note": "all records in one place"}
    if run.vertical:
        return _leak_key(run)
    if run.privacy is None:
        if run.secure:
            return {"label": "Privacy", "value": "only sums", "note": "the hub saw no single update; no ε"}
        return {"label": "Privacy", "value": "none", "note": "the hub saw each update"}
    if not promise.complete(run):
        return {"label": "Privacy", "value": "none", "note": "the claim is not complete"}
    budget, found = text.finite(run.privacy.get("budget")), promise.for_readers(run, draw.participation)
    if run.spent is None:
        return {"label": "Privacy spent", "value": "ε 0.00", "note": f"{text.epsilon(found[0].epsilon)} planned"}
    one = f"for one {promise.unit(run)}"
    note = f"of {budget:g}, {one}" if budget is not None else one
    if found[0].epsilon > run.spent:
        note = f"{one}, of readers who see who took part; {text.epsilon(run.spent)} without"
    elif len(found) > 1:
        planned = "planned " if found[1].planned else ""
        note += f"; {text.epsilon(found[1].epsilon)} {planned}without amplification"
    return {"label": "Privacy spent", "value": f"ε {text.epsilon(found[0].epsilon)}", "note": note}


# ---- federated, pooled, alone


def _ranges(run: Run) -> Data | None:
    judged, name = run.last, run.main
    if judged is None or judged.metrics.get(name) is None or not run.rounds or run.role is not None:
        return None
    pooled, local = run.beside.get("central"), run.beside.get("local")
    ids = sorted(judged.clients) if 1 < len(judged.clients) <= BARS else []
    if not ids and not (pooled or local):
        return None
    rows = [_range_row(run, judged, name, None), *(_range_row(run, judged, name, i) for i in ids)]
    sure = [r for r in rows if not r["note"]]
    values = [v for r in sure for v in (r["fed"], r["lo"], r["hi"], r["pooled"], *r["alone"]) if v is not None]
    if not values:
        return None
    marks, at = ticks(values)
    drawn = [_placed(r, at) for r in rows]
    bar = "The pale bar is the 95 % interval of the federated model. " if any(r["lo"] is not None for r in rows) else ""
    ring = f"In the first row each ring is one {run.client_word[0]}’s own model, judged on everyone." if local else ""
    where = "the source’s own test set" if judged.split == "own" else f"held-out {run.judged_word[1]}"
    heading = verdict.title_result(run)
    return {
        "heading": heading,
        "label": heading,
        "subtitle": f"{capital(text.metric(name))} on {where}. {bar}{ring} {promise.kept(run)}".strip(),
        "rows": drawn,
        "ticks": marks,
        "title": text.metric(name),
        "pooled": pooled is not None,
        "alone": local is not None,
        "numbers": _numbers(run, rows, name),
    }


def _placed(row: Data, at: Callable[[float], float]) -> Data:
    """A row in percent; what lies beyond the scale (only of rows that say little) is left out."""

    def inside(v: float | None) -> float | None:
        return None if v is None or not -0.5 <= at(v) <= 100.5 else at(v)

    lo, hi = row["lo"], row["hi"]
    ends: Data = {"lo": None, "hi": None}
    if lo is not None and hi is not None and at(hi) > 0 and at(lo) < 100:
        ends = {"lo": max(0.0, at(lo)), "hi": min(100.0, at(hi))}
    rings = [x for v in row["alone"] if (x := inside(v)) is not None]
    return {**row, "fed": inside(row["fed"]), "pooled": inside(row["pooled"]), "alone": rings, **ends}


def _range_row(run: Run, judged: Judged, name: str, i: int | None) -> Data:
    pooled, local = run.beside.get("central"), run.beside.get("local")
    n, positives = (judged.rows, judged.positives) if i is None else judged.counts.get(i, (None, None))
    mine = (run.final or {}).get(name) if i is None else judged.clients[i].get(name)
    found = intervals.interval(name, mine, n, positives) if i is not None else intervals.judged_interval(judged, name)
    other = None
    if pooled is not None:
        other = (pooled.metrics if i is None else pooled.clients.get(i, {})).get(name)
    alone: list[float] = []
    if local is not None:
        each = local.on_all.values() if i is None else [local.clients.get(i, {})]
        alone = _known(each, name)
    note = ""
    if (
        name == "auc"
        and i is not None
        and n is not None
        and positives is not None
        and intervals.says_little(n, positives)
    ):
        few, label = min((positives, 1), (n - positives, 0))
        word = run.classes[label] if len(run.classes) == 2 else f"class {label}"
        note = f"{text.number(mine)} from {few} of {n} {word}: says little"
    label = f"All {run.judged_word[1]}" if i is None else run.who(i)
    row: Data = {
        "name": label,
        "n": n,
        "fed": mine,
        "lo": None,
        "hi": None,
        "pooled": other,
        "alone": alone,
        "note": note,
    }
    row |= {"lo": found[0], "hi": found[1]} if found else {}
    row["tip"] = _tip(run, row)
    return row


def _known(found: Iterable[Metrics], name: str) -> list[float]:
    return [v for m in found if (v := m.get(name)) is not None]


def _tip(run: Run, r: Data) -> str:
    told = [r["name"] + (f", {text.plural(r['n'], run.judged_word)}" if r["n"] is not None else "")]
    ends = f" (95 %: {text.short(r['lo'])} to {text.short(r['hi'])})" if r["lo"] is not None else ""
    told.append(f"federated {text.number(r['fed'])}{ends}")
    told += [f"pooled {text.number(r['pooled'])}"] if r["pooled"] is not None else []
    told += [f"alone {', '.join(map(text.number, sorted(r['alone'])))}"] if r["alone"] else []
    return "; ".join(told)


def _numbers(run: Run, rows: list[Data], name: str) -> Data:
    judged, pooled, local = run.last, run.beside.get("central"), run.beside.get("local")
    second = next((m for m in text.ordered(run.metric_names, name) if m not in (name, "loss")), "loss")
    label = capital(text.metric(name))
    head = ["Tested on", run.judged_word[1], f"{label} federated", "95 %"]
    head += [*(["pooled"] if pooled else []), *(["alone"] if local else [])]
    head += [f"{text.metric(second)} federated"] if second != name else []
    head += ["pooled"] if pooled and second != name else []
    told: list[list[str]] = []
    ids: list[int | None] = [None, *(sorted(judged.clients) if judged and len(rows) > 1 else [])]
    for r, i in zip(rows, ids):
        n = text.count(r["n"]) if r["n"] is not None else ""
        ends = f"{text.short(r['lo'])} – {text.short(r['hi'])}" if r["lo"] is not None else "–"
        star = " *" if r["note"] else ""
        row = [r["name"], n, text.number(r["fed"]) + star, ends]
        row += [text.number(r["pooled"]) if r["pooled"] is not None else "–"] if pooled else []
        if local:
            alone = sorted(r["alone"])
            row.append(" – ".join(text.number(v) for v in dict.fromkeys([*alone[:1], *alone[-1:]])) or "–")
        if second != name:
            mine = run.final if i is None else judged.clients.get(i, {}) if judged else {}
            row.append(text.number((mine or {}).get(second)))
            if pooled:
                row.append(text.number((pooled.metrics if i is None else pooled.clients.get(i, {})).get(second)))
        told.append(row)
    return {"title": "Numbers", "head": head, "rows": told, "total": True}
