"""What a run's numbers mean, in sentences: the finding first, what isn't good in the same breath."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from manyloom.core import text
from manyloom.track import parties
from manyloom.track.intervals import Z, error_of, says_little
from manyloom.track.record import Run

_NUMBERS = (
    "No",
    "One",
    "Two",
    "Three",
    "Four",
    "Five",
    "Six",
    "Seven",
    "Eight",
    "Nine",
    "Ten",
    "Eleven",
    "Twelve",
)


class Gap(NamedTuple):
    """The shared model against another number: > 0 is better; whether the rows could show it, if that is known."""

    value: float
    shown: bool | None


def gap(run: Run, other: float | None, name: str | None = None) -> Gap | None:
    """How much better the shared model is than another on the same rows."""
    name = name or run.main
    mine = (run.final or {}).get(name)
    if mine is None or other is None:
        return None
    told = round(mine, 3) - round(other, 3) if max(abs(mine), abs(other)) < 10 else mine - other  # as they are read
    better = -told if name in text.LOWER_IS_BETTER else told
    rows, positives = (run.last.rows, run.last.positives) if run.last else (None, None)
    errors = [error_of(name, v, rows, positives) for v in (mine, other)]
    known = [e for e in errors if e is not None]
    return Gap(better, abs(better) > Z * math.hypot(*known) if len(known) == 2 else None)


def number_word(n: int) -> str:
    """A count at the start of a sentence.

    >>> number_word(4), number_word(539)
    ('Four', '539')
    """
    return _NUMBERS[n] if n < len(_NUMBERS) else text.count(n)


def diverged(run: Run) -> bool:
    """Whether training left the goal: a loss that is no number, or half as much again as at the start."""
    first = run.start or next((r.judged for r in run.rounds if r.judged), None)
    if first is None or run.last is None or run.last is first or "loss" not in run.last.metrics:
        return False
    before, after = first.metrics.get("loss"), run.last.metrics.get("loss")
    return after is None or (before is not None and after > 1.5 * before)


PEOPLE = frozenset({"patient", "person", "customer", "user", "client", "visitor", "employee", "student", "subject"})


def record_word(run: Run) -> str:
    """What stays where it is: "patient’s record", but "image"."""
    word = run.row_word[0]
    return f"{word}’s record" if word in PEOPLE else word


def rows_word(run: Run) -> str:
    """The rows that the model was judged on, in words."""
    rows = run.last.rows if run.last else None
    own = run.last is not None and run.last.split == "own"
    kind = "the source's test" if own else "held-out"
    return f"{text.plural(rows, (f'{kind} {run.judged_word[0]}', f'{kind} {run.judged_word[1]}'))}" if rows else kind


# ---- sentences


def verdict(run: Run) -> list[str]:
    """The run in three or four sentences; those that the numbers do not carry are left out."""
    said = [_who(run), _status(run) if run.role != "sweep" else ""]
    if run.final and run.role == "local":
        said += [_on_average(run), _worst(run)]
    elif run.final and run.rounds:
        if diverged(run):
            said.append(_away(run))
        else:
            said += [_reaches(run), _alone(run), _worst(run), parties.leak_sentence(run)]
    return [s for s in said if s]


def _who(run: Run) -> str:
    if run.role == "sweep":
        return f"This is a sweep: a list of runs. They stand side by side in: manyloom compare {run.id}"
    if run.role == "central":
        return "All records were pooled in one place: the baseline that federated training is measured against."
    if run.role == "local":
        return f"Each {run.client_word[0]} trained on its own and nothing was shared: the baseline to gain on."
    if not run.rounds:
        return ""
    if run.vertical:
        names = text.listed(parties.everybody(run)) or text.plural(run.size, run.client_word)
        rows = (run.aligned or {}).get("common")
        if parties.taught(run):
            told = text.plural((run.aligned or {}).get("train") or 0, run.row_word)
            students = text.listed(parties.feature_parties(run))
            return (f"{capital(parties.label_party(run))} taught {students} by what it says of {told} that both have; "
                    f"each keeps a model of its own, and no column left its {run.client_word[0]}.")  # fmt: skip
        over = f" over the {text.plural(rows, run.row_word)} that all of them have" if rows else ""
        return f"{capital(names)} trained one model{over}; no column left its {run.client_word[0]}."
    one, many = run.client_word
    if run.size == 1:
        return f"One {one} trained a model on its own: nothing was shared with anybody."
    word = number_word(run.size)
    if run.language:
        return f"{word} {many} tuned one language model and no {record_word(run)} moved."
    return f"{word} {many} trained one model and no {record_word(run)} moved."


def _status(run: Run) -> str:
    done, planned = run.rounds_done, run.rounds_planned or 0
    where = f"after round {done} of {planned}" if done else "before the first round was done"
    why = str(run.reason or "").strip().rstrip(".")
    if run.status == "failed":
        return f"It failed {where}: {why}." if why else f"It failed {where}."
    if run.status == "interrupted":
        return f"It was interrupted {where}; nothing that was saved is lost, and it can be resumed."
    if run.status == "stopped":
        return f"It stopped {where}: {_stop_reason(run, why)}."
    if run.status in ("running", "queued"):
        return f"It is still running: {done} of {planned} rounds are done, and these numbers are not final."
    return ""


def _stop_reason(run: Run, why: str) -> str:
    known = {
        "budget": "the privacy budget is spent",
        "target": f"the target for {text.metric(run.main)} was reached",
        "patience": f"{text.metric(run.main)} no longer got better",
    }
    return known.get(why, why or "as the job asks")


def _away(run: Run) -> str:
    last = run.last.metrics.get("loss") if run.last else None
    first = run.start or next((r.judged for r in run.rounds if r.judged), None)
    before = text.number(first.metrics.get("loss") if first else None)
    now = f"from {before} to {text.number(last)}" if last is not None else f"from {before} to no number at all"
    return f"Training diverged: the loss went {now}. A smaller learning rate is the first thing to try."


def _reaches(run: Run) -> str:
    name = run.main
    value = (run.final or {}).get(name)
    if value is None:
        return ""
    start = f"On {rows_word(run)} it reaches {text.metric(name)} {text.number(value)}"
    if run.language and name == "loss" and (perplexity := (run.final or {}).get("perplexity")) is not None:
        start += f" (perplexity {text.number(perplexity)})"
    pooled = run.beside.get("central")
    found = gap(run, pooled.metrics.get(name) if pooled else None)
    if found is None:
        return start + "."
    rows = text.plural(run.last.rows, run.judged_word) if run.last and run.last.rows else "these rows"
    if abs(found.value) < 0.0005:
        return f"{start}: the same as training on pooled records."
    side = "above" if (found.value > 0) != (name in text.LOWER_IS_BETTER) else "below"
    far = f"{text.beside(found.value, value)} {side} training on pooled records"
    if found.shown is None:
        return f"{start}: {far}."
    if not found.shown:
        return f"{start}: {far}, no difference that {rows} could show."
    return f"{start}: {far}" + (", which is better." if found.value > 0 else "; pooling is better.")


def _on_average(run: Run) -> str:
    value = run.final.get(run.main) if run.final else None
    who = f"{text.plural(run.size, run.client_word)}, each judged on its own held-out {run.row_word[1]}"
    return f"Over {who}, the mean {text.metric(run.main)} is {text.number(value)}." if value is not None else ""


def _alone(run: Run) -> str:
    local, name, one = run.beside.get("local"), run.main, run.client_word[0]
    mine = (run.final or {}).get(name)
    if local is None or mine is None or run.size < 2:
        return ""
    values = [v for m in local.on_all.values() if (v := m.get(name)) is not None]
    said = ""
    if values:
        beaten = sum(run.better(mine, v) for v in values)
        gaps = sorted(abs(mine - v) for v in values)
        if beaten == len(values):
            ends = list(dict.fromkeys(text.beside(g, mine) for g in (gaps[0], gaps[-1])))
            far = " to ".join(ends)
            side = "below" if name in text.LOWER_IS_BETTER else "above"
            said = f"That is {far} {side} what one {one} alone reaches on everyone."
        elif beaten:
            said = f"It is better on everyone than {beaten} of the {len(values)} models trained alone,"
            said += f" and no better than {len(values) - beaten}."
        else:
            said = f"No {one} gains on everyone: each model trained alone is at least as good."
    home = better_alone(run)
    if run.size > 8 and home:
        said += f" On their own {run.row_word[1]}, {text.count(len(home))} of {text.count(len(local.clients))}"
        said += f" {run.client_word[1]} alone do better."
    elif home:
        names = text.listed(run.who(i) for i in home)
        verb = "does" if len(home) == 1 else "do"
        word = "its" if len(home) == 1 else "their"
        said += f" On {word} own {run.row_word[1]}, {names} alone still {verb} better."
    return said.strip()


def better_alone(run: Run) -> list[int]:
    """Clients whose own model is better on their own rows; an AUC of few rows does not count."""
    local, name = run.beside.get("local"), run.main
    if local is None or run.last is None:
        return []
    found: list[int] = []
    for i, own in local.clients.items():
        mine, other = run.last.clients.get(i, {}).get(name), own.get(name)
        little = name == "auc" and says_little(*run.last.counts.get(i, (None, None)))
        if mine is not None and other is not None and not little and run.better(other, mine) and mine != other:
            found.append(i)
    return found


def worst_client(run: Run) -> tuple[int, str, float] | None:
    """The client served worst, by which metric, and its value; by loss where an AUC says little."""
    if run.last is None or len(run.last.clients) < 2:
        return None
    judged, name = run.last, run.main
    if name == "auc" and any(says_little(*judged.counts.get(i, (None, None))) for i in judged.clients):
        name = "loss"
    known: list[tuple[float, int]] = [(v, i) for i, m in judged.clients.items() if (v := m.get(name)) is not None]
    if not known:
        return None
    value, i = (max if name in text.LOWER_IS_BETTER else min)(known)
    return i, name, value


def _worst(run: Run) -> str:
    spread = run.last.spread.get(run.main) if run.last else None
    if run.size > 8 and spread is not None:
        name = text.metric(run.main)
        return f"One in ten {run.client_word[1]} gets only {name} {text.number(spread.worst)} on average."
    found = worst_client(run)
    if found is None:
        return ""
    i, name, value = found
    if run.role == "local":
        return f"{run.who(i)} does worst ({text.metric(name)} {text.number(value)})."
    return f"It serves {run.who(i)} worst ({text.metric(name)} {text.number(value)})."


# ---- titles: each a sentence with the finding


def title_result(run: Run) -> str:
    """The heading of the first chart."""
    pooled, name = run.beside.get("central"), run.main
    found = gap(run, pooled.metrics.get(name) if pooled else None)
    if found is not None and not diverged(run):
        far = text.beside(found.value, (run.final or {}).get(name))
        if found.shown is False or abs(found.value) < 0.0005:
            near = next((t for t in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05) if abs(found.value) <= t), None)
            return f"Federated training comes within {near:g} of pooling" if near else "Federated and pooled are close"
        if found.value > 0:
            ahead = f"beats pooling by {far}" if found.shown else f"ends {far} ahead of pooling"
            return f"Federated training {ahead}"
        return f"Federated training stays {far} behind pooling"
    if run.last is not None and len(run.last.clients) > 1:
        known = [(v, i) for i, m in run.last.clients.items() if (v := m.get(name)) is not None]
        if known:
            (low, a), (high, b) = min(known), max(known)
            ends = f"from {text.number(low)} ({run.who(a)}) to {text.number(high)} ({run.who(b)})"
            return f"{capital(text.metric(name))} {ends}"
    value = (run.final or {}).get(name)
    return f"{capital(text.metric(name))} {text.number(value)}" if value is not None else "No result yet"


def title_learning(run: Run, name: str) -> str:
    """The heading of a learning curve."""
    known = [(r.round, v) for r in run.rounds if r.judged if (v := r.judged.metrics.get(name)) is not None]
    label = capital(text.metric(name))
    if not known:
        return f"{label}: not evaluated"
    first = run.start.metrics.get(name) if run.start else known[0][1]
    first = known[0][1] if first is None else first
    last, lower = known[-1][1], name in text.LOWER_IS_BETTER
    gain = first - last if lower else last - first
    if gain <= 0:
        return f"{label} did not get better: {text.number(first)} at the start, {text.number(last)} at the end"
    near = next(r for r, v in known if (first - v if lower else v - first) >= 0.9 * gain)
    way = "falls" if lower else "rises"
    soon = f", nine tenths of it by round {near}" if near < known[-1][0] else ""
    return f"{label} {way} from {text.number(first)} to {text.number(last)}{soon}"


def capital(sentence: str) -> str:
    """The sentence with a capital first letter; `AUC` and `R²` as they are."""
    return sentence[:1].upper() + sentence[1:]


def title_data(run: Run) -> tuple[str, Mapping[int, float]]:
    """The heading of the label chart and each client's distance (total variation) from the whole."""
    far = label_distance(run)
    if not far:
        return "", far
    middle, most = float(np.mean(list(far.values()))), max(far, key=lambda i: far[i])
    kind = "alike" if middle < 0.05 else "somewhat different" if middle < 0.15 else "different"
    words = run.client_word[1]
    if len(far) == 1:
        return f"One {run.client_word[0]} holds all rows", far
    start = {"alike": f"The {words} are alike", "somewhat different": f"The {words} differ somewhat"}
    title = start.get(kind, f"{number_word(len(far))} different populations")
    return f"{title}; {run.who(most)} is farthest from the whole", far


def label_distance(run: Run) -> dict[int, float]:
    """Total variation between each client's labels and those of all."""
    people = {i: p.labels for i, p in run.people.items() if p.labels and sum(p.labels)}
    width = {len(labels) for labels in people.values()}
    if len(width) != 1:
        return {}
    table = np.array(list(people.values()), dtype=float)
    share, whole = table / table.sum(1, keepdims=True), table.sum(0) / table.sum()
    return dict(zip(people, (0.5 * np.abs(share - whole).sum(1)).tolist()))
