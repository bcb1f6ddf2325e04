"""Runs side by side: results, and what differs in their jobs."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from typing import Any, cast

from manyloom.core import text
from manyloom.track import intervals, parties, promise
from manyloom.track.record import Run

FREE = ("card",)  # tables that change nothing of a result
Doc = dict[str, Any]


def flat(toml: str) -> dict[str, Any]:
    """A job's keys as one sees them in an override.

    >>> flat('[job]\\nrounds = 3\\n[algorithm]\\nlr = 0.1\\n[secure]\\n')
    {'rounds': 3, 'algorithm.lr': 0.1, '[secure]': True}
    """
    try:
        found = tomllib.loads(toml)
    except tomllib.TOMLDecodeError:
        return {}
    made: dict[str, Any] = {}
    for name, table in found.items():
        if name in FREE:
            continue
        if not isinstance(table, dict):
            made[name] = table
        elif not table:
            made[f"[{name}]"] = True
        else:
            keys = cast("dict[str, Any]", table)
            made |= {key if name == "job" else f"{name}.{key}": value for key, value in keys.items()}
    return made


def job_diff(tomls: Sequence[str]) -> list[Doc]:
    """Keys whose values differ, in the order of the first job that has them: key, values (null where missing)."""
    jobs = [flat(t) for t in tomls]
    keys = dict.fromkeys(k for job in jobs for k in job)
    return [
        {"key": k, "values": [job.get(k) for job in jobs]}
        for k in keys
        if k != "name" and len({repr(job.get(k)) for job in jobs}) > 1
    ]


def metrics(runs: Sequence[Run]) -> list[Doc]:
    """Each metric of the runs: name, values, and for two of them the difference with its 95 % interval.

    The interval is that of two models judged on the same rows as if these were not the same: wider than a paired one,
    so what lies outside is a difference. Null where no formula is known or the rows differ.
    """
    names = list(dict.fromkeys(m for run in runs for m in text.ordered(run.final or {}, run.main)))
    told: list[Doc] = []
    for name in names:
        values = [(run.final or {}).get(name) for run in runs]
        a, b = (values[0], values[1]) if len(values) == 2 else (None, None)
        diff = b - a if a is not None and b is not None else None
        told.append({"name": name, "values": values, "diff": diff, "ci95": _interval(runs, name, values, diff)})
    return told


def _interval(runs: Sequence[Run], name: str, values: Sequence[float | None], diff: float | None) -> list[float] | None:
    if diff is None or any(run.last is None for run in runs):
        return None
    judged = [run.last for run in runs if run.last is not None]
    if len({(j.rows, j.positives) for j in judged}) > 1:
        return None
    errors = [intervals.error_of(name, v, j.rows, j.positives) for v, j in zip(values, judged)]
    known = [e for e in errors if e is not None]
    if len(known) != 2:
        return None
    half = intervals.Z * math.hypot(*known)
    return [diff - half, diff + half]


def document(runs: Sequence[Run]) -> Doc:
    """What `compare --json` holds besides `schema`, `ok` and `next`."""
    return {
        "runs": [
            {
                "run_id": run.id,
                "name": run.name,
                "status": run.status,
                "rounds": run.rounds_done,
                "final": run.final,
                "epsilon": run.spent,
                "bytes": run.bytes_up + run.bytes_down,
                "seconds": run.seconds,
                "job_digest": run.job_digest,
            }
            for run in runs
        ],
        "job_diff": job_diff([run.toml for run in runs]),
        "metrics": metrics(runs),
    }


def human(runs: Sequence[Run]) -> str:
    """The comparison as a terminal shows it."""
    two = len(runs) == 2
    noise = False
    rows: list[list[str]] = []
    for m in metrics(runs):
        row = [str(m["name"]), *map(text.number, m["values"])]
        if two:
            inside = m["ci95"] is not None and m["ci95"][0] <= 0 <= m["ci95"][1] and abs(m["diff"]) >= 0.0005
            noise = noise or inside
            row.append(
                (text.signed(m["diff"]) if m["diff"] is not None else "") + (" (within noise)" if inside else "")
            )
        rows.append(row)
    rows += [[*row, *([""] if two else [])] for row in [*protection(runs), *leaks(runs)]]
    moved = [float(run.bytes_up + run.bytes_down) for run in runs]
    rows.append(["bytes", *map(text.size, moved), *([_times(*moved)] if two else [])])
    took = [run.seconds for run in runs]
    rows.append(["seconds", *(f"{s:.1f}" for s in took), *([_times(*took)] if two else [])])
    diff = job_diff([run.toml for run in runs])
    rows += [["in the job" if diff else "the jobs are the same", *[""] * (len(rows[0]) - 1)]]
    rows += [["  " + d["key"], *map(_value, d["values"]), *([""] if two else [])] for d in diff]
    head = ["", *(run.id for run in runs), *(["difference"] if two else [])]
    last = len(head) - 1
    table = _aligned(head, rows, last if two else None)
    if noise and runs[0].last and runs[0].last.rows:
        n = text.plural(runs[0].last.rows, runs[0].judged_word)
        table += f'\n"within noise": inside the 95 % interval of the difference ({n})'
    return table


def protection(runs: Sequence[Run]) -> list[list[str]]:
    """A row each for epsilon, epsilon without amplification, delta and what the hub saw, where runs have one."""
    spent = ["none" if run.spent is None else text.epsilon(run.spent) for run in runs]
    further = [next((text.epsilon(c.epsilon) for c in promise.claims(run)[1:]), "") for run in runs]
    deltas = [text.delta(run.privacy.get("delta")) if run.privacy else "" for run in runs]
    roles = {"central": "all records", "local": "metrics"}
    saw = [roles.get(str(run.role)) or ("sums" if run.secure else "each update") for run in runs]
    rows = (
        [["epsilon", *spent], ["  unamplified", *further], ["  delta", *deltas]]
        if any(run.privacy for run in runs)
        else []
    )
    return [r for r in rows if any(r[1:])] + ([["the hub saw", *saw]] if any(run.secure for run in runs) else [])


def leaks(runs: Sequence[Run]) -> list[list[str]]:
    """How well labels could be read off gradients, and what defended them, where parties were sent any."""
    found = [parties.worst_leak(run) for run in runs]
    if not any(found):
        return []
    how = ["" if leak is None else leak.defence for leak in found]
    ways = [("label leak (AUC)", [None if x is None else x.mean for x in found]),
            ("  1 batch in 20", [None if x is None else x.worst for x in found])]  # fmt: skip
    rows = [[name, *("" if v is None else text.number(v) for v in values)] for name, values in ways]
    return [*rows, ["  defence", *how]]


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]], last: int | None) -> str:
    """Numbers right, the last column (the difference) left."""
    left = (0,) if last is None else (0, last)
    return text.columns(head, rows, left=left)


def _times(a: float, b: float) -> str:
    return f"{b / a:.1f}x" if a > 0 and b > 0 and not 0.95 < b / a < 1.05 else ""


def _value(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    shown = ", ".join(map(str, cast("list[object]", value))) if isinstance(value, list) else str(value)
    return shown if len(shown) <= 24 else shown[:23] + "…"
