"""Bytes and time: up above zero, down below; where the seconds went, waiting a phase of its own."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track import charts, drawing, promise
from manyloom.track.record import Round, Run
from manyloom.track.sections.parts import ROWS, Data, Drawer, every, place
from manyloom.track.view import PHASES

ID = "bytes"
KINDS = {
    "train": "training",
    "secure": "the secure sum’s own",
    "evaluate": "evaluation",
    "statistics": "column statistics",
    "align": "alignment",
}


def title(run: Run) -> str:
    return "Bytes and time"


def section(run: Run, draw: Drawer) -> Data | None:
    if run.role in ("sweep", "local"):
        return None
    if draw.hides(run):
        return {"left": _left_out(run), "traffic": None, "kinds": None, "phases": _phases(run, shares=True)}
    return {"left": "", "traffic": _traffic(run, draw), "kinds": _kinds(run), "phases": _phases(run)}


def _left_out(run: Run) -> str:
    """What a round moves by plan, where what it moved would tell how many took part."""
    up, down = (text.finite(run.planned.get(f"bytes_{way}_round")) for way in ("up", "down"))
    plan = f" As planned, a round moves {text.size(up)} up and {text.size(down)} down." if up is not None else ""
    return promise.left_out(run) + plan


def _traffic(run: Run, draw: Drawer) -> Data | None:
    rounds = [r for r in run.rounds if r.up is not None and r.down is not None]
    if not rounds or not any((r.up or 0) + (r.down or 0) for r in rounds):
        return None
    channel = any(sum(r.channel) for r in rounds)
    each = -(-len(rounds) // drawing.BARS)
    rows = [_bar(rounds[i : i + each], channel) for i in range(0, len(rounds), each)]
    heading = f"{text.size(run.bytes_up)} up and {text.size(run.bytes_down)} down"
    per = run.bytes_up / len(rounds)
    if channel:
        heading += f", {_protocol(run)}"
    elif len(rounds) > 1:
        heading += f", {text.size(per)} up in a round"
    how = f"Each bar is the mean of {each} rounds. " if each > 1 else ""
    lost = " Short bars: rounds with a lost reply." if run.lost_total and run.size <= 40 and each == 1 else ""

    def make(width: int) -> drawing.Spec:
        return charts.traffic(rows, words=run.client_word[1], width=width, each=each)

    kept = [rounds[i] for i in drawing.thin(len(rounds), ROWS)]
    table = [[str(r.round), text.size(r.up), text.size(r.down), *_own(r, channel), _replies(r)] for r in kept]
    head = ["Round", "up", "down", *(["the sum itself, up", "down"] if channel else []), "replies"]
    strong = "Strong: the model and the masked sum themselves. Pale: keys, shares and answers of the secure sum; "
    strong = f"{strong}their share shrinks as the model grows. " if channel else ""
    sent = "Tensors as serialised; in one process they are counted, not sent."
    return {
        "title": heading,
        "subtitle": f"{strong}{how}{sent if run.runtime in ('sequential', 'vectorised') else ''}{lost}".strip(),
        "svg": draw("bytes", lambda: drawing.both(make, label=heading)),
        "numbers": {"title": every(len(rounds)), "head": head, "rows": table},
    }


def _protocol(run: Run) -> str:
    """How much of what moved was the secure sum's own."""
    secure, train = (sum(run.bytes[kind].values()) for kind in ("secure", "train"))
    share = secure / max(1, secure + train)
    return "nearly all of it protocol" if share > 0.9 else f"{text.percent(share)} of it protocol"


def _own(r: Round, channel: bool) -> list[str]:
    return [text.size(r.bytes_up), text.size(r.bytes_down)] if channel else []


def _replies(r: Round) -> str:
    return f"{r.back} of {r.asked}" if r.back is not None and r.asked else text.UNKNOWN


