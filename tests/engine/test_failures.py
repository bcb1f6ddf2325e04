"""A client that raises, empty clients, values that are not finite: the others do not notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from manyloom.core.task import Task
from manyloom.engine import Failed, Group
from tests.engine.toys import SIZES, Toy, algorithm, down_of, engine, memory_of, task, trained

ENGINES = [("autograd", 1), ("vmap", 3), ("vmap", 16)]


def outcome(e, fed: Toy, down) -> tuple[dict[int, Tensor], dict[int, Failed]]:  # type: ignore[no-untyped-def]
    good: dict[int, Tensor] = {}
    lost: dict[int, Failed] = {}
    for g in e.train(fed, np.arange(len(fed.sizes)), down, lambda ids: memory_of(e, ids), 1):
        if isinstance(g, Group):
            good |= {c: g.up["u"][j].clone() for j, c in enumerate(g.clients.tolist())}
        else:
            lost[g.client] = g
    return good, lost


@pytest.mark.parametrize(("provider", "k"), ENGINES)
def test_a_label_out_of_range_loses_its_client_alone(provider: str, k: int) -> None:
    fed, a = Toy(), algorithm(epochs=2)
    e = engine(task(), a, fed, provider=provider, group=k)
    down = down_of(e, a)
    want, none = outcome(e, fed, down)
    assert not none
    fed.y[fed.rows[5][3]] = 99
    good, lost = outcome(e, fed, down)
    assert set(lost) == {5} and set(good) == set(want) - {5}
    assert "out of bounds" in lost[5].text and "Traceback" in lost[5].traceback and "\n" not in lost[5].text
    assert all(torch.allclose(good[c], want[c], atol=1e-9) for c in good)


def test_data_that_can_not_be_read_loses_its_client_alone() -> None:
    class Torn(Toy):
        def slab(self, clients, part="train"):  # type: ignore[no-untyped-def]
            if 5 in np.asarray(clients):
                raise OSError("client 5: file ends early")
            return super().slab(clients, part)

    fed, a = Torn(), algorithm()
    e = engine(task(), a, fed, provider="vmap", group=4)
    good, lost = outcome(e, fed, down_of(e, a))
    assert set(lost) == {5} and lost[5].text == "OSError: client 5: file ends early"
    assert set(good) == {1, 2, 3, 4, 6, 7, 8}
    found = e.evaluate(fed, np.arange(9), e.initial)  # type: ignore[arg-type]
    assert [f.client for f in found.failed] == [5]
    assert found.rows.tolist() == [n if c != 5 else 0 for c, n in enumerate(SIZES)]


def test_a_rule_that_always_raises_loses_everybody() -> None:
    def step(w: Tensor, grad: Tensor, state: dict) -> None:
        raise ZeroDivisionError("no")

    plain = algorithm()
    e = engine(task(), algorithm(plain.work._replace(step=step)), Toy(), provider="vmap", group=16)
    good, lost = outcome(e, Toy(), down_of(e, plain))
    assert not good and len(lost) == 8 and lost[1].text == "ZeroDivisionError: no"


@pytest.mark.parametrize(("provider", "k"), ENGINES)
def test_not_a_number_stays_with_its_client(provider: str, k: int) -> None:
    fed, a = Toy(), algorithm(epochs=2)
    e = engine(task(), a, fed, provider=provider, group=k)
    down = down_of(e, a)
    want, _ = outcome(e, fed, down)
    fed.x[fed.rows[5][3]] = torch.nan
    good, lost = outcome(e, fed, down)
    assert not lost
    for c, u in good.items():
        assert torch.isnan(u).any() if c == 5 else torch.equal(u, want[c])  # bit for bit


def test_empty_clients_and_cohorts() -> None:
    fed, a = Toy((0, 3, 0)), algorithm()
    e = engine(task(), a, fed)
    down = down_of(e, a)
    assert list(trained(e, fed, down)) == [1]
    assert trained(e, fed, down, []) == trained(e, fed, down, [0, 2]) == {}
    found = e.evaluate(fed, np.array([0, 2]), e.initial)  # type: ignore[arg-type]
    assert (
        found.rows.tolist() == [0, 0] and found.loss_sums.tolist() == [0, 0] and found.sums["accuracy"].shape == (2, 1)
    )
    assert e.evaluate(fed, np.zeros(0, np.int64), e.initial).rows.shape == (0,)  # type: ignore[arg-type]
    assert e.histograms(fed, np.array([0]), e.initial, 0.0, 1.0).sum() == 0  # type: ignore[arg-type]


def norm() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)).double()


def by_hand(e, fed: Toy, c: int, theta: Tensor, rows: list[np.ndarray]):  # type: ignore[no-untyped-def]
    """BatchNorm in train mode over these batches, plain SGD."""
    m = norm()
    e.layout.load(m, theta)
    x, y = fed.of(c)
    optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
    for r in rows:
        optimiser.zero_grad()
        nn.functional.cross_entropy(m(x[r]), y[r]).backward()
        optimiser.step()
    return m, e.layout.flatten(m) - theta


def test_running_statistics_average_and_local() -> None:
    from tests.engine.toys import batches_of

    fed, a = Toy(), algorithm(epochs=1)
    for how in ("average", "local"):
        e = engine(Task(norm, buffers=how), a, fed)
        assert (e.buffers.d, e.strangers["buffers"].tolist()) == (8, [0.0] * 4 + [1.0] * 4)
        down = down_of(e, a)
        if how == "average":
            down["buffers"] = e.strangers["buffers"]
        found = trained(e, fed, down)
        assert set(found) == {2, 3, 4, 5, 6, 8}  # clients of one row have no variance
        for c, (up, memory, _, steps, _) in found.items():
            rows = [r for r in batches_of(e, a, fed, c, 1) if len(r) > 1]
            assert steps == len(rows)
            m, u = by_hand(e, fed, c, e.initial, rows)
            assert torch.allclose(up["u"], u, atol=1e-9)
            now = torch.cat([m[1].running_mean, m[1].running_var])  # type: ignore[list-item]
            moved = up["buffers"] + down["buffers"] if how == "average" else memory["buffers"]
            assert torch.allclose(moved, now, atol=1e-9)
            m.eval()
            x, y = fed.of(c)
            want = nn.functional.cross_entropy(m(x), y, reduction="sum").detach()
            each = e.evaluate(fed, np.array([c]), e.initial + up["u"], moved[None])  # type: ignore[arg-type]
            assert float(each.loss_sums[0]) == pytest.approx(float(want))
        assert e.strangers["buffers"].tolist() == [0.0] * 4 + [1.0] * 4
