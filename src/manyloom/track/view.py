"""What the live display shows: events folded into a state, and the state as at most nine styled lines."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any

from manyloom.core import text
from manyloom.track.folder import items, table
from manyloom.track.heading import IN_PROCESS, head
from manyloom.track.record import Spread, metrics_of

Line = list[tuple[str, str]]
"""One line: pieces of text, each with a style ("", "dim", "bold", "bar", "bad", "warn")."""

NARROW = 60
PHASES = {
    "train": "training",
    "evaluate": "evaluation",
    "secure_sum": "secure sum",
    "send": "sending",
    "save": "saving",
    "wait": "waiting",
    "statistics": "column statistics",
    "align": "alignment",
    "open": "opening",
}
SHORT = {"perplexity": "perplex.", "token_accuracy": "tokens"}
"""Metrics whose names are too long for a line's first word."""


def joined(lines: list[Line]) -> str:
    """Lines as plain text."""
    return "\n".join("".join(piece for piece, _ in line).rstrip() for line in lines)


def fit(line: Line, width: int) -> Line:
    """A line cut to a width."""
    made: Line = []
    for piece, style in line:
        made.append((piece[: max(0, width)], style))
        width -= len(piece)
    return made


class View:
    """The state of the display; `feed` costs microseconds, `frame` is called a few times a second."""

    def __init__(self) -> None:
        self.started: Mapping[str, Any] = {}
        self.names: dict[int, str] = {}
        self.rounds = self.round = 0
        self.phase = ""
        self.asked = self.back = 0
        self.gone: list[str] = []
        self.curves: dict[str, list[float | None]] = {}
        self.at: list[int] = []  # the rounds of the curves' values
        self.worst: float | None = None
        self.epsilon: float | None = None
        self.leak: tuple[int, float, str] | None = None  # round, AUC, defence: of the party that sees most
        self.budget: float | None = None
        self.end: float | None = None  # epsilon of all planned rounds
        self.planned: Mapping[str, Any] = {}
        self.up = self.down = self.last_up = 0
        self.seconds: deque[float] = deque(maxlen=10)
        self.since: float | None = None
        self.over: str | None = None
        self.took = 0.0
        self.lost = 0

    def feed(self, event: Mapping[str, Any], now: float) -> None:
        """Take one event; `now` is a monotonic clock in seconds."""
        if self.since is None:
            self.since = now
        self.took = now - self.since
        take = getattr(self, "_" + str(event.get("type")), None)
        if take is not None:
            take(event)

    # ---- events

    def _run_started(self, e: Mapping[str, Any]) -> None:
        self.started, self.rounds = e, int(e.get("rounds") or 0)
        self.names = {int(c["client"]): str(c.get("name", c["client"])) for c in items(e, "clients")}

    def _planned(self, e: Mapping[str, Any]) -> None:
        self.planned = e
        privacy = table(e, "privacy")
        self.budget, self.end = text.finite(privacy.get("budget")), text.finite(privacy.get("epsilon"))

    def _resumed(self, e: Mapping[str, Any]) -> None:
        self.round = int(e.get("from_round") or 0)
        self.rounds = int(e.get("rounds") or self.rounds)
        keep = sum(r <= self.round for r in self.at)
        self.at = self.at[:keep]
        self.curves = {k: v[:keep] for k, v in self.curves.items()}

    def _round_started(self, e: Mapping[str, Any]) -> None:
        self.asked = len(items(e, "cohort")) or int(e.get("asked") or 0)
        self.back, self.gone = 0, []
        self.round = int(e["round"]) - 1

    def _phase(self, e: Mapping[str, Any]) -> None:
        self.phase = str(e.get("phase", ""))

    def _client_done(self, e: Mapping[str, Any]) -> None:
        self.back += 1

    def _client_lost(self, e: Mapping[str, Any]) -> None:
        self.lost += 1
        self.gone.append(f"{self.who(e)} lost ({text.printable(str(e.get('text') or e.get('reason')))})")

    def _released(self, e: Mapping[str, Any]) -> None:
        self.epsilon = text.finite(e.get("epsilon")) or self.epsilon

    def _leak(self, e: Mapping[str, Any]) -> None:
        r, found = int(e.get("round") or 0), [text.finite(e.get(f"{k}_mean")) for k in ("norm", "cosine")]
        value = max((v for v in found if v is not None), default=None)
        if value is not None and (self.leak is None or self.leak[0] != r or value > self.leak[1]):
            self.leak = r, value, str(e.get("defence"))

    def _evaluated(self, e: Mapping[str, Any]) -> None:
        r, found = int(e.get("round") or 0), metrics_of(table(e, "metrics"))
        if r == 0 or (e.get("split") == "own" and r in self.at):
            return
        if self.at and self.at[-1] == r:
            self.at.pop()
            for values in self.curves.values():
                values.pop()
        for name in found:
            self.curves.setdefault(name, [None] * len(self.at))
        self.at.append(r)
        for name, values in self.curves.items():
            values.append(found.get(name))
        self.worst = self._worst(e)

    def _worst(self, e: Mapping[str, Any]) -> float | None:
        if text.population(self.started) <= 8:
            return None
        clients = table(e, "clients")
        if not clients:
            return text.finite(table(table(e, "spread"), self.main).get("worst_tenth"))
        spread = Spread.of(self.main, (text.finite(m.get(self.main)) for m in clients.values()))
        return spread.worst if spread else None

    def _round_done(self, e: Mapping[str, Any]) -> None:
        self.round = int(e["round"])
        channel = table(e, "secure")
        self.last_up = int(e.get("bytes_up") or 0) + int(channel.get("up") or 0)
        self.up += self.last_up
        self.down += int(e.get("bytes_down") or 0) + int(channel.get("down") or 0)
        waited = text.finite(table(e, "phases").get("wait")) or 0.0
        self.seconds.append(max(0.0, (text.finite(e.get("seconds")) or 0.0) - waited))

    def _run_done(self, e: Mapping[str, Any]) -> None:
        self.over = str(e.get("status") or "done")

    # ---- words

    def who(self, e: Mapping[str, Any]) -> str:
        """A client's name, as an event tells it."""
        return text.printable(str(e.get("name") or self.names.get(int(e.get("client", -1)), e.get("client"))))

    @property
    def main(self) -> str:
        """The metric shown first."""
        watch = str(self.started.get("watch") or "")
        others = [m for m in ("auc", "accuracy", *self.curves) if m in self.curves and m != "loss"]
        return watch if watch in self.curves else others[0] if others else "loss"

    def words(self, n: int) -> str:
        """So many clients in the source's own word."""
        pair = items(self.started, "client_word") or list(self.started.get("client_word") or ())
        return text.plural(n, pair if len(pair) == 2 else ("client", "clients"))

    def left(self) -> float | None:
        """Seconds to the end: the median of the last ten rounds, waiting excluded; from round 2 on."""
        if len(self.seconds) < 2 or self.over:
            return None
        return statistics.median(self.seconds) * (self.rounds - self.round)

    def enriched(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """An event with what the state knows beside it: how many rounds, names, metrics, epsilon."""
        said, kind = dict(event), event.get("type")
        if kind in ("round_done", "client_lost", "client_filtered", "round_failed", "round_rejected"):
            said.setdefault("rounds", self.rounds)
        if "client" in event:
            said["name"] = self.who(event)
        if kind == "round_done":
            said.setdefault("asked", self.asked or None)
            said.setdefault("watch", self.main)
            if self.at and self.at[-1] == event.get("round"):
                said.setdefault("metrics", {k: v[-1] for k, v in self.curves.items()})
            if self.epsilon is not None:
                said.setdefault("epsilon", self.epsilon)
            if self.leak is not None and self.leak[0] == event.get("round"):
                said.setdefault("leak", self.leak[1])
        if kind == "run_done":
            said.setdefault("rounds", self.round)
            said.setdefault("seconds", self.took)
        return said

    # ---- lines

    def head(self, width: int = 80) -> list[Line]:
        """The name, the data, the plan: printed once, above."""
        return head(self, width)

    def frame(self, now: float, width: int = 80, ascii: bool = False) -> list[Line]:
        """The region that is redrawn: at most nine lines; two in a narrow or ASCII terminal."""
        if not self.over and self.since is not None:
            self.took = now - self.since
        if width < NARROW or ascii:
            return self._narrow(width, ascii)
        room = min(width, 80)
        lines = [self._rounds(room)]
        if not self.over:
            lines.append(self._now(room))
        if self.at:
            lines += [self._curve(name) for name in dict.fromkeys((self.main, "loss")) if name in self.curves]
        if self.end is not None or self.budget is not None:
            lines.append(self._spent())
        if self.leak is not None:
            how = "undefended" if self.leak[2] == "none" else self.leak[2]
            rest = (f"  of labels, as AUC (0.5 is guessing)  {how}", "dim")
            lines.append([("leak     ", "dim"), (f"{text.number(self.leak[1]):5}", ""), rest])
        lines.append(self._moved(room))
        if self.round < 3 and not self.over:
            lines += [[], [("Ctrl-C stops after this round and keeps the run resumable", "dim")]]
        return [fit(line, width) for line in lines]

    def _rounds(self, width: int) -> Line:
        share = self.round / self.rounds if self.rounds else 0.0
        count = f"{self.round:>{len(str(self.rounds))}}/{self.rounds}"
        clock, left = text.clock(self.took), self.left()
        rest = f"  {text.clock(left)} left" if left is not None else ""
        room = max(8, min(34, width - 9 - len(count) - 2 - 8 - len(clock) - 2 - 10))
        line: Line = [("round    ", "dim"), (count + "  ", ""), *self._bar(share, room)]
        return [*line, (f"  {text.percent(share):>5}  {clock}", ""), (rest, "dim")]

    def _bar(self, share: float, width: int) -> Line:
        drawn = text.bar(share, width)
        done = drawn.rstrip("─")
        return [(done, "bar"), (drawn[len(done) :], "dim")]

    def _now(self, width: int) -> Line:
        if not self.phase and not self.asked:
            return [("phase    ", "dim"), ("starting", "")]
        phase = PHASES.get(self.phase, self.phase.replace("_", " ") or "starting")
        told = "; ".join([f"{self.back} of {self.asked} back", *self.gone[-1:]]) if self.asked else ""
        if len(self.gone) > 1:
            told = f"{self.back} of {self.asked} back, {len(self.gone)} lost; {self.gone[-1]}"
        if self.phase in ("evaluate", "save", "statistics") and not self.gone:
            told = ""
        line = f"{phase}  {told}".rstrip()
        room = width - 9
        return [("phase    ", "dim"), (line if len(line) <= room else line[: room - 1] + "…", "")]

    def _curve(self, name: str) -> Line:
        values = self.curves[name]
        last = next((v for v in reversed(values) if v is not None), None)
        line: Line = [
            (f"{SHORT.get(name, name)[:8]:8} ", "dim"),
            (f"{text.number(last):5}  ", ""),
            (text.sparkline(values), "bar"),
        ]
        if name != self.main:
            return line
        if self.worst is not None:
            return [*line, (f"  worst tenth {text.number(self.worst)}", "dim")]
        known = [(v, r) for v, r in zip(values, self.at) if v is not None]
        if not known:
            return line
        sign = 1 if name in text.LOWER_IS_BETTER else -1
        best, at = min(known, key=lambda p: (sign * p[0], p[1]))
        return [*line, (f"  best {text.number(best)} in round {at}", "dim")]

    def _spent(self) -> Line:
        spent, end, budget = self.epsilon or 0.0, self.end, self.budget
        of = budget if budget is not None else end or 1.0
        lasts = ""
        if end is not None and budget is not None:
            enough = end <= budget * (1 + 1e-9)
            lasts = f"enough for round {self.rounds}" if enough else f"ends before round {self.rounds}"
        said = f"{text.epsilon(spent)} of {text.epsilon(of)}{'' if budget is not None else ' planned'}  "
        line: Line = [("epsilon  ", "dim"), (said, ""), *self._bar(spent / of, 28)]
        return [*line, (f"  {lasts}" if lasts and not self.over else "", "dim")]

    def _moved(self, width: int) -> Line:
        line: Line = [("bytes    ", "dim"), (f"{text.size(self.up)} up, {text.size(self.down)} down", "")]
        rest = " (counted, not sent)" if self.started.get("runtime") in IN_PROCESS else ""
        if self.last_up and not self.over:
            rest += f"  {text.size(self.last_up)} up in this round"
        return [*line, (rest, "dim")] if sum(len(t) for t, _ in line) + len(rest) <= width else line

    def _narrow(self, width: int, ascii: bool) -> list[Line]:
        share, left = (self.round / self.rounds if self.rounds else 0.0), self.left()
        end = f" {text.clock(left)} left" if left is not None else f" {text.clock(self.took)}"
        start, percent = f"round {self.round}/{self.rounds} ", f" {100 * share:.0f}%"
        room = max(4, min(25, width - len(start) - len(percent) - len(end) - 2))
        told: list[str] = []
        for name in dict.fromkeys((self.main, "loss")):
            if known := [v for v in self.curves.get(name, []) if v is not None]:
                told.append(f"{name} {text.number(known[-1])}")
        of = self.budget if self.budget is not None else self.end
        if of is not None:
            told.append(f"eps {text.epsilon(self.epsilon or 0.0)}/{text.epsilon(of)}")
        if self.asked:
            told.append(f"clients {self.back}/{self.asked}")
        second = "  ".join(told)
        while len(second) > width and len(told) > 1:
            told.pop()
            second = "  ".join(told)
        return [
            [(f"{start}[{text.bar(share, room, ascii)}]{percent}{end}"[:width], "")],
            [(second[:width], "")],
        ]
