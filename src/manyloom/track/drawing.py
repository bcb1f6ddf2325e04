"""How charts with an axis are drawn: parts of a Vega-Lite specification, and that to an SVG fragment.

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
