"""Moment alignment: what is sent, whose labels are used, what a lost target means."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import manyloom as ml
from manyloom.core.errors import BadInput
from manyloom.job.events import Event, RoundDone, RunDone
from manyloom.job.loop import loop, start
from manyloom.job.plan import of
from manyloom.job.prepare import prepare
from manyloom.privacy.settings import Privacy
from manyloom.runtime.local import Local
from manyloom.secure.settings import Secure
from manyloom.work.coral import distance, moments, pooled

D = 4


def federation(flip: bool = False, apart: float = 2.0) -> ml.Federation:
    """Three sites and a target whose rows lie elsewhere; `flip` changes the labels the target trains on."""
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(96, 6, generator=rng)
    y = (x[:, 0] > 0).long()
    x[72:] += apart
    if flip:
        y[72:] = 1 - y[72:]
    parts = [range(24 * i, 24 * i + 24) for i in range(4)]
    return ml.Federation.of_tensors(x, y, parts, names=["a", "b", "c", "target"], test=0.25, classes=2)


def job(eta: float = 0.5, fed: ml.Federation | None = None, **more: Any) -> ml.Job:
    task = ml.Task(lambda: nn.Sequential(nn.Linear(6, D), nn.Tanh(), nn.Linear(D, 2)))
    algorithm = ml.algorithms.coral(target_client="target", eta=eta, lr=0.1, batch_size=6)
    return ml.Job(task, algorithm, fed or federation(), **{"rounds": 3, "seed": 2, **more})


def play(j: ml.Job) -> list[Event]:
    runtime = Local()
    ready = prepare(j, runtime)
    return list(loop(j, runtime, ready, start(j, ready)))


def theta(j: ml.Job) -> torch.Tensor:
    done = play(j)[-1]
    assert isinstance(done, RunDone) and done.state is not None
    return done.state.server["theta"]


def test_pooled_moments_are_those_of_all_rows() -> None:
    z = torch.randn(30, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = [moments(z[a:b]) for a, b in ((0, 5), (5, 17), (17, 30))]
    found = pooled(
        torch.stack([m for m, _ in each]), torch.stack([c for _, c in each]), torch.tensor([[5.0], [12], [13]]).double()
    )
    torch.testing.assert_close(found, moments(z))
    assert float(distance(found, moments(z))) < 1e-20
    full = torch.cov(z.T, correction=0)
    i, j = torch.triu_indices(D, D)
    torch.testing.assert_close(found[1], full[i, j])
    other = (found[0] + 1, found[1] + 2)
    assert float(distance(found, other)) == pytest.approx(D + 4 * D * D / (4 * D * D))


def test_the_targets_labels_are_never_used() -> None:
    assert torch.equal(theta(job()), theta(job(fed=federation(flip=True))))
    plain = ml.algorithms.fedavg(lr=0.1, batch_size=6)  # a negative control: there they matter
    assert not torch.equal(
        theta(replace(job(), algorithm=plain)), theta(replace(job(fed=federation(True)), algorithm=plain))
    )


def test_without_weight_it_is_fedavg_of_the_others() -> None:
    others = federation().subset([0, 1, 2])
    plain = ml.Job(job().task, ml.algorithms.fedavg(lr=0.1, batch_size=6), others, rounds=3, seed=2)
    assert torch.equal(theta(job(eta=0.0)), theta(plain))
    assert not torch.allclose(theta(job()), theta(plain), atol=1e-3)


def test_features_come_nearer() -> None:
    def gap(j: ml.Job) -> float:
        net = j.task.module()
        ml.Layout.of(net).load(net, theta(j))
        z = [net[:2](j.federation.slab([i]).gather()[0]).detach() for i in range(4)]
        return float(distance(moments(torch.cat(z[:3])), moments(z[3])))

    assert gap(job(rounds=20)) < 0.5 * gap(job(eta=0.0, rounds=20))


def test_bytes_are_those_of_the_plan() -> None:
    j = job()
    runtime = Local()
    ready = prepare(j, runtime)
    plan = of(j, ready)
    rounds = [e for e in loop(j, runtime, ready, start(j, ready)) if isinstance(e, RoundDone)]
    up = 4 * (4 * (D + D * (D + 1) // 2 + 1) + 4 * (ready.layout.d + 3))
    assert [e.bytes_up for e in rounds] == [up] * 3 and plan.bytes["up_round"] == up
    assert [e.bytes_down for e in rounds] == [plan.bytes["down_round"]] * 3
    assert all(set(e.state.server) == {"theta"} for e in rounds if e.state)


def test_a_target_that_is_lost_ends_the_run_resumably(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise OSError("no disk")

    monkeypatch.setattr("manyloom.runtime.clients.moments", broken)
    events = play(job())
    assert isinstance(events[-1], RunDone) and events[-1].status == "failed"
    assert any(e.type == "client_lost" and "no disk" in str(getattr(e, "text", "")) for e in events)
    assert "target is lost" in str(next(e for e in events if e.type == "round_failed"))


@pytest.mark.parametrize("more", [{"secure": Secure(), "quorum": 1.0}, {"privacy": Privacy(clip=1.0, epsilon=8.0)}])
def test_what_is_asked_of_one_stands_beside_no_protection(more: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as error:
        job(**more)
    assert "moments-in-the-clear" in [p.code for p in error.value.problems]


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(BadInput, match='no client "targt"') as error:
        replace(job(), algorithm=ml.algorithms.coral(target_client="targt"))
    assert "target" in str(error.value)
