"""Metrics from sums equal scikit-learn's on the pooled rows, in all and a client."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from torch import nn

from manyloom.core.metrics import METRICS, auc_of
from manyloom.core.task import Task
from tests.engine.toys import Toy, algorithm, engine, mlp

SIZES = (0, 1, 40, 7, 300, 65)


def outputs(e, fed: Toy, clients, theta=None):  # type: ignore[no-untyped-def]
    """What the model says of each client's rows, by a plain forward pass."""
    module = mlp(out=e.layout.entries[-1].shape[0])
    e.layout.load(module, e.initial if theta is None else theta)
    with torch.no_grad():
        return [(module(x), y) for x, y in (fed.of(c) for c in clients)]


@pytest.mark.parametrize("judged", [16, 1024])
def test_three_classes(judged: int) -> None:
    fed = Toy(SIZES, classes=3)
    e = engine(Task(mlp, metrics=["accuracy", "f1"]), algorithm(), fed)
    e.loop.judged = judged
    order = np.array([4, 0, 3, 1, 5, 2])
    found = e.evaluate(fed, order, e.initial)  # type: ignore[arg-type]
    assert found.clients.tolist() == order.tolist()
    pairs = outputs(e, fed, order)
    every_out, every_y = torch.cat([o for o, _ in pairs]), torch.cat([y for _, y in pairs])
    rows = [
        *((found.rows[j], found.loss_sums[j], {m: s[j] for m, s in found.sums.items()}, *pairs[j]) for j in range(6)),
        (found.rows.sum(), found.loss_sums.sum(), {m: s.sum(0) for m, s in found.sums.items()}, every_out, every_y),
    ]
    for n, loss, sums, out, y in rows:
        assert n == len(y)
        if not len(y):
            assert loss == 0 and not any(s.any() for s in sums.values())
            continue
        assert float(loss / n) == pytest.approx(sk.log_loss(y, out.softmax(1), labels=[0, 1, 2]))
        assert float(METRICS["accuracy"].value(sums["accuracy"], n)) == pytest.approx(
            sk.accuracy_score(y, out.argmax(1))
        )
        there = sorted(set(y.tolist()))
        f1 = sk.f1_score(y, out.argmax(1), labels=there, average="macro", zero_division=0)
        assert float(METRICS["f1"].value(sums["f1"], n)) == pytest.approx(f1)
    assert found.auc_own.isnan().all()


@pytest.mark.parametrize(("loss", "out"), [("cross-entropy", 2), ("binary", 1)])
def test_two_classes_and_auc(loss: str, out: int) -> None:
    fed = Toy(SIZES, classes=2)
    fed.y[fed.rows[3]] = 1  # one class only
    t = Task(lambda: mlp(out=out), loss, ["accuracy", "auc"])  # type: ignore[arg-type]
    e = engine(t, algorithm(), fed, classes=2)
    clients = np.arange(6)
    found = e.evaluate(fed, clients, e.initial)  # type: ignore[arg-type]
    pairs = outputs(e, fed, clients)
    scores = [(o[:, 1] - o[:, 0] if out == 2 else o[:, 0], y) for o, y in pairs]
    for j, (s, y) in enumerate(scores):
        both = len(set(y.tolist())) == 2
        assert (
            (float(found.auc_own[j]) == pytest.approx(sk.roc_auc_score(y, s))) if both else math.isnan(found.auc_own[j])
        )
        assert found.positives[j] == (y == 1).sum()
    s, y = torch.cat([s for s, _ in scores]), torch.cat([y for _, y in scores])
    assert float(found.loss_sums.sum()) == pytest.approx(sk.log_loss(y, s.sigmoid()) * len(y))
    total = found.sums["auc"].sum(0)
    assert total.tolist() == pytest.approx([float(s.sum()), float((s * s).sum()), float(y.sum())])
    mean = float(total[0] / len(s))
    sd = math.sqrt(float(total[1] / len(s)) - mean**2)
    each = e.histograms(fed, clients, e.initial, mean, sd)  # type: ignore[arg-type]
    assert each.shape == (6, 2, 512)
    assert each.sum((1, 2)).tolist() == list(SIZES) and each[:, 1].sum(1).tolist() == found.positives.tolist()
    assert auc_of(each.sum(0)) == pytest.approx(sk.roc_auc_score(y, s), abs=1e-3)
    constant = torch.zeros_like(e.initial)
    assert auc_of(e.histograms(fed, clients, constant, 0.0, 0.0).sum(0)) == pytest.approx(0.5)  # type: ignore[arg-type]
    assert e.evaluate(fed, np.array([4]), constant).auc_own.tolist() == [0.5]  # type: ignore[arg-type]


