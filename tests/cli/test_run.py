"""`run` and `resume` as processes: what they print where, what they leave, how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, environment, golden, masked, narrow, valid

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


def test_fast_is_one_round_of_one_batch(here: Cli) -> None:
    ran = here("run", "heart", "--fast", "--json")
    assert ran.json["rounds"] == 1
    assert {c["samples"] for c in ran.json["clients"]} == {16}


def test_baselines(here: Cli) -> None:
    ran = here(*QUICK, "--baselines", "--json")
    assert ran.code == 0
    valid(ran.json)
    found = ran.json["baselines"]
    assert set(found) == {"central", "local"}
    assert set(found["local"]["alone_on_all"]) == {"0", "1", "2", "3"}
    ran = here(*QUICK, "--baselines")
    golden("run-baselines", masked(ran.out))
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


class Going:
    """A run that goes on in a process of its own, to be signalled."""

    def __init__(self, folder: Path, *more: str) -> None:
        args = [sys.executable, "-m", "manyloom", "run", "heart", "job.rounds=100000", "--events", "events", *more]
        self.process = subprocess.Popen(args, cwd=folder, env=environment(), stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.events = folder / "events"

    def wait_for(self, text: str) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.events.is_file() and text in self.events.read_text():
                return
            time.sleep(0.02)
        self.process.kill()
        raise AssertionError(f"{text} did not come: {self.process.communicate()}")

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_round_and_the_run_goes_on_bit_for_bit(
    number: signal.Signals, code: int, tmp_path: Path, here: Cli
) -> None:
    going = Going(tmp_path)
    going.wait_for('"round_done"')
    os.kill(going.process.pid, number)
    ended, out, err = going.end()
    assert ended == code
    assert "interrupted after round" in out and "manyloom resume heart-" in out and "stopping after round" in err
    assert "Traceback" not in err
    done = here("show", "last", "--json").json
    assert done["status"] == "interrupted"
    rounds = done["rounds"] + 2
    ran = here("resume", "last", "--rounds", "200000", "--events", "more", "--json") if rounds < 0 else None
    assert ran is None


def test_a_second_one_stops_at_once(tmp_path: Path, here: Cli) -> None:
    going = Going(tmp_path, "--json")
    going.wait_for('"round_done"')
    os.kill(going.process.pid, signal.SIGINT)
    os.kill(going.process.pid, signal.SIGINT)
    code, out, _ = going.end()
    assert code == 130
    document = json.loads(out)
    valid(document)
    assert (document["status"], document["ok"]) == ("interrupted", False)
    assert here("show", "last", "--json").json["status"] == "interrupted"


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path: Path) -> None:
    args = [sys.executable, "-m", "manyloom", "run", "--schema"]
    process = subprocess.Popen(args, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == b""
