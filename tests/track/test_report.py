"""The report: looked at by Chromium in every kind of run; colours, sizes, escapes, the presence of numbers."""

from __future__ import annotations

import builtins
import json
import math
import os
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from manyloom.track import charts, drawing
from manyloom.track.record import Run, of_events, read
from manyloom.track.report import html, part, write
from manyloom.track.store import Store

from . import streams
from .browser import Browser, Page, chromium

ODD = (
    '<b>&"quoted" <script>alert(1)</script>',
    "Ein sehr langer Name eines Krankenhauses mit sechzig Zeichen!!",
    "c",
    "d'e",
)
WRITERS = [f"writer {i:04d}" for i in range(539)]
KINDS: dict[str, dict] = {
    "demo": {},
    "private": {"privacy": True, "baselines": False},
    "many": {
        "names": WRITERS,
        "rounds": 60,
        "lost": [(r, (r * 37) % 539) for r in range(3, 60)],
        "client_word": ["writer", "writers"],
        "row_word": ["image", "images"],
        "watch": "accuracy",
    },
    "one": {"names": ("only",), "lost": (), "baselines": False},
    "zero": {"rounds": 0, "planned": 20, "end": None, "baselines": False},
    "first": {"rounds": 1, "planned": 20, "end": None, "baselines": False, "lost": ()},
    "failed": {"rounds": 13, "planned": 20, "end": "failed", "reason": "round 14 got 2 replies", "baselines": False},
    "interrupted": {"rounds": 12, "planned": 20, "end": "interrupted", "baselines": False},
    "names": {"names": ODD, "name": '<i>&"', "classes": ["<a>", "&b"]},
}


def made(kind: str) -> Run:
    run = of_events(streams.run(**KINDS[kind]))
    run.toml, run.env = streams.TOML + '[card]\nuse = "<script>alert(2)</script>"\n', streams.ENV
    return run


@cache
def page_of(kind: str) -> str:
    return html(made(kind))


# ---- looked at


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("Debian's package `chromium` is missing")
        pytest.skip("chromium is missing")
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    found = {kind: folder / f"{kind}.html" for kind in KINDS}
    for kind, path in found.items():
        path.write_text(page_of(kind), "utf-8")
    return found


