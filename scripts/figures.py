"""The first chart of a run's report as two SVG files, for light and dark pages.

    scripts/figures [RUN]       RUN is a run of the store in .manyloom; without it the demo's job is run first

Writes docs/figures/heart-light.svg and heart-dark.svg. The numbers are the run's, the colours those of the report.
"""

import json
import re
import subprocess
import sys
import textwrap
from html import escape
from pathlib import Path
from typing import Any

from manyloom.track.record import read
from manyloom.track.report import part
from manyloom.track.sections import result
from manyloom.track.sections.parts import Drawer
from manyloom.track.store import Store

ROOT = Path(__file__).parents[1]
WIDTH, LEFT, RIGHT, TOP, LANE = 820, 150, 30, 112, 40
FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def tokens(theme: str) -> dict[str, str]:
    """The report's colours: name -> hex."""
    light, dark = re.findall(r":root(?:\[data-theme=dark\])? \{(.*?)\}", part("page.css"), re.S)[:2]
    found = dict(re.findall(r"--(\w+): (#[0-9A-Fa-f]{6})", light))
    return found | (dict(re.findall(r"--(\w+): (#[0-9A-Fa-f]{6})", dark)) if theme == "dark" else {})


def picture(chart: dict[str, Any], colour: dict[str, str]) -> str:
    """The chart "federated, pooled, alone" as a file of its own."""
    rows = [row for row in chart["rows"] if not row["note"]]
    foot = [f"{row['name']} is left out: {row['note']}." for row in chart["rows"] if row["note"]]
    bottom = TOP + LANE * len(rows)
    height = bottom + 48 + 20 * len(foot)

    def x(percent: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * percent / 100, 1)

    def text(
        at: float, y: float, words: str, size: int = 13, ink: str = "ink", anchor: str = "start", more: str = ""
    ) -> str:
        look = f'font-size="{size}" fill="{colour[ink]}" text-anchor="{anchor}"{more}'
        return f'<text x="{at}" y="{y}" {look}>{escape(words)}</text>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(chart["label"])}" font-family="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{colour["paper"]}"/>',
        text(24, 36, chart["heading"], 17, more=' font-weight="600"'),
        *(text(24, 58 + 18 * i, line, 13, "muted") for i, line in enumerate(wrapped(chart["subtitle"], 112))),
    ]
    key = 24.0
    for kind, words in (("fed", "federated"), ("pooled", "pooled in one place"), ("alone", "alone")):
        out += [mark(kind, key + 6, TOP - 16, colour), text(key + 18, TOP - 11, words, 13, "muted")]
        key += 40 + 7.2 * len(words)
    for at, label in chart["ticks"]:
        out.append(f'<line x1="{x(at)}" x2="{x(at)}" y1="{TOP}" y2="{bottom}" stroke="{colour["grid"]}"/>')
        out.append(text(x(at), bottom + 18, label, 12, "muted", "middle"))
    out.append(text(x(50), bottom + 36, chart["title"], 12, "muted", "middle"))
    for i, row in enumerate(rows):
        y = TOP + LANE * i + LANE / 2
        out.append(text(LEFT - 14, y + 4.5, row["name"], 13, "ink", "end"))
        if row["lo"] is not None:
            out.append(f'<line x1="{x(row["lo"])}" x2="{x(row["hi"])}" y1="{y}" y2="{y}" stroke="{colour["accent"]}" '
                       f'stroke-width="7" stroke-opacity=".2" stroke-linecap="round"/>')  # fmt: skip
        out += [mark("alone", x(at), y, colour) for at in row["alone"]]
        out += [mark(kind, x(row[kind]), y, colour) for kind in ("pooled", "fed") if row[kind] is not None]
    out += [text(24, bottom + 58 + 20 * i, line, 12, "muted") for i, line in enumerate(foot)]
    return "\n".join([*out, "</svg>\n"])


def mark(kind: str, x: float, y: float, colour: dict[str, str]) -> str:
    """● federated, ❙ pooled, ○ alone."""
    if kind == "pooled":
        return f'<line x1="{x}" x2="{x}" y1="{y - 11}" y2="{y + 11}" stroke="{colour["ink"]}" stroke-width="2.4"/>'
    fill, edge, size, wide = ("accent", "paper", 6.5, 1.5) if kind == "fed" else ("paper", "ref", 4.6, 1.8)
    return f'<circle cx="{x}" cy="{y}" r="{size}" fill="{colour[fill]}" stroke="{colour[edge]}" stroke-width="{wide}"/>'


def wrapped(words: str, width: int) -> list[str]:
    return textwrap.wrap(words, width)[:2]


def demo() -> str:
    """A run of the demo's job; its name."""
    command = [str(ROOT / ".venv" / "bin" / "manyloom"), "run", "examples/heart/heart.toml", "--baselines", "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)["run_id"]


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else demo()
    run = read(Store.open(ROOT / ".manyloom").resolve(name))
    chart = result.section(run, Drawer())["ranges"]
    folder = ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        path = folder / f"heart-{theme}.svg"
        path.write_text(picture(chart, tokens(theme)))
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
