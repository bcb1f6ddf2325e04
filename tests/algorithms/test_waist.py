"""The waist end to end: numbers by hand, identities that must hold to the bit, nothing that depends on order."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom import algorithms as A
from manyloom.algorithms.recipe import CARDS
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Execution, Job
from manyloom.server import momentum
from tests.toys import ThreeNumbers, classes, history, job, play, task, theta

LOCAL = {"lr": 0.1, "batch_size": 5, "epochs": 2}


def two_clients(**keys):
    """Two clients, three parameters, one batch each: client 0 has one row, client 1 three."""
    x = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 2.0, 0], [0, 0, 1.0]])
    y = torch.tensor([1.0, 1.0, 0.0, 3.0])
    fed = Federation.of_tensors(x, y, [[0], [1, 2, 3]], test=0.0, target="number")
    return Job(Task(ThreeNumbers, "mse", ["rmse"]), A.fedavg(lr=0.5, batch_size=4, **keys), fed, rounds=1)


def test_fedavg_by_hand():
    """From 0, loss (w.x - y)^2, gradient -2 y x: client 0: (-2, 0, 0), w0 = (1, 0, 0); client 1: mean of
    (0, -2, 0), 0, (0, 0, -6) = (0, -2/3, -2), w1 = (0, 1/3, 1). Weighted 1 : 3 and 1 : 1."""
    assert theta(two_clients()).tolist() == pytest.approx([1 / 4, 1 / 4, 3 / 4])
    assert theta(two_clients(weights="uniform")).tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 2])


def test_scaffold_by_hand():
    """Round 1 from c = 0 is uniform FedAvg; then c_i = -u_i/(K lr) = gradient of client i at 0, c their mean."""
    j = two_clients()
    done = play(replace(j, algorithm=A.scaffold(lr=0.5, batch_size=4)))[-1].state
    assert done.server["theta"].tolist() == pytest.approx([1 / 2, 1 / 6, 1 / 2])
    assert done.server["c"].tolist() == pytest.approx([-1.0, -1 / 3, -1.0])
    own = dict(zip(done.clients["clients"].tolist(), done.clients["c_i"].tolist()))
    assert own[0] == pytest.approx([-2.0, 0, 0]) and own[1] == pytest.approx([0, -2 / 3, -2.0])


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
def test_identities_hold_to_the_bit(name):
    """mu 0 is FedAvg, beta 0 is FedAvg, an untouched server momentum is FedAvg."""
    run = {"execution": Execution(name=name)}
    plain = theta(job(A.fedavg(**LOCAL), **run))
    assert torch.equal(plain, theta(job(A.fedprox(mu=0.0, **LOCAL), **run)))
    assert torch.equal(plain, theta(job(A.fedavgm(server=momentum(beta=0.0), **LOCAL), **run)))
    assert torch.equal(plain, theta(job(A.fedavg(steps=None, **LOCAL), **run)))
    assert not torch.equal(plain, theta(job(A.fedprox(mu=0.1, **LOCAL), **run)))


def test_equal_sizes_make_samples_and_uniform_weights_alike():
    fed = classes(sizes=(20, 20, 20))
    same = [theta(job(A.fedavg(weights=w, **LOCAL), fed)) for w in ("samples", "uniform")]
    torch.testing.assert_close(*same, rtol=1e-6, atol=1e-7)


def test_one_client_with_everything_is_central_sgd():
    """Against a plain torch loop with torch's own optimiser, over the engine's own order of rows."""
    from manyloom.core import seeds

    fed = classes(sizes=(40,), test=0.0)
    j = job(A.fedavg(lr=0.1, batch_size=8, momentum=0.9, weight_decay=0.01), fed, rounds=1)
    from manyloom.job.job import shape_of
    from manyloom.job.prepare import first_model

    layout, start, _ = first_model(j.task, shape_of(fed), j.seed)
    net = j.task.build(shape_of(fed))
    layout.load(net, start)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    x, y = fed.slab([0]).gather()
    order = seeds.permutations(seeds.key(j.seed, 1, fed.ids, "shuffle", 0), np.array([40]))[0]
    for rows in order.reshape(5, 8):
        sgd.zero_grad()
        torch.nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
        sgd.step()
    torch.testing.assert_close(theta(j), layout.flatten(net), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", A.RECIPES)
def test_the_order_of_clients_changes_nothing(recipe):
    """Named clients, listed in another order: the same model to float32's rounding of a sum of another order."""
    sizes, names = (30, 7, 18, 1, 25), ["a", "b", "c", "d", "e"]
    fed = classes(sizes=sizes, test=0.0)
    x, y = fed.slab(range(5)).gather()
    off = np.concatenate([[0], np.cumsum(sizes)])
    parts = [np.arange(a, b) for a, b in zip(off[:-1], off[1:])]

    def federation(order):
        return Federation.of_tensors(
            x, y, [parts[i] for i in order], names=[names[i] for i in order], test=0.0, classes=3
        )

    by_name = {"target_client": "a"} if "target_client" in CARDS[recipe].example else {}
    algorithm = A.RECIPES[recipe](**{**CARDS[recipe].example, **by_name}, **LOCAL)
    one, other = (theta(job(algorithm, federation(o), rounds=2)) for o in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", A.RECIPES)
def test_both_engines_give_the_same_model_and_repeat_to_the_bit(recipe):
    algorithm = A.RECIPES[recipe](**CARDS[recipe].example, **LOCAL)
    runs = {n: [play(job(algorithm, cohort=4, execution=Execution(name=n))) for _ in range(2)]
            for n in ("sequential", "vectorised")}  # fmt: skip
    for first, second in runs.values():
        assert history(first) == history(second)
        assert torch.equal(first[-1].state.server["theta"], second[-1].state.server["theta"])
    a, b = (r[0][-1].state.server["theta"] for r in runs.values())
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(1,), (3,), (2, 50), (1, 1, 1), (0, 5, 0, 9)])
def test_few_ragged_and_empty_clients(sizes):
    fed = classes(sizes=sizes, test=0.0)
    done = play(job(A.scaffold(lr=0.1, batch_size=32), fed))[-1]
    assert done.status == "done" and torch.isfinite(done.state.server["theta"]).all()


