"""What stands above the live display: the name, the data, the plan."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from manyloom.core import text
from manyloom.track.folder import items, table

if TYPE_CHECKING:
    from manyloom.track.view import Line, View

IN_PROCESS = ("sequential", "vectorised", "auto")


def head(view: View, width: int = 80) -> list[Line]:
    """The name, the data, the plan: printed once, above."""
    e = view.started
    where = "in process" if e.get("runtime") in IN_PROCESS else str(e.get("runtime") or "")
    execution = table(e, "execution")
    device = str(execution.get("device") or "cpu")
    if e.get("runtime") == "vectorised" or device != "cpu":
        where = f"{e.get('runtime')} on {device}"
    told = [text.algorithm(e.get("algorithm")), view.words(text.population(e))]
    told += ["secure sum"] if table(view.planned, "secure") else []
    told += [where] if where else []
    told += [f"seed {e['seed']}"] if e.get("seed") is not None else []
    lines: list[Line] = [[(f"{e.get('run', '')}  ", "bold"), (", ".join(told), "dim")]]
    return lines + [[(row, "")] for row in _data(view, width) + _plan(view, width)]


def _data(view: View, width: int) -> list[str]:
    source, clients = table(view.started, "source"), items(view.started, "clients")
    pair = list(view.started.get("row_word") or ("row", "rows"))
    rows = [(c.get("train") or 0) + (c.get("test") or 0) for c in clients]
    said: list[str] = []
    if clients and len(clients) <= 8:
        each = ", ".join(f"{text.printable(str(c['name']))} {text.count(n)}" for c, n in zip(clients, rows))
        said.append(f"{each} {pair[1]}")
    elif clients:
        middle = text.count(statistics.median(rows))
        said.append(f"{view.words(len(clients))}, {text.plural(sum(rows), pair)} (median {middle})")
    elif summary := table(view.started, "population"):
        total = int(summary.get("train") or 0) + int(summary.get("test") or 0)
        said.append(f"{view.words(text.population(view.started))}, {text.plural(total, pair)}")
    origin = [str(source[k]) for k in ("title", "licence") if source.get(k)]
    said += [", ".join(origin)] if origin else []
    return text.field("data", "\n".join(said), width).split("\n") if said else []


def _plan(view: View, width: int) -> list[str]:
    e = view.planned
    if not e:
        return []
    took = text.finite(e.get("seconds_estimate"))
    told = [text.plural(view.rounds, ("round", "rounds"))]
    told += [f"about {text.about(took)}"] if took is not None else []
    told += [f"{text.size(e['bytes_up_round'])} up a round"] if e.get("bytes_up_round") is not None else []
    privacy = table(e, "privacy")
    between = table(view.started, "population").get("kind") == "vertical"
    bare = "no epsilon" if between or table(e, "secure") else "no privacy"
    spend = f"epsilon {text.epsilon(privacy.get('epsilon'))}"
    spend += f" of {text.epsilon(view.budget)}" if view.budget is not None else ", no budget"
    return text.field("plan", ", ".join([*told, spend if privacy else bare]), width).split("\n")
