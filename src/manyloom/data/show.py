"""A federation as an HTML fragment for notebooks: its split, drawn with inline styles and no script."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from manyloom.data.federation import Federation

MOST = 20  # clients drawn with a bar each; more are drawn as a histogram of their sizes
CELLS = 300  # bars' pieces drawn at most: the fragment stays below 30 kB
HUES = (
    "#2f6fb2",
    "#b0632f",
    "#3d8a5f",
    "#7a5195",
    "#8a8a2f",
    "#5f7f8f",
    "#b04a5a",
    "#4a9a9a",
    "#9a7a4a",
    "#6a6a9a",
)


def html(fed: Federation) -> str:
    """One line of facts, then labels over clients, or sizes where there are many clients."""
    body = _bars(fed) if len(fed) <= MOST else _sizes(fed)
    return (
        '<div style="font:13px system-ui,sans-serif;color:CanvasText;background:Canvas;max-width:46em">'
        f'<div style="margin-bottom:.5em">{escape(repr(fed))}</div>{body}</div>'
    )


def _bars(fed: Federation) -> str:
    drawn = fed.classes is not None and len(fed) * fed.classes <= CELLS
    counts = fed.label_counts() if drawn else fed.sizes[:, None]
    top = max(int(counts.sum(axis=1).max(initial=0)), 1)
    rows: list[str] = []
    for i in range(len(fed)):
        cells = "".join(
            f'<i title="{escape(_label(fed, c)) if drawn else "all"}: {n}" '
            f'style="width:{100 * n / top:.2f}%;background:{HUES[c % len(HUES)]}"></i>'
            for c, n in enumerate(counts[i].tolist())
            if n
        )
        rows.append(
            f'<tr><td style="padding-right:1em;text-align:left">{escape(fed.names[i][:40])}</td>'
            f'<td style="padding-right:1em;text-align:right">{int(fed.sizes[i])}</td>'
            f'<td style="width:24em"><div style="display:flex;height:1em">{cells}</div></td></tr>'
        )
    one, many = escape(fed.client_word[0]), escape(fed.row_word[1])
    head = (
        f'<tr><th style="text-align:left">{one}</th>'
        f'<th style="text-align:right;padding-right:1em">{many}</th><th></th></tr>'
    )
    return f'<table style="border-collapse:collapse;width:100%;font:inherit">{head}{"".join(rows)}</table>'


def _sizes(fed: Federation) -> str:
    low, high = int(fed.sizes.min()), int(fed.sizes.max())
    number, edges = np.histogram(fed.sizes, bins=min(24, high - low + 1))
    top = max(int(number.max()), 1)
    width = 100 / len(number)
    bars = "".join(
        f'<rect x="{i * width:.2f}%" width="{max(width - 0.4, 0.2):.2f}%" y="{60 - 58 * n / top:.1f}" '
        f'height="{58 * n / top:.1f}" fill="{HUES[0]}">'
        f"<title>{n} with {int(np.ceil(edges[i]))} to {int(edges[i + 1])}</title></rect>"
        for i, n in enumerate(number.tolist())
    )
    many, rows = escape(fed.client_word[1]), escape(fed.row_word[1])
    title = f"{many} by {rows}: {low} to {high}, median {int(np.median(fed.sizes))}"
    return (
        f'<svg width="100%" height="62" role="img" aria-label="{title}">{bars}</svg>'
        f'<div style="display:flex;justify-content:space-between"><span>{low}</span>'
        f"<span>{title}</span><span>{high}</span></div>"
    )


def _label(fed: Federation, c: int) -> str:
    return fed.labels[c] if c < len(fed.labels) else str(c)
