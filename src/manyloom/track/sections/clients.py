"""Clients: up to eight a table; from nine a distribution, the mean beside the worst tenth, the five worst by name."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track import charts, drawing, intervals, promise, verdict
from manyloom.track.record import Judged, Run
from manyloom.track.sections.parts import FEW, Data, Drawer, capital, hue

ID = "clients"


def title(run: Run) -> str:
    return capital(run.client_word[1])


def section(run: Run, draw: Drawer) -> Data | None:
    if run.role == "sweep" or run.vertical or not (run.people or run.summary):
        return None
    judged = run.last
    if run.size > FEW:
        return _many(run, judged, draw)
    return {"sentence": _sentence(run), **_table(run, judged, draw.hides(run))}


def _sentence(run: Run) -> str:
    if run.last is None:
        return "The model has not been judged yet."
    if run.role == "local":
        return f"Each {run.client_word[0]}’s own model, judged on its own {run.row_word[1]}."
    if not run.rounds:
        return "No round is done yet: these numbers are from before training."
    if run.size == 1:
        return f"One {run.client_word[0]} took part, so there is nobody to compare it with."
    found = verdict.worst_client(run)
    if found is None:
        if kept := promise.kept(run):
            return kept
        if run.last.split == "own":
            return f"The model was judged on the source’s own test set, not at each {run.client_word[0]}."
        return f"No number was reported for a single {run.client_word[0]}."
    i, name, value = found
    said = f"The model serves {run.who(i)} worst ({text.metric(name)} {text.number(value)})."
    return f"{said} {_why(run, i)}".strip()


def _why(run: Run, worst: int) -> str:
    """A known difference of the worst client's data."""
    word = run.client_word[0]
    if run.missing:
        shares = {int(i): sum(v) / max(1, len(v)) for i, v in run.missing.get("clients", {}).items()}
        if len(shares) > 1 and max(shares, key=lambda i: shares[i]) == worst and shares[worst] > 0.05:
            return f"It is also the {word} with the most missing values ({text.percent(shares[worst])} of them)."
    far = verdict.label_distance(run)
    if len(far) > 1 and max(far, key=lambda i: far[i]) == worst and far[worst] > 0.1:
        return f"Its labels are also the farthest from the whole (distance {text.short(far[worst])})."
    sizes = {i: p.train for i, p in run.people.items() if p.train is not None}
    if len(sizes) > 1 and min(sizes, key=lambda i: sizes[i]) == worst:
        return f"It is also the smallest {word} ({text.plural(sizes[worst], run.row_word)} to train on)."
    return ""


def _table(run: Run, judged: Judged | None, hidden: bool) -> Data:
    told = judged.metrics if judged is not None and not promise.kept(run) else {}
    names = [m for m in ("loss", *text.ordered(run.metric_names, run.main)) if m in told]
    names = list(dict.fromkeys(names))[:5]
    head = [capital(run.client_word[0]), run.row_word[1], "train / test", *([] if hidden else ["took part"])]
    head += map(text.metric, names)
    rows: list[Data] = []
    few = False
    for i, p in sorted(run.people.items()):
        little = judged is not None and intervals.says_little(*judged.counts.get(i, (None, None)))
        cells = [text.count((p.train or 0) + (p.test or 0)), f"{p.train or 0} / {p.test or 0}"]
        if not hidden:
            cells.append(f"{p.rounds} of {run.rounds_done}" if run.role != "local" else "–")
        for m in names:
            value = judged.clients.get(i, {}).get(m) if judged else None
            star = " *" if m == "auc" and little and value is not None else ""
            few = few or bool(star)
            cells.append((text.number(value) if value is not None else "–") + star)
        rows.append({"name": p.name, "hue": hue(run, i), "cells": cells})
    note = (
        f"* Fewer than {intervals.FEW} test {run.row_word[1]} in one class: read the loss, not the AUC." if few else ""
    )
    return {"head": head, "rows": rows, "note": note}


def _many(run: Run, judged: Judged | None, draw: Drawer) -> Data:
    name = run.main
    spread = judged.spread.get(name) if judged else None
    word, hidden = run.client_word, draw.hides(run)
    if judged is None or not judged.clients or spread is None:
        told = f"{text.plural(run.size, word)}; no number was reported for a single one."
        if kept := promise.kept(run):
            told = f"{text.plural(run.size, word)}. {kept} So nobody can tell here whom the model serves badly."
        if judged is not None and name in judged.edges:
            mean, worst = judged.edges[name]
            told = (
                f"{text.plural(run.size, word)}: {text.metric(name)} {text.number(mean)} on average over them; one in "
            )
            told += f"ten gets {text.number(worst)} or {'more' if name in text.LOWER_IS_BETTER else 'less'}."
        return {"sentence": told}
    pairs = [(v, i) for i, m in judged.clients.items() if (v := m.get(name)) is not None]
    values = [v for v, _ in pairs]
    lower = name in text.LOWER_IS_BETTER
    edge = spread.tenths[1] if lower else spread.tenths[0]
    heading = (
        f"{text.count(len(values))} {word[1]}: one in ten gets {text.number(edge)} or {'more' if lower else 'less'}"
    )
    worst = sorted(pairs, reverse=lower)[:5]
    said = f"The mean over {word[1]} is {text.number(spread.mean)};"
    said += f" the worst tenth gets {text.number(spread.worst)} on average."
    if 0 < len(values) < run.size:
        said += f" {text.plural(len(values), word)} of {text.count(run.size)} were judged."
    marks = [("mean", spread.mean), ("worst tenth", spread.worst)]

    def picture() -> str:
        made = charts.histogram(values, title=text.metric(name), words=word[1], marks=marks)
        return drawing.draw(made, heading)

    ordered = sorted(values)
    at = [ordered[round(q * (len(ordered) - 1))] for q in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]
    numbers: Data = {
        "title": "Numbers",
        "head": ["", "lowest", "10 %", "25 %", "median", "75 %", "90 %", "highest"],
        "rows": [[capital(text.metric(name)), *map(text.number, at)]],
    }
    chart = {
        "title": heading,
        "subtitle": f"{capital(text.metric(name))} on each {word[0]}’s own test {run.row_word[1]}.",
        "svg": draw("clients", picture),
        "numbers": numbers,
    }
    rows = [
        [run.who(i), text.count(judged.counts.get(i, (0, 0))[0] or 0), *([] if hidden else [_took(run, i)]),
         text.number(v)] for v, i in worst
    ]  # fmt: skip
    table = {
        "title": "The five worst",
        "subtitle": f"By {text.metric(name)}, of {text.count(len(values))}.",
        "head": [capital(word[0]), f"test {run.judged_word[1]}", *([] if hidden else ["took part"]), text.metric(name)],
        "rows": rows,
    }
    return {"sentence": said, "chart": chart, "worst": table}


def _took(run: Run, i: int) -> str:
    return f"{run.people[i].rounds} of {run.rounds_done}" if i in run.people else "–"
