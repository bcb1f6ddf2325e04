"""`baseline`: pooled and alone, as runs of their own and in the report of the run they belong to."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from manyloom.core.exchange import Lost
from manyloom.track import record
from manyloom.track.store import Store
from tests.cli.conftest import Cli, narrow, valid


@pytest.mark.parametrize("kind", ["central", "local"])
def test_a_run_of_its_own_in_the_parents_events(kind: str, here: Cli, tmp_path: Path) -> None:
    run = here("run", "heart", "job.rounds=2", "--quiet").out.strip()
    done = here("baseline", kind, "heart", "job.rounds=2", "--of", run[:7])
    assert done.code == 0
    narrow(done.out)
    assert done.out.startswith("done     AUC 0.") and f"heart-{kind}-" in done.out
    name = done.out.split("run      ")[1].split("\n")[0]
    assert done.out.endswith(f"next     manyloom compare {run} {name}\n")
    with Store.open(tmp_path / ".manyloom") as store:
        row = next(r for r in store.runs() if r["id"] == name)
        assert (row["kind"], row["parent"], row["status"], row["rounds_done"]) == ("baseline", run, "done", 2)
        of, own = record.read(store.resolve(run)), record.read(store.resolve(name))
    assert of.status == own.status == "done"
    found = of.baselines[kind]
    assert found.run == name and set(found.clients) == {0, 1, 2, 3}
    assert (set(found.on_all) == {0, 1, 2, 3}) is (kind == "local")
    assert here("show", name).code == 0
    compared = here("compare", run, name)
    assert compared.code == 0 and f"{name} is a baseline" in compared.out
    refused = here("resume", name)
    assert refused.code == 2


def test_central_judges_the_same_rows(here: Cli) -> None:
    done = here("baseline", "central", "heart", "job.rounds=2", "--json")
    assert done.code == 0
    valid(done.json)
    body = done.json
    assert body["kind"] == "central" and body["of"] is None and body["status"] == "done"
    told = body["baselines"]["central"]
    assert told["metrics"] == pytest.approx(body["final"])
    assert "simulation only" in done.err


def test_local_says_who_is_left_out_and_keeps_models(here: Cli, tmp_path: Path) -> None:
    done = here("baseline", "local", "heart", "job.rounds=2", "--json")
    valid(done.json)
    body = done.json
    folder = tmp_path / ".manyloom" / "runs" / body["run_id"]
    assert len(list((folder / "clients").glob("*.safetensors"))) == 4
    assert body["final"]["auc"] == pytest.approx(
        sum(body["baselines"]["local"]["clients"][i]["auc"] for i in "013") / 3
    )
    text = here("baseline", "local", "heart", "job.rounds=1").out
    assert "left out AUC without Switzerland: fewer than 5 held-out patients of a class" in text
    assert "on all   AUC 0." in text
    assert json.loads((folder / "run.json").read_text())["kind"] == "baseline"


def test_ctrl_c_ends_it_after_a_client(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyloom.job import baseline

    whole = baseline.judge

    def hit(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return whole(*args)

    monkeypatch.setattr(baseline, "judge", hit)
    done = here("baseline", "local", "heart", "job.rounds=1", "--json")
    assert done.code == 130 and "stopping after this hospital" in done.err
    valid(done.json)
    assert done.json["status"] == "interrupted" and done.json["baselines"] is None


def test_a_central_run_that_stops(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyloom.runtime.local import Local

    whole = Local.ask

    def hit(self: Local, ask: Any) -> Any:
        if ask.verb == "train" and ask.round == 2:
            signal.raise_signal(signal.SIGINT)
        return whole(self, ask)

    with monkeypatch.context() as patch:
        patch.setattr(Local, "ask", hit)
        done = here("baseline", "central", "heart", "job.rounds=4", "--json")
    assert done.code == 130 and "interrupted after round 2 of 4" in done.err
    valid(done.json)
    assert done.json["status"] == "interrupted"
    assert done.json["next"] == ["manyloom baseline central heart job.rounds=4"]

    def gone(self: Local, ask: Any) -> Any:
        return [Lost(int(i), "error", "gone") for i in ask.to] if ask.verb == "train" else whole(self, ask)

    monkeypatch.setattr(Local, "ask", gone)
    failed = here("baseline", "central", "heart", "job.rounds=4", "--json")
    assert failed.code == 1 and failed.json["error"]["code"] == "quorum"
    valid(failed.json)
    assert here("baseline", "local", "heart", "job.rounds=1").code == 1


def test_wrong_kinds_and_jobs(here: Cli) -> None:
    done = here("baseline", "centrl", "heart")
    assert done.code == 2 and "did you mean central?" in done.err
    assert here("baseline", "central", "haert").code == 2
    assert here("baseline", "local", "heart", "job.rounds=0").code == 2
    assert here("baseline", "local", "heart", "--of", "nobody").code == 2
