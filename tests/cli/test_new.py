"""`new` and `plan`: a job of one's own, from a file to what it will do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, golden, masked, narrow, valid


def rows(path: Path, separator: str = ",", label: str = "class", key: bool = True, n: int = 120) -> None:
    """A file of patients, the same each time."""
    drawn = random.Random(3)
    out = [separator.join(["age", "sex", *(["site"] if key else []), "outcome"])]
    for i in range(n):
        age, sex = drawn.randint(20, 80), drawn.choice("mf")
        outcome = {
            "class": "yes" if drawn.random() < age / 100 else "no",
            "number": f"{age * 1.5 + drawn.random():.3f}",
            "three": ["low", "mid", "high"][min(2, age // 30)],
        }[label]
        site = [["north", "south", "east"][i % 3]] if key else []
        out.append(separator.join([str(age) if i % 7 else "", sex, *site, outcome]))
    path.write_text("\n".join(out) + "\n", "utf-8")


def test_on_a_file(here: Cli, tmp_path: Path) -> None:
    rows(tmp_path / "patients.csv")
    ran = here("new", "trial", "--data", "patients.csv", "--label", "outcome", "--clients", "site")
    assert ran.code == 0
    golden("new", ran.out)
    narrow(ran.out)
    golden("new-job", (tmp_path / "trial/job.toml").read_text())
    golden("new-readme", (tmp_path / "trial/README.md").read_text())
    ran = here("plan", "trial/job.toml", "--try", "0")
    assert ran.code == 0
    golden("plan", masked(ran.out))
    narrow(ran.out)
    ran = here("run", "trial", "job.rounds=1", "--json")
    assert (ran.code, len(ran.json["clients"])) == (0, 3)


def test_what_is_not_given_is_guessed(here: Cli, tmp_path: Path) -> None:
    rows(tmp_path / "patients.csv")
    document = here("new", "trial", "--data", "patients.csv", "--json").json
    valid(document)
    found = document["guesses"]
    assert (found["label"], found["clients"], found["target"], found["classes"]) == ("outcome", "site", "class", 2)
    assert (found["rows"], found["population"], found["smallest"]) == (120, 3, 40)


@pytest.mark.parametrize(("label", "model", "target"), [("number", "linear", "number"), ("three", "mlp", "class")])
def test_the_model_fits_what_is_predicted(label: str, model: str, target: str, here: Cli, tmp_path: Path) -> None:
    rows(tmp_path / "patients.csv", ";", label)
    found = here("new", "trial", "--data", "patients.csv", "--json").json["guesses"]
    assert (found["model"], found["target"]) == (model, target)
    assert here("run", "trial/job.toml", "job.rounds=1", "--quiet").code == 0


def test_without_a_column_that_names_clients(here: Cli, tmp_path: Path) -> None:
    rows(tmp_path / "patients.csv", key=False)
    ran = here("new", "trial", "--data", "patients.csv")
    assert "dealt at random to 10 clients" in " ".join(ran.out.split())
    narrow(ran.out)


def test_a_file_a_client(here: Cli, tmp_path: Path) -> None:
    (tmp_path / "sites").mkdir()
    for name in ("a", "b"):
        rows(tmp_path / "sites" / f"{name}.csv", key=False)
    found = here("new", "deep/trial", "--data", "sites", "--json").json["guesses"]
    assert (found["population"], found["clients"]) == (2, None)
    assert here("plan", "deep/trial/job.toml", "--try", "0").code == 0


def test_after_a_shipped_job(here: Cli, tmp_path: Path) -> None:
    assert here("new", "mine").code == 0
    mine = here("plan", "mine/job.toml", "--try", "0", "--json").json["job"]
    heart = here("plan", "heart", "job.name=mine", "--try", "0", "--json").json["job"]
    assert mine["digest"] == heart["digest"]
    assert here("new", "two", "--from", "digits").code == 0


def test_plan_as_json(here: Cli) -> None:
    document = here("plan", "heart", "algorithm.lr=0.2", "--json").json
    valid(document)
    assert document["seconds_estimate"] > 0
    assert document["next"] == ["manyloom run heart algorithm.lr=0.2"]
    assert [c["name"] for c in document["clients"]] == ["Cleveland", "Hungary", "Switzerland", "Long Beach VA"]
