"""Protected runs in their folder: resume, kill -9, what the result promises; no secret in any byte on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import manyloom as ml
from manyloom.job import checkpoint
from manyloom.job.job import Simulate
from manyloom.privacy import source
from manyloom.privacy.account import COHORTS, LEDGER
from manyloom.privacy.guarantee import Guarantee
from manyloom.runtime import sites
from manyloom.secure import keys, shamir, suite
from manyloom.secure.settings import Secure
from tests.toys import private, secured, writers

TOML = """
[job]
rounds = 4
cohort = 0.5
[data]
source = "heart-disease"
[partition]
scheme = "iid"
clients = 30
[model]
name = "logistic"
[algorithm]
lr = 0.1
[privacy]
clip = 1.0
noise_multiplier = 2.0
accountant = "rdp"
"""


def written(tmp_path: Path, more: str = "") -> Path:
    path = tmp_path / "job.toml"
    path.write_text(TOML + more)
    return path


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()[1:]]


def events(folder: Path, kind: str) -> list[dict]:
    return [e for e in map(json.loads, (folder / "events.jsonl").read_text().splitlines()) if e["type"] == kind]


def stopped(job, home: Path, at: int):
    """The last event of a run that was asked to stop after a round."""
    seen = []
    for event in ml.run(job, home=home, stop=lambda: len(seen) >= at - 1):
        if event.type == "round_done":
            seen.append(event)
    return event


def model(result) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in result.model.parameters()])


# ---- private runs


def test_the_guarantee_is_the_same_in_plan_event_folder_and_result(tmp_path):
    job = ml.Job.from_toml(str(written(tmp_path)))
    told = ml.plan(job).privacy
    result = ml.train(job, progress=None, home=tmp_path)
    [done] = events(result.folder, "run_done")
    assert told == done["privacy"] and len(records(result.folder)) == 4
    assert result.guarantee == Guarantee.from_json(told) and result.guarantee.epsilon == told["epsilon"]
    assert not (result.folder / COHORTS).exists()
    spent = [e["epsilon"] for e in events(result.folder, "released")]
    assert spent[-1] == told["epsilon"] and [r["epsilon"] for r in result.history] == spent
    assert ml.train(secured(rounds=1), progress=None, home=tmp_path).guarantee is None


def test_the_ledger_is_exact_through_stop_and_resume(tmp_path):
    """Stopped after round 2: the secret stays, the next rounds are drawn under it, one record each."""
    job = ml.Job.from_toml(str(written(tmp_path)))
    last = stopped(job, tmp_path, 2)
    folder = last.result.folder
    assert last.status == "interrupted" and len(records(folder)) == 2
    secret = (folder / COHORTS).read_bytes()
    assert (folder / COHORTS).stat().st_mode & 0o777 == 0o600 and len(secret) == 32
    first = (folder / LEDGER).read_text()
    for event in ml.resume(last.result.run_id, home=tmp_path):
        if event.type == "round_started":
            assert (folder / COHORTS).read_bytes() == secret
    assert event.status == "done" and (folder / LEDGER).read_text().startswith(first)
    assert [(r["round"], r["attempt"]) for r in records(folder)] == [(t, 0) for t in (1, 2, 3, 4)]
    assert event.privacy == ml.plan(job).privacy and not (folder / COHORTS).exists()


def test_two_runs_of_one_job_are_two_models(tmp_path):
    job = ml.Job.from_toml(str(written(tmp_path)))
    one, two = (ml.train(job, progress=None, home=tmp_path) for _ in range(2))
    assert not torch.equal(model(one), model(two)) and one.guarantee == two.guarantee
    asked = [[e["cohort"] for e in events(r.folder, "round_started")] for r in (one, two)]
    assert asked[0] != asked[1]


def test_a_stop_at_the_budget_is_no_failure_and_more_rounds_do_not_lift_it(tmp_path):
    free = ml.plan(ml.Job.from_toml(str(written(tmp_path)), {"job.rounds": 2})).privacy["epsilon"]
    job = ml.Job.from_toml(str(written(tmp_path, f"epsilon = {free * 1.001}\n")))
    result = ml.train(job, progress=None, home=tmp_path)
    assert (result.status, len(result.history), len(records(result.folder))) == ("stopped", 2, 2)
    [done] = events(result.folder, "run_done")
    assert (
        "spent" in done["reason"] and "the next round would make it" in done["reason"] and "to go on" in done["reason"]
    )
    assert result.guarantee.epsilon == pytest.approx(free) and not (result.folder / COHORTS).exists()
    for more in ({}, {"rounds": 9}):
        again = list(ml.resume(result.run_id, home=tmp_path, **more))
        assert again[-1].status == "stopped" and not [e for e in again if e.type == "round_started"]
    assert len(records(result.folder)) == 2


def test_more_rounds_within_the_budget_are_accounted_with_the_first(tmp_path):
    job = ml.Job.from_toml(str(written(tmp_path)), {"job.rounds": 2})
    result = ml.train(job, progress=None, home=tmp_path)
    last = list(ml.resume(result.run_id, home=tmp_path, rounds=4))[-1]
    assert last.status == "done" and len(records(result.folder)) == 4
    assert last.privacy == ml.plan(ml.Job.from_toml(str(written(tmp_path)))).privacy


CHILD = """
import sys, time, manyloom as ml
go = ml.run(ml.Job.from_toml({job!r}), home={home!r}) if {run!r} is None else ml.resume({run!r}, home={home!r})
for event in go:
    print(event.type, getattr(event, "round", ""), flush=True)
    if (event.type, getattr(event, "round", "")) == ({kind!r}, {at}):
        time.sleep(60)
