"""What a terminal shows while a run goes on, and after it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from manyloom.core import text as words
from manyloom.track import text
from manyloom.track.progress import Live, Plain, Quiet, progress
from manyloom.track.record import of_events
from manyloom.track.store import Store
from manyloom.track.view import View, joined

from . import streams
from .golden import check

WRITERS = [f"writer {i:04d}" for i in range(539)]


def seen(events, until: int | None = None, step: float = 0.1) -> tuple[View, float]:
    view, now = View(), 0.0
    for i, event in enumerate(events):
        now = i * step
        view.feed(event, now)
        if until is not None and event.get("type") == "client_lost" and event["round"] == until:
            break
    return view, now


def states() -> dict[str, str]:
    middle, at = seen(streams.run(privacy=True), until=13)
    begun, t0 = seen(list(streams.run())[:4])
    done, t1 = seen(streams.run(privacy=True))
    many, t2 = seen(streams.run(WRITERS, lost=(), client_word=["writer", "writers"], row_word=["image", "images"]))
    return {
        "head": joined(middle.head()),
        "middle": joined(middle.frame(at)),
        "begun": joined(begun.frame(t0)),
        "done": joined(done.frame(t1)),
        "many": joined(many.head() + many.frame(t2)),
        "narrow": joined(middle.frame(at, 50)),
        "ascii": joined(middle.frame(at, 80, ascii=True)),
    }


def test_the_live_display() -> None:
    found = states()
    check("live", "\n~~~~\n".join(f"{name}\n{shown}" for name, shown in found.items()))
    assert all(shown.count("\n") < 9 for shown in found.values())
    assert found["ascii"].isascii()
    assert found["narrow"].count("\n") == 1 and max(map(len, found["narrow"].split("\n"))) <= 50


@pytest.mark.parametrize("width", [20, 40, 59, 60, 66, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    view, now = seen(streams.run(privacy=True), until=5)
    for ascii in (False, True):
        assert max(len(line) for line in joined(view.frame(now, width, ascii)).split("\n")) <= width


def test_plain_lines() -> None:
    out, now = io.StringIO(), iter(x * 0.3 for x in range(10_000))
    with Plain(out, clock=lambda: next(now)) as shown:
        for event in streams.run(rounds=6, privacy=True):
            shown.feed(event)
    check("plain", out.getvalue().rstrip("\n"))
    rounds = [line.split() for line in out.getvalue().split("\n") if line.startswith("round")]
    assert all(r[2::2][:2] == ["loss", "auc"] for r in rounds)


def test_short_rounds_are_grouped_to_two_lines_a_second() -> None:
    out, t = io.StringIO(), [0.0]
    with Plain(out, clock=lambda: t[0]) as shown:
        for event in streams.run(names=("a", "b"), rounds=400, lost=(), baselines=False):
            t[0] += 0.005 if event["type"] == "round_done" else 0.0
            shown.feed({**event, "seconds": 0.005} if event["type"] == "round_done" else event)
    rounds = [line for line in out.getvalue().split("\n") if line.startswith("round")]
    assert 4 <= len(rounds) <= 6
    assert re.match(r"round    2-\d+/400 loss ", rounds[1])
    covered = [n for line in rounds for n in spans(line)]
    assert covered == list(range(1, 401))


def spans(line: str) -> range:
    first, _, last = line.split()[1].split("/")[0].partition("-")
    return range(int(first), int(last or first) + 1)


def test_live_on_a_terminal_draws_and_leaves_the_last_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    out = Terminal()
    shown = progress("auto", stream=out)
    assert isinstance(shown, Live)
    with shown:
        for event in streams.run(rounds=5):
            shown.feed(event)
            time.sleep(0.002)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert "heart-k3q9  FedAvg, 4 hospitals, in process, seed 7" in plain
    assert "note     Switzerland has no value of chol" in plain
    assert plain.count("lost     4/5 Switzerland: no reply (simulated)") == 1
    assert "round    5/5  ━" in plain.split("\n")[-4] or "round    5/5  ━" in plain
    assert plain.rstrip().endswith("(counted, not sent)")


def test_the_mode_follows_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress("auto", stream=io.StringIO()) is None
    assert isinstance(progress("auto", stream=io.StringIO(), otherwise="plain"), Plain)
    assert progress(None) is None and isinstance(progress("quiet"), Quiet)


def test_quiet_says_warnings_only() -> None:
    out = io.StringIO()
    with Quiet(out) as shown:
        for event in streams.run(rounds=2):
            shown.feed(event)
        shown.feed({"type": "note", "level": "warning", "text": "the disk is nearly full"})
    assert out.getvalue() == "warning  the disk is nearly full\n"


def test_many_lost_replies_are_counted_not_told() -> None:
    out = io.StringIO()
    lost = [(r, r % 4) for r in range(1, 31)]
    with Plain(out) as shown:
        for event in streams.run(rounds=30, lost=lost):
            shown.feed(event)
    assert sum(line.startswith("lost") for line in out.getvalue().split("\n")) == 13


def test_a_traceback_is_told_by_its_last_own_frame() -> None:
    view = Live(io.StringIO())
    view.view.feed(streams.started(streams.HOSPITALS, 20), 0.0)
    detail = 'Traceback:\n  File "torch/nn.py", line 1, in call\n    x\n  File "my_models.py", line 31, in forward\n'
    detail += "    return self.head(x.view(-1, 24))\nRuntimeError: shape is invalid"
    event = {"type": "client_lost", "round": 9, "client": 1, "reason": "error", "text": "RuntimeError in training"}
    said = view.said({**event, "detail": detail})
    assert said is not None
    check("traceback", said[0])


def test_names_from_data_cannot_move_the_cursor() -> None:
    view, now = seen(streams.run(("a\x1b[2Jb\n", "c"), rounds=4, lost=((4, 0),)), until=4)
    assert "\x1b" not in joined(view.head() + view.frame(now)) and joined(view.head()).count("\n") == 3


def test_feeding_costs_microseconds() -> None:
    events = list(streams.run(rounds=200, lost=()))
    took: list[float] = []
    for _ in range(3):
        view, began = View(), time.perf_counter()
        for event in events:
            view.feed(event, 0.0)
        took.append((time.perf_counter() - began) / 200)
    assert min(took) < 0.001  # a round of four clients; measured 11 us


def test_the_end_and_show() -> None:
    kinds = {
        "baselines": {},
        "plain": {"baselines": False},
        "private": {"privacy": True, "baselines": False},
        "stopped": {"rounds": 12, "planned": 20, "end": "stopped", "reason": "patience", "baselines": False},
        "interrupted": {"rounds": 12, "planned": 20, "end": "interrupted", "baselines": False},
        "failed": {
            "rounds": 13,
            "planned": 20,
            "end": "failed",
            "reason": "round 14 got 2 replies and needs 3",
            "baselines": False,
        },
        "diverged": {"harm": 0.3, "baselines": False},
        "many": {"names": WRITERS, "lost": (), "client_word": ["writer", "writers"], "row_word": ["image", "images"]},
        "one": {"names": ("only",), "lost": (), "baselines": False},
    }
    told: list[str] = []
    for name, kind in kinds.items():
        run = of_events(streams.run(**kind))
        told += [f"~~~~ {name}", text.ending(run, ".manyloom/runs/heart-k3q9/report.html"), "~~~~ show", text.show(run)]
    check("ends", "\n".join(told))


def test_a_table_of_long_names_stays_in_80_columns() -> None:
    names = [f"Klinikum der Universität Nummer {i} an der Straße" for i in range(5)]
    run = of_events(streams.run(names))
    assert max(map(len, text.baselines_table(run).split("\n"))) <= 80


def test_the_list_of_runs(tmp_path) -> None:
    with Store.open(tmp_path) as store:
        for kind in ({}, {"privacy": True}, {"rounds": 3, "planned": 9, "end": "failed", "reason": "x"}):
            with store.create("heart", toml=streams.TOML) as writer:
                for event in streams.run(**{"rounds": 5, **kind}):
                    writer.append(event)
        found = text.runs_table(store.runs(), ".manyloom", 112_000_000, datetime.now(UTC))
    check("runs", re.sub(r"heart-[a-z2-9]{4}", "heart-xxxx", found))


def test_formatters_import_neither_torch_nor_rich() -> None:
    code = "import sys; import manyloom.core.text; assert not {'torch', 'rich', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_event_has_a_line() -> None:
    for event in streams.run(privacy=True):
        line = words.event_line(event)
        assert line and "\n" not in line and len(line.split()[0]) <= 11
