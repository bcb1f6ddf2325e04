"""The charts with an axis: one function a chart, rows in, a Vega-Lite specification out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyloom.core import text
from manyloom.track.drawing import (
    ACCENT,
    BAD,
    INK,
    MUTED,
    POINTS,
    REF,
    WARN,
    Frame,
    Spec,
    apart,
    axis,
    clip,
    decimals,
    layer,
    nice,
    round_ticks,
    spec_of,
    thin,
    tips,
)


@dataclass(frozen=True)
class Line:
    """One curve: its name at its end, points (round, value)."""

    name: str
    points: Sequence[tuple[int, float]]
    main: bool = False
    colour: str = MUTED


def curves(
    lines: Sequence[Line],
    *,
    band: Sequence[tuple[int, float, float]] = (),
    inner: Sequence[tuple[int, float, float]] = (),
    reference: tuple[str, float] | None = None,
    crosses: Sequence[int] = (),
    rejected: Sequence[int] = (),
    tip: Sequence[Mapping[str, Any]] = (),
    first: int,
    last: int,
    width: int = 400,
    height: int = 260,
) -> Spec:
    """Curves over rounds: the model thick, clients thin, band from lowest to highest.

    Args:
        lines: at most 20; the main one is drawn last.
        band: (round, lowest, highest) over clients.
        inner: (round, tenth, ninetieth percentile), drawn stronger.
        reference: name and value of a dashed line.
        crosses: rounds with lost replies.
        rejected: rounds that validation rejected.
        tip: rows {r, tip}.
        first: round at the left end.
        last: round at the right end.
        width: of the whole, in pixels.
        height: of the whole, in pixels.
    """
    values = [v for line in lines for _, v in line.points] + [v for _, a, b in band for v in (a, b)]
    values += [reference[1]] if reference else []
    ticks = nice(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    labels = decimals(ticks)
    ends = [
        (line.points[-1][1], clip(line.name), line.colour, 650 if line.main else 500) for line in lines if line.points
    ]
    ends += [(reference[1], reference[0], REF, 500)] if reference else []
    longest = max((len(t) * (7.1 if w > 600 else 6.6) for _, t, _, w in ends), default=0)
    frame = Frame(width, height, right=int(longest) + 18, left=14 + 7 * max(map(len, labels)))
    plot_width, plot_height = frame.plot
    x = axis("r", round_ticks(first, last, 4 if width < 500 else 8), (first, max(last, first + 1)),
             [str(r) for r in round_ticks(first, last, 4 if width < 500 else 8)], title="round")  # fmt: skip
    y = axis("v", ticks, (low, high), labels, grid=True)
    made: list[Spec] = []
    for rows, strength in ((band, 0.10), (inner, 0.13)):
        if rows:
            drawn = [{"r": r, "v": a, "b": b} for r, a, b in (rows[i] for i in thin(len(rows), POINTS))]
            made.append(layer("area", drawn, x=x, y=y, y2="b", color=ACCENT, opacity=strength))
    if reference:
        made.append(layer("rule", [{"v": reference[1]}], y=y, color=REF, strokeDash=[4, 4], strokeWidth=1.4))
    for line in sorted(lines, key=lambda found: found.main):
        drawn = [{"r": r, "v": v} for r, v in (line.points[i] for i in thin(len(line.points), POINTS))]
        style: Spec = (
            {"strokeWidth": 2.6, "color": line.colour}
            if line.main
            else {"strokeWidth": 1.3, "opacity": 0.9, "color": line.colour}
        )
        if len(drawn) == 1:
            made.append(layer("point", drawn, x=x, y=y, filled=True, size=50, color=line.colour, opacity=1))
        made.append(layer("line", drawn, x=x, y=y, strokeJoin="round", **style))
    cross = "M-1,-1L1,1M1,-1L-1,1"
    for at, shape, colour in ((crosses, cross, BAD), (rejected, "triangle-down", WARN)):
        if at:
            drawn = [{"r": at[i], "v": low} for i in thin(len(at), 60)]
            made.append(
                layer(
                    "point",
                    drawn,
                    x=x,
                    y=y,
                    shape=shape,
                    size=46,
                    yOffset=-8,
                    stroke=colour,
                    strokeWidth=1.8,
                    opacity=1,
                )
            )
    for end in apart(ends, plot_height / (high - low), 14, low):
        row = [{"r": last if last > first else first + 1, "v": end["y"], "t": end["t"]}]
        made.append(layer("text", row, x=x, y=y, text="t", dx=8, color=end["c"], fontWeight=end["w"]))
    if tip:
        made.append(tips(tip, plot_width, "r"))
    return spec_of(made, frame)


def traffic(
    rows: Sequence[Mapping[str, Any]], *, words: str, width: int = 760, height: int = 220, each: int = 1
) -> Spec:
    """Bytes a round: up above the line, down below.

    Args:
        rows: {r, up, down, tip}, at most `BARS`; with `own_up` and `own_down` of a secure sum, without its channel.
        words: who sends, in the plural.
        width: of the whole, in pixels.
        height: of the whole, in pixels.
        each: how many rounds one bar stands for.
    """
    most = max((max(r["up"], r["down"]) for r in rows), default=1) or 1
    power = 10.0 ** math.floor(math.log10(most))
    top = next(k * power for k in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if k * power >= most * 0.999)
    ticks = [-top, 0.0, top]
    labels = [text.size(top), "0", text.size(top)]
    frame = Frame(width, height, top=22, bottom=56, right=8, left=16 + 7 * max(map(len, labels)))
    first, last = rows[0]["r"], rows[-1]["r"]
    half = each / 2
    named = round_ticks(math.ceil(first), math.floor(last), 4 if width < 500 else 8)
    x = axis("r", named, (first - half, last + half), [str(r) for r in named], title="round", offset=16)
    y = axis("up", ticks, (-top, top), labels, grid=True)
    bar = max(1.0, frame.plot[0] / len(rows) * 0.74)
    drawn = [{**r, "below": -r["down"]} for r in rows]
    below = {**y, "field": "below"}
    notes = [("up, from the " + words, top, -10), ("down, to the " + words, -top, 11)]
    own = [{**r, "up": r["own_up"], "below": -r["own_down"]} for r in rows if "own_up" in r]
    strength = (0.28, 0.28) if own else (0.9, 0.45)
    return spec_of(
        [
            layer("bar", drawn, x=x, y=y, color=ACCENT, size=bar, opacity=strength[0]),
            layer("bar", drawn, x=x, y=below, color=ACCENT, size=bar, opacity=strength[1]),
            *[layer("bar", own, x=x, y=way, color=ACCENT, size=bar, opacity=1) for way in (y, below) if own],
            layer("rule", [{"up": 0}], y=y, color=INK),
            *[
                layer(
                    "text",
                    [{"r": last + half, "up": at, "t": said}],
                    x=x,
                    y=y,
                    text="t",
                    align="right",
                    color=MUTED,
                    dy=dy,
                )
                for said, at, dy in notes
            ],
            tips(rows, frame.plot[0], "r"),
        ],
        frame,
    )


def histogram(
    values: Sequence[float],
    *,
    title: str,
    words: str,
    marks: Sequence[tuple[str, float]],
    width: int = 400,
    height: int = 230,
) -> Spec:
    """How many clients have which value; dashed lines at the marks.

    Args:
        values: one a client.
        title: under the axis.
        words: what is counted, in the plural.
        marks: named values; the first solid, the others dashed.
        width: of the whole, in pixels.
        height: of the whole, in pixels.
    """
    ticks = nice(min(values), max(values), 6)
    low, high = ticks[0], ticks[-1]
    bins = min(28, max(8, int(math.sqrt(len(values)) * 1.5)))
    step = (high - low) / bins
    counts = [0] * bins
    for v in values:
        counts[min(bins - 1, max(0, int((v - low) / step)))] += 1
    most = max(counts)
    tall = [t for t in nice(0, most, 4) if t == int(t)]
    top = max(tall[-1], most) * (1.0 + 0.11 * len(marks))
    frame = Frame(width, height, right=12, left=16 + 8 * len(str(most)))
    digits = max(len(t.partition(".")[2]) for t in decimals([low + step, *ticks]))
    digits = min(digits, 3)
    rows: list[Spec] = []
    for i, n in enumerate(counts):
        a, b = low + i * step, low + (i + 1) * step
        tip = f"{a:.{digits}f} to {b:.{digits}f}; {n} {words}"
        rows.append({"a": a + step * 0.05, "b": b - step * 0.05, "n": n, "c": (a + b) / 2, "tip": tip})
    x = axis("a", ticks, (low, high), decimals(ticks), title=title)
    y = axis("n", tall, (0, top), [text.count(t) for t in tall], grid=True)
    made = [layer("bar", rows, x=x, x2="b", y=y, y2={"datum": 0}, color=ACCENT, opacity=0.78)]
    for i, (name, v) in enumerate(marks):
        at = top * (1.0 - 0.09 * i) - top * 0.03
        side = "right" if v > low + 0.45 * (high - low) else "left"
        made.append(
            layer(
                "rule",
                [{"a": v, "n": 0, "m": at}],
                x=x,
                y=y,
                y2="m",
                color=INK,
                strokeWidth=1.6,
                strokeDash=[4, 3] if i else [1, 0],
            )
        )
        row = [{"a": v, "n": at, "t": f"{name} {text.number(v)}"}]
        made.append(
            layer(
                "text", row, x=x, y=y, text="t", align=side, dx=-6 if side == "right" else 6, color=INK, fontWeight=600
            )
        )
    full = [r for r in rows if r["n"]]
    made.append({**tips(full, frame.plot[0] / bins * len(full), "c")})
    return spec_of(made, frame)