def _bar(group: list[Round], channel: bool) -> Data:
    up, down = sum(r.up or 0 for r in group) / len(group), sum(r.down or 0 for r in group) / len(group)
    first, last = group[0].round, group[-1].round
    name = f"round {first}" if first == last else f"rounds {first} to {last}, mean"
    tip = f"{name}; up {text.size(up)}; down {text.size(down)}"
    bar: Data = {"r": (first + last) / 2 if first != last else first, "up": up, "down": down, "tip": tip}
    if channel:
        own = sum(r.bytes_up or 0 for r in group) / len(group), sum(r.bytes_down or 0 for r in group) / len(group)
        tip += f"; the sum itself {text.size(own[0])} up, {text.size(own[1])} down"
        bar |= {"own_up": own[0], "own_down": own[1], "tip": tip}
    return bar


def _kinds(run: Run) -> Data:
    rows = [
        (KINDS.get(k, k), text.size(v["up"]), text.size(v["down"]))
        for k, v in run.bytes.items()
        if v["up"] or v["down"] or k == "train"
    ]
    up, down = (sum(v[way] for v in run.bytes.values()) for way in ("up", "down"))
    share = (run.bytes_up + run.bytes_down) / max(1, up + down)
    kind = "training and its secure sum" if any(run.bytes["secure"].values()) else "training"
    heading = f"{text.percent(share)} of all bytes are {kind}" if up + down else "No bytes were counted"
    heading = heading if run.rounds or not up + down else f"{text.size(up + down)} before the first round"
    return {"heading": heading, "subtitle": "All that crossed, by what it was for.", "rows": rows}


def _phases(run: Run, shares: bool = False) -> Data | None:
    """Where the time went; with `shares` only those: how long rounds took can tell how many took part."""
    named = [(PHASES.get(k, k.replace("_", " ")), v, k == "wait") for k, v in run.phases.items() if v > 0]
    rest = run.seconds - sum(v for _, v, _ in named)
    if rest > 0.02 * run.seconds and rest > 0.01:
        named.append(("the rest", rest, False))
    total = sum(v for _, v, _ in named)
    if not named or total <= 0:
        return None
    named.sort(key=lambda row: -row[1])
    at = place(0, named[0][1] / 0.7)
    first, most = next((n, v) for n, v, _ in named if n != "the rest" or len(named) == 1)
    share = most / total
    heading = f"{text.percent(share)} of the time was {first}" if len(named) > 1 else f"All of the time was {first}"
    rows = [
        {
            "name": n,
            "wide": at(v),
            "warn": warn,
            "note": text.percent(v / total) if shares else f"{_short(v)} · {text.percent(v / total)}",
            "tip": f"{n}; {text.percent(v / total) if shares else _short(v)}",
        }
        for n, v, warn in named
    ]
    quiet = [r.seconds for r in run.rounds if r.seconds is not None and not r.lost]
    middle = sorted(quiet)[len(quiet) // 2] if quiet else None
    per = f" A round in which everyone answers takes {_short(middle)}." if middle is not None else ""
    done = text.plural(run.rounds_done, ("round", "rounds"))
    virtual = sum(r.virtual_s or 0.0 for r in run.rounds)
    says = f" Simulated time: {text.seconds(virtual)}." if virtual else ""
    return {
        "heading": heading,
        "label": heading,
        "subtitle": f"About {text.about(run.seconds)} for {done}."
        if shares
        else f"{text.seconds(run.seconds)} for {done}.{per}{says}",
        "rows": rows,
        "numbers": {
            "title": "Numbers",
            "head": ["Phase", *([] if shares else ["seconds"]), "share"],
            "rows": [[n, *([] if shares else [f"{v:.3f}"]), text.percent(v / total)] for n, v, _ in named],
        },
    }


def _short(v: float) -> str:
    return text.seconds(v) if v >= 1 else text.seconds(v, 2) if v >= 0.1 else f"{1000 * v:.2g} ms"