"""


def killed(job: Path, home: Path, kind: str, at: int) -> Path:
    """The folder of a run that a real process began, killed with -9 at an event."""
    code = CHILD.format(job=str(job), home=str(home), run=None, kind=kind, at=at)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)
    assert child.stdout is not None
    for line in child.stdout:
        if line.split() == [kind, str(at)]:
            break
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    [folder] = (home / "runs").iterdir()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "again"), [("round_started", 0), ("released", 1), ("round_done", 0)])
def test_killed_a_private_run_spends_what_may_have_left_and_no_more(tmp_path, kind, again):
    folder = killed(written(tmp_path), tmp_path / "home", kind, 2)
    secret, before = (folder / COHORTS).read_bytes(), events(folder, "round_started")
    last = list(ml.resume(folder.name, home=tmp_path / "home"))[-1]
    rounds = [(r["round"], r["attempt"]) for r in records(folder)]
    assert last.status == "done" and secret and rounds == sorted(rounds)
    assert (2, 1) in rounds if again else rounds == [(t, 0) for t in (1, 2, 3, 4)]
    assert len(rounds) == 4 + again
    second = [e["cohort"] for e in events(folder, "round_started") if e["round"] == 2]
    if kind == "round_started":  # nothing had been released: the same cohort is asked again
        assert second == [before[-1]["cohort"]] * 2
    if kind == "released":
        assert second[0] != second[1]


# ---- secure runs


@pytest.mark.parametrize(("at", "fidelity"), [(1, "full"), (2, "ideal"), (3, "full")])
def test_a_secure_run_goes_on_bit_for_bit(tmp_path, at, fidelity):
    job = secured(table={"fidelity": fidelity}, cohort=4, rounds=4, simulate=Simulate(drop=["3:1"]))
    whole, last = ml.train(job, progress=None, home=tmp_path), stopped(job, tmp_path, at)
    state = checkpoint.latest(last.result.folder / "checkpoints")
    assert state.round == at and "log/secure.log" in state.clients and state.record["session"]
    again = list(ml.run(job, home=tmp_path, resume=last.result.run_id))[-1].result
    clock = lambda rounds: [{k: v for k, v in r.items() if k != "seconds"} for r in rounds]  # noqa: E731
    assert clock(again.history) == clock(whole.history) and torch.equal(model(again), model(whole))
    assert (again.bytes_up, again.bytes_down) == (whole.bytes_up, whole.bytes_down)
    assert checkpoint.latest(again.folder / "checkpoints").record["session"] == state.record["session"]


@pytest.mark.parametrize("table", [{}, {"mode": "semi"}])
def test_the_plan_predicts_the_bytes_of_protected_runs(tmp_path, table):
    jobs = [secured(table=table, rounds=2), private(rounds=2), private(cohort=10, rounds=2)]
    jobs.append(private(federation=writers(12), cohort=12, rounds=2, secure=Secure(fidelity="ideal", **table)))
    for job in jobs:
        plan, result = ml.plan(job), ml.train(job, progress=None, home=tmp_path)
        assert (plan.bytes["up"], plan.bytes["down"]) == (result.bytes_up, result.bytes_down)


# ---- no secret on disk


class Secrets:
    """All secrets made while it listens: long-term and fresh keys, agreed seeds, shares, noise keys."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: dict[str, set[bytes]] = {n: set() for n in ("identities", "keys", "shares", "noise", "seeds")}
        advertise, split, counter, agree = keys.advertise, shamir.split, source.counter, keys.agree_each

        def hear_keys(*args, **more):
            advert, secrets = advertise(*args, **more)
            self.made["keys"] |= set(secrets)
            return advert, secrets

        def hear_shares(secret, k, t, *more):
            found = split(secret, k, t, *more)
            self.made["shares"] |= {secret, *found}
            return found

        def hear_noise(key):
            self.made["noise"].add(key)
            return counter(key)

        def hear_agreed(private, others):
            found = agree(private, others)
            self.made["seeds"] |= set(found)
            return found

        monkeypatch.setattr(source, "counter", hear_noise)
        heard = suite.FULL._replace(advertise=hear_keys, split=hear_shares, agree=hear_agreed)
        monkeypatch.setattr(sites, "FULL", heard)
        made, real = self.made["identities"], sites.Ed25519PrivateKey

        class Generating:
            @staticmethod
            def generate():
                key = real.generate()
                made.add(key.private_bytes_raw())
                return key

        monkeypatch.setattr(sites, "Ed25519PrivateKey", Generating)

    def found(self, folder: Path, extra: set[bytes] = frozenset()) -> set[str]:
        """Files that hold one, raw or as hex text."""
        every = {s for group in self.made.values() for s in group} | extra
        signs = every | {s.hex().encode() for s in every}
        out = set()
        for path in folder.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                out |= {path.name for s in signs if s in data}
        return out


