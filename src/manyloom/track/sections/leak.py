"""The leak meter: how well each party could read labels off the gradients it was sent, beside what the model gained."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track import charts, drawing, parties
from manyloom.track.charts import Line
from manyloom.track.record import Leak, Run
from manyloom.track.sections.parts import ROWS, Data, Drawer, capital, every

ID = "leak"
MOST = 6  # charts; a table holds the rest
SHARED = ("auc", "accuracy")  # metrics that may stand on one axis with an attack's AUC


def title(run: Run) -> str:
    return "Leak meter"


def section(run: Run, draw: Drawer) -> Data | None:
    if not run.vertical or parties.taught(run):
        return None
    if not run.leaks:
        said = "No pass was measured." if run.algorithm == "split-learning" else "No gradient was sent to a party."
        return {"sentence": said, "bare": "", "charts": [], "numbers": None, "notes": []}
    found = parties.last_leaks(run)
    bare = parties.undefended(run)
    return {
        "sentence": parties.leak_sentence(run),
        "bare": "These gradients went out undefended: whoever got them can read the labels nearly fully. "
        "[cut] defence = \"max-norm\" is the default." if bare and any(map(parties.nearly_all, found)) else "",
        "charts": [_chart(run, leak.party, draw) for leak in found[:MOST]],
        "numbers": _numbers(run),
        "notes": _notes(run),
    }  # fmt: skip


def _utility(run: Run) -> dict[int, float]:
    """The watched metric by round."""
    judged = [(r.round, r.judged) for r in run.rounds if r.judged]
    return {r: v for r, j in judged if (v := j.metrics.get(run.main)) is not None}


def _chart(run: Run, party: str, draw: Drawer) -> Data:
    mine = [leak for leak in run.leaks if leak.party == party]
    worst, gained = parties.worst_leak(run, party) or mine[-1], _utility(run) if run.main in SHARED else {}
    told = [("cosine", drawing.HUES[1], [x.cosine for x in mine]), ("norm", drawing.HUES[2], [x.norm for x in mine])]
    lines: list[Line] = []
    for name, colour, pairs in told:
        for which, label in ((1, f"{name}, 1 in 20"), (0, f"{name}, mean")):
            points = [(x.round, v) for x, p in zip(mine, pairs) if (v := p[which]) is not None]
            lines += [Line(label, points, main=not which, colour=colour)] if points else []
    model = [(r, v) for r, v in sorted(gained.items()) if r >= mine[0].round]
    lines += [Line(f"the model’s {text.metric(run.main)}", model, colour=drawing.INK)] if model else []
    rounds = [x.round for x in mine] + [r for r, _ in model]
    tip = [{"r": x.round, "tip": _tip(x, gained.get(x.round), run)} for x in mine]
    heading = _heading(worst)

    def picture() -> str:
        made = charts.curves(lines, reference=("a guess", 0.5), tip=tip, first=min(rounds), last=max(rounds),
                             width=400, height=280)  # fmt: skip
        return drawing.draw(made, heading)

    return {
        "title": heading,
        "subtitle": f"What two attacks on {party}’s gradients reach, as AUC: by their length (norm) and by their angle "
        "to one of a known positive (cosine). Thick: mean over batches; thin: in the worst of twenty.",
        "svg": draw(f"leak of {party}", picture) if lines else None,
    }


def _heading(worst: Leak) -> str:
    how = parties.DEFENCES.get(worst.defence, worst.defence)
    if worst.defence == "none":
        return f"{capital(worst.party)} could read the labels: AUC {text.number(worst.mean)}, undefended"
    return f"With {how}, {worst.party} could guess a label with AUC {text.number(worst.mean)}"


def _tip(leak: Leak, gained: float | None, run: Run) -> str:
    told = [f"round {leak.round}"]
    told += [f"{name} {text.number(a)}, 1 in 20 {text.number(b)}" for name, (a, b) in
             (("cosine", leak.cosine), ("norm", leak.norm))]  # fmt: skip
    return "; ".join([*told, *([f"the model’s {text.metric(run.main)} {text.number(gained)}"] if gained else [])])


def _numbers(run: Run) -> Data:
    gained = _utility(run)
    head = ["Round", "party", "defence", "norm, mean", "norm, 95 %", "cosine, mean", "cosine, 95 %"]
    kept = [run.leaks[i] for i in drawing.thin(len(run.leaks), ROWS)]
    rows = [
        [str(x.round), x.party, x.defence, *map(text.number, (*x.norm, *x.cosine)), text.number(gained.get(x.round))]
        for x in kept
    ]
    title = every(len(run.leaks)).replace("rounds", "rows")
    return {"title": title, "head": [*head, f"the model’s {text.metric(run.main)}"], "rows": rows}


def _notes(run: Run) -> list[str]:
    said = [
        "0.5 is guessing, 1 is certainty; the larger of an AUC and its mirror counts. Measured by the label party on "
        "the gradients as they were sent."
    ]
    if not parties.undefended(run):
        said.append("Noise against these two attacks is no guarantee: one who knows a few labels can do better.")
    return said
