"""Data: labels over clients, sizes, missing values; what of it was never pooled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from manyloom.core import text
from manyloom.track import drawing, verdict
from manyloom.track.record import Person, Run
from manyloom.track.sections import adapters
from manyloom.track.sections.parts import BARS, Data, Drawer, capital, place, ticks

ID = "data"


def title(run: Run) -> str:
    return "Data"


def section(run: Run, draw: Drawer) -> Data | None:
    people = sorted(run.people.values(), key=lambda p: p.index)
    people = [p for p in people if p.train is not None]
    if run.vertical or not (people or run.summary):
        return None
    heading, far = verdict.title_data(run)
    two = len(run.classes) == 2 or any(p.labels is not None and len(p.labels) == 2 for p in people)
    labelled = bool(far) and run.target == "class"
    named = 0 < len(people) <= BARS
    return {
        "sentence": _sentence(run, people),
        "shares": _shares(run, people, heading, far) if labelled and named and two else None,
        "sizes": _sizes(run, people) if named and not (labelled and two) else None,
        "texts": adapters.texts(run),
        "strip": _strip(run, heading, far) if labelled and len(people) > BARS else None,
        "heats": [
            *([_labels(run, people, heading, far)] if labelled and named and not two else []),
            *([_missing(run)] if run.missing and run.missing.get("columns") else []),
        ],
        "quantiles": _quantiles(run, people) if not named else None,
    }


def _sentence(run: Run, people: list[Person]) -> str:
    one = run.client_word[0]
    if people:
        total = sum((p.train or 0) + (p.test or 0) for p in people)
        held = sum(p.test or 0 for p in people)
    else:
        total = int(run.summary.get("train") or 0) + int(run.summary.get("test") or 0)
        held = int(run.summary.get("test") or 0)
    at = f"at {text.plural(run.size, run.client_word)}"
    said = f"{text.plural(total, run.row_word)} {at}; {text.count(held)} of them were held out to test on."
    if run.size == 1 or run.role is not None:
        return said
    if run.language and not run.tuned.texts and (run.secure or run.privacy is not None):
        said += f" How many tokens each {one}’s texts came to stayed there."
    sent = "updates, column sums and counts" if run.statistics else "updates and counts"
    if run.secure:
        return f"{said} Nothing was pooled: {sent} of the {run.client_word[1]} met only in sums."
    return f"{said} Nothing was pooled: each {one} sent {sent}."


def _label(run: Run, c: int) -> str:
    return run.classes[c] if c < len(run.classes) else f"class {c}"


def _shares(run: Run, people: list[Person], heading: str, far: Mapping[int, float]) -> Data:
    sizes = [sum(p.labels or []) for p in people]
    at = place(0, max(sizes) / 0.82)
    rows: list[Data] = []
    for p in people:
        a, b = (p.labels or [0, 0])[::-1]  # the class of interest, the second, comes first
        n = a + b
        share = text.percent(a / n) if n else text.UNKNOWN
        tip = f"{p.name}; {a} {_label(run, 1)}; {b} {_label(run, 0)}; distance {text.short(far.get(p.index))}"
        parts = [
            {"at": 0.0, "wide": at(a), "mid": at(a / 2), "n": a, "pale": False, "shown": at(a) > 6},
            {"at": at(a), "wide": at(b), "mid": at(a + b / 2), "n": b, "pale": True, "shown": at(b) > 6},
        ]
        rows.append({"name": p.name, "parts": parts, "end": at(n), "note": share, "tip": tip})
    table: list[list[str]] = []
    for p, n in zip(people, sizes):
        share = text.percent((p.labels or [0, 0])[1] / max(1, n))
        table.append([p.name, *(text.count(k) for k in p.labels or []), share, text.short(far.get(p.index))])
    head = [capital(run.client_word[0]), _label(run, 0), _label(run, 1), f"share {_label(run, 1)}", "distance"]
    return {
        "heading": heading,
        "label": heading,
        "subtitle": f"Training {run.row_word[1]} by {run.client_word[0]} and label. Distance: how far a "
        f"{run.client_word[0]}’s labels are from the whole (total variation, 0 to 1).",
        "names": [_label(run, 1), _label(run, 0)],
        "rows": rows,
        "numbers": {"title": "Numbers", "head": head, "rows": table},
    }


def _sizes(run: Run, people: list[Person]) -> Data:
    most = max((p.train or 0) for p in people) or 1
    at = place(0, most / 0.82)
    big = max(people, key=lambda p: p.train or 0)
    small = min(people, key=lambda p: p.train or 0)
    ratio = (big.train or 0) / max(1, small.train or 0)
    heading = (
        "All alike in size"
        if ratio < 1.25
        else f"{big.name} has {ratio:.1f} times the {run.row_word[1]} of {small.name}"
    )
    if len(people) == 1:
        heading = f"{text.plural(big.train or 0, run.row_word)} to train on"
    rows = [
        {"name": p.name, "wide": at(p.train or 0), "note": text.count(p.train or 0), "warn": False,
         "tip": f"{p.name}; {text.plural(p.train or 0, run.row_word)} to train; {text.count(p.test or 0)} to test"}
        for p in people
    ]  # fmt: skip
    table = [[p.name, text.count(p.train or 0), text.count(p.test or 0)] for p in people]
    return {
        "heading": heading,
        "label": heading,
        "subtitle": f"Training {run.row_word[1]} by {run.client_word[0]}.",
        "rows": rows,
        "numbers": {"title": "Numbers", "head": [capital(run.client_word[0]), "train", "test"], "rows": table},
    }


def _strip(run: Run, heading: str, far: Mapping[int, float]) -> Data:
    ordered = sorted(far.items(), key=lambda p: p[1])
    values = [v for _, v in ordered]
    marks, at = ticks([0.0, *values])
    kept = [ordered[k] for k in drawing.thin(len(ordered), 400)]
    told = {i for i, _ in (ordered[k] for k in drawing.thin(len(ordered), 100))}
    rows = [{"at": at(v), "tip": f"{run.who(i)}; distance {text.short(v)}" if i in told else ""} for i, v in kept]
    q = [values[round(p * (len(values) - 1))] for p in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    return {
        "heading": heading,
        "label": heading,
        "subtitle": f"Each stroke is one {run.client_word[0]}: how far its labels are from the whole (total variation, "
        "0 alike, 1 nothing in common).",
        "name": run.client_word[1],
        "marks": rows,
        "opacity": 0.75 if len(rows) < 60 else 0.3,
        "ticks": marks,
        "title": "distance from the whole",
        "numbers": {
            "title": "Numbers",
            "head": ["", "lowest", "10 %", "25 %", "median", "75 %", "90 %", "highest"],
            "rows": [["Distance", *map(text.short, q)]],
        },
    }


def _labels(run: Run, people: list[Person], heading: str, far: Mapping[int, float]) -> Data:
    width = max(len(p.labels or []) for p in people)
    picked = range(width) if width <= 20 else sorted(_largest(people, width))
    rows: list[Data] = []
    for p in people:
        total = max(1, sum(p.labels or []))
        cells: list[Data] = []
        for c in picked:
            n = (p.labels or [0] * width)[c]
            shown = f"{100 * n / total:.0f}" if n else "·"
            tip = f"{p.name}, {_label(run, c)}: {text.count(n)}"
            cells.append({"v": round(min(1.0, 1.6 * n / total), 3), "t": shown, "tip": tip})
        cells.append({"v": 0, "t": text.short(far.get(p.index)), "tip": f"{p.name}: distance from the whole"})
        rows.append({"name": p.name, "cells": cells})
    more = f" The 20 largest of {width} labels." if width > 20 else ""
    return {
        "title": heading,
        "subtitle": f"Which labels each {run.client_word[0]} holds. Distance: from the whole (total variation, "
        f"0 to 1).{more}",
        "caption": "Share of labels, in percent of the row",
        "columns": [*(_label(run, c) for c in picked), "distance"],
        "rows": rows,
        "tone": "--accent",
    }


def _largest(people: list[Person], width: int) -> list[int]:
    totals = [sum((p.labels or [0] * width)[c] for p in people) for c in range(width)]
    return sorted(range(width), key=lambda c: -totals[c])[:20]


def _missing(run: Run) -> Data:
    found = cast("Mapping[str, Any]", run.missing)
    columns = [str(c) for c in found["columns"]]
    shares = {int(i): [float(v) for v in row] for i, row in found.get("clients", {}).items()}
    never = [(columns[c], i) for i, row in shares.items() for c, v in enumerate(row) if v >= 0.9995]
    mean = {columns[c]: sum(row[c] for row in shares.values()) / max(1, len(shares)) for c in range(len(columns))}
    gaps = sorted((c for c in columns if mean[c] > 0.005), key=lambda c: -mean[c])
    if never and len({c for c, _ in never}) <= 2:
        heading = "; ".join(f"{c} was never measured at {text.listed([run.who(i) for k, i in never if k == c])}"
                            for c in dict.fromkeys(c for c, _ in never))  # fmt: skip
    elif gaps:
        heading = f"Most is missing of {text.listed(f'{c} ({text.percent(mean[c])})' for c in gaps[:3])}"
    else:
        heading = "Nearly nothing is missing"
    if len(shares) > BARS:
        shares_shown: list[tuple[str, list[float]]] = [("mean", [mean[c] for c in columns])]
    else:
        shares_shown = [(run.who(i), row) for i, row in sorted(shares.items())]
    kept = [c for c in range(len(columns)) if len(columns) <= 30 or mean[columns[c]] > 0][:40]
    rows = [
        {"name": name, "cells": [_gap(name, columns[c], row[c]) for c in kept]} for name, row in shares_shown
    ]  # fmt: skip
    filled = "the federated mean" if run.statistics else "what the model reads as missing"
    return {
        "title": heading,
        "subtitle": f"Gaps are filled with {filled}.",
        "caption": f"Share of values missing, by {run.client_word[0]} and column, in percent",
        "columns": [columns[c] for c in kept],
        "rows": rows,
        "tone": "--c2",
    }


def _gap(name: str, column: str, share: float) -> Data:
    shown = "·" if share < 0.005 else f"{100 * share:.0f}"
    return {"v": round(share, 3), "t": shown, "tip": f"{name}, {column}: {100 * share:.1f} % missing"}


def _quantiles(run: Run, people: list[Person]) -> Data | None:
    if people:
        ordered = sorted(p.train or 0 for p in people)
        found = [ordered[round(q * (len(ordered) - 1))] for q in (0, 0.25, 0.5, 0.75, 1)]
    else:
        found = [int(n) for n in cast("list[int]", run.summary.get("sizes") or [])]
    if not found:
        return None
    head = (
        ["", "smallest", "25 %", "median", "75 %", "largest"] if len(found) == 5 else ["", *map(str, range(len(found)))]
    )
    row = [f"Training {run.row_word[1]} a {run.client_word[0]}", *map(text.count, found)]
    return {"title": "Sizes in numbers", "head": head, "rows": [row]}
