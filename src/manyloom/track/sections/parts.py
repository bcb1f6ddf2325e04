"""What sections share: a drawer that survives a missing `vl-convert`, percent scales, number tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from manyloom.core import text
from manyloom.track import drawing, promise
from manyloom.track.record import Run

Data = dict[str, Any]
FEW = 8  # most clients with a row of their own
BARS = 20  # most clients with a bar of their own
ROWS = 40  # most rows of a table of numbers over rounds


@dataclass
class Drawer:
    """Draws charts; keeps the names of those it could not draw."""

    participation: bool = False
    lacking: list[str] = field(default_factory=list[str])

    def hides(self, run: Run) -> bool:
        """Whether who took part when is left out: the claim counts on readers not knowing it."""
        return promise.amplified(run) and not self.participation

    def __call__(self, name: str, make: Callable[[], str]) -> Markup | None:
        try:
            return Markup(make())
        except drawing.NoCharts:
            self.lacking.append(name)
            return None


def place(low: float, high: float) -> Callable[[float], float]:
    """A value's place on a lane, in percent."""
    return lambda v: round(100 * (v - low) / ((high - low) or 1.0), 2)


def ticks(values: Sequence[float], most: int = 6) -> tuple[list[tuple[float, str]], Callable[[float], float]]:
    """Ticks (percent, label) of a lane that holds the values, and where a value lies."""
    found = drawing.nice(min(values), max(values), most)
    at = place(found[0], found[-1])
    return list(zip(map(at, found), drawing.decimals(found))), at


def every(n: int) -> str:
    """How a thinned table of n rounds says it."""
    return "Numbers" if n <= ROWS else f"Numbers, {ROWS} of {text.count(n)} rounds"


def hue(run: Run, index: int) -> str:
    """A client's own colour, where there are at most four."""
    order = sorted(run.people)
    return f"c{order.index(index) + 1}" if len(order) <= 4 and index in order else ""


def capital(word: str) -> str:
    return word[:1].upper() + word[1:]
