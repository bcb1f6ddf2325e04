"""Cohorts, ledger, budget and guarantee of a private run, from the plan to the last round, through resume."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from manyloom.core.errors import BadInput
from manyloom.core.exchange import Ask, Lost
from manyloom.job.job import Simulate
from manyloom.job.loop import loop, start
from manyloom.job.plan import plan
from manyloom.job.prepare import prepare
from manyloom.job.spend import account_of
from manyloom.privacy.account import COHORTS, LEDGER
from manyloom.privacy.calibration import epsilon_for
from manyloom.privacy.guarantee import Guarantee
from manyloom.runtime.local import Local
from manyloom.secure import wire
from manyloom.secure.settings import Secure
from tests.toys import Listening, of, play, private, writers

RDP = {"noise_multiplier": 2.0, "accountant": "rdp"}  # Poisson, and answers in milliseconds


def go(job, folder, *, state=None, mark=None, runtime=None, until=None, done=False):
    """Events of a job with its account in a folder; `until` an event of that type (and round) the run is cut off."""
    account = account_of(job, folder, mark)
    runtime = runtime or Local()
    ready = prepare(
        job, runtime, None, state.execution if state else None, state.record.get("session") if state else None
    )
    seen = []
    try:
        for event in loop(job, runtime, ready, state or start(job, ready), account=account):
            seen.append(event)
            if until and (event.type, getattr(event, "round", None)) == until:
                break
    except KeyboardInterrupt:
        pass
    finally:
        account.close(done)
    return seen


def cohorts(events):
    return {(e.round, e.attempt): tuple(e.cohort) for e in of(events, "round_started")}


def records(folder):
    return [json.loads(line) for line in (folder / LEDGER).read_text().splitlines()[1:]]


# ---- cohorts


def test_a_round_that_had_not_released_asks_the_same_cohort_again(tmp_path):
    def dies(ask: Ask):
        if ask.verb == "train" and ask.round == 3:
            raise KeyboardInterrupt

    j = private(cohort=0.5, rounds=4, table=RDP)
    first = go(j, tmp_path, runtime=Listening(before=dies))
    state = of(first, "round_done")[-1].state
    assert state.round == 2 and len(records(tmp_path)) == 2
    rest = go(j, tmp_path, state=state, mark=state.record["ledger"])
    assert cohorts(rest)[3, 0] == cohorts(first)[3, 0] and cohorts(rest)[4, 0] != cohorts(rest)[3, 0]
    assert [(r["round"], r["attempt"]) for r in records(tmp_path)] == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_a_round_that_may_have_released_is_another_attempt_with_another_cohort(tmp_path):
    j = private(cohort=0.5, rounds=3, table=RDP)
    first = go(j, tmp_path, until=("released", 2))  # written down, and then the process is gone
    state = of(first, "round_done")[-1].state
    assert state.round == 1 and len(records(tmp_path)) == 2
    rest = go(j, tmp_path, state=state, mark=state.record["ledger"])
    assert (2, 1) in cohorts(rest) and (2, 0) not in cohorts(rest)
    assert cohorts(rest)[2, 1] != cohorts(first)[2, 0]
    assert [(r["round"], r["attempt"]) for r in records(tmp_path)] == [(1, 0), (2, 0), (2, 1), (3, 0)]
    assert of(rest, "released")[-1].epsilon == pytest.approx(
        epsilon_for(2.0, 4, j.protection.sampling, j.protection.left, "rdp"), rel=1e-12
    )


def test_the_secret_of_the_cohorts_lies_in_a_file_of_its_own_until_the_run_is_done(tmp_path):
    j = private(cohort=0.5, rounds=2, table=RDP)
    go(j, tmp_path)
    path = tmp_path / COHORTS
    assert path.stat().st_mode & 0o777 == 0o600 and len(path.read_bytes()) == 32
    go(j, tmp_path / "other", done=True)
    assert not (tmp_path / "other" / COHORTS).exists() and len(records(tmp_path / "other")) == 2


# ---- ledger


def test_one_record_a_round_and_every_field_as_executed(tmp_path):
    j = private(cohort=0.5, rounds=3, table=RDP)
    events = go(j, tmp_path)
    found = records(tmp_path)
    assert [(r["round"], r["attempt"], r["what"], r["sigma"], r["clip"]) for r in found] == [
        (t, 0, "update", 2.0, 1.0) for t in (1, 2, 3)
    ]
    assert {r["sampling"]["kind"] for r in found} == {"poisson"} and found[0]["sampling"]["rate"] == 0.5
    assert len({r["noise"] for r in found}) == len({r["model"] for r in found}) == 3
    assert found[0]["scale"] == j.protection.scale(83)
    spent = [e.epsilon for e in of(events, "released")]
    assert spent == sorted(spent) and spent[-1] == events[-1].privacy["epsilon"]


def test_the_record_is_on_disk_before_the_model_moves(tmp_path):
    j = private(rounds=1)
    events = go(j, tmp_path, until=("released", 1))
    assert len(records(tmp_path)) == 1 and not of(events, "round_done")


def test_a_ledger_that_is_not_the_checkpoints_is_refused(tmp_path):
    j = private(rounds=2)
    state = of(go(j, tmp_path), "round_done")[-1].state
    lines = (tmp_path / LEDGER).read_text().splitlines()
    told = state.record["ledger"]
    for changed in (
        [lines[0], lines[2]],
        lines[:2],
        [lines[0], lines[1].replace('"sigma": 1.0', '"sigma": 9.0'), lines[2]],
    ):
        (tmp_path / LEDGER).write_text("\n".join(changed) + "\n")
        with pytest.raises(BadInput) as error:
            account_of(j, tmp_path, told)
        assert error.value.code == "ledger-broken" and error.value.mend
    (tmp_path / LEDGER).write_text("\n".join(lines) + "\n")
    for other in (private(rounds=2, seed=9), private(rounds=2, table={"noise_multiplier": 2.0})):
        with pytest.raises(BadInput) as error:
            account_of(other, tmp_path, told)
        assert error.value.code == "ledger-mismatch"
    account_of(private(rounds=5), tmp_path, told).close(False)  # more rounds are allowed


def test_a_failed_attempt_is_spent_and_the_next_has_another_cohort(tmp_path):
    j = private(cohort=0.5, rounds=1, quorum=1.0, retries=1, table=RDP, simulate=Simulate(dropout=0.5))
    events = go(j, tmp_path)
    assert events[-1].status == "failed" and [e.attempt for e in of(events, "round_failed")] == [0, 1]
    assert len(set(cohorts(events).values())) == 2
    assert [(r["attempt"], r["what"]) for r in records(tmp_path)] == [(0, "aborted attempt"), (1, "aborted attempt")]
    assert "quorum" in events[-1].error["rule"] and "resume" in events[-1].error["mend"]


# ---- budget


@pytest.mark.parametrize("affordable", [1, 3])
def test_a_run_stops_before_the_round_that_would_exceed_the_budget(tmp_path, affordable):
    bare = private(rounds=8, table={"noise_multiplier": 2.0})
    left, sampling = bare.protection.left, bare.protection.sampling
    budget = epsilon_for(2.0, affordable, sampling, left, "pld") * 1.01
    j = private(rounds=8, table={"noise_multiplier": 2.0, "epsilon": budget})
    runtime = Listening()
    events = go(j, tmp_path, runtime=runtime)
    last = events[-1]
    assert last.status == "stopped" and last.state.round == affordable == len(records(tmp_path))
    assert len(runtime.of("train")) == affordable  # nothing was asked for the round that is not made
    after = epsilon_for(2.0, affordable + 1, sampling, left, "pld")
    assert f"epsilon {last.privacy['epsilon']:.4f} of {budget:g} spent" in last.reason and f"{after:.4f}" in last.reason
    assert "to go on" in last.reason and last.privacy["epsilon"] <= budget == last.privacy["budget"]
    longer = replace(j, rounds=20)
    again = go(longer, tmp_path, state=last.state, mark=last.state.record["ledger"], runtime=runtime)
    assert again[-1].status == "stopped" and len(runtime.of("train")) == affordable


def test_a_retry_is_not_made_where_the_failed_attempt_took_the_rest(tmp_path):
    sampling = private(rounds=1).protection.sampling
    left = private(rounds=1).protection.left
    budget = epsilon_for(2.0, 1, sampling, left, "pld") * 1.2
    j = private(
        rounds=3, quorum=40, table={"noise_multiplier": 2.0, "epsilon": budget}, simulate=Simulate(drop=["1:7"])
    )
    events = go(j, tmp_path)
    assert [e.attempt for e in of(events, "round_started")] == [0] and len(records(tmp_path)) == 1
    assert events[-1].status == "stopped" and events[-1].privacy["epsilon"] <= budget


@pytest.mark.parametrize("cohort", [1.0, 0.5, 10])
def test_noise_that_follows_from_epsilon_is_enough_and_plan_and_run_agree_to_all_digits(cohort):
    j = private(cohort=cohort, rounds=3, table={"epsilon": 4.0})
    z = j.privacy.noise_multiplier
    assert z == round(z, 4)
    told, done = plan(j, Local()).privacy, play(j)[-1].privacy
    assert told == done and 3.9 < told["epsilon"] <= 4.0 and told["budget"] == 4.0
    lower = epsilon_for(z - 1e-3, 3, j.protection.sampling, j.protection.left, j.protection.accountant)
    assert lower > 4.0  # it is not more than needed


# ---- the guarantee


@pytest.mark.parametrize("cohort", [0.5, 10, 1.0])
def test_every_field_is_there_and_others_is_the_number_without_amplification(cohort):
    j = private(cohort=cohort, rounds=2, table={"noise_multiplier": 2.0})
    told = play(j)[-1].privacy
    found = Guarantee.from_json(told)
    assert found.delta == pytest.approx(40**-1.1) and found.unit == "client"
    assert found.adjacency == ("replace-one" if cohort == 10 else "zero-out")
    assert "clip 1" in found.mechanism and "noise multiplier 2" in found.mechanism
    assert found.assumes and any("sizes" in line for line in found.uncovered)
    if cohort == 1.0:
        assert told["others"] == [] and "without amplification" in found.sampling
        return
    assert {0.5: "Poisson, q = 0.5, of 40 clients", 10: "10 of 40 clients, without replacement"}[
        cohort
    ] == found.sampling
    [other] = told["others"]
    assert "without amplification" in other["sampling"] and other["against"] != found.against
    everyone = private(cohort=1.0, rounds=2, table={"noise_multiplier": 2.0}).protection.sampling
    want = epsilon_for(2.0, 2, everyone, j.protection.left, "pld", found.adjacency)
    assert other["epsilon"] == pytest.approx(want, rel=1e-9)


def test_metrics_that_touch_data_stand_as_uncovered():
    from tests.toys import classes

    fed = classes(sizes=(10,) * 8, test=0.3)
    with_, without = (plan(private(federation=f, rounds=1), Local()).privacy for f in (fed, writers(8)))
    assert any("metrics on held-out" in x for x in with_["uncovered"])
    assert not any("metrics" in x for x in without["uncovered"])
    assert all(e.covered is False for e in of(play(private(federation=fed, rounds=1, eval_every=1)), "evaluated"))


# ---- over secure sums


def both(**settings):
    table = {"noise_multiplier": 2.0, **settings.pop("table", {})}
    own = {"cohort": 0.5, "quorum": 0.5, "rounds": 2, **settings}
    return private(federation=writers(100, 2), table=table, secure=Secure(fidelity="ideal"), **own)


def test_over_secure_sums_the_sampling_is_truncated_and_aborts_are_taken_off_delta(tmp_path):
    j = both()
    made = j.protection
    assert made.n_max == math.ceil(50 + 5 * math.sqrt(25)) == made.sampling.cap and made.n_min == 25
    aborts = 2 * stats.binom.cdf(24, 99, 0.5 * 0.9)
    assert made.left == pytest.approx(j.privacy.delta - aborts, rel=1e-9) and aborts > 1e-6
    events = go(j, tmp_path)
    assert events[-1].status == "done" and "at most 75" in events[-1].privacy["sampling"]
    found = records(tmp_path)
    assert [r["delta_added"] for r in found] == [pytest.approx(aborts, rel=1e-6), 0.0]
    assert plan(j, Local()).privacy == events[-1].privacy
    assert of(events, "released")[-1].epsilon == events[-1].privacy["epsilon"]
    assert any("of every cohort at most a share of 0.1" in line for line in events[-1].privacy["assumes"])


def test_the_budget_over_secure_sums_counts_what_was_added_to_delta_once(tmp_path):
    j = both(table={"epsilon": 8.0}, quorum=0.6)
    assert j.protection.left < 0.8 * j.privacy.delta  # 64 times that would be more than all of it
    events = go(j, tmp_path)
    assert events[-1].status == "done" and len(records(tmp_path)) == 2
    more = replace(j, rounds=3)  # more rounds, more chances of an abort
    state = events[-1].state
    rest = go(more, tmp_path, state=state, mark=state.record["ledger"])
    assert sum(r["delta_added"] for r in records(tmp_path)) == pytest.approx(more.privacy.delta - more.protection.left)
    assert of(rest, "released")[-1].epsilon == rest[-1].privacy["epsilon"]


def test_noise_is_added_to_the_secure_sum_of_clipped_updates():
    from manyloom import algorithms as A

    fed = writers(12)
    algorithm = A.fedavg(lr=0.1, batch_size=5)
    table = {"clip": 5.0, "noise_multiplier": 1e-3}
    hidden = private(algorithm, fed, table=table, rounds=1, cohort=12, secure=Secure(fidelity="ideal"))
    moved, open_ = (play(x)[-1].state.server["theta"] for x in (hidden, replace(hidden, secure=None)))
    assert not torch.equal(moved, open_)
    torch.testing.assert_close(moved, open_, rtol=0, atol=9 * 1e-3 * 5 / 12)


def test_a_round_whose_two_attempts_are_spent_is_not_paid_for_a_third_time(tmp_path):
    """Clients answer two attempts of a secure sum at most: a resumed run leaves such a round out and goes on."""

    def mute(ask: Ask):
        gone = ask.verb == wire.VERBS[2]
        return [Lost(int(c), "deadline", "late") for c in ask.to] if gone else None

    j = private(
        federation=writers(12), rounds=3, cohort=12, table={"noise_multiplier": 2.0}, secure=Secure(fidelity="ideal")
    )
    failed = go(j, tmp_path, runtime=Listening(before=mute))
    assert failed[-1].status == "failed" and [(r["round"], r["attempt"]) for r in records(tmp_path)] == [(1, 0), (1, 1)]
    rest = go(j, tmp_path)
    assert rest[-1].status == "done" and [n.code for n in of(rest, "note")] == ["round-skipped"]
    assert [(r["round"], r["attempt"]) for r in records(tmp_path)] == [(1, 0), (1, 1), (2, 0), (3, 0)]
