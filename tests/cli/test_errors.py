"""What is wrong is said in the same five fields everywhere: golden texts, exit codes, one document also then."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manyloom.cli.app import VERBS
from tests.cli.conftest import Cli, golden, narrow, valid

JOB = """\
[job]
rounds = 2

[data]
source = "heart-disease"

[model]
name = "logistic"

[algorithm]
name = "fedavg"
lr = 0.1
"""

BAD = {
    "unknown-key": (["plan", "heart.toml"], JOB.replace("rounds = 2", "rounds = 2\nroundz = 40")),
    "unknown-table": (["plan", "heart.toml"], JOB + "\n[privcy]\n"),
    "unknown-name": (["plan", "heart.toml"], JOB.replace("fedavg", "fedprxo")),
    "wrong-type": (["plan", "heart.toml"], JOB.replace("rounds = 2", 'rounds = "40"')),
    "out-of-range": (["plan", "heart.toml"], JOB.replace("lr = 0.1", "lr = -0.1")),
    "several": (["run", "heart.toml"], JOB.replace("lr = 0.1", "lr = -0.1").replace("rounds = 2", "roundz = 2")),
    "bad-toml": (["plan", "heart.toml"], JOB.replace('"fedavg"', "fedavg")),
    "bad-override": (["run", "heart.toml", "algorithm.lr:0.1"], JOB),
    "override-out-of-range": (["run", "heart.toml", "algorithm.lr=-1"], JOB),
    "cohort-too-large": (["run", "heart.toml"], JOB.replace("rounds = 2", "rounds = 2\ncohort = 10")),
    "job-not-found": (["run", "haert.toml"], JOB),
    "run-not-found": (["show", "heart-k3q8"], None),
    "unknown-verb": (["rum"], None),
    "unknown-flag": (["run", "heart", "--baselnes"], None),
    "missing-argument": (["run"], None),
    "bad-argument": (["plan", "heart", "--try", "many"], None),
    "bad-number": (["plan", "heart", "--try", "-1"], None),
    "data-missing": (["plan", "heart.toml", "--data-dir", "."],
                     JOB.replace("heart-disease", "mnist").replace("logistic", "mlp")),
    "new-exists": (["new", "taken"], None),
    "new-no-column": (["new", "mine", "--data", "rows.csv", "--label", "outcom"], None),
    "new-no-file": (["new", "mine", "--data", "row.csv"], None),
    "sort": (["runs", "--status", "don"], None),
    "since": (["runs", "--since", "yesterday"], None),
    "needs-a-terminal": (["run", "heart.toml", "--rounds"], JOB),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "taken").mkdir()
    (tmp_path / "rows.csv").write_text("age,site,outcome\n" + "".join(f"{i},s{i % 2},{i % 2}\n" for i in range(40)))
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_golden_text(name: str, here: Cli, folder: Path) -> None:
    args, job = BAD[name]
    if job is not None:
        (folder / "heart.toml").write_text(job)
    ran = here(*args)
    text = re.sub(r"\s*looked in /\S*", "\n  looked in FOLDER", ran.err)
    assert (ran.code, ran.out) == (2, "")
    golden(f"error-{name}", text)
    narrow(text)
    for verb in re.findall(r"manyloom ([a-z]+)", text):
        assert verb in VERBS
    ran = here(*args, "--json")
    document = ran.json
    valid(document, "error")
    assert ran.code == 2
    shown = [e["what"] for e in document["errors"]]
    assert all(" ".join(what.split()) in " ".join(text.split()) for what in shown)
    assert not list(folder.glob(".manyloom/runs/*"))
    assert not (folder / "mine").exists()


def test_a_fault_of_ours_is_kept_in_a_file_and_said(here: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyloom.track import text

    def broken(*_: object) -> str:
        raise KeyError("theta")

    monkeypatch.setattr(text, "runs_table", broken)
    ran = here("runs")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: this is a fault in Manyloom, not in your job: KeyError 'theta'\n")
    saved = re.search(r"saved  (\S+)", ran.err)
    assert saved is not None
    kept = (folder / saved[1]).read_text()
    assert "Traceback" in kept and "manyloom 0" in kept
    ran = here("runs", "--json")
    valid(ran.json, "error")
    assert ran.json["errors"][0]["code"] == "internal"


def test_a_traceback_only_with_v(here: Cli, folder: Path) -> None:
    assert "Traceback" not in here("show", "nothing").err
    assert "Traceback" in here("show", "nothing", "-v").err


def test_colour_is_only_a_second_signal(cli: Cli) -> None:
    plain = cli("show", "nothing")
    bright = cli("show", "nothing", env={"FORCE_COLOR": "1"})
    assert "\x1b[" not in plain.err and "\x1b[31merror:\x1b[0m" in bright.err
    assert re.sub(r"\x1b\[\d+m", "", bright.err) == plain.err
    assert "\x1b[" not in cli("show", "nothing", env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).err


def test_home_that_cannot_be_written(here: Cli, folder: Path) -> None:
    (folder / "file").write_text("")
    ran = here("runs", "--home", "file", "--json")
    assert ran.code == 2
    valid(ran.json, "error")
    assert ran.json["errors"][0]["code"] == "home-unwritable"
    assert json.loads(ran.out)["ok"] is False