def test_a_seed_decides_everything_and_another_decides_otherwise():
    assert history(play(job(cohort=3))) == history(play(job(cohort=3)))
    assert history(play(job(cohort=3))) != history(play(job(cohort=3, seed=2)))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    play(job())
    assert torch.equal(before, torch.get_rng_state())


def test_schedules_over_rounds():
    """Round 2 of an exponential schedule with decay .5 is a run at half the rate from the same model."""
    fed = classes()
    both = play(job(A.fedavg(lr=0.2, lr_schedule="exponential", lr_decay=0.5, batch_size=5), fed, rounds=2))
    first = [e.state for e in both if e.type == "round_done"][0]
    half = play(job(A.fedavg(lr=0.1, batch_size=5), fed, rounds=2), state=first)[-1].state
    torch.testing.assert_close(both[-1].state.server["theta"], half.server["theta"])
    cosine = play(job(A.fedavg(lr=0.2, lr_schedule="cosine", batch_size=5), fed, rounds=1))[-1].state
    plain = play(job(A.fedavg(lr=0.2, batch_size=5), fed, rounds=1))[-1].state
    assert torch.equal(cosine.server["theta"], plain.server["theta"])  # cosine starts at the full rate


def test_half_a_pass_and_exact_steps():
    fed = classes(sizes=(20, 20), test=0.0)
    steps = {k: [e.steps for e in play(job(A.fedavg(batch_size=5, **v), fed, rounds=1)) if e.type == "client_done"]
             for k, v in {"half": {"epochs": 0.5}, "seven": {"steps": 7}, "two": {"epochs": 2}}.items()}  # fmt: skip
    assert steps == {"half": [2, 2], "seven": [7, 7], "two": [8, 8]}
    assert task().metrics == ["accuracy"]
