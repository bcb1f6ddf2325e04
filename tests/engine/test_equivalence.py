"""Every recipe on every provider and group size comes to what the textbook loop comes to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from manyloom.algorithms import RECIPES
from manyloom.algorithms.recipe import CARDS
from manyloom.core.task import Task
from tests.engine.toys import B, Toy, algorithm, close, down_of, engine, mlp, task, textbook, trained

ENGINES = [("autograd", 1), ("vmap", 1), ("vmap", 3), ("vmap", 16)]
OPTIONS: list[dict[str, object]] = [
    {},
    {"momentum": 0.9, "weight_decay": 0.01},
    {"clip_grad": 0.5, "lr_schedule": "cosine"},
    {"optimiser": "adam", "lr": 0.01},
    {"optimiser": "adamw", "lr": 0.01, "weight_decay": 0.1},
]


def options_of(name: str) -> list[dict[str, object]]:
    """The options that a recipe takes."""
    found: list[dict[str, object]] = []
    for more in OPTIONS:
        try:
            RECIPES[name](batch_size=B, epochs=2, **CARDS[name].example, **more)
        except Exception:
            continue
        found.append(more)
    assert {} in found
    return found


CASES = [(name, more) for name in RECIPES for more in options_of(name)]


@pytest.mark.parametrize(("name", "more"), CASES, ids=[f"{n}-{'-'.join(map(str, m.values()))}" for n, m in CASES])
def test_all_recipes(name: str, more: dict[str, object]) -> None:
    fed, t = Toy(), task()
    a = RECIPES[name](batch_size=B, epochs=2, **CARDS[name].example, **more)
    tolerance = 1e-6 if "adam" in str(more.get("optimiser")) else 1e-9
    want = None
    for provider, k in ENGINES:
        if a.before is not None and provider == "vmap":
            assert "mixes the rows" in engine(t, a, fed).record["reasons"]["vmap"]  # type: ignore[index]
            continue
        e = engine(t, a, fed, provider=provider, group=k)
        assert (e.record["provider"], e.record["group"]) == (provider, min(k, len(fed.sizes)))
        down = down_of(e, a)
        found = trained(e, fed, down, round=3)
        want = want or {c: textbook(e, t, a, fed, c, down, round=3) for c in range(len(fed.sizes)) if fed.sizes[c]}
        assert found.keys() == want.keys()
        for c, (up, memory, *numbers) in want.items():
            close(found[c][0], up, tolerance)
            close(found[c][1], memory, tolerance)
            assert found[c][2:] == pytest.approx(tuple(numbers), rel=1e-9)


@pytest.mark.parametrize("provider", ["autograd", "vmap"])
@pytest.mark.parametrize("batches", [{"epochs": 0.5}, {"epochs": 1.5}, {"steps": 5}, {"epochs": 2.0}], ids=str)
def test_fractions_of_epochs_and_exact_steps(provider: str, batches: dict[str, object]) -> None:
    fed, t, a = Toy(), task(), algorithm(**batches)
    e = engine(t, a, fed, provider=provider, group=4)
    down = down_of(e, a)
    found = trained(e, fed, down)
    for c in range(len(fed.sizes)):
        if fed.sizes[c]:
            close(found[c][0], textbook(e, t, a, fed, c, down)[0])


class Tokens(nn.Module):
    """Logits a token from an embedding and its mean: [N, T] -> [N, T, C]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        return self.out(self.norm(h + h.mean(1, keepdim=True)))


def token_loss(output: Tensor, y: Tensor) -> Tensor:
    each = nn.functional.cross_entropy(output.transpose(1, 2), y, reduction="none")
    real = (y > 0).to(each)
    return (each * real).sum(1) / real.sum(1).clamp_min(1)


@pytest.mark.parametrize(("provider", "k"), ENGINES)
def test_rows_of_several_tokens_weigh_by_their_tokens(provider: str, k: int) -> None:
    fed = Toy()
    rng = torch.Generator().manual_seed(0)
    fed.x = torch.randint(0, 7, (len(fed.x), 6), generator=rng)
    fed.y = torch.randint(0, 7, (len(fed.x), 6), generator=rng)
    fed.y[3] = 0  # a row without a token that counts
    t = Task(lambda: Tokens().double(), token_loss, size=lambda y: (y > 0).sum(1))
    a = algorithm(epochs=2)
    e = engine(t, a, fed, provider=provider, group=k)
    assert e.record["provider"] == provider, e.record
    down = down_of(e, a)
    found = trained(e, fed, down)
    for c, (up, _, samples, *_) in found.items():
        want = textbook(e, t, a, fed, c, down)
        close(up, want[0])
        assert samples == want[2] == float((fed.of(c)[1] > 0).sum())


