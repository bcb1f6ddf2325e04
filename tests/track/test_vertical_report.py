"""What is told of a vertical run: report, card, ending, comparison, live display."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from manyloom.core.text import event_line
from manyloom.track import card, compare, document, parties, text
from manyloom.track.progress import Plain
from manyloom.track.record import Run, of_events
from manyloom.track.report import html
from manyloom.track.view import View, joined

from . import streams, vertical
from .browser import Browser, chromium
from .test_report import sound

KINDS: dict[str, dict[str, Any]] = {
    "demo": {},
    "bare": {"defence": "none"},
    "three": {"features": ("shop", "a payment provider", "telecom")},
    "lost": {"rounds": 4, "lost": 4, "planned": 8, "end": "failed"},
    "unmet": {"rounds": 0, "met": False, "planned": 8, "end": None},
    "odd": {"features": ('<b>&"x', "Ein sehr langer Name eines Ladens mit sechzig Zeichen!!")},
}


@cache
def made(kind: str) -> Run:
    run = of_events(vertical.run(**KINDS[kind]))
    run.toml, run.env = vertical.TOML, streams.ENV
    return run


@cache
def page(kind: str) -> str:
    return html(made(kind)).replace("\u202f", " ").replace("\u00a0", " ")


# ---- report


@pytest.mark.parametrize("kind", KINDS)
def test_no_section_of_a_horizontal_run_stands_there_empty(kind: str) -> None:
    shown = page(kind)
    for gone in ('id="clients"', 'id="data"', "each party’s update", "the hub saw", "No round was evaluated"):
        assert gone not in shown or (kind == "unmet" and gone.startswith("No round")), gone
    assert 'id="alignment"' in shown and 'id="leak"' in shown
    assert ('id="lost"' in shown) == (kind == "lost")
    assert '<b>&"x' not in shown


def test_alignment_says_who_has_what_and_what_each_learned() -> None:
    shown = page("demo")
    for told in ("Bank has the labels and drives; shop answers.", "19 200 to train on, 4 800 held out",
                 "24 000 customers in common", "94 %", "digest 5d5d 5d5d 5d5d 5d5d",
                 "1.1 MB to the label party", "which of its rows the label party has"):  # fmt: skip
        assert told in shown, told
    numbers = shown[shown.index('id="alignment"') :]
    assert '<th scope="row">bank</th><td class="num">25 500</td><td class="num">24 000</td>' in numbers
    assert "1 500" in numbers and '<td class="num">3</td>' in numbers  # only there; without an id


def test_threats_of_the_plan_are_shown_where_it_has_some() -> None:
    events = list(vertical.run())
    for e in events:
        if e["type"] == "planned":
            e["threats"] = {"train": ["sees all", "sees gradients", "sizes", "hope"]}
    found = parties.threats(of_events(events))
    assert dict(found)["train"] == ("sees all", "sees gradients", "sizes", "hope")
    assert "Curve25519" in dict(found)["align"][3]
    assert parties.threats(made("demo"))[1][1][3].startswith("the defence")


def test_the_leak_meter_says_plainly_what_leaks() -> None:
    bare, kept = page("bare"), page("demo")
    assert "Nothing defended the labels: shop could read them nearly fully" in bare
    assert "The labels were not defended" in bare and "Shop could read the labels: AUC 1.000, undefended" in bare
    assert "With max-norm noise, shop could guess a label with AUC 0.656" in kept
    assert "The labels were not defended" not in kept and "no guarantee" in kept
    assert '<div class="box none">' in bare[bare.index('id="privacy"') :]
    for value in ("0.537", "0.593", "0.651", "0.766", "0.779"):  # round 1, and the model at the end
        assert value in kept[kept.index('id="leak"') : kept.index('id="privacy"')], value


def test_every_party_has_its_own_meter() -> None:
    shown = page("three")
    assert shown.count("could guess a label with AUC") >= 3
    assert all("gradients reach" in shown and name in shown for name in KINDS["three"]["features"])


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_looked_at(kind: str, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.html"
    path.write_text(page(kind), "utf-8")
    for width, dark in ((1280, False), (390, True)):
        found = browser.open(path, width, dark=dark)
        sound(found)
        found.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("Debian's package `chromium` is missing")
        pytest.skip("chromium is missing")
    with Browser() as found:
        yield found


# ---- card, terminal


def test_the_card_speaks_of_parts_and_of_the_joint_prediction() -> None:
    told = card.card(made("demo"))
    assert "A split network (2 113 parameters)" in told and "over 24 000 customers that all of them have" in told
    assert "manyloom predict bank-and-shop-x4t7 --party bank=bank.csv --party shop=shop.csv" in told
    assert "19 200 used to train, 4 800 to test" in told and "What the others could see" in told
    assert "each party's update" not in told and "coordinator" not in told
    assert "nearly fully" in card.card(made("bare"))


def test_ending_and_show_tell_the_leak_and_the_parties() -> None:
    assert "leak     shop: AUC 0.656, 1 batch in 20 0.771 (max-norm noise; 0.5 is guessing)" in text.ending(
        made("demo")
    )
    assert "(undefended; labels leak nearly fully)" in " ".join(text.ending(made("bare")).split())
    shown = text.show(made("three"))
    assert "  bank                   28 500  24 000      3    labels" in shown and "coordinator" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "leak" not in text.ending(made("unmet"))


def test_comparison_has_the_leak_beside_the_utility() -> None:
    said = compare.human([made("bare"), made("demo")]).splitlines()
    rows = {line[:16].strip(): line.split()[-2:] for line in said if line.startswith(("label", "  1 batch", "  def"))}
    assert rows == {"label leak (AUC)": ["1.000", "0.656"], "1 batch in 20": ["1.000", "0.771"],
                    "defence": ["none", "max-norm"]}  # fmt: skip


def test_bytes_of_the_alignment_are_a_kind_of_their_own() -> None:
    run = made("demo")
    assert run.bytes["align"] == {"up": 1_070_000, "down": 1_063_000}
    assert run.bytes_up == 8 * 1_228_800  # of training alone
    assert document.summary(run)["bytes"]["align"]["up"] == 1_070_000
    assert run.phases["align"] == 6.4 and "align" not in of_events(streams.run()).bytes


def test_a_line_a_pass_with_the_leak_in_it() -> None:
    out = io.StringIO()
    with Plain(out, clock=lambda: 0.0) as shown:
        for event in vertical.run(rounds=2):
            shown.feed(event)
    lines = out.getvalue().splitlines()
    assert lines[1] == "aligned  shop=24000 bank=25500 common=24000 moved 2.1MB 6.40s"
    assert "clients 1/1 leak 0.651 up 1.2MB 0.60s" in lines[3] and lines[3].startswith("round    1/2")
    assert not any(line.startswith("leak") for line in lines) and all(len(line) <= 80 for line in lines[1:])
    (leak,) = [e for e in vertical.run(rounds=1) if e["type"] == "leak"]
    assert event_line(leak) == "leak     1 shop norm 0.537/0.593 cosine 0.651/0.766 max-norm"


def test_the_live_display_has_a_line_for_it() -> None:
    view = View()
    for event in vertical.run(features=("shop", "telecom"), defence="none"):
        view.feed(event, 0.0)
    frame = joined(view.frame(1.0)).splitlines()
    assert len(frame) <= 9 and any(line.startswith("leak     0.999") and "undefended" in line for line in frame)
    assert "no epsilon" in joined(view.head())
