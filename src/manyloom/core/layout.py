"""How lines stand: a word and its value, a table, a bar, a small curve; the standard library alone."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from manyloom.core.numbers import finite


def field(label: str, value: str, width: int = 80) -> str:
    """A word of at most eight letters, then the value, wrapped under itself.

    >>> print(field("plan", "20 rounds, about 2 s, 0.9 kB up a round, no privacy", 40))
    plan     20 rounds, about 2 s, 0.9 kB up
             a round, no privacy
    """
    lines: list[str] = []
    for part in value.split("\n"):
        wrap = textwrap.TextWrapper(max(20, width - 9), break_long_words=False, break_on_hyphens=False)
        lines += wrap.wrap(part) or [""]
    starts = [label.ljust(8) + " ", *[" " * 9] * len(lines)]
    return "\n".join((start + line).rstrip() for start, line in zip(starts, lines))


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """A table: the columns in `left` on the left (names), the others on the right (numbers).

    >>> print(columns(["run", "auc"], [["heart-k3q9", "0.889"], ["trial-2xh7", "0.70"]]))
    run           auc
    heart-k3q9  0.889
    trial-2xh7   0.70
    """
    cells = [list(head), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))) for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def bar(share: float, width: int = 34, ascii: bool = False) -> str:
    """A bar that reads without colour: done `━`, not yet `─`.

    >>> bar(0.68, 10), bar(1.0, 4), bar(0.5, 8, ascii=True)
    ('━━━━━━╸───', '━━━━', '####....')
    """
    share = min(1.0, max(0.0, share))
    if ascii:
        done = int(share * width + 1e-9)
        return "#" * done + "." * (width - done)
    halves = int(share * width * 2 + 1e-9)
    full, half = divmod(halves, 2)
    return "━" * full + "╸" * half + "─" * (width - full - half)


def sparkline(values: Sequence[object], width: int = 28) -> str:
    """A curve in at most `width` cells; more values are met by the mean of each cell's.

    >>> sparkline([1, 2, 3, 4]), sparkline([5, 5]), sparkline([])
    ('▁▃▆█', '▁▁', '')
    """
    known = [v for v in map(finite, values) if v is not None]
    if not known:
        return ""
    n = min(width, len(known))
    ends = [round(i * len(known) / n) for i in range(n + 1)]
    means = [sum(known[a:b]) / (b - a) for a, b in zip(ends, ends[1:])]
    low, high = min(means), max(means)
    span = high - low
    if span <= 1e-12 * max(1.0, abs(high)):
        return "▁" * n
    return "".join("▁▂▃▄▅▆▇█"[min(7, round((v - low) / span * 7))] for v in means)
