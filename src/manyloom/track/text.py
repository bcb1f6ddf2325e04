"""What a terminal says about a run that is over: its table beside baselines, the end, `show`, the list of runs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from manyloom.core import text
from manyloom.track import intervals, parties, promise, verdict
from manyloom.track.record import Judged, Metrics, Run
from manyloom.track.view import PHASES

WIDTH = 80


def ending(run: Run, report: str | None = None, next: Sequence[str] | None = None) -> str:
    """The end of a run on standard output: table and verdict, or the result in a line; what to do next."""
    lines = [baselines_table(run), ""] if run.beside else []
    lines += _result(run)
    lines += _privacy(run)
    if run.lost_total:
        lines.append(text.field("lost", lost_line(run)))
    if report:
        lines.append(text.field("report", report))
    lines += _next(run.next if next is None else next)
    return "\n".join(lines)


def _next(commands: Sequence[str]) -> list[str]:
    return [f"{'next' if i == 0 else '':8} {command}" for i, command in enumerate(commands)]


def _result(run: Run) -> list[str]:
    if run.beside and run.status == "done" and not verdict.diverged(run):
        said = " ".join(verdict.verdict(run)[1:]).replace("’", "'")
        said = said.replace(" it reaches ", " the shared model reaches ", 1)
        moved = text.size(run.bytes_up + run.bytes_down)
        stays = verdict.record_word(run).replace("’", "'")
        said += f" No {stays} moved; {moved} of numbers did."
        return textwrap.wrap(said, WIDTH, break_on_hyphens=False)
    metrics = text.metrics_line(run.final or {}, run.main, 2)
    rows = f" on {verdict.rows_word(run)}" if metrics and run.last and run.last.rows else ""
    took = text.seconds(run.seconds)
    done = run.rounds_done
    if run.status == "done":
        said = [text.field("done", f"{metrics}{rows}, {took}" if metrics else took)]
        return [*said, *([text.field("warning", verdict.verdict(run)[-1])] if verdict.diverged(run) else [])]
    where = f"after round {done} of {run.rounds_planned}"
    if run.status == "stopped":
        why = next((s for s in verdict.verdict(run) if s.startswith("It stopped")), "")
        reason = why.partition(": ")[2].rstrip(".") or where
        said = [
            text.field("stopped", f"{where}: {reason}"),
            *([text.field("", metrics + rows)] if metrics else []),
        ]
        return said
    if run.status == "interrupted":
        return [f"interrupted {where}. Nothing that was saved is lost."]
    if run.status == "failed":
        return [text.field("failed", f"{where}: {run.reason or 'see the error above'}")]
    return [text.field(run.status, where)]


def _privacy(run: Run, always: bool = False) -> list[str]:
    if not always and (run.status not in ("done", "stopped") or run.role is not None):
        return []
    if run.vertical:
        return _leak(run)
    if run.privacy is None:
        if run.secure:
            said = f"The coordinator saw {promise.sums(run)}."
            bare = "Nothing bounds what sums and model tell: no epsilon."
            if run.beside and not always:
                return [*textwrap.wrap(f"{said} {bare}", WIDTH), ""]
            return [text.field("privacy", f"{said}\n{bare}")]
        if run.beside:
            said = f"This run had no privacy protection: the coordinator saw {promise.saw(run)}."
            return [*textwrap.wrap(said, WIDTH), ""]
        return [text.field("privacy", f"none: the coordinator saw {promise.saw(run)}")]
    return [text.field("privacy", "\n".join(promise.told(run))), *([""] if run.beside and not always else [])]


def _leak(run: Run) -> list[str]:
    said = parties.leak_line(run)
    return [text.field("leak", said)] if said else []


def lost_line(run: Run) -> str:
    """Who was lost when: "3 of 160 replies: Switzerland in 14 and 15, Long Beach VA in 27"."""
    when: dict[str, list[int]] = {}
    for loss in run.lost:
        when.setdefault(loss.name, []).append(loss.round)
    told = [f"{name} in {text.listed(map(str, rounds), most=4)}" for name, rounds in when.items()]
    of = f" of {text.count(run.asked)}" if run.asked else ""
    more = f" and {len(told) - 4} more" if len(told) > 4 else ""
    return f"{text.count(run.lost_total)}{of} replies: {', '.join(told[:4])}{more}"


def baselines_table(run: Run) -> str:
    """Federated, alone and pooled side by side, over all and for each client, on the same held-out rows.

    At most 80 columns: long names are cut, and where that is not enough the second metric is left out. In the row
    of all, *alone* is the range of the models trained alone, each judged on everyone.
    """
    if run.last is None:
        return ""
    names = [m for m in dict.fromkeys([run.main, *run.metric_names]) if m != "loss"][:2] or ["loss"]
    table = _side_by_side(run, run.last, names)
    if max(map(len, table)) > WIDTH:
        table = _side_by_side(run, run.last, names[:1])
    kept = promise.kept(run)
    return "\n".join([*table, *textwrap.wrap(kept, WIDTH)] if kept else table)


def _side_by_side(run: Run, judged: Judged, names: Sequence[str]) -> list[str]:
    pooled, local = run.beside.get("central"), run.beside.get("local")
    kinds = ["federated", *(["alone"] if local else []), *(["pooled"] if pooled else [])]
    cells: list[list[str]] = []
    stars: list[list[bool]] = []
    notes: list[str] = []
    for i in [None, *(sorted(judged.clients) if len(judged.clients) <= 20 else [])]:
        n, positives = (judged.rows, judged.positives) if i is None else judged.counts.get(i, (None, None))
        row = ["All" if i is None else text.printable(run.who(i)), text.count(n) if n is not None else ""]
        starred: list[bool] = []
        for m in names:
            mine = run.final if i is None else judged.clients[i]
            row.append(_cell((mine or {}).get(m)))
            if local:
                own = local.clients.get(i, {}).get(m) if i is not None else None
                row.append(_range(local.on_all.values(), m) if i is None else _cell(own))
            if pooled:
                row.append(_cell((pooled.metrics if i is None else pooled.clients.get(i, {})).get(m)))
            little = m == "auc" and intervals.says_little(n, positives)
            starred += [little and i is not None] * len(kinds)
            if little and i is not None and n is not None and positives is not None:
                notes.append(_few(run, i, n, positives))
        cells.append(row)
        stars.append(starred)
    heads = kinds * len(names)
    widths = [max(len(head), *(len(row[2 + j]) for row in cells)) for j, head in enumerate(heads)]
    room = max(14, WIDTH - sum(w + 2 for w in widths))
    start = min(room, max(len(row[0]) + 1 + len(row[1]) for row in cells))
    lines = [
        ("Held-out " + run.judged_word[1]).ljust(start),
        " " * start + "".join(f"  {h.ljust(w)}" for h, w in zip(heads, widths)),
    ]
    for j, m in enumerate(names):
        at = start + sum(w + 2 for w in widths[: j * len(kinds)])
        lines[0] = lines[0].ljust(at) + "  " + text.metric(m)
    for row, starred in zip(cells, stars):
        wide = start - len(row[1]) - 1
        name = row[0] if len(row[0]) <= wide else row[0][: wide - 1] + "…"
        line = name.ljust(wide) + " " + row[1]
        line += "".join(f"  {c.rjust(w)}" for c, w in zip(row[2:], widths)) + "  "
        at = start
        for w, star in zip(widths, starred):
            at += w + 2
            line = line[:at] + "*" + line[at + 1 :] if star else line
        lines.append(line)
    shown = [line for note in notes[:3] for line in textwrap.wrap(f"* {note}", WIDTH, subsequent_indent="  ")]
    return [line.rstrip() for line in [*lines, *shown]]


def _cell(value: float | None) -> str:
    return "" if value is None else text.number(value)


def _range(found: Iterable[Metrics], name: str) -> str:
    values = [v for m in found if (v := m.get(name)) is not None]
    return f"{text.number(min(values))}-{text.number(max(values))}" if values else ""


def _few(run: Run, client: int, rows: int, positives: int) -> str:
    negatives = rows - positives
    count, label = (positives, 1) if positives <= negatives else (negatives, 0)
    word = f"“{run.classes[label]}”" if len(run.classes) == 2 else f"of class {label}"
    who = text.printable(run.who(client))
    all_rows = text.plural(rows, run.judged_word)
    verb = "is" if count == 1 else "are"
    return f"only {count} of {all_rows} of {who} {verb} {word}: this AUC says little"


# ---- show and runs


def show(run: Run, files: Sequence[str] = (), toml_path: str | None = None) -> str:
    """One run, as `manyloom show` prints it."""
    when = day(run.started)
    lines = [text.field("run", f"{run.id}  {run.status}  {when}  {text.seconds(run.seconds)}")]
    lines.append(text.field("job", f"{text.digest(run.job_digest)}" + (f"  ({toml_path})" if toml_path else "")))
    if run.final:
        told: list[str] = []
        for name in text.ordered(run.final, run.main):
            found = intervals.judged_interval(run.last, name) if run.last and name == run.main else None
            told.append(f"{name} {text.number(run.final[name])}" + (f" (95 %: {ends(found)})" if found else ""))
        lines.append(text.field("result", "  ".join(told)))
    else:
        lines.append(text.field("result", f"{run.reason or 'none yet'}"))
    lines.append(parties.listing(run) if run.vertical else clients_table(run))
    lines += run.tuned.shown()
    if run.role is None and (run.vertical or run.privacy is not None or run.secure):
        lines += _privacy(run, always=True)
    if run.lost_total:
        lines.append(text.field("lost", lost_line(run)))
    lines.append(text.field("bytes", f"{text.size(run.bytes_up)} up, {text.size(run.bytes_down)} down"))
    if run.phases:
        parts = sorted(run.phases.items(), key=lambda p: -p[1])
        rest = run.seconds - sum(run.phases.values())
        named = [(PHASES.get(k, k.replace("_", " ")), v) for k, v in parts[:5] if v >= 0.05]
        named += [("rest", rest)] if rest >= 0.05 else []
        spent = "  ".join(f"{k}\u00a0{v:.1f}" for k, v in named) + "\u00a0s"
        lines.append(text.field("time", spent).replace("\u00a0", " "))
    if files:
        lines.append(text.field("files", " ".join(files)))
    return "\n".join(line.rstrip() for line in lines if line)


def ends(found: tuple[float, float]) -> str:
    """An interval in words: 0.84 to 0.93."""
    return f"{text.short(found[0])} to {text.short(found[1])}"


def clients_table(run: Run, most: int = 8) -> str:
    """A client a row; above `most` the spread over them."""
    people = sorted(run.people.values(), key=lambda p: p.index)
    judged = run.last
    if not people or judged is None:
        return ""
    kept = promise.kept(run)
    if max(len(people), run.size) > most:
        told = [text.plural(run.size, run.client_word), *([kept] if kept else [])]
        for name, s in judged.spread.items():
            told.append(f"{name} {text.number(s.low)} to {text.number(s.high)}, worst tenth {text.number(s.worst)}")
        return text.field("clients", "\n".join(told))
    names = [m for m in ("loss", *text.ordered(judged.metrics, run.main)) if m in judged.metrics and not kept]
    names = list(dict.fromkeys(names))[:4]
    rows: list[list[str]] = []
    for p in people:
        little = intervals.says_little(*judged.counts.get(p.index, (None, None)))
        cells = [
            text.number(judged.clients.get(p.index, {}).get(m)) + ("*" if m == "auc" and little else "") for m in names
        ]
        size = (p.train or 0) + (p.test or 0)
        rows.append(["  " + text.printable(p.name)[:24], text.count(size), f"{p.rounds}/{run.rounds_done}", *cells])
    shown = text.columns(["clients", run.row_word[1], "rounds", *names], rows)
    return "\n".join([shown, *textwrap.wrap(kept, WIDTH, initial_indent="  ", subsequent_indent="  ")])


def day(t: str | None) -> str:
    """A date and time in words.

    >>> day("2026-11-24T10:41:02.114Z")
    '24 Nov 2026 10:41'
    """
    try:
        return datetime.fromisoformat(str(t)).strftime("%d %b %Y %H:%M").lstrip("0")
    except ValueError:
        return text.UNKNOWN


def ago(t: str | None, now: datetime | None = None) -> str:
    """How long ago, as a list of runs says it.

    >>> ago("2026-11-24T10:41:00Z", datetime(2026, 11, 24, 10, 43, tzinfo=UTC))
    '2 min'
    """
    try:
        then = datetime.fromisoformat(str(t))
    except ValueError:
        return text.UNKNOWN
    here = now or datetime.now(UTC)
    gone = (here - then).total_seconds()
    if gone < 60:
        return "now"
    if gone < 3600:
        return f"{gone // 60:.0f} min"
    days = (here.date() - then.date()).days
    if days < 1:
        return "today"
    return "yesterday" if days == 1 else f"{then:%A}" if days < 7 else f"{then:%d %b %Y}".lstrip("0")


def runs_table(runs: Sequence[Mapping[str, Any]], home: str, size: int, now: datetime | None = None) -> str:
    """The list of runs; `runs` are rows of the index."""
    rows: list[list[str]] = []
    for r in runs:
        final: Mapping[str, Any] = r.get("final") or {}
        best = next((m for m in ("auc", "accuracy", "rmse", "loss", *final) if final.get(m) is not None), None)
        result = f"{ {'accuracy': 'acc'}.get(best, best) } {text.number(final[best])}" if best else ""
        spent = "none" if r.get("epsilon") is None else text.epsilon(r["epsilon"])
        spent += f"/{text.epsilon(r['budget'])}" if r.get("epsilon") is not None and r.get("budget") is not None else ""
        when = "now" if r.get("status") == "running" else ago(r.get("started"), now)
        moved = text.size((r.get("bytes_up") or 0) + (r.get("bytes_down") or 0))
        rounds = f"{r.get('rounds_done') or 0}/{r.get('rounds_planned') or 0}"
        rows.append([str(r["id"]), when, str(r["status"]), rounds, result, spent, moved])
    head = ["run", "when", "status", "rounds", "result", "epsilon", "moved"]
    table = text.columns(head, rows, left=(0, 1, 2)) if rows else "no run yet. Try: manyloom run heart"
    return f"{table}\n{text.plural(len(runs), ('run', 'runs'))} in {home} ({text.size(size)})"
