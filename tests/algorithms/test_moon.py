"""MOON: FedAvg until a client comes back, with the task's own loss, and BatchNorm left alone by the extra passes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from manyloom import algorithms as A
from manyloom.core.task import Task
from manyloom.job.job import Execution, Job
from tests.toys import classes, job, play, theta

LOCAL = {"lr": 0.1, "batch_size": 5, "epochs": 2}


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
def test_without_weight_it_is_fedavg_and_so_is_the_first_meeting(name: str):
    run = {"execution": Execution(name=name)}
    plain = theta(job(A.fedavg(**LOCAL), **run))
    assert torch.equal(plain, theta(job(A.moon(mu=0.0, **LOCAL), **run)))
    assert not torch.allclose(plain, theta(job(A.moon(**LOCAL), **run)), atol=1e-4)
    once = [theta(job(a, rounds=1, **run)) for a in (A.fedavg(**LOCAL), A.moon(mu=5.0, **LOCAL))]
    torch.testing.assert_close(*once)


def test_a_client_remembers_its_own_last_result():
    state = play(job(A.moon(**LOCAL), cohort=2, rounds=1))[-1].state
    assert len(state.clients["clients"]) == 2 and (state.clients["met"] == 1).all()
    lone = classes(sizes=(20,), test=0.0)
    state = play(job(A.moon(**LOCAL), lone))[-1].state  # one client: its result is the model
    torch.testing.assert_close(state.clients["prev"][0], state.server["theta"])


def test_the_loss_is_the_tasks():
    """A number is predicted: with another loss than cross-entropy the contrast is added to that one."""
    fed = classes(sizes=(12, 9), test=0.0, n_classes=2)
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))  # noqa: E731
    for rounds in (1, 2):
        ends = [
            theta(Job(Task(net, "binary", []), a, fed, rounds=rounds)) for a in (A.fedavg(**LOCAL), A.moon(**LOCAL))
        ]
        assert torch.allclose(*ends, atol=1e-5) == (rounds == 1)


def test_running_statistics_move_with_w_alone():
    """At a tiny weight MOON's statistics are FedAvg's, though it passes three models a step."""
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))  # noqa: E731
    ends = [
        play(Job(Task(net, buffers="average"), a, classes(), rounds=2))[-1].state.server["buffers"]
        for a in (A.fedavg(**LOCAL), A.moon(mu=1e-6, **LOCAL))
    ]
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)
