"""What was spent survives a kill at any byte, a resume, and a change of mind."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from manyloom.core.errors import BadInput
from manyloom.privacy.accountants import everyone, fixed, poisson
from manyloom.privacy.ledger import Claim, Entry, Ledger

CLAIM = Claim(1e-5, "rdp", "zero-out", "client", "digest")
DRAWN = poisson(1000, 0.1)


def entry(round, attempt=0, **changes):
    return replace(Entry(round, attempt, "update", 1.1 * 0.3, 0.3, DRAWN, 1024, "m", "n", 1e-20), **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.jsonl"


def filled(path, rounds=3):
    ledger = Ledger.open(path, CLAIM)
    for t in range(1, rounds + 1):
        ledger.record(entry(t, clip=0.1 * t, sigma=1.1 * 0.1 * t))
    return ledger


def test_a_ledger_reads_back_exactly(path):
    ledger = filled(path)
    again = Ledger.open(path, CLAIM, ledger.mark())
    assert again.entries == ledger.entries and again.spent() == ledger.spent()
    assert again.mark() == ledger.mark()
    again.record(entry(4))
    straight = filled(path.with_name("straight.jsonl"))
    straight.record(entry(4))
    assert again.spent() == straight.spent() and path.read_bytes() == straight.path.read_bytes()


def test_the_budget_is_checked_before_and_nothing_is_written(path):
    ledger = filled(path)
    before = path.read_bytes()
    first = ledger.cost([entry(4)], budget=None)
    assert first.after > first.spent > 0
    assert ledger.cost([entry(4)], budget=first.after).fits
    stop = ledger.cost([entry(4)], budget=(first.spent + first.after) / 2)
    assert not stop.fits and f"{first.spent:.4f}" in stop.text() and "privacy.epsilon" in stop.text()
    assert path.read_bytes() == before
    ledger.record(entry(4))
    assert ledger.spent() == first.after


def test_fits_is_cost_asked_seldom(path, monkeypatch):
    from manyloom.privacy import ledger as module

    asked = []
    real = module.epsilon
    monkeypatch.setattr(module, "epsilon", lambda *a: asked.append(1) or real(*a))
    claim = replace(CLAIM, accountant="pld")
    ledger = Ledger.open(path, claim)
    like = [entry(t, sampling=everyone(10), sigma=3.0, clip=1.0) for t in range(1, 200)]
    budget = real([like[0].spent] * 75, 1e-5 - 75e-20, "pld", "zero-out")
    done = next(i for i, e in enumerate(like) if not ledger.fits(e, budget) or ledger.record(e))
    assert done == 75 and len(asked) < 20 and not ledger.cost([like[done]], budget).fits
    # a dearer release in between takes the room away, and so does a smaller budget
    other = Ledger.open(path.with_name("other.jsonl"), claim)
    assert other.fits(like[0], budget) and not other.fits(like[0], 0.1)
    assert other.fits(like[0], budget)
    other.record(replace(like[0], sigma=3.0 / 73.5**0.5))
    assert other.fits(like[1], budget)
    other.record(like[1])
    assert not other.fits(like[2], budget)


def test_a_half_finished_release_counts_as_spent_and_its_round_is_another_attempt(path):
    ledger = filled(path, 2)
    mark = ledger.mark()  # the checkpoint of round 2
    ledger.record(entry(3))  # then the run is killed
    again = Ledger.open(path, CLAIM, mark)
    assert len(again.entries) == 3 and again.spent() == ledger.spent()
    assert again.attempt(3) == 1 and again.attempt(4) == 0
    with pytest.raises(BadInput) as told:
        again.record(entry(3))
    assert told.value.code == "ledger-repeats"
    again.record(entry(3, attempt=1))
    assert again.attempt(3) == 2


def test_cut_anywhere_it_keeps_what_was_synced(path):
    filled(path, 2)
    whole = path.read_bytes()
    ends = [i for i, b in enumerate(whole) if b == ord("\n")]
    for n in sorted({*range(0, len(whole), 29), *ends, *(i + 1 for i in ends), *(i + 2 for i in ends[:-1])}):
        path.write_bytes(whole[:n])
        ledger = Ledger.open(path, CLAIM)
        assert len(ledger.entries) == max(0, whole[:n].count(b"\n") - 1)
        t = len(ledger.entries) + 1
        ledger.record(entry(t))
        assert Ledger.open(path, CLAIM).entries[-1] == entry(t)


KILLED = """
import os, sys
from pathlib import Path
from manyloom.privacy.accountants import poisson
from manyloom.privacy.ledger import Claim, Entry, Ledger
ledger = Ledger.open(Path(sys.argv[1]), Claim(1e-5, "rdp", "zero-out", "client", "digest"))
for t in range(1, 100000):
    ledger.record(Entry(t, 0, "update", 0.33, 0.3, poisson(1000, 0.1), 1024, "m", "n"))
    print(t, flush=True)  # the release: only after the record
"""


def test_killed_without_warning_no_release_is_missing(path):
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 20:
            break
    os.kill(child.pid, signal.SIGKILL)
    released = [20, *(int(x) for x in child.stdout.read().split())]
    child.stdout.close()
    child.wait()
    rounds = [e.round for e in Ledger.open(path, CLAIM).entries]
    assert rounds == list(range(1, len(rounds) + 1)) and rounds[-1] - released[-1] in (0, 1)


@pytest.mark.parametrize(
    "change", [{"delta": 1e-6}, {"accountant": "pld"}, {"adjacency": "add-or-remove"}, {"unit": "record"}, {"job": "x"}]
)
def test_another_claim_is_refused(path, change):
    filled(path)
    with pytest.raises(BadInput) as told:
        Ledger.open(path, replace(CLAIM, **change))
    assert told.value.code == "ledger-mismatch"


def test_a_ledger_that_lost_or_changed_a_record_is_refused(path):
    mark = filled(path).mark()
    lines = path.read_text().splitlines(keepends=True)
    cheaper = json.dumps({**json.loads(lines[2]), "sigma": 100.0}, sort_keys=True) + "\n"
    for text in (
        "".join(lines[:-1]),
        "",
        lines[0] + lines[1] + cheaper + lines[3],
        "".join([lines[0], "{}\n", *lines[1:]]),
    ):
        path.write_text(text)
        with pytest.raises(BadInput) as told:
            Ledger.open(path, CLAIM, mark)
        assert told.value.code == "ledger-broken"


def test_two_writers_are_refused(path):
    one = filled(path)
    two = Ledger.open(path, CLAIM)
    two.record(entry(4))
    with pytest.raises(BadInput):
        one.record(entry(4))


def test_a_sampling_without_a_valid_accountant_is_not_recorded(path):
    ledger = filled(path)
    before = path.read_bytes()
    with pytest.raises(BadInput):
        ledger.record(entry(4, sampling=fixed(1000, 100)))
    assert path.read_bytes() == before and ledger.attempt(4) == 0


def test_additions_to_delta_count(path):
    ledger = Ledger.open(path, replace(CLAIM, accountant="pld"))
    ledger.record(entry(1, sampling=everyone(10), delta_added=0.0))
    less = ledger.spent()
    ledger.record(entry(2, sampling=everyone(10), sigma=1e9, delta_added=5e-6))
    assert ledger.spent() > less
