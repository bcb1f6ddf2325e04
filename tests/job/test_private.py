"""Runs under a privacy claim: what is summed, noised and divided by, and that no seed reaches it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from manyloom import algorithms as A
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Job, Simulate
from manyloom.job.plan import plan
from manyloom.job.prepare import prepare
from manyloom.privacy.settings import Privacy
from manyloom.runtime.local import Local
from manyloom.secure import wire
from manyloom.secure.channel import PARAMS, SUM
from manyloom.secure.params import Params
from manyloom.server import sgd
from tests.toys import Listening, ThreeNumbers, classes, of, play, private, theta, writers

STILL = A.fedavg(lr=1e-30, batch_size=5)  # updates too small to change a float: what moves the model is noise


def wide(**settings) -> Job:
    """50,100 parameters, 20 clients of two rows."""
    fed = classes(sizes=(2,) * 20, features=500, n_classes=100, test=0.0)
    task = Task(lambda: nn.Linear(500, 100))
    table = {"clip": 0.5, "noise_multiplier": 1.0, **settings.pop("table", {})}
    return Job(task, STILL, fed, privacy=Privacy(**table), **{"rounds": 1, "cohort": 1.0, "eval_every": 99, **settings})


def outside(x: np.ndarray, sigma: float) -> bool:
    """Whether a sample of so many values refutes N(0, sigma^2): chi-squared of its squares, five deviations."""
    chi = float((x.astype(float) ** 2).sum()) / sigma**2
    return abs(chi - len(x)) > 5 * math.sqrt(2 * len(x))


# ---- noise


@pytest.mark.parametrize("cohort", [1.0, 0.5, 10])
def test_the_noise_on_the_model_is_z_clip_over_the_expected_cohort(cohort):
    j = wide(cohort=cohort)
    start = prepare(j, Local()).theta
    moved = (theta(j) - start).double().numpy()
    sigma = 1.0 * 0.5 / (20 if cohort == 1.0 else 10)
    assert not outside(moved, sigma) and outside(moved, 1.03 * sigma) and outside(moved, 0.97 * sigma)
    assert stats.kstest(moved / sigma, "norm").pvalue > 1e-6
    assert abs(moved.mean()) < 5 * sigma / math.sqrt(len(moved))


def test_two_percent_too_little_noise_is_found(monkeypatch):
    """The planted error: two runs of four rounds, one with noise that is two percent short."""
    from manyloom.algorithms import guarded

    def total(shrink: float) -> np.ndarray:
        real = guarded.mechanisms.noised
        with monkeypatch.context() as patch:
            patch.setattr(guarded.mechanisms, "noised", lambda x, sigma, *a, **k: real(x, shrink * sigma, *a, **k))
            states = [e.state.server["theta"] for e in of(play(wide(rounds=4)), "round_done")]
        steps = [b - a for a, b in zip([prepare(wide(), Local()).theta, *states], states)]
        return torch.cat(steps).double().numpy()

    assert not outside(total(1.0), 0.025) and outside(total(0.98), 0.025)


def test_under_an_adaptive_clip_the_noise_is_that_of_this_rounds_clip():
    """All updates are within the clip, so it shrinks by a tenth a round: C_t and C_t+1 are told apart."""
    j = wide(rounds=3, table={"adaptive": True})
    done = of(play(j), "round_done")
    states = [prepare(j, Local()).theta, *(e.state.server["theta"] for e in done)]
    for before, after, event in zip(states, states[1:], done):
        moved = (after - before).double().numpy()
        c, ahead = event.guard["clip"], event.guard["next_clip"]
        assert ahead < 0.95 * c
        assert not outside(moved, j.protection.z_update * c / 20) and outside(moved, j.protection.z_update * ahead / 20)
    assert [e.guard["clip"] for e in done[1:]] == [e.guard["next_clip"] for e in done[:-1]]
    assert j.protection.z_update == pytest.approx((1 - (2 * 20 / 20) ** -2) ** -0.5)


def test_no_seed_reaches_noise_or_cohorts():
    def once(seed: int):
        torch.manual_seed(5)
        np.random.seed(5)
        random.seed(5)
        events = play(private(STILL, cohort=0.5, rounds=2, seed=seed))
        return [tuple(e.cohort) for e in of(events, "round_started")], events[-1].state.server["theta"]

    (first, a), (second, b) = once(1), once(1)
    assert first != second and len(set(first + second)) == 4
    assert not torch.equal(a, b) and (a - b).abs().min() > 0


def test_what_is_added_does_not_depend_on_what_was_drawn_before():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    play(private(rounds=1))
    assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


# ---- what is summed


def quiet(algorithm=None, federation=None, table=None, **settings) -> Job:
    """So little noise that the sum can be seen: for tests of what is in it."""
    return private(algorithm, federation, table={"clip": 5.0, "noise_multiplier": 1e-3, **(table or {})}, **settings)


def mean_of(j: Job) -> torch.Tensor:
    """The plain, uniform mean of the same clients' updates."""
    open_ = replace(j, privacy=None, algorithm=A.fedavg(lr=0.1, batch_size=5, weights="uniform"))
    return theta(open_) - prepare(open_, Local()).theta


