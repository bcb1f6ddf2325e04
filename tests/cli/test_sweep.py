"""`sweep` and `compare` of what it made."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from manyloom.track.store import Store
from tests.cli.conftest import SRC, Cli, narrow, valid

GRID = ("heart", "algorithm.lr=0.3,0.03", "job.seed=1,2", "job.rounds=1", "job.eval_every=1")


def test_a_grid_its_table_and_going_on(here: Cli, tmp_path: Path) -> None:
    done = here("sweep", *GRID)
    assert done.code == 0
    narrow(done.out)
    lines = done.out.splitlines()
    name = lines[0].split()[1]
    assert lines[0].startswith("sweep    heart-sweep-") and lines[0].endswith("  4 runs")
    assert lines[1].startswith("runs     4/4  ━━━━")
    assert lines[2].split() == ["lr", "seeds", "auc", "mean", "spread", "loss", "seconds"]
    assert {lines[3].split()[0], lines[4].split()[0]} == {"0.3", "0.03"} and "  *  " in lines[3]
    assert lines[5].startswith("best     algorithm.lr=") and lines[-1] == f"next     manyloom compare {name}"
    assert len([line for line in done.err.splitlines() if line.startswith("run ")]) == 4

    again = here("sweep", *GRID, "--json")  # all of it is done: nothing is run again
    assert again.code == 0
    valid(again.json)
    assert again.json["sweep_id"] == name and "4 done before" in again.err
    assert [r["status"] for r in again.json["runs"]] == ["done"] * 4
    with Store.open(tmp_path / ".manyloom") as store:
        assert len(store.runs()) == 5 and len(store.children(name)) == 4
        store.delete(store.children(name)[0])

    more = here("sweep", *GRID[:2], "job.seed=1,2,3", *GRID[3:], "--json")
    assert more.json["sweep_id"] == name and "3 done before" in more.err
    assert more.json["table"][0]["seeds"] == 3 and len({r["run_id"] for r in more.json["runs"]}) == 6

    compared = here("compare", name)
    assert compared.code == 0
    narrow(compared.out)
    assert compared.out.splitlines()[0].split()[:3] == ["run", "auc", "accuracy"] and "algorithm.lr" in compared.out
    assert here("resume", name).code == 2  # it goes on by being called again
    assert f"{name} is a sweep" in here("predict", name, "x.csv").err
    both = here("compare", name, "--json")
    valid(both.json)
    assert len(both.json["runs"]) == 6 and {d["key"] for d in both.json["job_diff"]} >= {"algorithm.lr", "seed"}


@pytest.mark.slow
def test_two_at_a_time_give_the_same(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SRC))
    grid = ("heart", "algorithm.lr=0.3,0.03", "job.rounds=1")
    done = here("sweep", *grid, "--jobs", "2", "--json", "--home", "two")
    assert done.code == 0, done.err
    valid(done.json)
    alone = here("sweep", *grid, "--json", "--home", "one").json
    assert [r["final"] for r in done.json["runs"]] == [r["final"] for r in alone["runs"]]


def test_ctrl_c_leaves_what_is_done(here: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyloom.cli import members

    whole = members.run_member

    def hit(*args: Any) -> Any:
        found = whole(*args)
        signal.raise_signal(signal.SIGINT)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(members, "run_member", hit)
        done = here("sweep", *GRID, "--json")
    assert done.code == 130 and "Called again it goes on" in done.err
    valid(done.json)
    assert done.json["status"] == "interrupted" and not done.json["ok"]
    assert [r["status"] for r in done.json["runs"]] == ["done", "open", "open", "open"]
    assert done.json["next"] == ["manyloom sweep " + " ".join(GRID)]
    again = here("sweep", *GRID, "--json")
    assert again.code == 0 and "1 done before" in again.err and again.json["sweep_id"] == done.json["sweep_id"]


def test_all_that_is_wrong_is_told_before_anything_runs(here: Cli, tmp_path: Path) -> None:
    done = here("sweep", "heart", "algorithm.lr=-1,0.1,-2")
    assert done.code == 2 and "lr = -1" in done.err and "lr = -2" in done.err
    assert "2 errors, nothing was trained" in done.err
    assert here("sweep", "heart").code == 2
    assert here("sweep", "heart", "algorithm.lr=0.1").code == 2
    assert "names a value twice" in here("sweep", "heart", "algorithm.lr=0.1,0.1").err
    assert "did you mean accuracy?" in here("sweep", "heart", "algorithm.lr=0.1,1", "--sort", "acuracy").err
    assert not (tmp_path / ".manyloom" / "runs").exists() or not any((tmp_path / ".manyloom" / "runs").iterdir())


def test_a_member_that_fails_does_not_end_the_others(here: Cli) -> None:
    done = here("sweep", "heart", "simulate.dropout=0.0,1.0", "job.rounds=1", "--json")
    assert done.code == 1
    valid(done.json)
    assert [r["status"] for r in done.json["runs"]] == ["done", "failed"] and not done.json["ok"]
    assert done.json["runs"][1]["error"]["code"] == "quorum"


def test_comparing_needs_two(here: Cli) -> None:
    run = here("run", "heart", "job.rounds=1", "--quiet").out.strip()
    assert "a comparison needs two runs" in here("compare", run, run).err
    other = here("run", "heart", "job.rounds=2", "--quiet").out.strip()
    done = here("compare", run, other)
    narrow(done.out)
    assert done.code == 0 and "difference" in done.out and "rounds" in done.out
    valid(here("compare", run, other, "--json").json)
