"""Charts with an axis: rows to a Vega-Lite specification, and that to an SVG fragment.

No colour stands in a chart: a specification names sentinel colours, and `draw` turns them into CSS variables. So one
SVG serves light, dark and print. `draw` needs `vl-convert-python`, imported when it is first used; nothing is loaded
from a network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from xml.etree import ElementTree

from manyloom.core import text

POINTS = 400  # most points of a line
TIPS = 200  # most places with a tip
BARS = 100  # most bars over time
TOKENS = ("ink", "muted", "grid", "accent", "ref", "bad", "warn", "paper", "c1", "c2", "c3", "c4")
SENTINELS = {name: f"#f0a{i:x}{i:x}7" for i, name in enumerate(TOKENS)}
_TOKEN = {v: f"var(--{k})" for k, v in SENTINELS.items()}
INK, MUTED, GRID, ACCENT, REF, BAD, WARN, PAPER, *HUES = SENTINELS.values()
_SHED = {"class", "role", "aria-roledescription", "aria-hidden", "font-family", "version", "pointer-events"}
_AXIS = {
    "domain": False,
    "ticks": False,
    "gridColor": GRID,
    "labelColor": MUTED,
    "titleColor": MUTED,
    "labelPadding": 7,
    "labelFontSize": 12,
    "titleFontSize": 12,
    "titleFontWeight": 400,
    "labelOverlap": False,
    "labelFlush": False,
}
_CONFIG: dict[str, Any] = {
    "view": {"stroke": None},
    "mark": {"aria": False},
    "text": {"fontSize": 12, "align": "left", "baseline": "middle"},
    "axis": _AXIS,
}
Spec = dict[str, Any]


class NoCharts(Exception):
    """`vl-convert` is missing or does not work: the report is written with its tables."""


@dataclass(frozen=True)
class Frame:
    """The outside of a chart in pixels, and the room of its axes and labels."""

    width: int
    height: int
    top: int = 12
    right: int = 14
    bottom: int = 42
    left: int = 44

    @property
    def plot(self) -> tuple[int, int]:
        return self.width - self.left - self.right, self.height - self.top - self.bottom


# ---- drawing


def spec_of(layers: Sequence[Spec], frame: Frame) -> Spec:
    """A whole specification."""
    width, height = frame.plot
    padding = {"top": frame.top, "right": frame.right, "bottom": frame.bottom, "left": frame.left}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width,
        "height": height,
        "padding": padding,
        "autosize": "none",
        "background": None,
        "config": _CONFIG,
        "layer": list(layers),
    }


def draw(spec: Spec, label: str, kind: str = "") -> str:
    """A specification as an SVG fragment with `label`, the finding, as its name.

    Tidied as XML, so that no name in the data can be mistaken for markup.
    Raises: `NoCharts`.
    """
    try:
        raw: str = import_module("vl_convert").vegalite_to_svg(spec, allowed_base_urls=[])
    except Exception as error:
        raise NoCharts(f"{type(error).__name__}: {error}") from error
    root = ElementTree.fromstring(raw)
    for node in root.iter():
        _tidy(node)
    for key, value in {"class": kind, "role": "img", "aria-label": label}.items():
        root.set(key, value)
    return ElementTree.tostring(root, encoding="unicode")


def _tidy(node: ElementTree.Element) -> None:
    node.tag = node.tag.rpartition("}")[2]
    for child in list(node):
        if child.get("class") in ("background", "foreground"):
            node.remove(child)
    hits = "hits_marks" in node.get("class", "")
    for key, value in list(node.attrib.items()):
        if key in _SHED or (key == "opacity" and value == "1") or (key == "aria-label" and node.tag == "g"):
            del node.attrib[key]
        elif value in _TOKEN:
            node.set(key, _TOKEN[value])
        elif key in ("d", "transform", "x2", "y2"):
            node.set(key, re.sub(r"-?\d+\.\d{2,}", lambda n: f"{float(n[0]):.1f}".removesuffix(".0"), value))
    if hits:
        node.set("class", "hits")


def both(chart: Any, *args: Any, label: str, **kw: Any) -> str:
    """A full-width chart twice, 760 and 350 pixels wide; a container query shows one."""
    made = [chart(*args, width=width, **kw) for width in (760, 350)]
    return "".join(draw(spec, label, kind) for spec, kind in zip(made, ("wide", "narrow")))


# ---- parts of a specification


def layer(kind: str, rows: Sequence[Mapping[str, Any]], *, name: str | None = None, **rest: Any) -> Spec:
    """One layer: channels are field names, or dicts; everything else is a property of the mark."""
    channels = ("x", "y", "x2", "y2", "text", "description")
    encoding: Spec = {}
    for channel in channels:
        value = rest.pop(channel, None)
        if isinstance(value, str):
            typed = (
                {}
                if channel in ("x2", "y2")
                else {"type": "nominal" if channel in ("text", "description") else "quantitative"}
            )
            value = {"field": value, **typed}
        if value is not None:
            encoding[channel] = value
    made: Spec = {"mark": {"type": kind, **rest}, "data": {"values": list(rows)}, "encoding": encoding}
    return {**made, **({"name": name} if name else {})}


def axis(field: str, ticks: Sequence[float], domain: tuple[float, float], labels: Sequence[str], **more: Any) -> Spec:
    """A scale with its ticks labelled as told."""
    told = ",".join(f"'{label}'" for label in labels)
    values = ",".join(f"{t!r}" for t in ticks)
    near = f"[{told}][indexof([{values}], datum.value)]"
    shown = {"title": None, "grid": False, "values": list(ticks), "labelExpr": near, **more}
    scale = {"domain": list(domain), "nice": False, "zero": False}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": shown}


def nice(low: float, high: float, most: int = 5) -> list[float]:
    """Round ticks that hold [low, high].

    >>> nice(0.32, 0.69), nice(0, 5600), nice(3, 3)
    ([0.3, 0.4, 0.5, 0.6, 0.7], [0.0, 2000.0, 4000.0, 6000.0], [2.0, 3, 4.0])
    """
    if high - low < 1e-12 * max(1.0, abs(high)):
        return [low - 1.0, low, low + 1.0] if low else [0.0, 1.0]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def decimals(ticks: Sequence[float]) -> list[str]:
    """Ticks with as many digits as tell them apart.

    >>> decimals([0.3, 0.4]), decimals([0.25, 0.5]), decimals([1000, 2000])
    (['0.3', '0.4'], ['0.25', '0.50'], ['1 000', '2 000'])
    """
    if all(abs(t) >= 1000 or t == 0 for t in ticks):
        return [text.count(t) for t in ticks]
    digits = next((d for d in range(7) if all(abs(round(t, d) - t) < 1e-9 * max(1, abs(t)) for t in ticks)), 7)
    return [f"{t:.{digits}f}" for t in ticks]


def round_ticks(first: int, last: int, most: int = 5) -> list[int]:
    """Rounds to name under a time axis: the ends, and round numbers between.

    >>> round_ticks(1, 40), round_ticks(0, 20), round_ticks(1, 1), round_ticks(1, 1000)
    ([1, 10, 20, 30, 40], [0, 5, 10, 15, 20], [1], [1, 200, 400, 600, 800, 1000])
    """
    if last - first <= most:
        return list(range(first, last + 1))
    rough = (last - first) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(
        int(k * power) for k in (1, 2, 2.5, 5, 10) if k * power >= rough * 0.999 and k * power == int(k * power)
    )
    between = [k for k in range(step, last, step) if k - first > 0.6 * step and last - k > 0.6 * step]
    return [first, *between, last]


def thin(n: int, most: int) -> list[int]:
    """Indices of at most `most` of n things, evenly, the ends among them.

    >>> thin(5, 10), thin(9, 3)
    ([0, 1, 2, 3, 4], [0, 4, 8])
    """
    return list(range(n)) if n <= most else [round(i * (n - 1) / (most - 1)) for i in range(most)]


def apart(items: Sequence[tuple[float, str, str, int]], scale: float, gap: float, floor: float) -> list[Spec]:
    """Labels (value, text, colour, weight) moved apart to `gap` pixels, in data units; none below `floor`."""
    placed = sorted(([-v * scale, v, t, c, w] for v, t, c, w in items), key=lambda a: float(a[0]))
    at = [float(p[0]) for p in placed]
    for _ in range(80):
        for i in range(len(at) - 1):
            over = gap - (at[i + 1] - at[i])
            if over > 0:
                at[i] -= over / 2
                at[i + 1] += over / 2
        if at and at[-1] > -floor * scale:
            at[-1] = -floor * scale
    return [{"y": -y / scale, "t": p[2], "c": p[3], "w": p[4]} for y, p in zip(at, placed)]


def tips(rows: Sequence[Mapping[str, Any]], width: float, x: str) -> Spec:
    """Invisible full-height rules whose names are the tips: what a pointer reads."""
    kept = [rows[i] for i in thin(len(rows), TIPS)]
    wide = max(2.0, width / max(1, len(kept)))
    return layer("rule", kept, name="hits", x=x, description="tip", opacity=0, strokeWidth=wide, color=INK, aria=True)


def clip(name: str, most: int = 18) -> str:
    """A name that fits beside a line."""
    return name if len(name) <= most else name[: most - 1] + "…"


# ---- the charts


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
        rows: {r, up, down, tip}, at most `BARS`.
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
    return spec_of(
        [
            layer("bar", drawn, x=x, y=y, color=ACCENT, size=bar, opacity=0.9),
            layer("bar", drawn, x=x, y=below, color=ACCENT, size=bar, opacity=0.45),
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
