"""The worked example of CONTRIBUTING.md: an algorithm of somebody's own, in one file."""

from pathlib import Path

import pytest
import torch

from examples.fedcm import fedcm
from manyloom.algorithms import fedavg
from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from manyloom.data import Federation
from manyloom.job.baseline import fit
from manyloom.job.job import Execution, Job
from manyloom.runtime.local import Local

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def federation():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(60, 3, generator=g)
    return Federation.of_tensors(x, (x[:, 0] > 0).long(), [range(25), range(25, 45), range(45, 60)])


def theta(federation, algorithm, name="sequential", rounds=3):
    task = Task(lambda: torch.nn.Linear(3, 2), metrics=["accuracy"])
    job = Job(task, algorithm, federation, rounds=rounds, seed=5, execution=Execution(name=name))
    return fit(job, Local()).model["theta"]


def test_alpha_1_is_fedavg(federation):
    keys = {"steps": 4, "lr": 0.3, "batch_size": 5}
    assert torch.equal(theta(federation, fedcm(alpha=1.0, **keys)), theta(federation, fedavg(**keys)))


def test_both_executions_agree_and_momentum_moves_the_model(federation):
    keys = {"steps": 4, "lr": 0.3, "batch_size": 5}
    one = theta(federation, fedcm(alpha=0.2, **keys))
    torch.testing.assert_close(one, theta(federation, fedcm(alpha=0.2, **keys), "vectorised"))
    assert not torch.allclose(one, theta(federation, fedavg(**keys)))


def test_two_rounds_by_hand(federation):
    """One client, full batches of one step: v1 = a g1, then v2 = a g2 + (1 - a) v1."""
    alone = federation.only(0)
    n = int(alone.sizes[0])
    keys = {"steps": 1, "lr": 0.5, "batch_size": n}
    a = 0.25
    steps = [theta(alone, fedcm(alpha=a, **keys), rounds=r) for r in (1, 2)]
    start = theta(alone, fedavg(steps=1, lr=1e-30, batch_size=n), rounds=1)
    slab = alone.slab([0])
    x, y = slab.x[torch.as_tensor(slab.rows)], slab.y[torch.as_tensor(slab.rows)]

    def gradient(vector):
        w = vector.clone().requires_grad_()
        bias, weight = (w[:2], w[2:]) if names[0] == "bias" else (w[6:], w[:6])
        loss = torch.nn.functional.cross_entropy(x @ weight.view(2, 3).T + bias, y)
        return torch.autograd.grad(loss, w)[0]

    names = [name for name, _ in torch.nn.Linear(3, 2).named_parameters()]
    v1 = a * gradient(start)
    torch.testing.assert_close(steps[0], start - 0.5 * v1)
    torch.testing.assert_close(steps[1], steps[0] - 0.5 * (a * gradient(steps[0]) + (1 - a) * v1))


def test_a_job_file_names_it(tmp_path):
    path = tmp_path / "own.toml"
    text = (ROOT / "examples" / "digits" / "digits.toml").read_text()
    path.write_text(
        text.split("[algorithm]")[0]
        + """[algorithm]
name = "examples.fedcm:fedcm"
alpha = 0.3
steps = 4
"""
    )
    job = Job.from_toml(str(path), {"job.rounds": 2})
    assert job.algorithm.name == "fedcm"
    assert fit(job, Local()).final["accuracy"] > 0
    again = tmp_path / "again.toml"
    again.write_text(job.to_toml())
    assert Job.from_toml(str(again)).digest == job.digest


def test_it_says_what_it_needs():
    with pytest.raises(BadInput, match="fedcm needs steps"):
        fedcm(epochs=2)


def test_the_guide_shows_the_file_as_it_is():
    code = (ROOT / "examples" / "fedcm.py").read_text()
    assert f"```python\n{code}```" in (ROOT / "CONTRIBUTING.md").read_text()
