"""Lost replies: the cloth, one thread a client, one cell a round; above 40 clients the share of replies a round."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track import drawing, promise
from manyloom.track.record import THREADS, Loss, Person, Run
from manyloom.track.sections.parts import ROWS, Data, Drawer, capital, every, place
from manyloom.track.verdict import number_word

ID = "lost"
LISTED = 20  # most lost replies told one by one
CELLS = 120  # most cells of a thread; more rounds share one


def title(run: Run) -> str:
    return "Lost replies"


def section(run: Run, draw: Drawer) -> Data | None:
    if not (run.rounds or run.lost) or run.role is not None:
        return None
    if run.vertical and not (run.lost_total or run.failed):
        return None
    if draw.hides(run):
        empty: Data = {"cloth": None, "replies": None, "rows": [], "word": "", "more": "", "failed": []}
        return {"sentence": promise.left_out(run), **empty}
    shown = run.lost[:LISTED]
    rest = run.lost_total - len(shown)
    more = f"{text.count(rest)} more are in the run's events." if rest > 0 else ""
    threads = 0 < len(run.people) <= THREADS and run.size <= THREADS
    return {
        "sentence": " ".join([_sentence(run), *_beside(run)]),
        "cloth": _cloth(run) if threads and run.rounds else None,
        "replies": _replies(run) if not threads and run.lost_total and run.rounds else None,
        "rows": [(x.round, x.name, x.text, _back(run, x)) for x in shown],
        "word": capital(run.client_word[0]),
        "more": more,
        "failed": [_failed(e) for e in run.failed],
    }


def _beside(run: Run) -> list[str]:
    """What holds of one who reads here who took part, where a claim counts on nobody knowing it."""
    found = promise.for_readers(run, True)
    if len(found) < 2:
        return []
    return [f"Against readers of this list only ε = {text.epsilon(found[0].epsilon)} holds: without amplification."]


def _failed(e: object) -> str:
    found: dict[str, object] = dict(e) if isinstance(e, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
    return f"Round {found.get('round')}, attempt {found.get('attempt', 0)}: {found.get('reason')}"


def _sentence(run: Run) -> str:
    n, of = run.lost_total, run.asked
    if not n:
        return (f"None: all {text.count(of)} replies came back." if of else "None: nobody was asked.") + _sieved(run)
    start = f"{number_word(n)} of {text.count(of)} replies {'was' if n == 1 else 'were'} lost."
    went = [r for r in run.rounds if r.lost]
    if went:
        least = min((r.back or 0) for r in went)
        start += f" Each of those rounds went on with at least {text.plural(least, run.client_word)}."
    return start + _sieved(run)


def _sieved(run: Run) -> str:
    """Whose updates the rule or the screen before it left out, how often, from when to when."""
    n = sum(run.filtered.values())
    if not n:
        return ""

    def told(client: int, times: int) -> str:
        first, last = run.sieved[client]
        when = f"once (round {last})" if times == 1 else f"{times} times (rounds {first} to {last})"
        return f"{run.who(client)} {when}"

    most = sorted(run.filtered.items(), key=lambda found: (-found[1], found[0]))
    return f" {number_word(n)} {'was' if n == 1 else 'were'} filtered: {text.listed([told(*m) for m in most])}."


def _back(run: Run, x: Loss) -> str:
    """The round in which a client answered again."""
    person = run.people.get(x.client)
    again = [r for r in person.took if r > x.round] if person and run.size <= THREADS else []
    if again:
        return f"round {again[0]}"
    return "not again" if run.size <= THREADS else "–"


def _cloth(run: Run) -> Data:
    last = run.rounds_done
    each = -(-last // CELLS)
    cells = -(-last // each)
    at = place(0, cells)
    gap = 0.14 if cells <= 60 else 0.06
    people = sorted(run.people.values(), key=lambda p: p.index)
    gone: dict[int, dict[int, list[Loss]]] = {}
    for x in run.lost:
        if 1 <= x.round <= last:
            gone.setdefault(x.client, {}).setdefault((x.round - 1) // each, []).append(x)
    rows: list[Data] = []
    for k, p in enumerate(people):
        hue = f"c{k + 1}" if len(people) <= 4 else "accent"
        lost = gone.get(p.index, {})
        took = _taken(p, each)
        runs = [
            {"at": at(c), "wide": round(100 / cells * (1 - gap), 3), "strong": round(0.3 + 0.5 * share, 2),
             "tip": f"{p.name}, {_named(c, each, last)}; took part{'' if each == 1 else f' in {text.percent(share)}'}"}
            for c, share in sorted(took.items()) if c not in lost and c < cells
        ]  # fmt: skip
        marks = [
            {"at": at(c), "wide": round(100 / cells * (1 - gap), 3), "mid": round(at(c) + 50 / cells * (1 - gap), 3),
             "tip": f"{p.name}, {_named(c, each, last)}; lost: {xs[0].text}"}
            for c, xs in sorted(lost.items())
        ]  # fmt: skip
        rows.append({"name": p.name, "runs": runs, "lost": marks, "hue": hue})
    named = drawing.round_ticks(1, last)
    high = 22 if len(people) <= 12 else 14
    table = [[p.name, str(p.rounds), str(p.lost)] for p in people]
    how = f"One thread a {run.client_word[0]}, one cell {'a round' if each == 1 else f'for {each} rounds'}"
    return {
        "label": f"Rounds each {run.client_word[0]} took part in",
        "subtitle": f"{how}: filled where it took part, empty where it was not asked"
        + (", × where its reply was lost." if run.lost else "."),
        "rows": rows,
        "high": high,
        "cross": 14 if cells <= 60 else 10,
        "ticks": [(round(at((r - 0.5) / each), 2), str(r)) for r in named],
        "numbers": {
            "title": "Numbers",
            "head": [capital(run.client_word[0]), "rounds taken part in", "replies lost"],
            "rows": table,
        },
    }


def _taken(p: Person, each: int) -> dict[int, float]:
    found: dict[int, float] = {}
    for r in p.took:
        found[(r - 1) // each] = found.get((r - 1) // each, 0.0) + 1 / each
    return {c: min(1.0, v) for c, v in found.items()}


def _named(cell: int, each: int, last: int) -> str:
    a, b = cell * each + 1, min(last, (cell + 1) * each)
    return f"round {a}" if a == b else f"rounds {a} to {b}"


def _replies(run: Run) -> Data:
    rounds = [r for r in run.rounds if r.asked]
    each = -(-len(rounds) // drawing.BARS)
    groups = [rounds[i : i + each] for i in range(0, len(rounds), each)]
    at = place(0, len(groups))
    rows: list[Data] = []
    for k, group in enumerate(groups):
        back, asked = sum(r.back or 0 for r in group), sum(r.asked or 0 for r in group)
        share = back / max(1, asked)
        a, b = group[0].round, group[-1].round
        name = f"round {a}" if a == b else f"rounds {a} to {b}"
        tip = f"{name}; {text.count(back)} of {text.count(asked)} replies"
        rows.append({"at": at(k), "wide": round(86 / len(groups), 3), "top": round(60 - 56 * share, 1), "tip": tip})
    worst = min(rounds, key=lambda r: (r.back or 0) / max(1, r.asked or 1))
    named = drawing.round_ticks(1, len(rounds))
    table = [
        [str(r.round), text.count(r.asked or 0), text.count(r.back or 0), text.count((r.asked or 0) - (r.back or 0))]
        for r in (rounds[i] for i in drawing.thin(len(rounds), ROWS))
    ]
    return {
        "label": "Share of replies that came back, by round",
        "subtitle": "Share of those asked that answered; "
        f"the fewest in round {worst.round}: {worst.back} of {worst.asked}.",
        "rows": rows,
        "ticks": [(round(at((r - 0.5) / each), 2), str(r)) for r in named],
        "numbers": {"title": every(len(rounds)), "head": ["Round", "asked", "back", "lost"], "rows": table},
    }
