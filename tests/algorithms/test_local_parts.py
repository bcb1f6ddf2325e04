"""FedPer, FedBN and fine-tuning: what stays at the client never travels, and a client is judged by what is its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from manyloom import algorithms as A
from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Execution, Job, shape_of
from manyloom.job.plan import message_bytes
from manyloom.job.prepare import first_model, module_of, prepare
from manyloom.runtime.local import Local
from tests.toys import ThreeNumbers, classes, job, play, theta

LOCAL = {"lr": 0.1, "batch_size": 5, "epochs": 2}
HEAD = 8 * 3 + 3  # of the toy's 83 parameters: "2.weight" [3, 8], "2.bias" [3]


class Two(nn.Module):
    """y = a x_0 + b x_1 + c x_2, from zero, in two named parts."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Parameter(torch.zeros(2))
        self.head = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * torch.cat([self.body, self.head])).sum(-1, keepdim=True)


def test_fedper_by_hand():
    """Client 0 has x = (1, 0, 1), y = 1; client 1 has x = (0, 1, 1), y = 2; loss (w x - y)^2, lr .25, uniform.

    Round 1, gradients -2 y x: client 0 goes to (.5, 0 | .5), client 1 to (0, 1 | 1): body (.25, .5).
    Round 2: client 0 is at (.25, .5 | .5), error -.25: (.375, .5 | .625); client 1 at (.25, .5 | 1), error -.5:
    (.25, .75 | 1.25). Body (.3125, .625).
    """
    x, y = torch.tensor([[1.0, 0, 1], [0, 1, 1]]), torch.tensor([1.0, 2.0])
    fed = Federation.of_tensors(x, y, [[0], [1]], test=0.0, target="number")
    a = A.fedper(local=["head"], lr=0.25, weights="uniform")
    one, two = (play(Job(Task(Two, "mse", []), a, fed, rounds=r))[-1].state for r in (1, 2))
    assert one.server["theta"].tolist() == [0.25, 0.5] and two.server["theta"].tolist() == [0.3125, 0.625]
    assert one.clients["own"].tolist() == [[0.5], [1.0]] and two.clients["own"].tolist() == [[0.625], [1.25]]


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
def test_only_the_shared_part_travels(name: str):
    j = job(A.fedper(local=["2.*"], **LOCAL), execution=Execution(name=name))
    events = play(j)
    state = events[-1].state
    layout = first_model(j.task, shape_of(j.federation), j.seed)[0]
    assert state.server["theta"].shape == (layout.d - HEAD,) and state.clients["own"].shape == (5, HEAD)
    assert len({tuple(v) for v in state.clients["own"].tolist()}) == 5
    done = next(e for e in events if e.type == "round_done")
    up, down = message_bytes(j, prepare(j, Local()))
    assert (done.bytes_up, done.bytes_down) == (5 * up, 5 * down) and down == 4 * (layout.d - HEAD)


def test_a_client_is_judged_with_its_own_head_and_a_stranger_with_the_first_one():
    """By hand from the state: shared part and own head put together, accuracy over its own held-out rows."""
    fed = classes(sizes=(30, 20, 25, 40), test=0.3)
    events = play(job(A.fedper(local=["2.*"], **LOCAL), fed, cohort=2, rounds=1))
    state, judged = events[-1].state, [e for e in events if e.type == "evaluated"][-1]
    net = job().task.build(shape_of(fed))
    layout, start, _ = first_model(job().task, shape_of(fed), 1)
    own = dict(zip(state.clients["clients"].tolist(), state.clients["own"]))
    assert len(own) == 2
    for i in range(4):
        layout.load(net, torch.cat([state.server["theta"], own.get(i, start[-HEAD:])]))
        x, y = fed.slab([i], "test").gather()
        right = float((net(x).argmax(-1) == y).float().mean())
        assert judged.clients[i]["accuracy"] == pytest.approx(right)


def test_the_saved_model_has_the_shared_part_and_the_first_head():
    j = job(A.fedper(local=["2.*"], **LOCAL))
    state, shape = play(j)[-1].state, shape_of(j.federation)
    layout, first, _ = first_model(j.task, shape, j.seed)
    net = module_of(j.task, shape, j.seed, state.server, j.algorithm.server.model(state.server), j.algorithm.local)
    assert torch.equal(layout.flatten(net), torch.cat([state.server["theta"], first[-HEAD:]]))


def batchnorm(**more) -> Task:
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))  # noqa: E731
    return Task(net, **more)


