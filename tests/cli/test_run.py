"""`run` and `resume` as processes: what they print where, what they leave, how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, digits, environment, golden, masked, narrow, valid

QUICK = ("run", "heart", "job.rounds=2")


def test_json_is_one_document_and_all_else_is_on_standard_error(cli: Cli) -> None:
    ran = cli(*QUICK, "--json")
    assert ran.code == 0
    valid(ran.json)
    assert ran.json["status"] == "done"
    assert [h["round"] for h in ran.json["history"]] == [1, 2]
    assert set(ran.json["final"]) == {"loss", "accuracy", "auc"}
    assert ran.json["bytes_up"] == sum(h["bytes_up"] for h in ran.json["history"])
    golden("run-plain-progress", masked(ran.err))
    narrow(ran.err)


def test_plain_text(here: Cli) -> None:
    ran = here(*QUICK)
    assert ran.code == 0
    golden("run-plain", masked(ran.out))
    narrow(ran.out)


def test_quiet_says_only_the_name(here: Cli, tmp_path: Path) -> None:
    ran = here(*QUICK, "--quiet")
    assert ran.err == ""
    assert (tmp_path / ".manyloom" / "runs" / ran.out.strip() / "run.json").is_file()


def test_home_name_and_events(here: Cli, tmp_path: Path) -> None:
    ran = here(*QUICK, "--home", "store", "--name", "mine", "--events", "events.jsonl", "--quiet")
    assert ran.out.startswith("mine-")
    types = [json.loads(line)["type"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert types[0] == "run_started" and types[-1] == "run_done"
    assert (tmp_path / "store" / "runs" / ran.out.strip()).is_dir() and not (tmp_path / ".manyloom").exists()


def test_fast_is_one_round_of_one_batch(here: Cli, tmp_path: Path) -> None:
    ran = here("run", "heart", "--fast", "--json", "--events", "events")
    assert (ran.code, ran.json["rounds"]) == (0, 1)
    done = [e for e in map(json.loads, (tmp_path / "events").read_text().splitlines()) if e["type"] == "client_done"]
    assert [e["steps"] for e in done] == [1, 1, 1, 1]


def test_baselines(here: Cli) -> None:
    ran = here(*QUICK, "--baselines", "--json")
    assert ran.code == 0
    valid(ran.json)
    found = ran.json["baselines"]
    assert set(found) == {"central", "local"}
    assert set(found["local"]["alone_on_all"]) == {"0", "1", "2", "3"}
    ran = here(*QUICK, "--baselines")
    golden("run-baselines", digits(ran.out))
    narrow(ran.out)


def test_below_the_quorum_it_fails_and_says_what_to_do(here: Cli) -> None:
    drop = 'simulate.drop=["2:0", "2:1", "2:2"]'
    ran = here("run", "heart", "job.rounds=3", drop)
    assert ran.code == 1
    golden("run-failed", masked(ran.out + ran.err))
    narrow(ran.err)
    ran = here("run", "heart", "job.rounds=3", drop, "--json")
    assert ran.code == 1
    valid(ran.json)
    assert (ran.json["status"], ran.json["ok"], ran.json["rounds"]) == ("failed", False, 1)
    assert ran.json["next"] == [f"manyloom resume {ran.json['run_id']}"]


def test_a_fault_while_it_runs_is_kept_in_its_folder(
    here: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from manyloom.job import loop

    def broken(*_: object, **__: object) -> None:
        raise KeyError("theta")

    monkeypatch.setattr(loop, "verdict", broken)
    ran = here(*QUICK)
    assert (ran.code, ran.out) == (1, "")
    golden("run-fault", masked(ran.err[ran.err.index("error:") :]))
    (folder,) = (tmp_path / ".manyloom" / "runs").iterdir()
    kept = (folder / "crash.txt").read_text()
    assert "Traceback" in kept and "[algorithm]" in kept
    ran = here(*QUICK, "--json")
    valid(ran.json, "error")
    assert ran.json["next"][0].startswith("manyloom resume heart-")


def test_without_utf8_bars_and_quotes_are_plain(cli: Cli) -> None:
    ran = cli("run", "heart", "--fast", env={"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert ran.code == 0
    assert (ran.out + ran.err).isascii()


def test_stopping_at_a_target_is_no_failure(here: Cli) -> None:
    ran = here("run", "heart", "job.rounds=5", "job.stop_at=0.5", "--json")
    assert (ran.code, ran.json["status"], ran.json["ok"]) == (0, "stopped", True)


def test_resume_of_a_failed_run(here: Cli) -> None:
    drop = 'simulate.drop=["2:0", "2:1", "2:2"]'
    first = here("run", "heart", "job.rounds=3", drop, "--json").json
    ran = here("resume", "last", "--json")
    assert ran.code == 1  # what was asked to be lost is lost again
    valid(ran.json)
    assert (ran.json["run_id"], ran.json["resumed_from"]) == (first["run_id"], 1)


def test_more_rounds(here: Cli) -> None:
    first = here(*QUICK, "--json").json
    ran = here("resume", first["run_id"], "--rounds", "4", "--json")
    assert (ran.code, ran.json["rounds"], ran.json["resumed_from"]) == (0, 4, 2)
    assert ran.json["history"][:2] == first["history"]
    assert ran.json["job_digest"] != first["job_digest"]


class Signals(threading.Thread):
    """Sends signals to this process once its run has got so far."""

    def __init__(self, events: Path, *numbers: signal.Signals) -> None:
        super().__init__(daemon=True)
        self.events, self.numbers = events, numbers
        self.start()

    def run(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.events.is_file() and '"round_done"' in self.events.read_text():
                break
            time.sleep(0.01)
        for number in self.numbers:
            os.kill(os.getpid(), number)


LONG = ("run", "heart", "job.rounds=100000", "--events", "events")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_round(number: signal.Signals, code: int, tmp_path: Path, here: Cli) -> None:
    Signals(tmp_path / "events", number)
    ran = here(*LONG)
    assert ran.code == code
    golden("run-interrupted", masked(ran.out))
    assert "stopping after round" in ran.err and "Traceback" not in ran.err
    narrow(ran.out + ran.err)
    assert here("show", "last", "--json").json["status"] == "interrupted"


def test_a_second_one_stops_at_once(tmp_path: Path, here: Cli) -> None:
    Signals(tmp_path / "events", signal.SIGINT, signal.SIGINT)
    ran = here(*LONG, "--json")
    assert ran.code == 130
    valid(ran.json)
    assert (ran.json["status"], ran.json["ok"]) == ("interrupted", False)
    assert ran.json["next"] == [f"manyloom resume {ran.json['run_id']}"]
    assert here("show", "last", "--json").json["status"] == "interrupted"


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, here: Cli) -> None:
    whole = here("run", "heart", "job.rounds=6", "--json").json
    Signals(tmp_path / "events", signal.SIGINT)
    first = here("run", "heart", "job.rounds=6", "--events", "events", "--json").json
    found = here("resume", first["run_id"], "--json").json if first["status"] == "interrupted" else first
    assert (found["status"], found["rounds"]) == ("done", 6)
    kept = ("round", "loss", "accuracy", "auc", "bytes_up")
    assert [[h[k] for k in kept] for h in found["history"]] == [[h[k] for k in kept] for h in whole["history"]]
    assert found["model_digest"] == whole["model_digest"]


def begun(folder: Path, *args: str) -> subprocess.Popen[bytes]:
    """A process that goes on."""
    return subprocess.Popen([sys.executable, "-m", "manyloom", *args], cwd=folder, env=environment(),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_ctrl_c_as_a_process(tmp_path: Path) -> None:
    with begun(tmp_path, *LONG) as process:
        while not (tmp_path / "events").is_file() or '"round_done"' not in (tmp_path / "events").read_text():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted after round" in out and b"Traceback" not in err


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    with begun(tmp_path, "runs", "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""