@pytest.mark.parametrize("lost", [0, 20])
def test_the_denominator_is_the_expected_cohort_whoever_is_lost(lost):
    j = quiet(rounds=1, quorum=0.3, simulate=Simulate(drop=[f"1:{c}" for c in range(lost)]))
    moved = theta(j) - prepare(j, Local()).theta
    want = mean_of(j) * (40 - lost) / 40
    torch.testing.assert_close(moved, want, rtol=0, atol=6 * 1e-3 * 5 / 40)
    assert lost == 0 or (moved - mean_of(j)).abs().max() > 0.01  # the realised cohort would be this far off


def test_every_client_weighs_one_however_many_rows_it_has():
    fed = classes(sizes=(100, 4, 4, 4, 4, 4, 4, 4), test=0.0)
    j = quiet(federation=fed, rounds=1)
    assert j.algorithm.weights == "uniform"
    moved = theta(j) - prepare(j, Local()).theta
    torch.testing.assert_close(moved, mean_of(j), rtol=0, atol=6 * 1e-3 * 5 / 8)
    weighted = replace(j, privacy=None, algorithm=A.fedavg(lr=0.1, batch_size=5, weights="samples"))
    assert (theta(weighted) - theta(j)).abs().max() > 0.01


def ints_of(runtime: Listening) -> list[np.ndarray]:
    return [r.body[SUM][0].numpy() for _, answers in runtime.of("train") for r in answers if hasattr(r, "body")]


def test_the_whole_update_is_clipped_not_each_layer():
    """One client, two layers: its integers have the norm S, together."""
    fed, others = writers(5), ["1:1", "1:2", "1:3", "1:4"]
    j = private(A.fedavg(lr=5.0, batch_size=1), fed, rounds=1, quorum=1, simulate=Simulate(drop=others))
    runtime = Listening()
    play(j, runtime)
    [q] = ints_of(runtime)
    scale = j.protection.scale(83)
    first, second = q[1 : 1 + 56].astype(float), q[57:].astype(float)  # 6 x 8 + 8, 8 x 3 + 3
    whole = np.linalg.norm(q[1:].astype(float))
    assert q[0] == 1 and len(q) == 84 and 0.99 * scale < whole <= scale
    assert 0.05 * scale < np.linalg.norm(first) < 0.99 * scale and 0.05 * scale < np.linalg.norm(second) < 0.99 * scale


def test_a_client_that_is_not_finite_contributes_nothing_and_is_named():
    x, y = writers(6).slab(range(6)).gather()
    x[-1, 0] = 1e4

    class Poison(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x) * torch.where(x[:, :1] > 1e3, torch.tensor(math.nan), torch.tensor(1.0))

    fed = Federation.of_tensors(x, y, np.arange(0, 25, 4), test=0.0, classes=3)
    runtime = Listening()
    j = Job(Task(Poison), A.fedavg(lr=0.1), fed, rounds=1, cohort=1.0, privacy=Privacy(clip=1.0, noise_multiplier=1.0))
    events = play(j, runtime)
    assert [(e.client, e.reason) for e in of(events, "client_lost")] == [(5, "not-finite")]
    assert of(events, "round_done")[0].guard["not_finite"] == 1 and ints_of(runtime)[0][0] == 5
    assert torch.isfinite(events[-1].state.server["theta"]).all()


