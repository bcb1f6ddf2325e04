"""`runs`, `show`, `report`, `card`: what a store holds, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manyloom.cli.app import entry
from tests.cli.conftest import Cli, environment, golden, masked, narrow, valid


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs: one done, one that lost a client and failed."""
    folder = tmp_path_factory.mktemp("store")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert entry(["run", "heart", "job.rounds=2", "--quiet"]) == 0
        drop = 'simulate.drop=["2:0", "2:1", "2:2"]'
        assert entry(["run", "heart", "job.rounds=3", "--name", "trial", drop, "--quiet"]) == 1
    finally:
        os.chdir(before)
    return folder / ".manyloom"


def test_the_list(here: Cli, store: Path) -> None:
    ran = here("runs", "--home", str(store))
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].split() == ["run", "when", "status", "rounds", "result", "epsilon", "moved"]
    assert [line.split("-")[0] for line in lines[1:3]] == ["trial", "heart"]
    assert lines[3].startswith("2 runs in ")
    document = here("runs", "--home", str(store), "--json").json
    valid(document)
    assert [r["status"] for r in document["runs"]] == ["failed", "done"]


@pytest.mark.parametrize(("flags", "names"), [
    (["--status", "done"], ["heart"]),
    (["--job", "trial"], ["trial"]),
    (["--sort", "auc", "--limit", "1"], None),
    (["--sort", "name"], ["heart", "trial"]),
    (["--sort", "bytes"], ["heart", "trial"]),
    (["--since", "2h"], ["trial", "heart"]),
    (["--since", "2999-01-01"], []),
    (["--rebuild"], ["trial", "heart"]),
])  # fmt: skip
def test_choosing(flags: list[str], names: list[str] | None, here: Cli, store: Path) -> None:
    found = [r["name"] for r in here("runs", "--home", str(store), *flags, "--json").json["runs"]]
    assert found == names if names is not None else len(found) == 1


def test_show(here: Cli, store: Path) -> None:
    ran = here("show", "heart", "--home", str(store))
    golden("show", masked(ran.out.replace(str(store), ".manyloom")))
    narrow(ran.out.replace(str(store), ".manyloom"))
    document = here("show", "heart", "--home", str(store), "--json").json
    valid(document)
    assert document["status"] == "done" and document["env"]["python"]
    assert document["report"].endswith("report.html")


def test_show_of_a_failed_run_says_how_to_go_on(here: Cli, store: Path) -> None:
    ran = here("show", "trial", "--home", str(store))
    assert "lost " in ran.out and "next     manyloom resume trial-" in ran.out
    document = here("show", "trial", "--home", str(store), "--json").json
    valid(document)
    assert document["error"]["code"] == "quorum"


def test_show_as_toml_and_events(here: Cli, store: Path, tmp_path: Path) -> None:
    (tmp_path / "again.toml").write_text(here("show", "heart", "--home", str(store), "--toml").out)
    again = here("plan", "again.toml", "--try", "0", "--json").json["job"]["digest"]
    assert again == here("show", "heart", "--home", str(store), "--json").json["job_digest"]
    lines = here("show", "heart", "--home", str(store), "--events").out.splitlines()
    assert lines[0].startswith("run ") and lines[-1].startswith("done ")


def test_a_prefix_must_be_of_one_run(here: Cli, store: Path) -> None:
    assert here("show", "last", "--home", str(store), "--quiet").out.startswith("trial-")
    ran = here("show", "", "--home", str(store))
    assert ran.code == 2


def test_report(here: Cli, store: Path, tmp_path: Path) -> None:
    ran = here("report", "heart", "--home", str(store), "--out", "heart.html", "--json")
    valid(ran.json)
    assert ran.json["bytes"] == (tmp_path / "heart.html").stat().st_size > 10_000
    assert here("report", "heart", "--home", str(store), "--quiet").out.strip().endswith("report.html")


def test_card(here: Cli, store: Path, tmp_path: Path) -> None:
    ran = here("card", "heart", "--home", str(store), "--out", "card.md", "--json")
    assert ran.code == 0
    valid(ran.json)
    assert (tmp_path / "card.md").read_text().startswith("---\n")
    assert "contact" in " ".join(ran.json["missing"])
    ran = here("card", "heart", "--home", str(store))
    assert "fill in [card] in the job" in " ".join(ran.out.split())


def test_delete_asks_first(here: Cli, cli: Cli, tmp_path: Path) -> None:
    made = here("run", "heart", "--fast", "--quiet").out.strip()
    ran = cli("runs", "--delete", made)
    assert ran.code == 2 and "--yes" in ran.err
    assert here("runs", "--delete", made, "--yes", "--json").json["runs"] == []
    assert not (tmp_path / ".manyloom" / "runs" / made).exists()


def test_an_empty_store(here: Cli) -> None:
    ran = here("runs")
    assert ran.code == 0 and "manyloom run heart" in ran.out
    assert here("show", "last").code == 2


def test_looking_needs_no_torch(store: Path) -> None:
    for args in (["runs"], ["show", "heart"]):
        check = f"entry({args!r} + ['--home', {str(store)!r}, '--json'])"
        code = f"import sys\nfrom manyloom.cli.app import entry\n{check}\nassert 'torch' not in sys.modules\n"
        done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["ok"] is True


def test_a_private_report_says_what_it_leaves_out(here: Cli, tmp_path: Path) -> None:
    from manyloom.track.store import Store
    from tests.track import guarded, streams

    with Store.open(tmp_path) as runs, runs.create("mnist", toml=guarded.TOML["mnist"], env=streams.ENV) as run:
        for event in guarded.run("mnist", until=5):
            run.append({k: v for k, v in event.items() if k != "seq"})
        run.append({"type": "run_done", "status": "interrupted", "final": None})
    ran = here("report", "mnist", "--home", str(tmp_path))
    assert ran.code == 0 and "left out who took part when" in ran.out
    told = here("report", "mnist", "--home", str(tmp_path), "--participation")
    assert told.code == 0 and "left out" not in told.out
    valid(here("show", "mnist", "--home", str(tmp_path), "--json").json)
    shown = here("show", "mnist", "--home", str(tmp_path)).out
    assert "when all rounds are done" in shown and guarded.WATCHERS[-20:] in " ".join(shown.split())
