"""Rounds that lose clients, fail, stop; evaluation; what events say."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from manyloom import algorithms as A
from manyloom.algorithms.recipe import CARDS
from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Job, Simulate
from tests.toys import classes, history, job, play, theta


def of(events, kind):
    return [e for e in events if e.type == kind]


def test_scheduled_faults_are_survived_and_named():
    events = play(job(simulate=Simulate(drop=["2:0", "3:3"])))
    assert [(e.round, e.client, e.reason) for e in of(events, "client_lost")] == [
        (2, 0, "simulated"),
        (3, 3, "simulated"),
    ]
    assert [(e.round, e.back, e.lost) for e in of(events, "round_done")] == [(1, 5, 0), (2, 4, 1), (3, 4, 1)]
    assert events[-1].status == "done"


def test_drawn_faults_follow_the_seed_and_their_rate():
    def lost(seed):
        fed = classes(sizes=(2,) * 40, test=0.0)
        events = play(
            job(federation=fed, rounds=10, seed=seed, quorum=1, simulate=Simulate(dropout=0.3), eval_every=10)
        )
        return [(e.round, e.client) for e in of(events, "client_lost")]

    assert lost(1) == lost(1) != lost(2)
    assert 80 < len(lost(1)) < 160  # 120 +- 4.4 sd


def test_below_quorum_a_round_is_tried_again_then_the_run_fails_and_says_so():
    events = play(job(quorum=5, simulate=Simulate(drop=["2:1"])))
    assert [(e.round, e.attempt) for e in of(events, "round_failed")] == [(2, 0), (2, 1)]
    last = events[-1]
    assert (last.status, last.error["code"]) == ("failed", "quorum")
    assert last.error["what"] == "round 2 got 4 replies and needs 5" and "lost by [simulate]" in last.error["got"]
    assert last.state.round == 1
    skipped = play(job(quorum=5, failed_round="skip", simulate=Simulate(drop=["2:1"])))
    assert skipped[-1].status == "done" and [e.code for e in of(skipped, "note")] == ["round-skipped"]
    assert len(of(play(job(quorum=5, retries=0, simulate=Simulate(drop=["2:1"]))), "round_failed")) == 1


def test_a_failed_attempt_leaves_no_trace_at_the_clients():
    """SCAFFOLD: clients that did train in the failed attempt must not keep its control variates."""
    algorithm = A.scaffold(lr=0.1, batch_size=5)
    two = play(job(algorithm, rounds=2, quorum=5, failed_round="skip", simulate=Simulate(drop=["2:1"])))[-1].state
    one = play(job(algorithm, rounds=1, quorum=5))[-1].state
    for name in one.clients:
        assert torch.equal(one.clients[name], two.clients[name])


class Moody(nn.Module):
    """Refuses rows whose first feature is above 100, as a client's broken data would make it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        if self.training and float(x.detach().abs().max()) > 100:
            raise RuntimeError("this row is odd")
        return self.layer(x)


def test_a_client_that_raises_is_lost_with_its_traceback_and_the_rest_goes_on():
    fed = classes(test=0.0)
    x, y = fed.slab(range(5)).gather()
    x[-1, 0] = 1e3  # of the last client
    off = np.cumsum([0, 30, 7, 18, 1, 25])
    broken = Federation.of_tensors(x, y, off, test=0.0, classes=3)
    job_ = Job(Task(Moody), A.fedavg(lr=0.1, batch_size=5), broken, rounds=2)
    events = play(job_)
    assert [(e.round, e.client, e.reason) for e in of(events, "client_lost")] == [(1, 4, "error"), (2, 4, "error")]
    first = of(events, "client_lost")[0]
    assert "this row is odd" in first.text and "in forward" in first.detail
    # the others trained as if the broken one had not been asked
    without = theta(Job(Task(Moody), A.fedavg(lr=0.1, batch_size=5), broken.subset([0, 1, 2, 3]), rounds=2))
    assert torch.equal(events[-1].state.server["theta"], without)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_contributes_nothing_and_is_named(value):
    fed = classes(test=0.0)
    x, y = fed.slab(range(5)).gather()
    off = np.cumsum([0, 30, 7, 18, 1, 25])

    class Poison(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x) * torch.where(x[:, :1] > 1e3, torch.tensor(value), torch.tensor(1.0))

    x[-1, 0] = 1e4
    poisoned = Federation.of_tensors(x, y, off, test=0.0, classes=3)
    events = play(Job(Task(Poison), A.fedavg(lr=0.1, batch_size=5), poisoned, rounds=1))
    assert [(e.client, e.reason) for e in of(events, "client_lost")] == [(4, "not-finite")]
    assert torch.isfinite(events[-1].state.server["theta"]).all()


