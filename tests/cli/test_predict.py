"""`predict`: from a file of raw rows to a file of predictions."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from manyloom.data.sources.heart_disease import COLUMNS
from tests.cli.conftest import Cli, masked, narrow, valid

ROWS = [
    ["a", 63, 1, 1, 145, 233, 1, 2, 150, 0, 2.3, 3, 0, 6, 0],
    ["b", 67, 1, 4, 160, 286, 0, 2, 108, 1, 1.5, 2, "?", 3, 1],
    ["c", 57, 1, 4, 160, "", 0, 2, 108, 1, 1.5, 2, "", 3, 1],
]


def patients(path: Path, drop: tuple[str, ...] = ()) -> Path:
    names = ["id", *COLUMNS, "disease"]
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        kept = [i for i, n in enumerate(names) if n not in drop]
        out.writerow([names[i] for i in kept])
        out.writerows([[row[i] for i in kept] for row in ROWS])
    return path


@pytest.fixture
def run(here: Cli) -> str:
    done = here("run", "heart", "job.rounds=2", "--quiet")
    assert done.code == 0
    return done.out.strip()


def test_a_file_of_patients(here: Cli, run: str, tmp_path: Path) -> None:
    patients(tmp_path / "new.csv")
    done = here("predict", run, "new.csv")
    assert done.code == 0 and done.err == ""
    narrow(done.out)
    model, *rest = masked(done.out.replace(run, masked(run))).splitlines()
    assert model.startswith(f"model {masked(run)}, logistic, # parameters, weights ")
    assert rest == [
        "read new.csv: # rows, # of # columns, # other ignored",
        " # values missing in chol and ca: filled with the run's federated means",
        "wrote new.predictions.csv row, prediction, p_#, p_#",
        'label the file holds "disease": AUC #*, accuracy # on these # rows',
        " * # of # rows healthy: this AUC says little",
        "note read and written on this machine; nothing was sent",
    ]
    with open(tmp_path / "new.predictions.csv", newline="") as file:
        told = list(csv.DictReader(file))
    assert [r["row"] for r in told] == ["1", "2", "3"]
    assert {r["prediction"] for r in told} <= {"healthy", "disease"}
    for r in told:
        assert float(r["p_0"]) + float(r["p_1"]) == pytest.approx(1)
        assert r["prediction"] == ("disease" if float(r["p_1"]) > 0.5 else "healthy")


def test_json_keep_and_parquet(here: Cli, run: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from manyloom.data.rows import read_file
    from manyloom.track import rows

    patients(tmp_path / "new.csv", drop=("disease",))
    columns = read_file(tmp_path / "new.csv")
    rows.write_file(tmp_path / "new.parquet", {k: v.as_texts() for k, v in columns.items()})
    one = here("predict", run, "new.csv", "--keep", "id,age", "--out", "here.csv", "--json")
    two = here("predict", "last", "new.parquet", "--json", "--model", "best")
    for done in (one, two):
        assert done.code == 0
        valid(done.json)
    assert one.json["counts"] == [] and here("predict", run, "new.csv", "--json").json["labelled"] == 0
    assert one.json["columns"] == ["row", "id", "age", "prediction", "p_0", "p_1"]
    assert one.json["filled"] == {"chol": 1, "ca": 2} and one.json["metrics"] is None and one.json["ignored"] == ["id"]
    assert two.json["path"] == "new.predictions.parquet" and two.json["model"] == "best"
    with open(tmp_path / "here.csv", newline="") as file:
        assert [r["id"] for r in csv.DictReader(file)] == ["a", "b", "c"]


def test_what_can_be_wrong(here: Cli, run: str, tmp_path: Path) -> None:
    patients(tmp_path / "new-patients.csv", drop=("oldpeak", "slope"))
    done = here("predict", run, "new-patients.csv")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: new-patients.csv lacks 2 columns that the model was trained on\n"
        '  got    11 of 13 columns; missing "oldpeak", "slope"\n'
        "  rule   names as in training; order and further columns don't matter\n"
        "  mend   rename or add them; all 13 are in the run's model.json\n"
    )
    patients(tmp_path / "new.csv")
    assert "did you mean new.csv?" in here("predict", run, "nev.csv").err
    assert 'did you mean "age"?' in here("predict", run, "new.csv", "--keep", "agee").err
    assert "did you mean best?" in here("predict", run, "new.csv", "--model", "bets").err
    assert not list(tmp_path.glob("*.predictions.*"))