@pytest.mark.parametrize(("loss", "out", "classes"), [("mse", 1, None), ("binary", 1, 2)])
@pytest.mark.parametrize("provider", ["autograd", "vmap"])
def test_one_output(loss: str, out: int, classes: int | None, provider: str) -> None:
    fed = Toy(classes=classes)
    t = Task(lambda: mlp(out=1), loss, [])  # type: ignore[arg-type]
    a = algorithm()
    e = engine(t, a, fed, classes=classes, provider=provider, group=4)
    down = down_of(e, a)
    for c, (up, *_) in trained(e, fed, down).items():
        close(up, textbook(e, t, a, fed, c, down)[0])


class Odd(nn.Module):
    """Tied weights, a frozen layer, a parameter the loss never reaches, an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.b = nn.Linear(5, 5)
        self.b.weight = self.a.weight
        self.frozen = nn.Linear(5, 5)
        self.idle = nn.Parameter(torch.ones(3))
        self.lstm = nn.LSTM(1, 4, num_layers=2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.frozen(self.b(torch.relu(self.a(x))))
        return self.out(self.lstm(h.unsqueeze(-1))[0][:, -1])


def test_any_module_on_autograd() -> None:
    fed, a = Toy(), algorithm(epochs=2)
    t = Task(lambda: Odd().double(), freeze=["frozen.*"])
    e = engine(t, a, fed)
    assert e.record["provider"] == "autograd" and "frozen.weight" not in e.layout.names
    down = down_of(e, a)
    for c, (up, *_) in trained(e, fed, down).items():
        close(up, textbook(e, t, a, fed, c, down)[0])


def test_a_convolution_by_vmap_and_autograd() -> None:
    fed = Toy()
    fed.x = torch.randn(len(fed.x), 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = Task(
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)).double()
    )
    a = algorithm(epochs=2)
    assert engine(t, a, fed, name="auto").record["group"] == 1
    for more in ({"name": "sequential"}, {"name": "vectorised"}):
        e = engine(t, a, fed, **more)
        assert e.record["provider"] == {"sequential": "autograd", "vectorised": "vmap"}[more["name"]]
        down = down_of(e, a)
        for c, (up, *_) in trained(e, fed, down).items():
            close(up, textbook(e, t, a, fed, c, down)[0])


def test_float32_and_bytes_cast_after_the_gather() -> None:
    fed = Toy(width=5)
    fed.x = (fed.x.clamp(-3, 3) * 40 + 128).to(torch.uint8)
    fed.cast = lambda x: x.to(torch.float32) / 255
    t, a = Task(lambda: mlp().float()), algorithm(epochs=2)
    for provider in ("autograd", "vmap"):
        e = engine(t, a, fed, provider=provider, group=4)
        down = down_of(e, a)
        for c, (up, _, _, _, loss) in trained(e, fed, down).items():
            want = textbook(e, t, a, fed, c, down)
            assert up["u"].dtype == torch.float32
            assert float((up["u"] - want[0]["u"]).norm() / want[0]["u"].norm()) < 1e-3
            assert loss == pytest.approx(want[4], abs=1e-4)


def test_a_batch_larger_than_the_data_is_one_step_of_gradient_descent() -> None:
    from dataclasses import replace

    from manyloom.core.parts import Batches

    fed, t = Toy((5, 9)), task()
    a = replace(algorithm(), batches=Batches(64, 1))
    for provider in ("autograd", "vmap"):
        e = engine(t, a, fed, provider=provider, group=2)
        for c, (up, _, _, steps, _) in trained(e, fed, down_of(e, a)).items():
            assert steps == 1
            close(up, textbook(e, t, a, fed, c, down_of(e, a))[0])


def test_golden_three_parameters_two_clients() -> None:
    """By hand: y = w x + v z + b at (0, 0, 0), lr .1, mean of squared errors, one step each.

    Client 0: rows (1, 0) -> 1 and (0, 1) -> 2: errors -1, -2; gradient ((-2 1)/2, (-4 1)/2, (-2 - 4)/2) = (-1, -2, -3).
    Client 1: row (2, 0) -> 3: error -3; gradient (-12, 0, -6). The update is -.1 of each.
    """
    from dataclasses import replace

    from manyloom.core.parts import Batches

    fed = Toy((2, 1), width=2, classes=None)
    fed.x = torch.tensor([[1.0, 0], [0, 1], [2, 0]], dtype=torch.float64)
    fed.y = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    fed.rows = [np.array([0, 1]), np.array([2])]
    t = Task(lambda: nn.Linear(2, 1).double(), "mse", [])
    a = replace(algorithm(), batches=Batches(8, 1))
    for provider in ("autograd", "vmap"):
        e = engine(t, a, fed, classes=None, provider=provider, group=2)
        found = trained(e, fed, down_of(e, a, torch.zeros(3, dtype=torch.float64)))
        assert found[0][0]["u"].tolist() == pytest.approx([0.1, 0.2, 0.3])
        assert found[1][0]["u"].tolist() == pytest.approx([1.2, 0.0, 0.6])
        assert (found[0][4], found[1][4]) == pytest.approx((2.5, 9.0))