def test_targets_patience_and_evaluation_rhythm():
    stopped = play(job(rounds=50, watch="accuracy", stop_at=0.5))
    assert stopped[-1].status == "stopped" and "reached the target 0.5" in stopped[-1].reason
    assert of(stopped, "evaluated")[-1].metrics["accuracy"] >= 0.5
    tired = play(job(A.fedavg(lr=1e-9), rounds=50, patience=2))
    assert tired[-1].status == "stopped" and tired[-1].state.round <= 4
    assert [e.round for e in of(play(job(rounds=5)), "evaluated")] == [0, 1, 2, 3, 4, 5]
    assert [e.round for e in of(play(job(rounds=5, eval_every=2)), "evaluated")] == [2, 4, 5]
    few = of(play(job(eval_cohort=2, federation=classes(sizes=(20, 20, 20, 20)))), "evaluated")
    assert all(len(e.clients) == 2 for e in few) and len({tuple(e.clients) for e in few}) > 1


def test_being_asked_to_stop_ends_after_the_round():
    from manyloom.job.loop import loop, start
    from manyloom.job.prepare import prepare
    from manyloom.runtime.local import Local

    j, runtime = job(), Local()
    ready = prepare(j, runtime)
    events = list(loop(j, runtime, ready, start(j, ready), stop=lambda: True))
    assert events[-1].status == "interrupted" and events[-1].state.round == 1


@pytest.mark.parametrize("recipe", A.RECIPES)
@pytest.mark.parametrize("at", [1, 2])
def test_going_on_from_any_state_is_bit_identical(recipe, at):
    j = job(A.RECIPES[recipe](**CARDS[recipe].example, lr=0.1, batch_size=5), cohort=3, rounds=4)
    whole = play(j)
    state = [e.state for e in whole if e.type == "round_done"][at - 1]
    rest = play(j, state=state)
    assert torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])
    assert history(rest) == [e for e in history(whole) if e["round"] > at]


def test_buffers_average_and_local():
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))  # noqa: E731
    with pytest.raises(BadInput) as error:
        play(Job(Task(net), A.fedavg(), classes(), rounds=1))
    assert error.value.code == "batchnorm" and 'layer "1" (4 channels)' in error.value.got
    average = play(Job(Task(net, buffers="average"), A.fedavg(batch_size=5), classes(), rounds=2))[-1]
    assert average.state.server["buffers"].shape == (8,) and average.state.server["buffers"].abs().sum() > 0
    assert not torch.equal(average.state.server["buffers"], torch.tensor([0.0] * 4 + [1.0] * 4))
    events = play(Job(Task(net, buffers="average"), A.fedavg(batch_size=5), classes(), rounds=1))
    assert [(e.client, e.text.split(":")[0]) for e in of(events, "client_lost")] == [(3, "took no step")]  # its one row
    local = play(Job(Task(net, buffers="local"), A.fedavg(batch_size=5), classes(), rounds=2))[-1]
    assert "buffers" not in local.state.server and local.state.clients["buffers"].shape[1] == 8
    assert len(set(map(tuple, local.state.clients["buffers"].tolist()))) > 1


def test_poisson_sampling_may_draw_nobody():
    fed = classes(sizes=(5,) * 10, test=0.0)
    events = play(job(federation=fed, cohort=0.02, sampling="poisson", rounds=20, eval_every=20))
    asked = [e.asked for e in of(events, "round_done")]
    assert 0 in asked and events[-1].status == "done"
    assert of(events, "note")[0].code == "cohort-empty"


def test_wrong_jobs_do_not_construct():
    for settings, code in [
        ({"cohort": 99}, "cohort-too-large"),
        ({"cohort": 0}, "out-of-range"),
        ({"rounds": 0}, "out-of-range"),
        ({"quorum": 6}, "out-of-range"),
        ({"watch": "auc"}, "unknown-name"),
        ({"sampling": "poisson"}, "out-of-range"),
        ({"min_available": 9}, "out-of-range"),
        ({"simulate": Simulate(drop=["2:nobody"])}, "out-of-range"),
        ({"simulate": Simulate(dropout=1.5)}, "out-of-range"),
    ]:
        with pytest.raises(BadInput) as error:
            job(**settings)
        assert error.value.code == code, settings
    with pytest.raises(BadInput) as error:
        replace(job(), task=Task(lambda: nn.Linear(6, 3), metrics=["auc", "rmse"]))
    assert {p.code for p in error.value.problems} == {"metric-target"} and len(error.value.problems) == 2


def test_a_model_that_does_not_fit_is_refused_before_anything_trains():
    for net, code in [(lambda: nn.Linear(6, 1), "model-labels"), (lambda: nn.Linear(5, 3), "model-input")]:
        with pytest.raises(BadInput) as error:
            play(replace(job(), task=Task(net)))
        assert error.value.code == code
