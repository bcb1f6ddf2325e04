"""The chart of epsilon over rounds: rows in, a Vega-Lite specification out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manyloom.core import text
from manyloom.track.drawing import (
    ACCENT,
    BAD,
    MUTED,
    POINTS,
    REF,
    Frame,
    Spec,
    axis,
    decimals,
    layer,
    nice,
    round_ticks,
    spec_of,
    thin,
    tips,
)


def spent(
    rows: Sequence[Mapping[str, Any]],
    *,
    budget: float | None,
    planned: tuple[int, float] | None,
    last: int,
    width: int = 400,
    height: int = 240,
) -> Spec:
    """Epsilon over rounds: what was spent, the budget above it, what the rounds left would cost.

    Args:
        rows: {r, v, tip}, that of round 0 first.
        budget: the red line.
        planned: round and epsilon at the end of the plan.
        last: the last planned round.
        width: of the whole, in pixels.
        height: of the whole, in pixels.
    """
    top = max(r["v"] for r in rows)
    at = rows[-1]
    ticks = nice(0.0, max(top, budget or 0.0, planned[1] if planned else 0.0) * 1.04 or 1.0, 5)
    labels = decimals(ticks)
    end = max(last, at["r"], 1)
    frame = Frame(width, height, right=16, left=14 + 7 * max(map(len, labels)))
    x = axis("r", round_ticks(0, end), (0, end), [str(r) for r in round_ticks(0, end)], title="round")
    y = axis("v", ticks, (0.0, ticks[-1]), labels, grid=True)
    kept = [rows[i] for i in thin(len(rows), POINTS)]
    drawn = [{"r": r["r"], "v": r["v"]} for r in kept]
    made = [
        layer("area", drawn, x=x, y=y, y2={"datum": 0}, color=ACCENT, opacity=0.1),
        layer("line", drawn, x=x, y=y, color=ACCENT, strokeWidth=2.6, strokeJoin="round"),
    ]
    if planned is not None:
        ahead = [{"r": at["r"], "v": at["v"]}, {"r": planned[0], "v": planned[1]}]
        made.append(layer("line", ahead, x=x, y=y, color=REF, strokeWidth=1.6, strokeDash=[4, 4]))
        made.append(layer("point", ahead[1:], x=x, y=y, color=REF, size=40, filled=True, opacity=1))
        label = {**ahead[1], "t": f"planned {text.epsilon(planned[1])}"}
        above = budget is not None and planned[1] > budget
        made.append(layer("text", [label], x=x, y=y, text="t", align="right", dy=-14 if above else 30, color=MUTED))
    if budget is not None:
        made.append(layer("rule", [{"v": budget}], y=y, color=BAD, strokeWidth=1.8))
        label = {"r": 0, "v": budget, "t": f"budget ε = {text.epsilon(budget)}"}
        made.append(layer("text", [label], x=x, y=y, text="t", dx=4, dy=-9, color=BAD, fontWeight=600))
    made.append(layer("point", drawn[-1:], x=x, y=y, filled=True, size=70, color=ACCENT, opacity=1))
    late, high = at["r"] > 0.5 * end, at["v"] > 0.3 * ticks[-1]
    place: Spec = (
        {"align": "right", "dx": -4, "dy": 34 if high else 4} if late else {"align": "left", "dx": 8, "dy": 14}
    )
    label = {"r": at["r"], "v": at["v"], "t": f"spent {text.epsilon(at['v'])}"}
    made.append(layer("text", [label], x=x, y=y, text="t", color=ACCENT, fontWeight=650, **place))
    made.append(tips(rows, frame.plot[0], "r"))
    return spec_of(made, frame)