def sound(page: Page) -> None:
    """No console error, no request, nothing over the edge, all text on screen."""
    assert page.said() == [] and page.asked() == []
    assert page.value("document.documentElement.scrollWidth") <= page.width
    assert page.wide() == []
    assert page.value("document.querySelectorAll('h1').length") == 1
    assert page.value("document.title").endswith("Manyloom run report")


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_looked_at(kind: str, browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    for width in (1280, 390):
        page = browser.open(pages[kind], width)
        sound(page)
        page.shot(tmp_path / f"{kind}_{width}.png")
        assert (tmp_path / f"{kind}_{width}.png").stat().st_size > 20_000
        page.close()


@pytest.mark.browser
def test_dark_and_narrow_and_without_script(browser: Browser, pages: dict[str, Path]) -> None:
    light = browser.open(pages["demo"], 1280)
    assert light.value("getComputedStyle(document.body).backgroundColor") == "rgb(250, 248, 244)"
    assert light.value("document.querySelectorAll('details[open]').length") == 0
    light.close()
    dark = browser.open(pages["demo"], 1280, dark=True)
    sound(dark)
    assert dark.value("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    dark.close()
    small = browser.open(pages["demo"], 320)
    sound(small)
    small.close()
    bare = browser.open(pages["names"], 390, dark=True, script=False)
    sound(bare)
    assert bare.value("document.querySelectorAll('details:not([open])').length") == 0
    assert bare.value("document.getElementById('theme').hidden")
    bare.close()


@pytest.mark.browser
def test_the_script_switches_theme_and_shows_tips(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.open(pages["demo"], 1280)
    background = "getComputedStyle(document.body).backgroundColor"
    for expected in ("rgb(250, 248, 244)", "rgb(18, 22, 28)"):
        page.value("document.getElementById('theme').click()")
        assert page.value(background) == expected
    page.value("""(() => { const mark = document.querySelector('.lanes rect[aria-label]');
        mark.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, clientX: 5, clientY: 300})); })()""")
    assert page.value("document.getElementById('tip').textContent").startswith(
        "All patients, 150 patients\nfederated 0.860"
    )
    assert page.said() == []
    page.close()


@pytest.mark.browser
def test_printed(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    page = browser.open(pages["demo"], 1280, dark=True)
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.value("getComputedStyle(document.querySelector('.toc')).display") == "none"
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes()[:5] == b"%PDF-"
    page.close()


# ---- what is in it


class Seen(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_nothing_and_escapes_everything(kind: str) -> None:
    page = page_of(kind)
    seen = Seen(page)
    assert sum(tag == "script" for tag, _ in seen.tags) == 1
    for tag, attrs in seen.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "onclick", "onload", "xlink:href"} & set(attrs)
        assert (attrs.get("href") or "#").startswith("#")
    assert "@import" not in page and "url(" not in page
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    if kind == "names":
        assert "<script>alert" not in page and ODD[0] not in page and "<i>&" not in page
        assert ODD[0] in "".join(seen.words)


def test_every_chart_has_its_finding_and_its_numbers() -> None:
    for kind in ("demo", "many", "one"):
        page = page_of(kind)
        for figure in re.findall(r"<figure.*?</figure>", page, re.S):
            if 'class="chart"' in figure:
                label = re.search(r'role="img"[^>]*aria-label="([^"]+)"|aria-label="([^"]+)"[^>]*role="img"', figure)
                assert label and len(label[1] or label[2]) > 8
        drawn = len(re.findall(r'<div class="chart">', page))
        assert drawn >= 4
        assert page.count('<details class="nums" open>') >= drawn - 1  # two learning curves share one table


def test_the_sections_and_their_order() -> None:
    ids = re.findall(r'<section id="(\w+)"', page_of("demo"))
    assert ids == ["result", "learning", "clients", "data", "privacy", "bytes", "lost", "job", "again"]
    assert "No privacy guarantee" in page_of("demo")
    assert "No complete guarantee" in page_of("private")  # a claim without its assumptions is not printed


def test_a_baseline_does_not_claim_what_it_is_not() -> None:
    one = next(e for e in streams.run() if e.get("kind") == "central")
    events = [
        *streams.run(("all",), lost=(), baselines=False, name="heart-central"),
        {**one, "run": "heart-central-k3q9"},
    ]
    pooled = of_events(events, "heart-central-k3q9")
    assert pooled.role == "central" and pooled.beside == {}
    page = html(pooled)
    assert "Everything was pooled" in page and "record moved" not in page and "the hub saw" not in page
    local = next(e for e in streams.run() if e.get("kind") == "local")
    first = {**streams.started(streams.HOSPITALS, 20), "run": "heart-local-p7d2"}
    done = {"type": "run_done", "status": "done", "final": {"auc": 0.8}}
    page = html(of_events([first, local, done], "heart-local-p7d2"))
    assert "Nothing was shared" in page and "Over 4 hospitals, each judged on its own" in page
    sweep = of_events([{"type": "run_started", "run": "s-cer3", "algorithm": "sweep", "rounds": 0}], "s-cer3")
    assert "manyloom compare s-cer3" in html(sweep)


def test_a_whole_guarantee_is_printed_and_a_part_of_one_is_not() -> None:
    events = list(streams.run(privacy=True, baselines=False))
    fields = {"adjacency": "zero-out", "mechanism": "gaussian", "sampling": "poisson 0.2", "accountant": "pld",
              "against": "the hub & others", "assumes": ["noise stays secret"], "uncovered": ["metrics"]}  # fmt: skip
    whole = [{**e, "privacy": {**e["privacy"], **fields}} if e["type"] == "planned" else e for e in events]
    page = html(of_events(whole)).replace("\u00a0", " ")
    assert "ε = 3.98" in page and "at δ = 1e-05" in page and "for one hospital: all its patients together" in page
    assert "a factor of 54 (e to the 3.98), save with a probability of 1 in 100 000" in page
    assert "the hub &amp; others" in page and "noise stays secret" in page
    page = html(of_events(events)).replace("\u00a0", " ")
    assert "ε = " not in page and "lacks adjacency, mechanism, sampling" in page


def test_it_is_written_into_the_folder_also_while_it_runs(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.create("heart", toml=streams.TOML, env=streams.ENV) as writer:
        for event in list(streams.run())[:60]:
            writer.append(event)
        path = write(writer.folder)
        assert path == writer.path / "report.html" and "still running" in path.read_text("utf-8")
        assert read(writer.folder).rounds_done > 3
        assert write(writer.path, tmp_path / "elsewhere.html").read_text("utf-8").startswith("<!doctype html>")
        writer.append({"type": "run_done", "status": "done", "final": None})


def test_without_vl_convert_it_has_its_tables_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(drawing, "import_module", gone)
    page = html(made("demo"))
    assert "Missing charts: loss, auc, bytes." in page
    assert page.count("could not be drawn") == 3 and page.count('<details class="nums"') >= 6


def test_the_script_is_short_and_says_what_it_needs() -> None:
    script = part("page.js")
    assert script.count("\n") <= 80 and "innerHTML" not in script and "fetch" not in script


def test_a_thousand_rounds_of_a_hundred_thousand_clients_stay_small() -> None:
    def events() -> Iterator[dict]:
        n, rounds = 100_000, 1000
        first = {**streams.started([], rounds), "clients": None}
        first["population"] = {"clients": n, "train": 2_000_000, "test": 500_000, "sizes": [5, 12, 20, 28, 90]}
        yield first
        for r in range(1, rounds + 1):
            yield {"type": "round_started", "round": r, "asked": 1000, "cohort": None}
            for c in range(5):
                yield {"type": "client_lost", "round": r, "client": (r * 131 + c * 977) % n, "reason": "simulated",
                       "text": "no reply (simulated)", "name": f"client {c}"}  # fmt: skip
            metrics = dict(streams.judged(1, r / 40))
            spread = {k: {"mean": v, "worst_tenth": v * 0.9} for k, v in metrics.items()}
            yield {"type": "evaluated", "round": r, "split": "test", "metrics": metrics, "clients": {},
                   "spread": spread, "rows": 500_000, "positives": 200_000, "bytes_up": 1, "bytes_down": 1}  # fmt: skip
            yield {"type": "round_done", "round": r, "back": 995, "lost": 5, "asked": 1000, "seconds": 0.2,
                   "phases": {"train": 0.2}, "bytes_up": 10_000 + r, "bytes_down": 10_000}  # fmt: skip
        yield {"type": "run_done", "status": "done", "final": metrics}

    page = html(of_events(events()))
    assert len(page.encode()) < 1_500_000
    assert "100 000 hospitals" in page and "one in ten gets" in page


def test_many_named_clients_over_many_rounds_stay_small() -> None:
    run = of_events(streams.run([f"c{i}" for i in range(40)], rounds=300, lost=[(r, r % 40) for r in range(1, 300)]))
    assert len(html(run).encode()) < 1_500_000


# ---- colours


def themes() -> dict[str, dict[str, str]]:
    css = part("page.css")
    light = dict(re.findall(r"--([\w-]+): (#[0-9A-F]{6})", css.split("color-scheme: light")[0]))
    dark_blocks = re.findall(r"\{([^{}]*color-scheme: dark;[^{}]*)\}", css)
    found = [dict(re.findall(r"--([\w-]+): (#[0-9A-F]{6})", block)) for block in dark_blocks]
    assert len(found) == 2 and found[0] == found[1]  # by setting and by switch
    return {"light": light, "dark": {**light, **found[0]}}


def linear(colour: str) -> np.ndarray:
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a: str, b: str) -> float:
    one, two = (float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (max(one, two) + 0.05) / (min(one, two) + 0.05)


def oklab(rgb: np.ndarray) -> np.ndarray:
    lms = np.cbrt(
        np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                  [0.0883024619, 0.2817188376, 0.6299787005]]) @ np.clip(rgb, 0, 1)
    )  # fmt: skip
    return np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                     [0.0259040371, 0.7827717662, -0.8086757660]]) @ lms  # fmt: skip


MACHADO = {  # severity 1.0: Machado, Oliveira, Fernandes (2009)
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_marks_stand_out(theme: str) -> None:
    t = themes()[theme]
    for ground in ("paper", "surface"):
        for name in ("ink", "muted", "accent", "good", "warn", "bad", "c1", "c2", "c3", "c4"):
            assert contrast(t[name], t[ground]) >= 4.5, (name, ground)
    assert contrast(t["ink"], t["sunk"]) >= 4.5 and contrast(t["muted"], t["sunk"]) >= 4.5
    for name in ("good", "warn", "bad"):
        assert contrast(t[name], t["paper"]) >= 5 and contrast(t[name], t[f"{name}-soft"]) >= 4.5
    assert contrast(t["accent"], t["accent-soft"]) >= 4.5 and contrast(t["ink"], t["bad-soft"]) >= 4.5
    assert contrast(t["ref"], t["paper"]) >= 3 and contrast(t["paper"], t["accent"]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_clients_colours_differ_for_every_eye(theme: str) -> None:
    t = themes()[theme]
    for eye in (np.eye(3), *map(np.array, MACHADO.values())):
        seen = [oklab(eye @ linear(t[f"c{i}"])) for i in (1, 2, 3, 4)]
        assert min(math.dist(a, b) for a, b in combinations(seen, 2)) >= 0.06


# ---- charts


def test_a_chart_names_no_colour_and_no_font() -> None:
    lines = [charts.Line('<a & "b">', [(0, 1.0), (1, 0.5)], main=True, colour=drawing.INK)]
    svg = drawing.draw(
        charts.curves(lines, first=0, last=1, crosses=[1], reference=("pooled", 0.4)), 'a "finding" & <more>'
    )
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b", svg) and "font-family" not in svg
    assert "var(--ink)" in svg and "var(--bad)" in svg and "&lt;a &amp; " in svg
    assert 'aria-label="a &quot;finding&quot; &amp; &lt;more&gt;"' in svg and svg.startswith("<svg")


def test_a_specification_is_data_that_a_test_can_read() -> None:
    made = charts.curves([charts.Line("all", [(r, 1 / (r + 1)) for r in range(2000)], main=True)], first=0, last=1999)
    line = next(layer for layer in made["layer"] if layer["mark"]["type"] == "line")
    assert len(line["data"]["values"]) == drawing.POINTS
    assert line["data"]["values"][0]["r"] == 0 and line["data"]["values"][-1]["r"] == 1999
    json.dumps(made, allow_nan=False)


def test_labels_are_moved_apart() -> None:
    placed = drawing.apart([(0.5, "a", "", 1), (0.501, "b", "", 1), (0.9, "c", "", 1)], 100.0, 14, 0.0)
    at = sorted(p["y"] for p in placed)
    assert all(b - a >= 0.139 for a, b in zip(at, at[1:]))


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [1e-9, 2e-9], [-5.0, 1e6], [3.0, 3.0]])
def test_odd_values_are_drawn(values: list[float]) -> None:
    line = charts.Line("x", list(enumerate(values)), main=True)
    assert drawing.draw(charts.curves([line], first=0, last=max(1, len(values) - 1)), "x").startswith("<svg")
    marks = [("mean", values[0])]
    assert drawing.draw(charts.histogram(values, title="x", words="clients", marks=marks), "x").startswith("<svg")


def test_the_report_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: object, **kw: object) -> object:
        assert not name.startswith("torch")
        return real(name, *args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", guarded)
    assert html(made("demo"))