def test_fedbn_keeps_weights_and_statistics_at_the_client():
    j = Job(batchnorm(buffers="local"), A.fedbn(**LOCAL), classes(), rounds=2)
    state = play(j)[-1].state
    assert state.server["theta"].shape == (6 * 4 + 4 + 4 * 3 + 3,)
    assert state.clients["own"].shape == (4, 8) and state.clients["buffers"].shape == (4, 8)
    named = play(replace(j, algorithm=A.fedbn(local=["1.*"], **LOCAL)))[-1].state
    assert torch.equal(named.server["theta"], state.server["theta"])
    for buffers, code in (("refuse", "batchnorm"), ("average", "fedbn-buffers")):
        with pytest.raises(BadInput) as error:
            play(replace(j, task=batchnorm(buffers=buffers)))
        assert error.value.code == code


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
def test_fedbn_without_batchnorm_is_fedavg_to_the_bit(name: str):
    run = {"execution": Execution(name=name)}
    assert torch.equal(theta(job(A.fedbn(**LOCAL), **run)), theta(job(A.fedavg(**LOCAL), **run)))


def test_what_fedper_refuses():
    for local, code in (([], "out-of-range"), ("2.*", "wrong-type")):
        with pytest.raises(BadInput) as error:
            A.fedper(local=local)
        assert error.value.code == code
    for local, code in ((["haed.*"], "unknown-part"), (["*"], "nothing-shared")):
        with pytest.raises(BadInput) as error:
            play(job(A.fedper(local=local)))
        assert error.value.code == code


@pytest.mark.parametrize("recipe", ["fedper", "fedbn"])
def test_own_parts_are_in_the_checkpoint(recipe: str):
    own = {"local": ["2.*"]} if recipe == "fedper" else {}
    net = job().task if recipe == "fedper" else batchnorm(buffers="local")
    j = Job(net, A.RECIPES[recipe](**own, **LOCAL), classes(sizes=(30, 20, 25, 40)), rounds=4, cohort=3)
    whole = play(j)
    half = [e.state for e in whole if e.type == "round_done"][1]
    rest, want = play(j, state=half)[-1].state, whole[-1].state
    assert torch.equal(rest.server["theta"], want.server["theta"]) and "own" in want.clients
    assert all(torch.equal(rest.clients[n], want.clients[n]) for n in want.clients)


# ---- judged by one's own


def test_ditto_is_judged_by_each_clients_own():
    fed = classes(sizes=(30, 20, 25, 40), test=0.3)
    events = play(job(A.ditto(**LOCAL), fed, cohort=2, rounds=1))
    state, judged = events[-1].state, [e for e in events if e.type == "evaluated"][-1]
    net, layout = job().task.build(shape_of(fed)), first_model(job().task, shape_of(fed), 1)[0]
    own = dict(zip(state.clients["clients"].tolist(), state.clients["v"]))
    for i in range(4):
        layout.load(net, own.get(i, state.server["theta"]))
        x, y = fed.slab([i], "test").gather()
        want = float(nn.functional.cross_entropy(net(x), y).detach())
        assert judged.clients[i]["loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
def test_fine_tuning_by_hand(name: str):
    """One client's one row x = (1, 0, 0), y = 1, from 0: round 1 of lr .25 is w = .5; two more steps give .875."""
    x, y = torch.tensor([[1.0, 0, 0]]).expand(4, 3), torch.ones(4)
    fed = Federation.of_tensors(x, y, [[0, 1], [2, 3]], test=0.5, target="number")
    run = {"rounds": 1, "execution": Execution(name=name)}
    j = Job(Task(ThreeNumbers, "mse", []), A.fedavg(lr=0.25, adapt=2), fed, **run)
    events = play(j)
    judged = [e for e in events if e.type == "evaluated"][-1]
    assert theta(j).tolist() == [0.5, 0.0, 0.0]  # the model that is saved is the one before
    assert judged.metrics["loss"] == pytest.approx((1 - 0.875) ** 2)
    assert events[-1].state.clients == {}


def test_fine_tuning_helps_where_clients_differ_and_changes_nothing_else():
    rng = np.random.default_rng(0)
    y = torch.from_numpy(np.repeat(np.arange(3), 40))
    x = torch.from_numpy(rng.normal(size=(120, 6)).astype(np.float32)) + y[:, None]
    fed = Federation.of_tensors(x, y, [list(range(i, i + 40)) for i in (0, 40, 80)], test=0.25, classes=3)
    ends = [play(job(A.fedavg(adapt=k, **LOCAL), fed)) for k in (0, 10)]
    assert torch.equal(*(e[-1].state.server["theta"] for e in ends))
    plain, tuned = ([e for e in events if e.type == "evaluated"][-1].metrics["accuracy"] for events in ends)
    assert tuned > plain + 0.05


def test_statistics_are_tuned_along():
    for buffers in ("average", "local"):
        j = Job(batchnorm(buffers=buffers), A.fedavg(adapt=3, **LOCAL), classes(sizes=(30, 20)), rounds=1)
        plain = replace(j, algorithm=A.fedavg(**LOCAL))
        a, b = (play(x) for x in (j, plain))
        assert [e for e in a if e.type == "evaluated"][-1].metrics != [e for e in b if e.type == "evaluated"][
            -1
        ].metrics
        assert torch.equal(a[-1].state.server["theta"], b[-1].state.server["theta"])
