"""Learning: loss and the main metric over rounds, the model thick, clients thin, band from lowest to highest."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track import charts, drawing, intervals, verdict
from manyloom.track.charts import Line
from manyloom.track.record import NAMED, Judged, Run
from manyloom.track.sections.parts import FEW, ROWS, Data, Drawer, capital, every

ID = "learning"


def title(run: Run) -> str:
    return "Learning"


def section(run: Run, draw: Drawer) -> Data | None:
    judged = points(run)
    names = [m for m in dict.fromkeys(["loss", run.main]) if any(j.metrics.get(m) is not None for _, j in judged)]
    if run.role in ("sweep", "local"):
        return None
    if not run.rounds:
        return {"charts": [], "notes": []}
    return {
        "charts": [_chart(run, judged, name, draw, alone=len(names) == 1) for name in names],
        "numbers": _numbers(run, judged, names),
        "notes": _notes(run),
    }


def points(run: Run) -> list[tuple[int, Judged]]:
    """Every evaluation by its round, that before training among them."""
    start = [(0, run.start)] if run.start and run.start.metrics else []
    return start + [(r.round, r.judged) for r in run.rounds if r.judged]


def _chart(run: Run, judged: list[tuple[int, Judged]], name: str, draw: Drawer, alone: bool) -> Data:
    known = [(r, v) for r, j in judged if (v := j.metrics.get(name)) is not None]
    if name != "loss" and len(known) > 3 and known[0][0] == 0:  # a coin's metric before training hides the rest
        judged, known = [(r, j) for r, j in judged if r], known[1:]
    shown = _shown(run, name)
    lines = [Line(run.who(i), pts, colour=colour) for i, pts, colour in _each(run, judged, name, shown)]
    lines.append(Line(f"all {run.judged_word[1]}", known, main=True, colour=drawing.INK))
    band = _band(judged, name) if run.size > 1 else []
    inner = [(r, *s.tenths) for r, j in judged if (s := j.spread.get(name))] if run.size > FEW else []
    pooled = run.beside.get("central")
    value = pooled.metrics.get(name) if pooled else None
    hidden = draw.hides(run)
    lost = sorted({x.round for x in run.lost}) if (name == "loss" or alone) and not hidden else []
    often = len(lost) > max(10, run.rounds_done // 3)  # marks everywhere tell nothing
    rejected = [int(e["round"]) for e in run.rejected if "round" in e]
    tip = [{"r": r, "tip": _tip(run, r, j, name, shown, hidden)} for r, j in judged if j.metrics.get(name) is not None]
    heading = verdict.title_learning(run, name)
    first, last = known[0][0], max(run.rounds_done, known[-1][0])
    say = f"over {text.plural(run.rounds_done, ('round', 'rounds'))}"

    def make(width: int) -> drawing.Spec:
        return charts.curves(
            lines, band=band, inner=inner, reference=("pooled", value) if value is not None else None,
            crosses=[] if often else [r for r in lost if r <= last], rejected=rejected, tip=tip,
            first=first, last=last, width=width, height=280 if width > 600 else 264,
        )  # fmt: skip

    def picture() -> str:
        label = f"{heading}, {say}"
        return drawing.both(make, label=label) if alone else drawing.draw(make(400), label)

    return {
        "title": heading,
        "subtitle": _subtitle(run, name, shown, band, inner, lost, often),
        "svg": draw(name, picture),
    }


def _band(judged: list[tuple[int, Judged]], name: str) -> list[tuple[int, float, float]]:
    """Lowest and highest client a round, without those whose AUC says little."""
    found: list[tuple[int, float, float]] = []
    for r, j in judged:
        few = {i for i, c in j.counts.items() if name == "auc" and intervals.says_little(*c)}
        values = [v for i, m in j.clients.items() if i not in few and (v := m.get(name)) is not None]
        s = j.spread.get(name)
        if len(values) > 1:
            found.append((r, min(values), max(values)))
        elif s is not None and not j.clients:
            found.append((r, s.low, s.high))
    return found


def _shown(run: Run, name: str) -> list[int]:
    """The clients that get a line of their own: up to eight, without those whose AUC says little."""
    if run.last is None or not 1 < len(run.last.clients) <= FEW:
        return []
    few = {i for i, c in run.last.counts.items() if name == "auc" and intervals.says_little(*c)}
    return [i for i in sorted(run.last.clients) if i not in few]


def _each(
    run: Run, judged: list[tuple[int, Judged]], name: str, shown: list[int]
) -> list[tuple[int, list[tuple[int, float]], str]]:
    found: list[tuple[int, list[tuple[int, float]], str]] = []
    order = sorted(run.people)
    worst = verdict.worst_client(run)
    for i in shown[:NAMED]:
        pts = [(r, v) for r, j in judged if (v := j.clients.get(i, {}).get(name)) is not None]
        colour = (
            drawing.HUES[order.index(i)]
            if len(order) <= 4
            else drawing.ACCENT
            if worst and worst[0] == i
            else drawing.REF
        )
        found += [(i, pts, colour)] if pts else []
    return found


def _subtitle(run: Run, name: str, shown: list[int], band: object, inner: object, lost: list[int], often: bool) -> str:
    own = run.last is not None and run.last.split == "own"
    said = [f"{capital(text.metric(name))} on {'the source’s test set' if own else 'held-out ' + run.judged_word[1]}."]
    if inner:
        said.append(f"Band: lowest to highest {run.client_word[0]}; darker: without the outer tenths.")
    elif band:
        said.append(f"Band: lowest to highest {run.client_word[0]}.")
    if run.last and 1 < len(run.last.clients) <= FEW:
        left = [i for i in run.last.clients if i not in shown]
        if left:
            said.append(
                f"No line for {text.listed(run.who(i) for i in left)}: too few test {run.row_word[1]} of one class."
            )
    if lost:
        said.append(f"Replies were lost in {len(lost)} rounds." if often else "× marks a round with a lost reply.")
    return " ".join(said)


def _tip(run: Run, r: int, judged: Judged, name: str, shown: list[int], hidden: bool) -> str:
    start = f"round {r}" if r else "before training"
    told = [start, f"all {run.judged_word[1]} {text.number(judged.metrics.get(name))}"]
    told += [f"{run.who(i)} {text.number(judged.clients[i].get(name))}" for i in shown if i in judged.clients]
    if not shown and (s := judged.spread.get(name)) and run.size > 1:
        told.append(f"{run.client_word[1]} {text.number(s.low)} to {text.number(s.high)}")
    if run.size <= FEW and not hidden:
        told += [f"{x.name} lost" for x in run.lost if x.round == r]
    return "; ".join(told)


def _numbers(run: Run, judged: list[tuple[int, Judged]], names: list[str]) -> Data:
    ids = sorted(run.last.clients) if run.last and 1 < len(run.last.clients) <= FEW else []
    one = names[0] if names else "loss"
    names = list(dict.fromkeys([*names, *run.metric_names]))
    spent = any(r.epsilon is not None for r in run.rounds)
    by_round = {r.round: r for r in run.rounds}
    head = ["Round", *map(text.metric, names), *(f"{text.metric(one)}, {run.who(i)}" for i in ids)]
    tenth = run.size > FEW and any(run.main in j.spread for _, j in judged)
    head += ([f"{text.metric(run.main)}, worst tenth"] if tenth else []) + (["ε"] if spent else [])
    rows: list[list[str]] = []
    for k in drawing.thin(len(judged), ROWS):
        r, j = judged[k]
        row = [str(r), *(text.number(j.metrics.get(m)) for m in names)]
        row += [text.number(j.clients.get(i, {}).get(one)) for i in ids]
        if tenth:
            row.append(text.number(j.spread[run.main].worst) if run.main in j.spread else "–")
        if spent:
            row.append(text.epsilon(by_round[r].epsilon) if r in by_round else "–")
        rows.append(row)
    return {"title": every(len(judged)), "head": head, "rows": rows}


def _notes(run: Run) -> list[str]:
    said: list[str] = []
    best = run.best()
    if best and best[1] != run.rounds_done:
        said.append(f"Best {text.metric(run.main)}: {text.number(best[0])} in round {best[1]}.")
    if run.rejected:
        rounds = text.listed(str(e.get("round")) for e in run.rejected)
        said.append(f"Validation rejected the model of round {rounds}; the one before was kept.")
    if run.resumed:
        said.append(f"The run was resumed from round {text.listed(map(str, run.resumed))}.")
    return said
