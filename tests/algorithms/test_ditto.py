"""Ditto: FedAvg's model for all, and beside it each client's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manyloom import algorithms as A
from manyloom.data import Federation
from manyloom.job.job import Execution
from tests.toys import classes, job, play

LOCAL = {"lr": 0.1, "batch_size": 5, "epochs": 2}


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
@pytest.mark.parametrize("more", [{}, {"momentum": 0.9, "clip_grad": 0.5}, {"optimiser": "adam"}], ids=str)
def test_the_model_for_all_is_fedavgs_to_the_bit(name: str, more: dict):
    run = {"execution": Execution(name=name), "cohort": 4}
    ends = [
        play(job(a, **run))[-1].state.server["theta"] for a in (A.fedavg(**LOCAL, **more), A.ditto(**LOCAL, **more))
    ]
    assert torch.equal(*ends)


def test_without_a_pull_each_trains_alone():
    """lam 0: v_i after three rounds is what client i makes of the first model by itself."""
    sizes, names = (20, 9, 14), ["a", "b", "c"]
    fed = classes(sizes=sizes, test=0.0)
    x, y = fed.slab(range(3)).gather()
    off = np.concatenate([[0], np.cumsum(sizes)])
    parts = [np.arange(a, b) for a, b in zip(off, off[1:])]

    def of(who: list[int]) -> Federation:
        return Federation.of_tensors(x, y, [parts[i] for i in who], names=[names[i] for i in who], test=0.0, classes=3)

    clients = play(job(A.ditto(lam=0.0, **LOCAL), of([0, 1, 2])))[-1].state.clients
    own = dict(zip(clients["clients"].tolist(), clients["v"]))
    for i in range(3):
        alone = play(job(A.fedavg(**LOCAL), of([i])))[-1].state.server["theta"]
        torch.testing.assert_close(own[i], alone)


def test_the_pull_brings_them_closer():
    apart = []
    for lam in (0.0, 0.5, 4.0):
        state = play(job(A.ditto(lam=lam, **LOCAL)))[-1].state
        apart.append(float((state.clients["v"] - state.server["theta"]).norm(dim=1).mean()))
    assert apart[0] > apart[1] > apart[2] > 0


@pytest.mark.parametrize("recipe", ["feddyn", "moon", "ditto", "fednova", "fedsam"])
def test_what_clients_remember_is_in_the_checkpoint(recipe: str):
    j = job(A.RECIPES[recipe](**LOCAL), cohort=3, rounds=4)
    whole = play(j)
    half = [e.state for e in whole if e.type == "round_done"][1]
    rest = play(j, state=half)[-1].state
    want = whole[-1].state
    assert rest.clients.keys() == want.clients.keys() and rest.server.keys() == want.server.keys()
    for saved, other in ((rest.clients, want.clients), (rest.server, want.server)):
        assert all(torch.equal(saved[n], other[n]) for n in saved)
