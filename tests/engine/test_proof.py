"""vmap is refused where it would be wrong or slow, and the record says why."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyloom.core.errors import BadInput
from manyloom.core.task import Task
from tests.engine.toys import Toy, algorithm, down_of, engine, textbook, trained

FED = Toy()


class Net(nn.Module):
    def __init__(self, forward) -> None:  # type: ignore[no-untyped-def]
        super().__init__()
        self.a, self.b, self.how = nn.Linear(5, 5), nn.Linear(5, 3), forward
        self.places = nn.Embedding(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.how(self, x)


def positions(m: Net, x: Tensor) -> Tensor:
    return m.b(m.a(x) + m.places(torch.arange(5)).mean(1))


def branch(m: Net, x: Tensor) -> Tensor:
    return m.b(m.a(x) if x.sum() > 0 else x)


ACCEPTED = {
    "twice": lambda m, x: m.b(m.a(torch.relu(m.a(x)))),
    "direct weight": lambda m, x: m.b(F.linear(x, m.a.weight)),
    "positions": positions,
    "in place": lambda m, x: m.b(F.relu(m.a(x), inplace=True)),
}
REFUSED = {
    "value": (branch, "control flow"),
    "item": (lambda m, x: m.b(m.a(x)) * m.b.bias.sum().item(), "item"),
    "dropout": (lambda m, x: m.b(F.dropout(m.a(x), 0.5, m.training)), "random numbers"),
    "noise": (lambda m, x: m.b(m.a(x) + torch.randn_like(x)), "random numbers"),
    "constant batch": (lambda m, x: m.b(m.a(x).reshape(8 if len(x) == 8 else 5, 5)), "RuntimeError"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_and_right(name: str) -> None:
    a = algorithm()
    t = Task(lambda: Net(ACCEPTED[name]).double())
    e = engine(t, a, FED, name="vectorised")
    assert e.record["provider"] == "vmap", e.record
    down = down_of(e, a)
    for c, (up, *_) in trained(e, FED, down).items():
        assert torch.allclose(up["u"], textbook(e, t, a, FED, c, down)[0]["u"], atol=1e-9)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str) -> None:
    forward, reason = REFUSED[name]
    for how in ({"name": "vectorised"}, {"provider": "vmap"}):
        e = engine(Task(lambda: Net(forward).double()), algorithm(), FED, **how)
        assert e.record["provider"] == "autograd" and e.record["group"] == 1
        assert reason in e.record["reasons"]["vmap"], e.record  # type: ignore[index]


def test_a_mixture_of_samples_is_one_client_at_a_time() -> None:
    """x - x.mean(0) sees the whole batch: right under vmap only while nothing is padded."""
    e = engine(Task(lambda: Net(lambda m, x: m.b(m.a(x - x.mean(0)))).double()), algorithm(), FED, name="vectorised")
    assert e.record["provider"] == "autograd"
    assert "mixes" in e.record["reasons"]["vmap"]  # type: ignore[index]


def test_recurrent_layers_and_running_statistics_are_refused() -> None:
    class Lstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.r, self.out = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.r(x.unsqueeze(1))[0][:, 0])

    e = engine(Task(lambda: Lstm().double()), algorithm(), FED, name="vectorised")
    assert "recurrent" in e.record["reasons"]["vmap"]  # type: ignore[index]
    norm = Task(lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double(), buffers="local")
    e = engine(norm, algorithm(), FED, name="vectorised")
    assert 'layer "1" keeps running statistics' in e.record["reasons"]["vmap"]  # type: ignore[index]


def test_what_the_model_can_not_take_is_said_before_training() -> None:
    with pytest.raises(BadInput) as caught:
        engine(Task(lambda: nn.Linear(4, 3).double()), algorithm(), FED)
    assert caught.value.code == "model-input"
    with pytest.raises(BadInput) as caught:
        engine(Task(lambda: nn.Linear(5, 2).double()), algorithm(), FED)
    assert caught.value.code == "model-labels"
    with pytest.raises(BadInput) as caught:
        engine(Task(lambda: nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)).double()), algorithm(), FED)
    assert caught.value.code == "batchnorm"
    with pytest.raises(BadInput) as caught:
        engine(Task(lambda: nn.Linear(5, 3).double()), algorithm(), FED, memory="1 MB")
    assert caught.value.code == "memory" and "MiB" in str(caught.value.mend)
