"""FedDyn against a loop as the paper writes it, and at the optimum that FedAvg misses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from manyloom import algorithms as A
from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Job, shape_of
from manyloom.job.prepare import first_model
from tests.toys import classes, job, play, theta


class Bowl(nn.Module):
    """x = (h, c) -> sum_j h_j (w_j - c_j)^2 / 2: a client's own quadratic, from w = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.split(5, -1)
        return (h * (self.w - c).square() / 2).sum(-1, keepdim=True)


def loss(output: Tensor, y: Tensor) -> Tensor:
    return output.squeeze(-1)


def bowls(steps: tuple[int, ...], clients: int = 10) -> tuple[Federation, Tensor]:
    """Hessians U[.5, 2], minima N(0, 9), one row of batch 1 for each step; and the optimum of their mean."""
    rng = np.random.default_rng(0)
    h, c = rng.uniform(0.5, 2, (clients, 5)), rng.normal(0, 3, (clients, 5))
    k = np.array([steps[i % len(steps)] for i in range(clients)])
    x = torch.from_numpy(np.concatenate([h, c], 1).astype(np.float32).repeat(k, 0))
    off = np.concatenate([[0], np.cumsum(k)])
    parts = [list(range(a, b)) for a, b in zip(off, off[1:])]
    best = torch.from_numpy((h * c).sum(0) / h.sum(0))
    return Federation.of_tensors(x, torch.zeros(len(x)), parts, test=0.0, target="number"), best


def ending(algorithm, fed: Federation, rounds: int, **more) -> list:
    return play(Job(Task(Bowl, loss, []), algorithm, fed, rounds=rounds, eval_every=rounds, **more))


@pytest.mark.parametrize("cohort", [10, 3])
def test_against_the_paper(cohort: int):
    """h_i, h and theta after four rounds, from the clients that answered."""
    fed, _ = bowls((8, 2))
    alpha, lr = 0.5, 0.05
    events = ending(A.feddyn(alpha=alpha, lr=lr, batch_size=1, clip_grad=1e9), fed, 4, cohort=cohort)
    w, h, own = np.zeros(5), np.zeros(5), np.zeros((10, 5))
    for r in range(1, 5):
        who = [e.client for e in events if e.type == "client_done" and e.round == r]
        assert len(who) == cohort
        ends = []
        for i in who:
            curve, centre = fed.slab([i]).gather()[0][0].double().split(5)
            y = w.copy()
            for _ in range(int(fed.sizes[i])):
                y -= lr * (curve.numpy() * (y - centre.numpy()) - own[i] + alpha * (y - w))
            own[i] -= alpha * (y - w)
            ends.append(y)
        h -= alpha / 10 * sum(y - w for y in ends)
        w = np.mean(ends, 0) - h / alpha
    state = events[-1].state
    assert state.server["theta"].numpy() == pytest.approx(w, abs=1e-4)
    assert state.server["h"].numpy() == pytest.approx(h, abs=1e-4)
    for i, found in zip(state.clients["clients"].tolist(), state.clients["h"].numpy()):
        assert found == pytest.approx(own[i], abs=1e-4)


def test_the_optimum_stays_with_unequal_work():
    """FedAvg ends where those who take more steps want it; FedDyn and SCAFFOLD at the optimum."""
    fed, best = bowls((8, 2), clients=4)
    options = {"lr": 0.1, "batch_size": 1}
    far = {
        name: float((ending(a, fed, 40)[-1].state.server["theta"] - best).norm())
        for name, a in {
            "fedavg": A.fedavg(weights="uniform", **options),
            "feddyn": A.feddyn(alpha=1.0, **options),
            "scaffold": A.scaffold(**options),
        }.items()
    }
    assert far["fedavg"] > 1 and far["feddyn"] < 1e-3 and far["scaffold"] < 1e-3, far


def test_without_a_pull_it_is_fedavg_that_remembers_every_mean():
    """alpha -> 0: clients do what FedAvg's do, and theta <- theta + ubar_t + sum_{s <= t} (m/N) ubar_s."""
    fed = classes(sizes=(20, 9, 14), test=0.0)
    options = {"lr": 0.1, "batch_size": 5, "weights": "uniform", "clip_grad": 10.0}
    one = theta(job(A.feddyn(alpha=1e-5, lr=0.1, batch_size=5), fed, rounds=1))
    first = theta(job(A.fedavg(**options), fed, rounds=1))
    start = first_model(job().task, shape_of(fed), 1)[1]
    torch.testing.assert_close(one, start + 2 * (first - start), rtol=1e-4, atol=1e-5)


def test_its_defaults_and_what_it_refuses():
    made = A.feddyn()
    assert made.weights == "uniform" and made.tables["algorithm"]["clip_grad"] == 10.0
    assert A.feddyn(clip_grad=None).tables == made.tables  # as it would be read from a file
    for wrong, code in (({"weights": "samples"}, "feddyn-weights"), ({"alpha": 0.0}, "out-of-range")):
        with pytest.raises(BadInput) as error:
            A.feddyn(**wrong)
        assert error.value.code == code
