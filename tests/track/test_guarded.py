"""Private and secure runs, wherever they are shown: display, end, list, report, card, comparison, trackers."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from manyloom.core.text import event_line
from manyloom.track import card, charts, compare, epsilon, promise, sinks, text
from manyloom.track.document import history, summary
from manyloom.track.progress import Plain
from manyloom.track.record import Run, of_events
from manyloom.track.report import html
from manyloom.track.store import Store
from manyloom.track.view import View, joined

from . import guarded, streams
from .browser import Browser, chromium
from .golden import check
from .test_report import Seen, sound

KINDS = ("heart", "mnist", "writers", "stop", "open")


def made(kind: str, **more: object) -> Run:
    run = of_events(guarded.run(kind, **more))  # type: ignore[arg-type]
    run.toml, run.env = guarded.TOML[kind], streams.ENV
    return run


@cache
def page(kind: str, participation: bool = False) -> str:
    return html(made(kind), participation=participation).replace("\u00a0", " ")


def words(shown: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Seen(shown).words))


def part(shown: str, name: str) -> str:
    found = re.search(rf'<section id="{name}".*?</section>', shown, re.S)
    assert found
    return found[0]


# ---- terminal


def view(kind: str, until: int | None = None) -> str:
    found = View()
    for i, event in enumerate(guarded.run(kind, until=until)):
        found.feed(event, i * 0.01)
    return joined([*found.head(), *found.frame(found.took)]) + "\n" + joined(found.frame(found.took, 50))


def test_the_display_shows_what_is_spent_of_the_budget() -> None:
    shown = {kind: view(kind, 14) for kind in ("heart", "mnist", "writers", "open")} | {"stop": view("stop")}
    check("guarded_live", "\n~~~~\n".join(f"{name}\n{frame}" for name, frame in shown.items()))
    assert "\nepsilon" not in shown["heart"] and "secure sum" in shown["heart"].split("\n")[0]
    assert "enough for round 100" in shown["mnist"]
    half = View()
    for event in guarded.run("stop", until=30):
        half.feed(event, 0.0)
    assert "ends before round 100" in joined(half.frame(0.0))


def test_plain_lines_and_the_lines_of_releases() -> None:
    out, now = io.StringIO(), iter(x * 0.3 for x in range(100_000))
    with Plain(out, clock=lambda: next(now)) as shown:
        for event in guarded.run("writers", until=3):
            shown.feed(event)
    told = [event_line(e) for e in guarded.run("writers", until=3) if e["type"] == "released"]
    again = {"type": "released", "round": 4, "attempt": 1, "what": "aborted attempt", "epsilon": 3.2, "delta": 1e-5}
    told.append(event_line({**again, "budget": None, "noise_multiplier": 0.71275, "clip": 0.5}))
    check("guarded_plain", out.getvalue() + "\n".join(told))
    sums = [e["bytes_up"] + e["secure"]["up"] for e in guarded.run("writers", until=3) if e["type"] == "round_done"]
    assert f"up {sums[0] / 1e6:.0f}MB" in out.getvalue()


def test_grouped_rounds_add_the_bytes_of_their_channels() -> None:
    out = io.StringIO()
    with Plain(out, clock=lambda: 1.0) as shown:
        for event in guarded.run("heart", until=9):
            shown.feed({**event, "seconds": 0.01} if event["type"] == "round_done" else event)
    up = sum(e["bytes_up"] + e["secure"]["up"] for e in guarded.run("heart", until=9) if e["type"] == "round_done")
    grouped = [line for line in out.getvalue().split("\n") if re.match(r"round +\d+-9/", line)]
    assert grouped and f"up {(up - 4 * 1105) / 1e3:.0f}kB" in grouped[0]


def test_the_end_and_show_say_what_holds_against_whom() -> None:
    told: list[str] = []
    for kind in KINDS:
        run = made(kind)
        told += [f"~~~~ {kind}", text.ending(run, "report.html"), "~~~~ show", text.show(run)]
    check("guarded_ends", "\n".join(told))


def test_no_amplified_number_stands_alone_beside_who_took_part() -> None:
    for kind in ("mnist", "writers", "stop"):
        run = made(kind)
        assert promise.amplified(run) and len(promise.claims(run)) == 2
        for shown in (text.ending(run), text.show(run), card.card(run), page(kind)):
            assert all(f"{text.text.epsilon(c.epsilon)}" in shown for c in promise.claims(run))
    assert not promise.amplified(made("open")) and not promise.amplified(made("heart"))


def test_a_run_under_way_tells_the_plan_from_what_is_spent() -> None:
    run = made("mnist", until=25)
    first, other = promise.claims(run)
    assert not first.planned and first.epsilon == run.spent and other.planned
    assert "when all rounds are done" in "\n".join(promise.told(run))
    begun = made("mnist", until=0)
    assert promise.claims(begun)[0].planned and promise.told(begun)[0].startswith("nothing was released")
    assert "Nothing has been released yet" in words(html(begun))


def test_delta_is_never_rounded_down() -> None:
    for v in (1e-5, 1.5136e-5, 9.996e-6, 5.0118e-4, 0.21763764):
        assert v * (1 - 1e-9) <= float(text.text.delta(v)) < v * 1.011


def test_a_claim_that_lacks_a_field_is_printed_nowhere() -> None:
    for field in promise.FIELDS[1:]:
        events = [
            {**e, "privacy": {**e["privacy"], field: None}} if e.get("privacy") else e for e in guarded.run("mnist")
        ]
        run = of_events(events)
        assert promise.claims(run) == [] and f"the claim lacks {field}" in text.ending(run)
        assert "privacy: none" in card.card(run) and "**None.**" in card.card(run)
    shown = html(run)
    assert "No complete guarantee" in shown and "7.99" not in part(shown, "privacy")


# ---- store


def test_the_document_has_both_numbers_and_all_bytes() -> None:
    run = made("writers")
    found = summary(run)
    assert found["privacy"]["epsilon"] == run.spent and found["privacy"]["others"][0]["against"] == guarded.WATCHERS
    rows = history(run)
    assert sum(r["bytes_up"] for r in rows) == found["bytes_up"] == run.bytes_up
    assert found["bytes"]["secure"]["up"] > 0 and [r["epsilon"] for r in rows] == [r.epsilon for r in run.rounds]
    assert {c["samples"] for c in summary(made("heart"))["clients"]} == {None}
    assert summary(made("open"))["privacy"]["others"] == []
    json.dumps(found, allow_nan=False)


def test_the_index_counts_the_channel_and_knows_who_refused(tmp_path: Path) -> None:
    refused = {"type": "client_lost", "round": 2, "client": 1, "reason": "refused", "text": "below its own floor"}
    with Store.open(tmp_path) as store, store.create("writers", toml=guarded.TOML["writers"], env=streams.ENV) as run:
        for event in [*guarded.run("writers", until=3), refused, *list(guarded.run("writers"))[-1:]]:
            run.append({k: v for k, v in event.items() if k != "seq"})
    with Store.open(tmp_path) as store:
        row, want = store.runs()[0], made("writers", until=3)
        assert row["bytes_up"] == want.bytes_up and row["budget"] == 8.0
        assert row["epsilon"] == pytest.approx(7.9921) and row["guarantee"]["others"]
        assert "7.99/8.00" not in text.runs_table([{**row, "budget": None}], "x", 1)
        part_ = store.db.execute("SELECT outcome FROM part WHERE reason = 'refused'").fetchall()
        assert [tuple(r) for r in part_] == [("refused",)]


def test_trackers_get_epsilon_clip_and_the_channel() -> None:
    events = list(guarded.run("writers", until=2))
    released, done = (next(e for e in events if e["type"] == kind) for kind in ("released", "round_done"))
    assert set(sinks.scalars(released)[1]) == {"privacy/epsilon"}
    assert {"privacy/clip", "privacy/unclipped", "secure/bytes_up"} < set(sinks.scalars(done)[1])
    assert "round/loss_train" not in sinks.scalars(done)[1]


# ---- report


def test_a_private_report_leaves_out_who_took_part_and_says_why() -> None:
    for kind in ("mnist", "writers", "stop"):
        shown = page(kind)
        run = made(kind)
        assert "counts on nobody but the hub knowing them" in part(shown, "lost")
        assert "counts on nobody but the hub knowing them" in part(shown, "bytes")
        assert '<div class="chart">' not in part(shown, "lost") and "took part</th>" not in shown
        assert text.text.count(run.asked) not in words(part(shown, "result"))
        exact = {text.text.size(v) for r in run.rounds for v in (r.up, r.bytes_up)}
        assert not any(size in words(part(shown, "bytes")) for size in exact - {"10 MB"})
    for kind in ("mnist",):
        told = page(kind, True)
        assert "readers of this list" in part(told, "lost") and "replies</th>" in part(told, "bytes")


def test_who_reads_the_list_gets_the_number_that_holds_for_him() -> None:
    plain, told = part(page("mnist"), "privacy"), part(page("mnist", True), "privacy")
    first, other = promise.claims(made("mnist"))
    big = '<p class="big huge">ε = '
    assert f"{big}{text.text.epsilon(first.epsilon)}" in plain and f"{big}{text.text.epsilon(other.epsilon)}" in told
    assert "This report tells who took part when" in told and "This report tells" not in plain
    assert f"ε {text.text.epsilon(other.epsilon)}" in part(page("mnist", True), "result")


def test_a_lost_round_shows_nowhere_under_an_amplified_claim() -> None:
    lost = {"type": "client_lost", "round": 7, "client": 0, "reason": "deadline", "text": "no reply in 5 s"}
    failed = {"type": "round_failed", "round": 8, "attempt": 0, "reason": "round 8 got 2 replies"}
    events = list(guarded.run("mnist"))
    events[-1:] = [lost, failed, {**events[-1], "status": "failed", "reason": "round 9 got 2 replies and needs 3"}]
    shown = html(of_events(events))
    assert "no reply in 5 s" not in shown and "replies and needs" not in shown and "round 8 got" not in shown
    assert "× marks a round" not in shown and "It failed after round" in shown
    shown = html(of_events(events), participation=True)
    assert "no reply in 5 s" in shown and "replies and needs 3" in shown


def test_the_guarantee_box_has_every_field() -> None:
    run, shown = made("writers"), words(part(page("writers"), "privacy"))
    p = run.privacy or {}
    for said in (*p["assumes"], *p["uncovered"], p["mechanism"], p["sampling"], p["accountant"], guarded.WATCHERS[8:]):
        assert said in shown
    for said in ("one client: all its images together", "zero-out", "a factor of 2 958", "1 in 1 995", "Not against",
                 "within the budget of 8", "60 in the ledger", "noise multiplier", "1.04 × clip", "secure sum, active",
                 "integer sums over at least 60 clients", "update and metrics", "14 of 148"):  # fmt: skip
        assert said in shown, said


def test_a_secure_run_without_a_guarantee_claims_none() -> None:
    shown = words(part(page("heart"), "privacy"))
    for said in ("The hub saw only sums", "There is no ε", "sums over changing groups can leak",
                 "no single hospital", "integer sums over at least 3 hospitals",
                 "1 update had numbers cut", "none of 4 hospitals"):  # fmt: skip
        assert said in shown, said
    assert "No privacy guarantee. " not in shown and "ε =" not in shown
    semi = [{**e, "secure": {**e["secure"], "mode": "semi"}} if e["type"] == "planned" else e
            for e in guarded.run("heart")]  # fmt: skip
    assert "semi-honest only" in html(of_events(semi)) and "can open a single update" in html(of_events(semi))


def test_the_channel_has_its_own_part_of_the_bytes() -> None:
    shown = part(page("heart"), "bytes")
    assert "nearly all of it protocol" in shown and "the secure sum’s own" in shown
    rows = [{"r": 1, "up": 9, "down": 8, "own_up": 3, "own_down": 2, "tip": ""}]
    bars = [x for x in charts.traffic(rows, words="hospitals")["layer"] if x["mark"]["type"] == "bar"]
    assert [b["mark"]["opacity"] for b in bars] == [0.28, 0.28, 1, 1]
    assert bars[2]["data"]["values"][0]["up"] == 3 and bars[3]["data"]["values"][0]["below"] == -2
    assert len([x for x in charts.traffic([{"r": 1, "up": 9, "down": 8, "tip": ""}], words="x")["layer"]
                if x["mark"]["type"] == "bar"]) == 2  # fmt: skip


def test_epsilon_is_drawn_against_the_budget_and_the_plan() -> None:
    rows = [{"r": 0, "v": 0.0, "tip": "a"}, {"r": 1, "v": 3.0, "tip": "b"}]
    made_ = epsilon.spent(rows, budget=8.0, planned=(10, 9.0), last=10)
    said = [r["t"] for x in made_["layer"] if x["mark"]["type"] == "text" for r in x["data"]["values"]]
    assert said == ["planned 9.00", "budget ε = 8.00", "spent 3.00"]
    assert made_["layer"][0]["encoding"]["y"]["scale"]["domain"][1] >= 9.0
    bare = epsilon.spent(rows, budget=None, planned=None, last=1)
    assert not any(x["mark"]["type"] == "rule" and x.get("name") != "hits" for x in bare["layer"])
    assert "<details" in part(page("stop"), "privacy") and "Dashed" in part(page("stop"), "privacy")


def test_results_that_stayed_at_the_clients_are_a_sentence_not_an_empty_table() -> None:
    for kind in KINDS:
        said = words(part(page(kind), "clients"))
        assert "stayed at the" in said and "client_metrics" in said
        assert not re.search(r"<td class=\"num\">(n/a|–)</td>", part(page(kind), "clients"))
    heart = made("heart")
    assert "stayed at the hospitals" in text.baselines_table(heart) and heart.beside
    assert "stayed at the" not in html(made("heart", release=True))
    assert "It serves" in card.card(made("heart", release=True)) and "It serves" not in card.card(heart)


# ---- card, compare


def test_the_card_says_it_in_both_places() -> None:
    found = card.card(made("writers"))
    front, body = found.split("---\n")[1], found.split("---\n", 2)[2]
    assert "differential-privacy" in front and '"epsilon_without' not in front
    assert "privacy: {epsilon: 7.9921" in front and "epsilon_without_amplification: 33.56" in front
    assert 'secure: {mode: "active", least: 60' in front
    assert "## Privacy" in found and "Not against the coordinator" in found
    assert "moved" not in found.split("## How it was made")[1]
    assert all(said in body for said in (guarded.READERS, guarded.WATCHERS))
    heart = card.card(made("heart"))
    assert "**The hub saw only sums over at least 3 hospitals.**" in heart and "privacy: none" in heart
    assert "1 of 80 replies lost" in heart
    assert "## Privacy" not in card.card(of_events(streams.run()))


def test_a_comparison_has_epsilon_in_both_readings() -> None:
    found = compare.human([made("heart"), made("writers")])
    check("guarded_compare", found)
    assert compare.document([made("heart"), made("writers")])["runs"][1]["epsilon"] == made("writers").spent


# ---- looked at


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("Debian's package `chromium` is missing")
        pytest.skip("chromium is missing")
    with Browser() as found:
        yield found


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_looked_at(kind: str, browser: Browser, tmp_path: Path) -> None:
    for told in (False, True):
        path = tmp_path / f"{kind}{told}.html"
        path.write_text(html(made(kind), participation=told), "utf-8")
        for width, dark, script in ((1280, False, True), (390, True, True), (320, False, False)):
            shown = browser.open(path, width, dark=dark, script=script)
            sound(shown)
            shown.close()