def test_an_empty_cohort_makes_a_noisy_accounted_round():
    events = play(private(STILL, cohort=0.02, rounds=8, table={"noise_multiplier": 1.0, "accountant": "rdp"}))
    asked = {e.round: e.asked for e in of(events, "round_started")}
    empty = next(r for r, n in asked.items() if n == 0)
    states = {e.round: e.state.server["theta"] for e in of(events, "round_done")}
    before = states.get(empty - 1, prepare(private(STILL), Local()).theta)
    assert ((states[empty] - before).abs() > 0).all()
    assert [e.round for e in of(events, "released")] == list(range(1, 9))


def test_running_statistics_get_no_noise_and_do_not_travel():
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))  # noqa: E731
    runtime = Listening()
    j = Job(Task(net, buffers="local"), A.fedavg(lr=1e-30, batch_size=4), writers(6), rounds=1, cohort=1.0,
            privacy=Privacy(clip=1.0, noise_multiplier=1.0))  # fmt: skip
    state = play(j, runtime)[-1].state
    assert set(state.server) == {"theta"} and len(ints_of(runtime)[0]) == 1 + 28 + 8 + 15
    assert (state.clients["buffers"][:, 4:] > 0).all()  # variances, each client's own


def test_a_private_round_sends_integers_and_tells_no_client():
    runtime = Listening()
    events = play(private(rounds=1, eval_every=1, federation=classes(sizes=(10,) * 8, test=0.3)), runtime)
    [(ask, answers)] = runtime.of("train")
    assert {n for r in answers for n in r.body} == {SUM} and answers[0].body[SUM].shape[0] == 1
    params = Params.from_bytes(wire.raw(ask.body[PARAMS]))
    assert (params.mode, params.noise, params.weights) == ("plain", "central", "one")
    assert all(not e.clients and e.metrics for e in of(events, "evaluated"))
    assert {(e.samples, e.loss) for e in of(events, "client_done")} == {(None, None)}


# ---- adaptive clipping


def rulers(n: int) -> Federation:
    """Client i has one row, x = (i + 1, 0, 0) and y = 1: from w = 0 its update has the norm 2 lr (i + 1)."""
    x = torch.zeros(n, 3)
    x[:, 0] = torch.arange(1, n + 1)
    return Federation.of_tensors(x, torch.ones(n), [[i] for i in range(n)], test=0.0, target="number")


@pytest.mark.parametrize("start", [0.02, 20.0])
@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_the_clip_finds_the_quantile_from_below_and_from_above(start, quantile):
    table = Privacy(clip=start, noise_multiplier=0.5, adaptive=True, quantile=quantile, clip_lr=1.0)
    algorithm = A.fedavg(lr=0.05, batch_size=1, server=sgd(1e-9))  # the model stays at zero, and so do the norms
    j = Job(Task(ThreeNumbers, "mse", ["rmse"]), algorithm, rulers(40), rounds=30, cohort=1.0, privacy=table)
    done = of(play(j), "round_done")
    clips = [e.guard["clip"] for e in done]
    assert clips[0] == start and (clips[5] > 2 * start if start < 1 else clips[5] < start / 2)
    assert np.mean(clips[-12:]) == pytest.approx(2 * 0.05 * 40 * quantile, rel=0.25)
    assert all(-0.3 < e.guard["unclipped"] < 1.3 for e in done)


def test_the_clip_goes_on_where_it_was_and_costs_what_was_planned():
    j = private(STILL, rounds=4, table={"clip": 0.3, "noise_multiplier": 2.0, "adaptive": True})
    whole = play(j)
    done = of(whole, "round_done")
    rest = play(j, state=done[1].state)
    assert of(rest, "round_done")[0].guard["clip"] == done[1].guard["next_clip"] != 0.3
    assert whole[-1].privacy == plan(j, Local()).privacy and "0.5 quantile" in whole[-1].privacy["mechanism"]
    assert {e.what for e in of(whole, "released")} == {"update, clip bit"}  # one record: the pair costs z
    assert [e.clip for e in of(whole, "released")] == [e.guard["clip"] for e in done]


def test_a_failed_round_leaves_the_clip_as_it_was():
    faults = Simulate(drop=[f"1:{c}" for c in range(20)])
    j = private(
        STILL, rounds=2, failed_round="skip", table={"noise_multiplier": 2.0, "adaptive": True}, simulate=faults
    )
    events = play(j)
    assert len(of(events, "round_failed")) == 2 and of(events, "round_done")[1].guard["clip"] == 1.0
