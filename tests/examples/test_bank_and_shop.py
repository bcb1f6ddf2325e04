"""A bank and a shop, in a small form: scikit-learn's breast cancer as a clinic and a lab, through the same job."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from examples.bank_and_shop import alone, new_customers
from manyloom.cli.app import entry
from manyloom.data.sources.vertical import breast_cancer_parties

pytest.importorskip("sklearn")
EXAMPLE = Path(__file__).parents[2] / "examples" / "bank_and_shop"
SMALL = ("data.source=breast-cancer", "algorithm.batch_size=64", "algorithm.lr=0.01", "job.rounds=4")
Run = Callable[..., Any]


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`call(verb, args...)`: its JSON."""

    def told(*args: str) -> Any:
        code = entry([*args, "--json", "--home", str(tmp_path / "home")])
        found = capsys.readouterr()
        assert code == 0, found
        return json.loads(found.out)

    return told


def events(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    lines = (tmp_path / "home" / "runs" / name / "events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_joint_beats_alone_and_the_meter_shows_the_defence(call: Run, tmp_path: Path) -> None:
    both = {d: call("run", str(EXAMPLE / "joint.toml"), *SMALL, f"cut.defence={d}") for d in ("none", "max-norm")}
    by_itself = call("run", str(EXAMPLE / "alone.toml"), "data.source=examples.bank_and_shop.alone:cancer",
                     "algorithm.batch_size=64", "algorithm.lr=0.01", "job.rounds=4")  # fmt: skip
    assert both["none"]["final"]["auc"] > 0.97
    assert both["none"]["final"]["auc"] > both["max-norm"]["final"]["auc"] - 0.02 > 0.9
    assert both["none"]["final"]["auc"] >= by_itself["final"]["auc"] - 0.005
    leaks = {d: [e for e in events(tmp_path, run["run_id"]) if e["type"] == "leak"] for d, run in both.items()}
    assert [e["round"] for e in leaks["none"]] == [1, 2, 3, 4] and {e["party"] for e in leaks["none"]} == {"lab"}
    mean = {d: max(e["cosine_mean"] for e in found) for d, found in leaks.items()}
    assert mean["none"] > 0.95 > 0.9 > mean["max-norm"]
    page = (tmp_path / "home" / "runs" / both["none"]["run_id"] / "report.html").read_text()
    assert "Nothing defended the labels: lab could read them nearly fully" in page
    (aligned,) = [e for e in events(tmp_path, both["none"]["run_id"]) if e["type"] == "aligned"]
    assert aligned["parties"] == {"lab": 569, "clinic": 569} and aligned["common"] == 569 and aligned["test"] == 113


def test_the_same_rows_are_held_out_of_both() -> None:
    parties = breast_cancer_parties()
    fed = alone.cancer()
    rows = alone.aligned(parties)
    texts = [[party.ids[0][i] for i in at.tolist()] for party, at in zip(parties.holdings, rows, strict=True)]
    assert texts[0] == texts[1] and len(texts[0]) == 569  # one order at both
    assert fed.own is not None and len(fed.own.rows) == 113 and int(fed.sizes.sum()) == 456


def test_prediction_of_people_who_were_not_trained_on(call: Run, tmp_path: Path) -> None:
    run = call("run", str(EXAMPLE / "joint.toml"), *SMALL)
    lab, clinic = new_customers.write(breast_cancer_parties(), tmp_path / "new", most=60)
    found = call("predict", "last", "--party", f"clinic={clinic}", "--party", f"lab={lab}")
    assert found["run_id"] == run["run_id"] and found["rows"] == found["labelled"] == 60
    assert found["metrics"]["auc"] > 0.9
    assert found["columns"] == ["row", "id", "prediction", "p_0", "p_1"]
    with open(found["path"], newline="") as file:
        said = {r["id"]: r["prediction"] for r in csv.DictReader(file)}
    with open(clinic, newline="") as file:
        true = {r["id"]: r["diagnosis"] for r in csv.DictReader(file)}
    assert sum(said[i] == true[i] for i in true) / 60 == pytest.approx(found["metrics"]["accuracy"])
    assert list(said) == list(true)  # in the clinic's order


def test_a_lab_that_lacks_some_is_told(tmp_path: Path, call: Run, capsys: pytest.CaptureFixture[str]) -> None:
    call("run", str(EXAMPLE / "joint.toml"), *SMALL, "job.rounds=1")
    lab, clinic = new_customers.write(breast_cancer_parties(), tmp_path / "new", most=20, unknown=3)
    code = entry(["predict", "last", "--party", f"clinic={clinic}", "--party", f"lab={lab}",
                  "--home", str(tmp_path / "home")])  # fmt: skip
    assert code == 2 and "lab lacks 3 of the 20 rows" in capsys.readouterr().err