def test_a_number() -> None:
    fed = Toy(SIZES, classes=None)
    e = engine(Task(lambda: mlp(out=1), "mse", ["rmse", "mae", "r2"]), algorithm(), fed, classes=None)
    clients = np.arange(6)
    found = e.evaluate(fed, clients, e.initial)  # type: ignore[arg-type]
    pairs = outputs(e, fed, clients)
    out, y = torch.cat([o for o, _ in pairs]).squeeze(1), torch.cat([y for _, y in pairs])
    value = {m: float(METRICS[m].value(found.sums[m].sum(0), found.rows.sum())) for m in found.sums}
    assert value["rmse"] == pytest.approx(sk.root_mean_squared_error(y, out))
    assert value["mae"] == pytest.approx(sk.mean_absolute_error(y, out))
    assert value["r2"] == pytest.approx(sk.r2_score(y, out))
    assert float(found.loss_sums.sum()) == pytest.approx(sk.mean_squared_error(y, out) * len(y))


def test_a_vector_a_client_many_spans_and_a_slab_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    fed = Toy(SIZES, classes=3)
    e = engine(Task(mlp, metrics=["accuracy"]), algorithm(), fed)
    own = e.initial + 0.3 * torch.randn(6, e.layout.d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clients = np.arange(6)
    whole = e.evaluate(fed, clients, own)  # type: ignore[arg-type]
    for c in clients:
        ((out, y),) = outputs(e, fed, [c], own[c])
        assert float(whole.loss_sums[c]) == pytest.approx(float(nn.functional.cross_entropy(out, y, reduction="sum")))
    monkeypatch.setattr("manyloom.engine.engine.LOADED", 50 * e.row_bytes)
    cut = e.evaluate(fed, clients, own)  # type: ignore[arg-type]
    assert torch.allclose(cut.loss_sums, whole.loss_sums, rtol=1e-12)
    assert torch.equal(
        e.histograms(fed, clients, own, 0.0, 1.0)[1], e.histograms(fed, clients[1:2], own[1], 0.0, 1.0)[0]
    )  # type: ignore[arg-type]
    hub = e.judge(fed.slab([2, 3])._replace(off=np.array([0, 47])), np.array([-1]), e.initial)
    assert float(hub.loss_sums[0]) == pytest.approx(float(e.evaluate(fed, np.array([2, 3]), e.initial).loss_sums.sum()))  # type: ignore[arg-type]


def test_tokens_count_as_rows() -> None:
    fed = Toy(SIZES)
    fed.x = torch.randint(0, 7, (len(fed.x), 6), generator=torch.Generator().manual_seed(0))
    fed.y = fed.x.roll(-1, 1)
    t = Task(
        lambda: nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double(),
        metrics=["accuracy"],
        size=lambda y: torch.full((len(y),), y.shape[1]),
    )
    e = engine(t, algorithm(), fed, classes=7)
    found = e.evaluate(fed, np.arange(6), e.initial)  # type: ignore[arg-type]
    assert found.rows.tolist() == [6 * n for n in SIZES]
    module = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)).double()
    e.layout.load(module, e.initial)
    out = module(fed.x).detach()
    assert float(found.sums["accuracy"].sum()) == float((out.argmax(-1) == fed.y).sum())
    assert float(found.loss_sums.sum()) == pytest.approx(
        float(nn.functional.cross_entropy(out.flatten(0, 1), fed.y.flatten(), reduction="sum"))
    )
