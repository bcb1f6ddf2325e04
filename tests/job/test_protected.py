"""A secure run is the plain run to the rounding; what the hub hears; what it counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import manyloom as ml
from manyloom import algorithms as A
from manyloom.algorithms.evaluation import evaluate
from manyloom.core.exchange import Reply
from manyloom.core.exchange import play as talk
from manyloom.core.task import Task
from manyloom.job.job import Execution, Job
from manyloom.job.plan import plan
from manyloom.job.prepare import prepare
from manyloom.runtime.local import Local
from manyloom.secure import wire
from manyloom.secure.channel import DIMS, over
from manyloom.secure.settings import Secure
from tests.toys import Listening, classes, history, hospitals, of, play, secured, theta

LOCAL = {"lr": 0.1, "batch_size": 5}
BUT = ("fedper", "fedbuff", "coral")  # the first needs a key of its own, the others are refused beside [secure]
SUMMABLE = [n for n, make in A.RECIPES.items() if n not in BUT and set(make().work.sends.values()) == {"d"}]
S = 2**18


def plain(secure_job: Job) -> Job:
    return replace(secure_job, secure=None)


@pytest.mark.parametrize("recipe", SUMMABLE)
def test_a_secure_round_is_the_plain_round_to_the_rounding(recipe):
    """Each client rounds by less than 1/S and the weights sum to more than two; a server's steps may amplify it."""
    j = secured(A.RECIPES[recipe](**LOCAL), rounds=2)
    done, open_ = play(j)[-1], play(plain(j))[-1]
    assert done.status == "done" and not torch.equal(done.state.server["theta"], open_.state.server["theta"])
    torch.testing.assert_close(done.state.server["theta"], open_.state.server["theta"], rtol=0, atol=12 / S)
    for name in set(open_.state.server) - {"theta"}:  # c of scaffold, m and v of adam
        torch.testing.assert_close(done.state.server[name], open_.state.server[name], rtol=1e-3, atol=20 / S)


def test_the_recipes_with_numbers_of_their_own_are_the_only_ones_left_out():
    assert {"fedavg", "fedprox", "scaffold", "fedadam"} <= set(SUMMABLE) and "fednova" not in SUMMABLE


@pytest.mark.parametrize("weights", ["samples", "uniform"])
def test_one_round_by_the_bound_and_a_coarse_scale_beyond_it(weights):
    """|mean - plain mean| < n / (S sum w), w = n_i / cap by samples, 1 if uniform; a planted coarse scale is beyond."""
    j = secured(A.fedavg(weights=weights, **LOCAL), rounds=1, eval_every=9)
    sizes = j.federation.sizes
    w = sizes / sizes.max() if weights == "samples" else np.ones(5)
    bound = 5 / (S * w.sum()) + 1e-7
    want = theta(plain(j))
    assert (theta(j) - want).abs().max() < bound
    assert (theta(replace(j, secure=j.secure._replace(scale=256))) - want).abs().max() > bound


@pytest.mark.parametrize("mode", ["active", "semi"])
def test_full_and_ideal_are_the_same_integers_model_and_bytes(mode):
    runs = []
    for fidelity in ("full", "ideal"):
        runtime = Listening()
        events = play(secured(table={"fidelity": fidelity, "mode": mode}, rounds=2), runtime)
        masked = [torch.cat([r.body["masked"] for r in answers if isinstance(r, Reply)]).numpy().view(np.uint32).sum(0)
                  for _, answers in runtime.of(wire.VERBS[2])]  # fmt: skip
        runs.append((events, masked))
    (full, masked), (ideal, bare) = runs
    assert history(full) == history(ideal)  # with bytes of training, of its channel, of evaluations
    assert torch.equal(full[-1].state.server["theta"], ideal[-1].state.server["theta"])
    assert all(len(a) == len(b) for a, b in zip(masked, bare)) and len(masked) == len(bare) == 5
    assert not any(np.array_equal(a, b) for a, b in zip(masked, bare))  # self masks are in the one, not in the other
    first = of(full, "round_done")[0]
    assert first.secure["up"] > 4 * 83 * 5 and of(full, "evaluated")[0].bytes_up > 2 * 24 * 5  # the channel's too


@pytest.mark.parametrize("recipe", ["fedavg", "scaffold"])
def test_a_secure_run_repeats_bit_for_bit_and_in_both_engines_to_tolerance(recipe):
    found = {}
    for name in ("sequential", "vectorised"):
        j = secured(A.RECIPES[recipe](**LOCAL), cohort=4, rounds=2, execution=Execution(name=name))
        one, two = play(j), play(j)
        assert history(one) == history(two)
        assert torch.equal(one[-1].state.server["theta"], two[-1].state.server["theta"])
        found[name] = one[-1].state.server["theta"]
    torch.testing.assert_close(*found.values(), rtol=1e-4, atol=1e-5)
    other = theta(secured(A.RECIPES[recipe](**LOCAL), cohort=4, rounds=2, seed=2))
    assert not torch.allclose(other, found["sequential"], atol=1e-3)


