"""Time in whole jobs: deadlines, partial work, over-provisioning, and rounds that wait for no cohort."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom import algorithms as A
from manyloom.algorithms.buffered import Open, discount
from manyloom.core.errors import BadInput
from manyloom.job.job import Execution, Simulate
from manyloom.job.plan import plan
from manyloom.privacy.settings import Privacy
from manyloom.runtime.clock import Clock
from manyloom.runtime.local import Local
from manyloom.secure.settings import Secure
from tests.toys import classes, history, job, of, play, theta

FED = classes((20,) * 12, seed=4)
SLOW = Simulate(speed="lognormal", speed_sigma=1.0)
EQUAL = Simulate(speed="equal")


def sync(recipe=None, **settings):
    return job(recipe or A.fedavg(lr=0.1, batch_size=5, steps=4), FED, **{"simulate": SLOW, "rounds": 4, **settings})


def buffered(buffer=3, flying=6, **settings):
    keys = {"lr": 0.1, "batch_size": 5, "steps": 4, **settings.pop("keys", {})}
    made = A.fedbuff(buffer=buffer, **keys)
    return job(made, FED, **{"cohort": flying, "simulate": SLOW, "rounds": 6, **settings})


def clock() -> Clock:
    return Clock(1, FED.ids, sigma=1.0)


# ---- synchronous rounds on the clock


def test_a_round_takes_as_long_as_its_slowest_client():
    events = play(sync(cohort=5))
    ends = [e.virtual_s for e in of(events, "round_done")]
    cohorts = [e.cohort for e in of(events, "round_started")]
    want = [4 * float(clock().speeds(np.array(c)).max()) for c in cohorts]
    assert ends == pytest.approx(want)
    quiet = play(sync(cohort=5, simulate=Simulate()))
    assert [e.virtual_s for e in of(quiet, "round_done")] == [None] * 4  # no clock, no time
    assert torch.equal(events[-1].state.server["theta"], quiet[-1].state.server["theta"])


def test_who_is_late_is_lost_and_the_rest_is_the_round_without_them():
    speeds = clock().speeds(np.arange(len(FED)))
    late = set(np.flatnonzero(4 * speeds > 4.0).tolist())
    assert 0 < len(late) < 9
    events = play(sync(deadline_s=4.0, quorum=1, rounds=1))
    lost = of(events, "client_lost")
    assert {e.client for e in lost} == late and {e.reason for e in lost} == {"deadline"}
    drops = [f"1:{c}" for c in late]
    same = play(sync(simulate=Simulate(drop=drops), quorum=1, rounds=1))
    torch.testing.assert_close(events[-1].state.server["theta"], same[-1].state.server["theta"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("provider", ["autograd", "vmap"])
def test_partial_work_is_as_many_steps_as_there_was_time(provider):
    made = sync(A.fednova(lr=0.1, batch_size=5, steps=4), deadline_s=3.0, partial=True, quorum=1, rounds=1,
                execution=Execution(provider=provider, group=4))  # fmt: skip
    events = play(made)
    took = {e.client: e.steps for e in of(events, "client_done")}
    speeds = clock().speeds(np.arange(len(FED)))
    want = {c: min(4, int(3.0 / s + 1e-12)) for c, s in enumerate(speeds.tolist()) if 3.0 / s >= 1}
    assert took == want and set(want.values()) >= {4} and min(want.values()) < 4
    assert {e.client for e in of(events, "client_lost")} == set(range(len(FED))) - set(want)


def test_both_engines_take_the_same_partial_steps():
    made = sync(A.fednova(lr=0.1, batch_size=5, steps=4), deadline_s=3.0, partial=True, quorum=1)
    vmap = replace(made, execution=Execution(provider="vmap", group=5))
    torch.testing.assert_close(theta(made), theta(vmap), rtol=1e-4, atol=1e-5)


def test_partial_work_is_refused_where_it_moves_the_optimum():
    with pytest.raises(BadInput, match="fednova") as error:
        sync(deadline_s=3.0, partial=True)
    assert error.value.code == "partial"


def test_over_provisioning_takes_the_fastest():
    events = play(sync(cohort=4, over_provision=2.0, rounds=3))
    for started, done in zip(of(events, "round_started"), of(events, "round_done")):
        assert started.asked == 8 and done.back == 4
        speeds = clock().speeds(np.array(started.cohort))
        fast = {c for c, s in zip(started.cohort, speeds.tolist()) if s in sorted(speeds.tolist())[:4]}
        assert {e.client for e in of(events, "client_done") if e.round == done.round} == fast
        assert done.virtual_s == pytest.approx(4 * sorted(speeds.tolist())[3])
    with pytest.raises(BadInput, match="privacy claim"):
        sync(cohort=4, over_provision=2.0, privacy=Privacy(clip=1.0, noise_multiplier=1.0))


def test_a_round_that_has_its_first_does_not_wait_for_the_deadline_of_others():
    """All are asked but four are enough: who would miss the deadline no longer matters to the time."""
    speeds = np.sort(clock().speeds(np.arange(len(FED))))
    limit = 4 * float(speeds[6])  # seven are in time
    made = sync(cohort=4, over_provision=3.0, rounds=1, deadline_s=limit, quorum=2)
    [done] = of(play(made), "round_done")
    assert done.back == 4 and done.virtual_s == pytest.approx(4 * float(speeds[3]))
    assert done.virtual_s < limit


# ---- no cohort to wait for


def test_equal_speeds_and_a_buffer_of_all_is_fedavg_alike():
    """All answer at once: every update is fresh, so a version is a round of uniform FedAvg."""
    made = buffered(buffer=12, flying=12, simulate=EQUAL, rounds=1)
    plain = sync(A.fedavg(lr=0.1, batch_size=5, steps=4, weights="uniform"), simulate=EQUAL, rounds=1)
    torch.testing.assert_close(theta(made), theta(plain), rtol=1e-5, atol=1e-6)
    assert {e.staleness for e in of(play(made), "client_done")} == {0}


def test_staleness_and_order_by_hand():
    """Two at work, one update a version: the slow one's update is as old as the versions made meanwhile."""
    events = play(buffered(buffer=1, flying=2, rounds=8))
    done = of(events, "client_done")
    assert len(done) == 8 and max(e.staleness for e in done) >= 1
    times = [e.virtual_s for e in of(events, "round_done")]
    assert all(t >= 0 for t in times)
    assert discount(0) == 1 and discount(1) == pytest.approx(2**-0.5)


