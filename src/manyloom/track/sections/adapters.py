"""Adapters of a language model: where they sit, how they were combined, how far that was from exact."""

from __future__ import annotations

from manyloom.core import text, tuning
from manyloom.track import charts, drawing, verdict
from manyloom.track.charts import Line
from manyloom.track.record import Run
from manyloom.track.sections.parts import BARS, ROWS, Data, Drawer, capital, every
from manyloom.track.tuned import MATRICES, RULES, Merge

ID = "adapters"
NUMBER = 4  # bytes of a float32
TINY = 1e-5  # an error that float32 factors have by rounding


def title(run: Run) -> str:
    return "Adapters"


def section(run: Run, draw: Drawer) -> Data | None:
    a = run.tuned.adapter
    if not a or run.role == "sweep":
        return None
    seen = [m for m in run.tuned.merges if m.mean is not None]
    bare = run.tuned.exact or max((m.most or 0.0 for m in seen), default=0.0) < TINY
    return {
        "sentence": _sentence(run),
        "facts": _facts(run, draw),
        "chart": None if bare else _chart(run, seen, draw),
        "notes": _notes(run),
    }


def _sentence(run: Run) -> str:
    a = run.tuned.adapter
    n, r = int(a.get("matched") or 0), a.get("r")
    has = "has an adapter" if n == 1 else "have an adapter each"
    where = f"{verdict.number_word(n)} {MATRICES[n != 1]} of {run.tuned.base}"
    said = f"{where} {has}, of rank {r}; nothing else is trained or sent."
    whole, d = text.finite(a.get("base_parameters")), text.finite(a.get("d"))
    if whole and d:
        said += f" That is {text.count(d)} numbers beside {text.count(whole)} that stay as they are."
    return said


def _facts(run: Run, draw: Drawer) -> list[tuple[str, str]]:
    a, t = run.tuned.adapter, run.tuned
    scale, d = text.finite(a.get("scale")), int(a.get("d") or 0)
    name, does, paper = RULES.get(t.rule, (t.rule, "", ""))
    rule = f"{name}: {does} ({paper})" if does else name
    frozen = "; of A nothing" if t.rule == "ffa" else ""
    targets = ", ".join(map(str, a.get("targets") or ()))
    told = [
        ("Base", f"{t.base}, {a.get('dtype')}"),
        ("Digest of the base", text.digest(a.get("base_digest"))),
        ("Targets", f"{targets}: {text.plural(int(a.get('matched') or 0), MATRICES)}"),
        ("Rank and scale", f"r = {a.get('r')}, scale alpha / r = {scale:g}" if scale else f"r = {a.get('r')}"),
        ("Combined by", rule),
        ("Aggregation error", t.error().removeprefix("error ").removeprefix("its error ")),
        ("Trained", f"{text.count(d)} numbers, {text.size(NUMBER * d)} as float32{frozen}"),
        ("A message", "" if draw.hides(run) else _message(run)),
    ]  # fmt: skip
    return [(k, v) for k, v in told if v]


def _message(run: Run) -> str:
    """Bytes of one client's message, of the last round that somebody answered."""
    last = next((r for r in reversed(run.rounds) if r.back and r.asked and r.up is not None), None)
    if last is None or last.up is None or last.down is None or not last.back or not last.asked:
        return ""
    up, down = last.up / last.back, last.down / last.asked
    return f"{text.size(up)} up and {text.size(down)} down, a {run.client_word[0]} in round {last.round}"


def _chart(run: Run, seen: list[Merge], draw: Drawer) -> Data:
    worst = max((m.most or 0.0 for m in seen), default=0.0)
    mean = sum(m.mean or 0.0 for m in seen) / len(seen)
    heading = f"Combining adapters is off by {_share(mean)} of a round’s update, at most {_share(worst)}"
    lines = [
        Line("mean", [(m.round, 100 * (m.mean or 0.0)) for m in seen], main=True, colour=drawing.INK),
        Line("largest", [(m.round, 100 * (m.most or 0.0)) for m in seen], colour=drawing.HUES[1]),
    ]
    tip = [
        {"r": m.round, "tip": f"round {m.round}; mean {_share(m.mean)}; largest {_share(m.most)}"} for m in seen
    ]  # fmt: skip

    def picture() -> str:
        made = charts.curves(lines, tip=tip, first=seen[0].round, last=seen[-1].round, width=480, height=260)
        return drawing.draw(made, heading)

    kept = [seen[i] for i in drawing.thin(len(seen), ROWS)]
    rows = [[str(m.round), tuning.error(m.mean), tuning.error(m.most)] for m in kept]
    return {
        "title": heading,
        "subtitle": "How far the new adapters are from the mean of the clients’ products B A, in percent of the "
        "round’s update: mean over matrices, and the largest.",
        "svg": draw("aggregation error", picture),
        "numbers": {"title": every(len(seen)), "head": ["Round", "mean", "largest"], "rows": rows},
    }


def _share(value: float | None) -> str:
    """A share in percent to two digits.

    >>> _share(0.00433), _share(0.5), _share(None)
    ('0.43 %', '50 %', 'n/a')
    """
    return text.UNKNOWN if value is None else f"{100 * value:.2g} %"


def _notes(run: Run) -> list[str]:
    t = run.tuned
    said: list[str] = []
    if t.exact:
        said.append("Exact by construction: one factor is the same for all, so the mean of the other is the mean "
                    "of the products. There is no error to draw.")  # fmt: skip
    elif t.merges and all(m.mean is None for m in t.merges):
        said.append("The aggregation error can’t be seen: the hub had sums alone, not each client’s adapter. "
                    f"With {t.rule} it is not zero.".replace("client", run.client_word[0]))  # fmt: skip
    elif t.merges and max(m.most or 0.0 for m in t.merges) < TINY:
        said.append("Exact to rounding in each round: there is no error to draw.")
    said.append("The adapter lies in the run’s folder as PEFT writes it; the base is not part of it.")
    return said


def texts(run: Run) -> Data | None:
    """What the clients' texts came to as tokens: a client a row, of many the totals."""
    found = run.tuned.texts
    if not found:
        return None
    whole = run.tuned.totals()
    heading = f"{text.count(whole.supervised)} tokens of the training {run.row_word[1]} count in the loss"
    lost = [
        f"{text.plural(n, ('text', 'texts'))} {what}"
        for n, what in ((whole.dropped, "dropped, for none of its tokens counts"), (whole.shortened, "cut to length"))
        if n
    ]
    head = [capital(run.client_word[0]), "rows", "supervised tokens", "dropped", "shortened"]
    shown = [whole, *(found if 1 < len(found) <= BARS else [])]
    rows = [[f"All {run.client_word[1]}" if t is whole else t.name, *map(text.count, t[2:])] for t in shown]
    return {
        "heading": heading,
        "subtitle": f"Supervised: what the model has to say, not what it is given. {capital('; '.join(lost))}"
        f"{'.' if lost else 'No text was dropped or cut.'}",
        "numbers": {"title": "Numbers", "head": head, "rows": rows, "total": True},
    }