@pytest.mark.parametrize("clients", [5, 24])
def test_metrics_equal_the_plain_ones(clients):
    """Loss, accuracy and auc of a trained model, over all clients; 24 need more than the least three in a sum."""
    rng = np.random.default_rng(0)
    fed = classes(sizes=rng.integers(15, 30, clients), n_classes=2, test=0.3)
    task = Task(lambda: nn.Linear(6, 1), "binary", ["accuracy", "auc"])
    base = Job(task, A.fedavg(**LOCAL), fed, rounds=1)
    model = {"theta": torch.randn(7, generator=torch.Generator().manual_seed(1))}
    found = []
    for j in (base, replace(base, secure=Secure(fidelity="full" if clients < 9 else "ideal"))):
        runtime = Local()
        ready = prepare(j, runtime)
        asked = evaluate(np.arange(clients), model, j.metrics, round=1, alone=j.alone)
        found.append(talk(over(asked, ready.channel) if ready.channel else asked, runtime.ask))
    open_, hidden = found
    assert set(hidden.metrics) == {"loss", "accuracy", "auc"} and not hidden.each and not hidden.lost
    assert hidden.metrics == pytest.approx(dict(open_.metrics), abs=1e-9) and 0 < hidden.metrics["auc"] < 1
    assert int(hidden.rows.sum()) == int(fed.tests.sum()) == int(open_.rows.sum())


def test_statistics_equal_the_plain_ones():
    """Means and scales of the four hospitals, as sums that the hub can't take apart."""
    path = "examples/private_hospitals/hospitals.toml"
    hidden, runtime = ml.Job.from_toml(path, {"job.rounds": 1, "simulate.drop": []}), Listening()
    a = prepare(hidden, runtime).preprocess
    b = prepare(replace(hidden, secure=None), Local()).preprocess
    np.testing.assert_allclose(a.mean, b.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(a.sd, b.sd, rtol=1e-9)
    [(_, answers)] = runtime.of("statistics")
    assert {n.startswith(DIMS) for r in answers for n in r.body} == {True}
    assert a.notes == ()  # which hospital has no value of a column is not told


def test_nothing_of_one_client_reaches_the_hub():
    runtime = Listening()
    events = play(secured(table={"fidelity": "full"}), runtime)
    theirs = {"advert", "sealed", "masked", "sign", "b", "s"}
    for ask, answers in runtime.heard:
        if ask.verb == "prepare":
            continue
        for reply in answers:
            assert isinstance(reply, Reply)
            for name, tensor in reply.body.items():
                assert name in theirs or name.startswith(DIMS), (ask.verb, name)
                assert not tensor.is_floating_point()
    sent = [r.body["masked"].numpy().tobytes() for _, a in runtime.of(wire.VERBS[2]) for r in a]
    assert len(set(sent)) == len(sent) == 35  # 3 rounds and 4 evaluations of five clients, no two alike
    assert all(not e.clients and not e.spread for e in of(events, "evaluated"))
    assert all(e.metrics for e in of(events, "evaluated"))
    assert {(e.samples, e.steps, e.loss) for e in of(events, "client_done")} == {(None, None, None)}


def test_client_metrics_are_there_only_where_the_job_releases_them():
    assert len(of(play(secured(client_metrics="release", rounds=1)), "evaluated")[0].clients) == 5
    assert not of(play(secured(rounds=1)), "evaluated")[0].clients
    one, all_ = (of(play(secured(client_metrics=c, rounds=1)), "evaluated")[-1].metrics for c in ("release", "auto"))
    assert all_ == pytest.approx(dict(one), abs=1e-6)


def test_coordinates_beyond_the_range_are_cut_and_counted():
    wide, narrow = (play(secured(table={"range": r}, rounds=1, eval_every=9)) for r in (8.0, 0.01))
    assert of(wide, "round_done")[0].guard["cut"] == 0 and of(narrow, "round_done")[0].guard["cut"] == 5
    start = prepare(secured(), Local()).theta
    moved = (narrow[-1].state.server["theta"] - start).abs()
    assert float(moved.max()) == pytest.approx(0.01, abs=2 / S) and (moved > 0.009).any()
    assert (wide[-1].state.server["theta"] - start).abs().max() > 0.02  # it would have gone further


def test_the_training_loss_is_the_plain_one_to_its_own_rounding():
    j = secured()
    for a, b in zip(of(play(j), "round_done"), of(play(plain(j)), "round_done")):
        assert a.loss_train == pytest.approx(b.loss_train, abs=1e-3) and a.loss_train != b.loss_train


@pytest.mark.parametrize("table", [{}, {"mode": "semi"}, {"fidelity": "full"}])
@pytest.mark.parametrize("settings", [{}, {"cohort": 4, "client_metrics": "release"}])
def test_the_plan_tells_the_bytes_of_a_secure_run(table, settings):
    for recipe in ("fedavg", "scaffold"):
        j = secured(A.RECIPES[recipe](**LOCAL), table=table, rounds=2, **settings)
        rounds, told = of(play(j), "round_done"), plan(j, Local()).bytes
        assert told["up"] == sum(e.bytes_up + e.secure["up"] for e in rounds)
        assert told["down"] == sum(e.bytes_down + e.secure["down"] for e in rounds)


def test_running_statistics_travel_inside_the_sum():
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))  # noqa: E731
    j = Job(Task(net, buffers="average"), A.fedavg(lr=0.1, batch_size=5), hospitals(), rounds=2,
            secure=Secure(fidelity="ideal"))  # fmt: skip
    hidden, open_ = (play(x)[-1].state.server for x in (j, plain(j)))
    assert not torch.equal(hidden["buffers"], torch.tensor([0.0] * 4 + [1.0] * 4))
    for name in ("theta", "buffers"):
        torch.testing.assert_close(hidden[name], open_[name], rtol=0, atol=20 / S)