def test_buffered_runs_repeat_and_resume_at_every_version_to_the_bit():
    made = buffered()
    whole = play(made)
    assert history(whole) == history(play(made))
    states = [e.state for e in of(whole, "round_done")]
    assert all(len(Open.of(s.open).asks) >= 3 for s in states[:-1])
    for state in states[:-1]:
        rest = play(made, state=state)
        assert torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])
        assert history(whole)[-len(history(rest)) :] == history(rest)
    forgot = play(made, state=replace(states[2], open={}))
    assert not torch.equal(forgot[-1].state.server["theta"], whole[-1].state.server["theta"])


def test_both_engines_make_the_same_versions():
    made = buffered()
    other = replace(made, execution=Execution(provider="vmap"))
    torch.testing.assert_close(theta(made), theta(other), rtol=1e-4, atol=1e-5)


def test_what_is_too_old_is_dropped_and_counted():
    events = play(buffered(buffer=1, flying=8, rounds=20, keys={"max_staleness": 1}))
    stale = [e for e in of(events, "client_lost") if e.reason == "stale"]
    assert stale and all("max_staleness 1" in e.text for e in stale)
    assert max(e.staleness for e in of(events, "client_done")) <= 1


def test_it_is_faster_than_waiting():
    waits = play(sync(cohort=6, rounds=6))
    buffers = play(buffered(buffer=6, flying=6, rounds=6))
    both = [sum(e.virtual_s for e in of(events, "round_done")) for events in (waits, buffers)]
    assert both[1] < both[0]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"secure": Secure(fidelity="ideal")}, "buffered-secure"),
        ({"privacy": Privacy(clip=1.0, noise_multiplier=1.0)}, "buffered-private"),
        ({"over_provision": 2.0}, "over-provision"),
        ({"partial": True}, "partial"),
    ],
)
def test_mixes_that_do_not_go(more, code):
    with pytest.raises(BadInput) as error:
        buffered(**more)
    assert code in {p.code for p in error.value.problems}
    assert all(p.rule and p.mend for p in error.value.problems)


def test_the_plan_knows_who_is_asked_and_who_counts():
    made = sync(cohort=4, over_provision=2.0)
    told, events = plan(made, Local()), play(made)
    assert {e.bytes_down for e in of(events, "round_done")} == {told.bytes["down_round"]}
    assert told.bytes["up_round"] == 4 * (told.bytes["up_round"] // 4) and any("slow" in w for w in told.warnings)
    flying = buffered()
    per = plan(flying, Local()).bytes
    assert {e.bytes_up for e in of(play(flying), "round_done")} == {per["up_round"]}
    leaning = sync(A.fedprox(lr=0.1, batch_size=5, steps=4), deadline_s=3.0, partial=True, quorum=1)
    assert any("fedprox takes unequal work" in w for w in plan(leaning, Local()).warnings)


def test_a_secure_round_takes_its_time_too():
    made = sync(secure=Secure(fidelity="ideal"), rounds=1)
    slowest = 4 * float(clock().speeds(np.arange(len(FED))).max())
    assert of(play(made), "round_done")[0].virtual_s == pytest.approx(slowest)
