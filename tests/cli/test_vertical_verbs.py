"""The verbs of a run on a vertical job: each says what it should, and its document keeps the schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cli, narrow, valid

TOML = """
[job]
kind = "vertical"
rounds = 2
[parties]
bank = "bank.csv"
shop = "shop.csv"
[data]
source = "csv"
label = "default"
ids = ["person"]
id_types = ["int"]
[model]
name = "split-mlp"
bottom = [4]
cut = 3
top = [4]
[algorithm]
name = "split-learning"
batch_size = 16
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A bank and a shop that share thirty of forty people."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 4)), rng.integers(0, 2, 40)
    bank = [f"{i},{x[i, 0]:.3f},{x[i, 1]:.3f},{y[i]}" for i in range(35)]
    shop = [f"{i},{x[i, 2]:.3f},{x[i, 3]:.3f}" for i in rng.permutation(np.arange(5, 40))]
    (tmp_path / "bank.csv").write_text("person,limit,bills,default\n" + "\n".join(bank) + "\n")
    (tmp_path / "shop.csv").write_text("person,basket,visits\n" + "\n".join(shop) + "\n")
    (tmp_path / "job.toml").write_text(TOML)
    return tmp_path


def test_plan_run_resume_and_look(files: Path, here: Cli) -> None:
    planned = here("plan", "job.toml")
    assert planned.code == 0 and "30 in common, counted in the clear" in planned.out
    narrow(planned.out)
    document = here("plan", "job.toml", "--json", "--try", "0").json
    valid(document, "plan")
    assert document["vertical"]["rows"] == {"common": 30, "train": 24, "test": 6}
    assert [p["name"] for p in document["vertical"]["parties"]] == ["bank", "shop"]

    ran = here("run", "job.toml", "--name", "one", "--json")
    assert ran.code == 0 and "aligned" in ran.err
    valid(ran.json, "run")
    assert ran.json["bytes_up"] == document["bytes"]["up"]
    aligned = ran.json["bytes"]["align"]
    assert [aligned[w] for w in ("up", "down")] == [document["vertical"]["bytes"][f"align_{w}"] for w in ("up", "down")]

    further = here("resume", "one", "--rounds", "3", "--json")
    assert further.code == 0 and further.json["rounds"] == 3
    valid(further.json, "resume")
    assert here("run", "job.toml", "algorithm.lr=0.01", "--name", "two", "--quiet").code == 0
    for verb in (("show", "one"), ("runs",), ("compare", "one", "two")):
        shown = here(*verb, "--json")
        assert shown.code == 0, shown.err
        valid(shown.json, verb[0])
    assert "bank" in here("show", "one").out


def test_what_has_no_clients_is_compared_with_none(files: Path, here: Cli) -> None:
    for call in (("run", "job.toml", "--baselines"), ("baseline", "local", "job.toml")):
        refused = here(*call)
        assert refused.code == 2 and "a baseline is for horizontal jobs" in refused.err
    assert not (files / ".manyloom" / "runs").exists() or not list((files / ".manyloom" / "runs").iterdir())


def test_try_it_and_ask_the_doctor(files: Path, here: Cli) -> None:
    assert here("run", "job.toml", "--fast", "--json").json["rounds"] == 1
    assert "bank and shop share 30 rows" in here("doctor", "job.toml").out


def test_a_sweep_of_rates(files: Path, here: Cli) -> None:
    swept = here("sweep", "job.toml", "algorithm.lr=0.01,0.02", "job.rounds=1", "--json")
    assert swept.code == 0 and len(swept.json["runs"]) == 2, swept.err
    valid(swept.json, "sweep")
