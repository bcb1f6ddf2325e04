"""The private examples in a small form: what they promise, what the hub gets, what is printed."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from manyloom.cli.app import entry
from manyloom.job.toml import write
from manyloom.session import load

ROOT = Path(__file__).parents[2]
HOSPITALS = ROOT / "examples" / "private_hospitals" / "hospitals.toml"
WRITERS = ROOT / "examples" / "private_writers" / "writers.toml"
SHORT = ("job.rounds=2", "job.eval_every=2")
LOST = 'simulate.drop=["2:Hungary"]'
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(verb, file, overrides...)`: its JSON; what else it said is in `run.said`."""

    def call(*args: str) -> Any:
        code = entry([*args, "--json", "--home", str(tmp_path / "home")])
        found = capsys.readouterr()
        call.said = found.err  # type: ignore[attr-defined]
        assert code == 0, found
        return json.loads(found.out)

    return call


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The writers' job over digits that ship: 60 clients, logistic, three rounds."""
    tables = tomllib.loads(WRITERS.read_text())
    tables["data"], tables["partition"] = {"source": "digits"}, {"scheme": "iid", "clients": 60}
    tables["model"] = {"name": "logistic"}
    tables["job"] |= {"rounds": 3, "eval_every": 3}
    tables["privacy"] |= {"accountant": "rdp"}  # looser than the example's, and quicker to calibrate
    del tables["runtime"]
    path = tmp_path_factory.mktemp("job") / "small.toml"
    path.write_text(write(tables))
    return path


def theta(home: Path, name: str) -> torch.Tensor:
    return torch.cat([t.flatten().double() for _, t in sorted(load(name, home).tensors.items())])


def test_a_hospital_is_lost_and_the_hub_sees_only_sums(run: Run, tmp_path: Path) -> None:
    found = run("run", str(HOSPITALS), *SHORT, LOST)
    assert "lost     2/2 hungary" in run.said  # type: ignore[attr-defined]
    assert found["status"] == "done" and found["privacy"] is None
    (lost,) = found["lost"]
    assert (lost["name"], lost["round"], lost["reason"]) == ("Hungary", 2, "simulated")
    assert [h["back"] for h in found["history"]] == [4, 3]
    lines = (tmp_path / "home" / "runs" / found["run_id"] / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for done in (e for e in events if e["type"] == "client_done"):
        assert (done["samples"], done["steps"], done["loss"]) == (None, None, None)  # they came in sums alone
    for judged in (e for e in events if e["type"] == "evaluated"):
        assert judged["clients"] == {} and judged["metrics"]["auc"] > 0.7
    assert all(e["secure"]["up"] > 0 for e in events if e["type"] == "round_done")


def test_the_model_is_that_of_the_job_without_secure_sums(run: Run, tmp_path: Path) -> None:
    tables = tomllib.loads(HOSPITALS.read_text())
    del tables["secure"]
    plain = tmp_path / "plain.toml"
    plain.write_text(write(tables))
    names = [run("run", str(path), *SHORT, LOST)["run_id"] for path in (HOSPITALS, plain)]
    one, other = (theta(tmp_path / "home", name) for name in names)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert (one - other).abs().max() > 0  # integers in between


def test_the_plan_says_what_the_secure_sum_is(run: Run) -> None:
    secure = run("plan", str(HOSPITALS))["secure"]
    assert (secure["mode"], secure["fidelity"], secure["least"], secure["clients"]) == ("active", "full", 3, 4)


def test_epsilon_is_planned_spent_and_kept(run: Run, small: Path, tmp_path: Path) -> None:
    promised = run("plan", str(small))["privacy"]
    found = run("run", str(small))
    spent = found["privacy"]
    assert spent == promised  # the run spent what was planned, to the last digit
    assert (spent["unit"], spent["adjacency"], spent["delta"], spent["budget"]) == ("client", "zero-out", 1e-5, 8.0)
    assert 7.9 < spent["epsilon"] <= 8.0 < spent["others"][0]["epsilon"]
    assert spent["assumes"] and spent["uncovered"]
    by_round = [h["epsilon"] for h in found["history"]]
    assert by_round == sorted(by_round) and by_round[-1] == spent["epsilon"]
    folder = tmp_path / "home" / "runs" / found["run_id"]
    assert len((folder / "ledger.jsonl").read_text().splitlines()) == 1 + 3
    assert not (folder / "cohort.key").exists()  # erased when the run was done
    assert found["final"]["accuracy"] > 0.2


def test_more_rounds_stop_at_the_budget(run: Run, small: Path) -> None:
    noise = run("plan", str(small))["privacy"]["noise_multiplier"]
    found = run("run", str(small), "job.rounds=5", f"privacy.noise_multiplier={noise}")
    assert (found["status"], found["rounds"]) == ("stopped", 3)
    assert "privacy budget reached: epsilon 7.9" in found["reason"]


@pytest.mark.slow
def test_both_together_say_both(run: Run, small: Path) -> None:
    given = ("secure.mode=semi", "job.quorum=8", "privacy.accountant=pld", "privacy.noise_multiplier=4.0")
    found = run("plan", str(small), *given)
    assert found["secure"]["mode"] == "semi" and 0 < found["privacy"]["epsilon"] < 8
    assert "at most" in found["privacy"]["sampling"]  # of a secure sum the cohort has a cap
    assert any("exact sum" in line for line in found["privacy"]["assumes"])


def test_the_examples_say_what_they_need() -> None:
    tables = tomllib.loads(WRITERS.read_text())
    assert tables["privacy"] == {"epsilon": 8.0, "delta": 1e-5, "clip": 1.0} and tables["job"]["cohort"] == 0.5
    assert tomllib.loads(HOSPITALS.read_text())["simulate"] == {"drop": ["12:Hungary"]}


def test_the_demo_ends_by_naming_the_private_hospitals(tmp_path: Path) -> None:
    """With the environment and the run replaced, the script itself says it."""
    for name, code in {"scripts/setup": "true", ".venv/bin/manyloom": 'echo "ran $*"'}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{code}\n")
        path.chmod(0o755)
    demo = tmp_path / "scripts" / "demo"
    demo.write_text((ROOT / "scripts" / "demo").read_text())
    ran = subprocess.run(["bash", str(demo)], capture_output=True, text=True, check=True)
    assert ran.stdout == "ran run examples/heart/heart.toml --baselines\n"
    end = ran.stderr[ran.stderr.rindex("next") :]
    assert re.fullmatch(r"next +manyloom run examples/private_hospitals/hospitals.toml\n +the same.*\n", end)
    assert end in (ROOT / "README.md").read_text()