def test_no_secret_is_in_any_byte_of_a_runs_folder(tmp_path, monkeypatch):
    """Secure sums and noise together, a client lost on the way; searched in the middle and at the end."""
    heard = Secrets(monkeypatch)
    job = private(federation=writers(24, 6), cohort=0.9, quorum=0.5, rounds=2, table={"noise_multiplier": 2.0},
                  secure=Secure(), simulate=Simulate(drop=["1:3"]))  # fmt: skip
    home, middle = tmp_path / "home", 0
    for event in ml.run(job, home=home):
        if event.type in ("released", "round_done"):
            [folder] = (home / "runs").iterdir()
            secret = (folder / COHORTS).read_bytes()
            assert heard.found(home, {secret}) == {COHORTS}  # its own file, and there alone
            assert (folder / COHORTS).stat().st_mode & 0o777 == 0o600
            middle += 1
    assert event.status == "done" and middle == 4
    event.result.report()
    event.result.card()
    assert (
        len(heard.made["identities"]) == 24
        and len(heard.made["keys"]) >= 3 * 15 * 2
        and len(heard.made["noise"]) >= 2
        and heard.made["seeds"]
    )
    assert len(heard.made["shares"]) > 15 * 15 and (event.result.folder / "report.html").stat().st_size > 1000
    assert not (event.result.folder / COHORTS).exists() and heard.found(home, {secret}) == set()
    for name, planted in (("keys", bytes), ("shares", bytes.hex), ("noise", bytes), ("seeds", bytes.hex)):
        leak = planted(next(iter(heard.made[name])))
        path = event.result.folder / f"leak-{name}"
        path.write_bytes(b"{" + (leak.encode() if isinstance(leak, str) else leak) + b"}")
        assert heard.found(home) == {path.name}
        path.unlink()
