"""Model card, comparison of runs, trackers."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from manyloom.core.errors import BadInput
from manyloom.track import card, compare, sinks
from manyloom.track.document import history, summary
from manyloom.track.record import Run, of_events
from manyloom.track.store import Store

from . import streams
from .golden import check


def made(**kind: Any) -> Run:
    run = of_events(streams.run(**kind))
    run.toml, run.env = kind.pop("toml", streams.TOML), streams.ENV
    return run


# ---- card


def test_a_card_has_front_matter_that_says_what_was_measured() -> None:
    found = card.card(made())
    front = found.split("---\n")[1]
    assert 'run: "heart-k3q9"' in front and "privacy: none" in front and "{type: roc_auc, value: 0.8603" in front
    assert found.count("\n| ") >= 1 + 5 + 1 + 13
    assert "**None.** The hub saw each hospital's update." in found
    assert "It serves Cleveland worst (loss 0.452)." in found and "0.786 to 0.836" in found
    assert all(line.startswith("|") for line in re.findall(r"^.*\| *--.*$", found, re.M))


def test_what_only_a_person_knows_is_listed_never_invented() -> None:
    run = made()
    assert card.missing(run) == ["intended use", "what it is not for", "contact", "licence of the model"]
    run.toml += '[card]\nuse = "Research and teaching."\ncontact = "a@b.example"\n'
    assert card.missing(run) == ["what it is not for", "licence of the model"]
    found = card.card(run)
    assert "**Use.** Research and teaching." in found and "a@b.example" in found
    run.toml += 'misuse = "Deciding about a patient."\nlicence = "Apache-2.0"\n'
    assert card.missing(run) == [] and 'license_name: "apache-2.0"' in card.card(run)


def test_names_are_no_markup_in_a_card() -> None:
    found = card.card(made(names=("<b>x</b>|y", "[a](b)"), name="my\n---\nname", lost=()))
    assert "<b>" not in found and "\n| \\[a\\]" in found and found.count("\n---\n") == 1
    assert 'name: "my\\n---\\nname"' in found


@pytest.mark.parametrize("kind", [{"rounds": 0, "end": None}, {"names": ("one",), "lost": ()}, {"privacy": True}])
def test_a_card_of_any_run(kind: dict, tmp_path: Path) -> None:
    assert card.card(made(baselines=False, **kind)).startswith("---\n")
    with Store.open(tmp_path) as store, store.create("heart", toml=streams.TOML) as writer:
        for event in streams.run(baselines=False, **kind):
            writer.append(event)
    path = card.write(writer.folder)
    assert path.name == "card.md" and card.missing(writer.folder)


# ---- compare


def test_compare_says_what_differs() -> None:
    one, two = made(), made(rounds=12, privacy=True, name="heart-private")
    two.toml = streams.TOML.replace("rounds = 20", "rounds = 12").replace("lr = 0.1", "lr = 0.06") + "[secure]\n"
    found = compare.document([one, two])
    assert found["job_diff"] == [
        {"key": "rounds", "values": [20, 12]},
        {"key": "algorithm.lr", "values": [0.1, 0.06]},
        {"key": "[secure]", "values": [None, True]},
    ]
    auc = next(m for m in found["metrics"] if m["name"] == "auc")
    assert auc["diff"] == pytest.approx(auc["values"][1] - auc["values"][0])
    assert auc["ci95"][0] < auc["diff"] < auc["ci95"][1]
    json.dumps(found, allow_nan=False)
    check("compare", compare.human([one, two]))


def test_compare_of_runs_on_other_rows_has_no_interval() -> None:
    one, two = made(), made(names=("a", "b"), lost=())
    assert all(m["ci95"] is None for m in compare.metrics([one, two]))


def test_compare_of_many() -> None:
    runs = [made(rounds=r) for r in (3, 6, 9)]
    assert all(m["diff"] is None and len(m["values"]) == 3 for m in compare.metrics(runs))
    assert "the jobs are the same" in compare.human(runs)


# ---- history and the pinned document


def test_history_and_summary_have_every_key() -> None:
    rows = history(list(streams.run(rounds=3, privacy=True)))
    assert [r["round"] for r in rows] == [1, 2, 3]
    keys = ["round", "loss", "accuracy", "auc", "asked", "back", "epsilon", "seconds", "bytes_up", "bytes_down"]
    assert all(list(r) == keys and None not in r.values() for r in rows)
    unjudged = [e for e in streams.run(rounds=3) if not (e["type"] == "evaluated" and e["round"] in (1, 2))]
    assert [r["loss"] is None for r in history(unjudged)] == [True, True, False]
    found = summary(made())
    assert found["bytes"]["train"] == {"up": 77 * 56, "down": 80 * 56} and found["bytes_up"] == 77 * 56
    assert found["bytes"]["statistics"] == {"up": 2912, "down": 800}
    assert found["bytes"]["evaluate"]["up"] == 21 * 4 * 64
    assert len(found["lost"]) == 3 and found["lost"][0] == {
        "round": 4, "client": 2, "name": "Switzerland", "reason": "simulated", "text": "no reply (simulated)",
    }  # fmt: skip
    assert found["clients"][2]["rounds"] == 18 and set(found["baselines"]) == {"central", "local"}
    json.dumps(found, allow_nan=False)


def test_baselines_after_the_end_take_none_of_its_time() -> None:
    events = list(streams.run(rounds=2, baselines=False))
    late = {"type": "baseline", "kind": "central", "run": None, "metrics": {}, "t": "2026-11-24T12:00:00.000Z"}
    assert of_events([*events, late]).seconds == of_events(events).seconds > 0


def test_a_resumed_run_counts_each_round_once() -> None:
    events = list(streams.run(rounds=4, end="interrupted", baselines=False))
    late = [e for e in streams.run(rounds=5, baselines=False) if e.get("round", 0) >= 3 or e["type"] == "run_done"]
    from manyloom.track.folder import dropped

    stream = [e for e in events if not dropped(e, [2])] + [{"type": "resumed", "from_round": 2}, *late]
    run = of_events(stream)
    assert [r.round for r in run.rounds] == [1, 2, 3, 4, 5] and run.status == "done" and run.resumed == [2]
    assert run.people[0].rounds == 5


def test_two_splits_final_is_of_the_clients() -> None:
    own = {"type": "evaluated", "round": 1, "split": "own", "metrics": {"loss": 9.0}, "clients": {}, "rows": 10}
    test = {"type": "evaluated", "round": 1, "split": "test", "metrics": {"loss": 1.0}, "clients": {}, "rows": 10}
    done = {"type": "round_done", "round": 1, "back": 1}
    for order in ([own, test], [test, own]):
        run = of_events([*order, done])
        assert run.last.metrics["loss"] == 1.0 and run.own.metrics["loss"] == 9.0
        assert history(run)[0]["loss"] == 1.0
    assert history(of_events([own, done]))[0]["loss"] == 9.0


# ---- trackers


def test_tensorboard_gets_curves(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    sink = sinks.tensorboard(tmp_path)
    for event in streams.run(rounds=3, privacy=True):
        sink.feed(event)
    sink.close()
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    [path] = tmp_path.iterdir()
    found = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
    tags = {(v.tag, e.step): v.simple_value for e in found for v in e.summary.value}
    assert tags["test/auc", 3] == pytest.approx(streams_auc(3), abs=1e-6)
    assert {"round/bytes_up", "phase/train", "privacy/epsilon"} <= {tag for tag, _ in tags}


def streams_auc(r: int) -> float:
    return next(e["metrics"]["auc"] for e in streams.run(rounds=3) if e["type"] == "evaluated" and e["round"] == r)


def test_mlflow_gets_parameters_metrics_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, tracking_uri: str | None = None) -> None: ...

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment: str, run_name: str) -> Any:
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=f"{experiment}:{run_name}"))

        def log_param(self, *args: Any) -> None:
            said.append(("param", *args))

        def log_metric(self, run: str, key: str, value: float, step: int) -> None:
            said.append(("metric", run, key, step))

        def set_terminated(self, *args: Any) -> None:
            said.append(("end", *args))

    monkeypatch.setitem(sys.modules, "mlflow", types.ModuleType("mlflow"))
    tracking = types.ModuleType("mlflow.tracking")
    tracking.MlflowClient = Client  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow.tracking", tracking)
    sink = sinks.mlflow()
    for event in streams.run(rounds=2, end="interrupted"):
        sink.feed(event)
    sink.close()
    assert ("param", "7:heart-k3q9", "seed", 7) in said and ("metric", "7:heart-k3q9", "test/auc", 2) in said
    assert said[-1] == ("end", "7:heart-k3q9", "KILLED") and sum(s[0] == "end" for s in said) == 1


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(BadInput) as refused:
        sinks.mlflow()
    assert refused.value.code == "extra-missing" and refused.value.mend == 'pip install "manyloom[mlflow]"'
