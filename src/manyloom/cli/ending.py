"""How a run ended, in words: what `run`, `resume` and `baseline` print when it is over."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manyloom.cli.out import WIDTH, fields
from manyloom.core import text
from manyloom.core.errors import Problem
from manyloom.track.record import Run
from manyloom.track.verdict import rows_word, says_little, verdict

NAMED = 12  # clients with a row of their own in the table
WORST = 5  # of more clients, so many that are served worst


def human(run: Run, folder: str, *, plain: bool, now: bool = False, baselines: bool = False) -> str:
    """The end of a run for people.

    Args:
        run: as its events tell it.
        folder: where it lies, as it is shown.
        plain: key value pairs instead of sentences.
        now: whether a second Ctrl-C cut a round short.
        baselines: whether it was compared with each client alone and with all pooled.
    """
    if run.status == "interrupted":
        return interrupted(run, now)
    report = f"{folder}/report.html" if Path(folder, "report.html").is_file() else ""
    if run.status == "failed":
        return fields(("report", report))
    parts: list[str] = []
    if baselines and run.baselines:
        parts += [table(run), "", *paragraphs(run), ""]
    if plain:
        event = {"type": "run_done", "status": run.status, "rounds": run.rounds_done, "final": run.final,
                 "seconds": run.seconds}  # fmt: skip
        parts.append(text.plain_line(event) or "")
        parts.append(fields(("reason", run.reason or ""), ("lost", lost(run)), ("report", report)))
    else:
        parts.append(fields(*ended(run), ("lost", lost(run)), ("report", report)))
    return "\n".join(part for i, part in enumerate(parts) if part or i)


def ended(run: Run) -> list[tuple[str, str]]:
    """The line `done`, or `stopped` and why."""
    told = f"{text.metrics_line(run.final or {}, run.main)} on {rows_word(run)}, {text.seconds(run.seconds)}"
    if run.status != "stopped":
        return [(run.status, told)]
    return [("stopped", f"after round {run.rounds_done} of {run.rounds_planned}: {run.reason}"), ("result", told)]


def interrupted(run: Run, now: bool) -> str:
    """What is kept of a run that was asked to stop."""
    of = f"of {run.rounds_planned}" if run.rounds_planned else ""
    if not now:
        return f"interrupted after round {run.rounds_done} {of}. Nothing is lost."
    saved = f"Round {run.rounds_done} is saved." if run.rounds_done else "No round was done yet."
    return f"interrupted in round {run.rounds_done + 1} {of}. {saved}"


def failed(problem: Problem, run: Run) -> str:
    """Why a run ended, with who was lost in its last round and what is saved."""
    lines = problem.text().split("\n")
    last = [x for x in run.lost if x.round == run.rounds_done + 1]
    told = [f"{x.name}: {x.text}" for x in last[:4]] + ([f"{len(last) - 4} more"] if len(last) > 4 else [])
    kept = f"round {run.rounds_done}" if run.rounds_done else "nothing yet: no round was done"
    own = [] if problem.got else [("lost", "; ".join(told))]
    at = next((i for i, line in enumerate(lines) if line[:6] in ("  rule", "  mend")), len(lines))
    more: list[str] = []
    for word, value in [*own, ("saved", kept)]:
        if value:
            wrapped = textwrap.wrap(value, WIDTH - 9, break_long_words=False)
            more += [("  " + word.ljust(7) if i == 0 else " " * 9) + line for i, line in enumerate(wrapped)]
    return "\n".join([*lines[:at], *more, *lines[at:]])


def lost(run: Run) -> str:
    """Replies that did not come: how many of how many, whose, in which rounds."""
    if not run.lost_total:
        return ""
    rounds: dict[str, list[int]] = defaultdict(list)
    for x in run.lost:
        rounds[x.name].append(x.round)
    said = [f"{name} in {text.listed((str(r) for r in sorted(set(at))), most=4)}" for name, at in list(rounds.items())[:4]]
    said += [f"{len(rounds) - 4} more" if len(rounds) > 4 else ""]
    asked = f"{text.count(run.lost_total)} of {text.plural(run.asked, ('reply', 'replies'))}"
    return f"{asked}: " + ", ".join(s for s in said if s)


# ---- federated, alone, pooled


def table(run: Run) -> str:
    """The run beside each client alone and all pooled, on the same held-out rows.

    In the row of all, *alone* is the range of the models trained alone, each judged on everybody's rows; in a
    client's row it is its own model on its own rows.
    """
    names = [run.main, *(m for m in text.ordered(run.metric_names, run.main) if m not in (run.main, "loss"))][:2]
    names = list(dict.fromkeys(names if len(names) > 1 else [*names, "loss"]))
    shown = _shown(run)
    wide = min(16, max(len("All"), len(f"Held-out {run.row_word[1]}") - 5, *(len(run.who(i)) for i in shown)))
    rows_wide = max(3, len(text.count((run.last.rows if run.last else 0) or 0)))
    start = wide + 1 + rows_wide
    blocks = [_block(run, name, shown) for name in names]
    head = f"Held-out {run.row_word[1]}".ljust(start) + "".join(
        "  " + text.metric(n)[: b.width].center(b.width) for n, b in zip(names, blocks))  # fmt: skip
    lines = [head.rstrip(), (" " * start + "".join("  " + b.head for b in blocks)).rstrip()]
    labels = [("All", run.last.rows if run.last else None)]
    labels += [(run.who(i), (run.last.counts.get(i, (None, None))[0] if run.last else None)) for i in shown]
    for k, (name, rows) in enumerate(labels):
        left = text.printable(name)[:wide].ljust(wide) + " " + (text.count(rows) if rows else "").rjust(rows_wide)
        lines.append((left + "".join("  " + b.lines[k] for b in blocks)).rstrip())
    if len(shown) < len(run.people):
        lines.append(f"The {len(shown)} {run.client_word[1]} served worst, of {text.count(len(run.people))}.")
    return "\n".join([*lines, *_footnote(run, names, shown)])


class _Block:
    """Three columns of one metric."""

    def __init__(self, rows: list[tuple[str, str, str]]) -> None:
        cells = [("federated", "alone", "pooled"), *rows]
        a, b, c = (max(len(row[i]) for row in cells) for i in range(3))
        a, b = max(9, a), max(11, b)
        told = [row[0].rjust(a + 1 - row[0].endswith("*")).ljust(a + 1) + " " + row[1].ljust(b) + " "
                + row[2].rjust(c + 1 - row[2].endswith("*")).ljust(c + 1) for row in cells]  # fmt: skip
        self.head, self.lines, self.width = told[0], told[1:], len(told[0])


def _block(run: Run, name: str, shown: list[int]) -> _Block:
    central, local = run.baselines.get("central"), run.baselines.get("local")

    def cell(value: float | None, star: str = "") -> str:
        return text.number(value) + star if value is not None else "-"

    alone = [v for m in (local.on_all.values() if local else ()) if (v := m.get(name)) is not None]
    span = f"{text.number(min(alone))}-{text.number(max(alone))}" if alone else "-"
    if alone and text.number(min(alone)) == text.number(max(alone)):
        span = text.number(alone[0])
    rows = [(cell((run.final or {}).get(name)), span, cell(central.metrics.get(name) if central else None))]
    last: Mapping[int, Mapping[str, Any]] = run.last.clients if run.last else {}
    for i in shown:
        little = name == "auc" and run.last is not None and says_little(*run.last.counts.get(i, (None, None)))
        found = [last.get(i, {}).get(name), local.clients.get(i, {}).get(name) if local else None,
                 central.clients.get(i, {}).get(name) if central else None]  # fmt: skip
        a, b, c = (cell(v, "*" if little and v is not None else "") for v in found)
        rows.append((a, b, c))
    return _Block(rows)


def _shown(run: Run) -> list[int]:
    """The clients that get a row: all of few; of many those served worst."""
    judged: Mapping[int, Mapping[str, Any]] = run.last.clients if run.last else {}
    everybody = sorted(judged)
    if len(everybody) <= NAMED:
        return everybody
    sign = 1 if run.main not in text.LOWER_IS_BETTER else -1
    known = [(sign * v, i) for i in everybody if (v := judged[i].get(run.main)) is not None]
    return [i for _, i in sorted(known)[:WORST]]


def _footnote(run: Run, names: list[str], shown: list[int]) -> list[str]:
    if "auc" not in names or run.last is None:
        return []
    notes: list[str] = []
    for i in shown:
        rows, positives = run.last.counts.get(i, (None, None))
        if rows is None or positives is None or not says_little(rows, positives):
            continue
        fewer = min(positives, rows - positives)
        side = 1 if positives == fewer else 0
        label = run.classes[side] if len(run.classes) == 2 else f"of class {side}"
        verb = "is" if fewer == 1 else "are"
        notes.append(f"only {fewer} of {rows} test {run.row_word[1]} {verb} {label}")
    if not notes:
        return []
    if len(notes) > 2:
        return ["* fewer than 10 of the smaller class: this AUC says little"]
    return textwrap.wrap("* " + "; ".join(notes) + ": this AUC says little", WIDTH, subsequent_indent="  ")


def paragraphs(run: Run) -> list[str]:
    """The verdict, what moved, and that nothing protected it."""
    said = " ".join(s for s in verdict(run))
    moved = f"{text.size(run.bytes_up + run.bytes_down)} of numbers moved, no records."
    if run.privacy:
        guard = f"Privacy: epsilon {text.epsilon(run.privacy.get('epsilon'))}."
    else:
        guard = f"This run had no privacy protection: the coordinator saw each {run.client_word[0]}'s update."
    return [textwrap.fill(f"{said} {moved}", WIDTH, break_on_hyphens=False), textwrap.fill(guard, WIDTH)]
