"""FedNova: what it equals, where it ends, what it sends."""

from __future__ import annotations

import pytest
import torch

from manyloom import algorithms as A
from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.job import Execution, Job
from tests.toys import ThreeNumbers, classes, job, play, theta


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
@pytest.mark.parametrize("more", [{}, {"momentum": 0.9, "weight_decay": 0.01}], ids=["plain", "momentum"])
def test_equal_steps_are_fedavg_to_the_bit(name, more):
    options = {"lr": 0.1, "batch_size": 5, "steps": 7, **more}
    run = {"execution": Execution(name=name)}
    nova = theta(job(A.fednova(**options), **run))
    assert torch.equal(nova, theta(job(A.fedavg(**options), **run)))


def test_equal_passes_over_equal_clients_are_fedavg_to_rounding():
    fed, options = classes(sizes=(30, 30, 30), test=0.0), {"lr": 0.1, "batch_size": 5, "momentum": 0.5}
    torch.testing.assert_close(theta(job(A.fednova(**options), fed)), theta(job(A.fedavg(**options), fed)))
    uneven = classes(sizes=(30, 5, 30), test=0.0)
    assert not torch.allclose(theta(job(A.fednova(**options), uneven)), theta(job(A.fedavg(**options), uneven)))


def half_square(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (output.squeeze(-1) - y).square() / 2


def pull(algorithm, rounds=45) -> float:
    """Two clients that want 0 (20 steps a round) and 1 (2 steps): how many times more the first weighs at the end."""
    x = torch.tensor([[1.0, 0, 0]]).expand(22, 3)
    y = torch.tensor([0.0] * 20 + [1.0] * 2)
    fed = Federation.of_tensors(x, y, [list(range(20)), [20, 21]], test=0.0, target="number")
    j = Job(Task(ThreeNumbers, half_square, []), algorithm, fed, rounds=rounds, eval_every=rounds)
    end = float(theta(j)[0])
    return (1 - end) / end


def test_the_fixed_point():
    """f_i = (x - c_i)^2 / 2, tau 20 and 2, eta .02: a client weighs 1 - .98^tau, and for FedNova that over tau."""
    options = {"lr": 0.02, "batch_size": 1, "weights": "uniform"}
    many, few = 1 - 0.98**20, 1 - 0.98**2
    assert pull(A.fedavg(**options)) == pytest.approx(many / few, rel=1e-3)  # 8.39
    assert pull(A.fednova(**options)) == pytest.approx((many / 20) / (few / 2), rel=1e-3)  # .839
    assert pull(A.fedprox(mu=1.0, **options)) == pytest.approx((1 - 0.96**20) / (1 - 0.96**2), rel=1e-3)  # 7.12


def test_it_sends_one_number_more_than_fedavg():
    sent = [play(job(a, rounds=1))[-2].bytes_up for a in (A.fedavg(batch_size=5), A.fednova(batch_size=5))]
    assert sent[1] - sent[0] == 5 * 4  # five clients, a float32 each


def test_unknown_lengths_are_refused():
    with pytest.raises(BadInput) as error:
        A.fednova(optimiser="adam")
    assert error.value.code == "fednova-optimiser"
