"""`predict --party NAME=FILE ...`: the joint prediction as a verb, and what is said when something is wrong."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, masked, narrow, valid
from tests.track.test_parts import JOB, NEW, ROWS, people, write


@pytest.fixture
def run(here: Cli, tmp_path: Path) -> str:
    write(tmp_path, people(ROWS, 0))
    (tmp_path / "job.toml").write_text(JOB.format(missing="error", bits=32))
    done = here("run", "job.toml", "job.rounds=2", "--quiet")
    assert done.code == 0, done.err
    write(tmp_path / "new", people(NEW, 1, first=5000))
    return done.out.strip()


ALL = ("--party", "bank=new/bank.csv", "--party", "shop=new/shop.csv", "--party", "telecom=new/telecom.csv")


def test_ids_and_probabilities_at_the_label_party(here: Cli, run: str, tmp_path: Path) -> None:
    done = here("predict", run, *ALL)
    assert done.code == 0 and done.err == "", done.err
    narrow(done.out)
    model, *rest = masked(done.out.replace(run, "RUN")).splitlines()
    assert model.startswith("model RUN, parameters bank #, shop #, telecom #, weights ")
    assert rest == [
        "read bank.csv: # rows of bank",
        " shop.csv: shop has all of them",
        " telecom.csv: telecom has all of them",
        "wrote new/bank.predictions.csv row, id, prediction, p_#, p_#",
        'label the file holds "late": AUC #, accuracy # on these # rows',
        "note all parties were played on this machine; bank alone gets the result",
    ]
    with open(tmp_path / "new" / "bank.predictions.csv", newline="") as file:
        told = list(csv.DictReader(file))
    assert [r["id"] for r in told] == [str(5000 + i) for i in range(NEW)]
    assert all(float(r["p_0"]) + float(r["p_1"]) == pytest.approx(1) for r in told)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "bank.csv",
        "bank.predictions.csv",
        "shop.csv",
        "telecom.csv",
    ]


def test_json_keep_and_out(here: Cli, run: str, tmp_path: Path) -> None:
    done = here("predict", "last", *ALL, "--keep", "income", "--out", "here.csv", "--json")
    assert done.code == 0
    valid(done.json)
    assert done.json["columns"] == ["row", "income", "id", "prediction", "p_0", "p_1"]
    assert done.json["rows"] == NEW and done.json["missing"] == {} and done.json["metrics"]["auc"] > 0.5
    assert (tmp_path / "here.csv").is_file()
    assert 'has a column "id" already' in here("predict", run, *ALL, "--keep", "id").err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("new/bank.csv",), "has parties: each gives a file of its own"),
        ((), "no rows of bank, shop and telecom"),
        (ALL[:2], "no rows of shop and telecom"),
        ((*ALL, "--party", "shp=new/shop.csv"), 'did you mean "shop"?'),
        ((*ALL[:4], "--party", "telecom"), "given as NAME=FILE"),
        ((*ALL, "--party", "shop=new/shop.csv"), "shop has two files"),
        ((*ALL[:4], "--party", "telecom=new/shop.csv"), "telecom: shop.csv lacks 1 column"),
        ((*ALL[:4], "--party", "telecom=new/telekom.csv"), "did you mean new/telecom.csv?"),
    ],
)
def test_what_can_be_wrong(here: Cli, run: str, tmp_path: Path, typed: tuple[str, ...], said: str) -> None:
    done = here("predict", run, *typed)
    assert done.code == 2 and said in done.err, done.err
    assert not list(tmp_path.rglob("*.predictions.*"))


def test_a_run_without_parties(here: Cli, tmp_path: Path) -> None:
    done = here("run", "heart", "job.rounds=1", "--quiet")
    assert "one model for all, and no parties" in here("predict", done.out.strip(), "--party", "a=b.csv").err
    assert "predict needs FILE" in here("predict", done.out.strip()).err
