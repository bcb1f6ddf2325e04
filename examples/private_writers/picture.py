"""Accuracy against epsilon, as two SVG files for light and dark pages, from what benchmarks.private measured.

    python -m examples.private_writers.picture [FOLDER]

Writes writers-light.svg and writers-dark.svg into docs/figures, or into FOLDER.
"""

import statistics
import sys
from html import escape
from pathlib import Path

from benchmarks.private import OPEN, Found, results
from scripts.figures import FONT, ROOT, tokens

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 820, 430, 70, 150, 100, 346
PLACES = ("1", "2", "4", "8", OPEN)  # each twice the one before, so that the axis is logarithmic
COLOURS = {"cnn-s8": "accent", "logistic": "ref"}
NAMES = {"cnn-s8": "two convolutions", "logistic": "logistic"}


def across(epsilon: str) -> float:
    """Where an epsilon stands; the run without privacy a little apart."""
    step = (WIDTH - LEFT - RIGHT) / (len(PLACES) - 0.4)
    return round(LEFT + step * (PLACES.index(epsilon) + 0.3 + (0.2 if epsilon == OPEN else 0)), 1)


def scale(found: list[Found]) -> tuple[float, float]:
    """The least and the largest accuracy shown, in steps of .05."""
    every = [a for f in found for a in f.accuracy]
    return (min(every) - 0.005) // 0.05 * 0.05, -(-(max(every) + 0.005) // 0.05) * 0.05


def picture(found: list[Found], colour: dict[str, str]) -> str:
    """A line a model: means over seeds, each seed a faint dot."""
    low, high = scale(found)

    def up(accuracy: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (accuracy - low) / (high - low), 1)

    def text(
        x: float, y: float, words: str, size: int = 13, ink: str = "muted", anchor: str = "start", more: str = ""
    ) -> str:
        look = f'font-size="{size}" fill="{colour[ink]}" text-anchor="{anchor}"{more}'
        return f'<text x="{x}" y="{y}" {look}>{escape(words)}</text>'

    counts = sorted({len(f.accuracy) for f in found})
    seeds = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    heading = "Digits by 539 writers: what an epsilon for each of them costs"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="{escape(label(found))}" font-family="{FONT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{colour["paper"]}"/>',
        text(24, 36, heading, 17, "ink", more=' font-weight="600"'),
        text(24, 60, f"Accuracy on 10,000 images by others after 40 rounds; delta 1e-5; {seeds} seeds, and their mean"),
    ]
    for step in range(round((high - low) / 0.05) + 1):
        y = up(low + 0.05 * step)
        out.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" stroke="{colour["grid"]}"/>')
        out.append(text(LEFT - 10, y + 4, f"{low + 0.05 * step:.2f}", 12, anchor="end"))
    watched = {f.epsilon: f.values["epsilon without amplification"] for f in found if f.epsilon != OPEN}
    for epsilon in PLACES:
        shown = "no privacy" if epsilon == OPEN else epsilon
        out.append(text(across(epsilon), BOTTOM + 24, shown, 13, "ink", "middle"))
        if epsilon in watched:
            out.append(text(across(epsilon), BOTTOM + 44, f"{watched[epsilon]:.1f}", 12, anchor="middle"))
    out.append(text(24, BOTTOM + 24, "epsilon", 12))
    foot = "Second line: epsilon against those who also know who took part in which round."
    out.append(text(24, BOTTOM + 68, foot, 12))
    for model, ink in COLOURS.items():
        line = [f for f in found if f.model == model]
        if not line:
            continue
        means = [(across(f.epsilon), up(statistics.mean(f.accuracy))) for f in line]
        noisy = [m for m, f in zip(means, line) if f.epsilon != OPEN]
        path = " ".join(f"{x},{y}" for x, y in noisy)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour[ink]}" stroke-width="2.4"/>')
        if len(means) > len(noisy) > 0:
            (x1, y1), (x2, y2) = means[-2:]
            out.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour[ink]}" stroke-width="2" '
                       'stroke-dasharray="2 6" stroke-linecap="round"/>')  # fmt: skip
        for f, (x, y) in zip(line, means):
            out += [f'<circle cx="{x}" cy="{up(a)}" r="3" fill="{colour[ink]}" fill-opacity=".3"/>' for a in f.accuracy]
            edge = f'stroke="{colour["paper"]}" stroke-width="1.5"'
            out.append(f'<circle cx="{x}" cy="{y}" r="5.5" fill="{colour[ink]}" {edge}/>')
            out.append(text(x, up(max(f.accuracy)) - 12, f"{statistics.mean(f.accuracy):.3f}"[1:], 12, "ink", "middle"))
        x, y = means[-1]
        out.append(text(x + 18, y + 4.5, NAMES[model], 13, ink))
    return "\n".join([*out, "</svg>\n"])


def label(found: list[Found]) -> str:
    """The finding in words, for those who can't see the picture."""
    said = [f"{NAMES[f.model]}, {'no privacy' if f.epsilon == OPEN else 'epsilon ' + f.epsilon}: "
            f"{statistics.mean(f.accuracy):.3f}" for f in found]  # fmt: skip
    return "Accuracy of " + "; ".join(said)


def main() -> int:
    found = results()
    if not found:
        print("nothing measured yet: python -m benchmarks.private --data-dir DIR", file=sys.stderr)
        return 1
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        path = folder / f"writers-{theme}.svg"
        path.write_text(picture(found, tokens(theme)))
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
