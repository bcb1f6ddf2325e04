"""Baselines are the job itself over another federation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import manyloom.data as data
from manyloom.algorithms import fedadam, fedavg, scaffold
from manyloom.core.errors import RunFailed
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.data.federation import Federation
from manyloom.job import baseline
from manyloom.job.assemble import task_of
from manyloom.job.job import Job, Simulate
from manyloom.runtime.local import Local

LOGISTIC = task_of({"name": "logistic"}, ("class", 2))


@pytest.fixture(scope="module")
def heart() -> Job:
    return Job(LOGISTIC, fedavg(lr=0.1, batch_size=16), data.heart_disease(seed=7), rounds=3, seed=7, name="heart")


def test_judging_gives_the_runs_own_numbers(heart: Job) -> None:
    found = baseline.fit(heart, Local())
    judged = baseline.judge(heart, found, Local())
    assert judged.metrics == dict(found.final)
    assert [judged.clients[i]["rows"] for i in range(4)] == heart.federation.tests.tolist()
    some = baseline.judge(heart, found, Local(), [2])
    assert list(some.clients) == [2] and some.clients[2] == judged.clients[2]


def test_central_is_gradient_descent_on_the_pooled_rows(heart: Job) -> None:
    """One full batch a round over all records, by hand, with the pooled means and scales."""
    job = replace(heart, algorithm=fedavg(lr=0.1, batch_size=2000), rounds=4)
    found = baseline.fit(baseline.central(job), Local())
    assert found.preprocess is not None
    x, y = job.federation.prepare(found.preprocess).slab(range(4)).gather()
    torch.testing.assert_close(x.mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    w, t = torch.zeros(14, dtype=torch.float64), y.double()
    z = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], 1)
    for _ in range(4):
        w -= 0.1 * z.T @ ((z @ w).sigmoid() - t) / len(z)
    torch.testing.assert_close(found.model["theta"].double(), w, atol=1e-6, rtol=1e-5)


def test_alone_uses_its_own_rows_and_statistics(heart: Job) -> None:
    job = baseline.alone(heart, 1)
    assert len(job.federation) == 1 and job.federation.sizes.tolist() == [heart.federation.sizes[1]]
    assert (job.rounds, job.seed, job.task.name) == (heart.rounds, heart.seed, "logistic")
    found = baseline.fit(job, Local())
    assert found.preprocess is not None
    x, _ = job.federation.prepare(found.preprocess).slab([0]).gather()
    torch.testing.assert_close(x.mean(0), torch.zeros(13), atol=1e-5, rtol=0)
    on_all = baseline.judge(heart, found, Local())
    assert on_all.clients[1] == pytest.approx(baseline.judge(job, found, Local()).clients[0])


def test_what_a_federation_adds_is_left_out(heart: Job) -> None:
    for algorithm in (scaffold(lr=0.3, batch_size=8), fedadam(lr=0.3, batch_size=8, epochs=2)):
        job = replace(heart, algorithm=algorithm, cohort=2, quorum=2, eval_cohort=2, patience=1, stop_at=0.9,
                      simulate=Simulate(dropout=0.5, drop=["1:2"]))  # fmt: skip
        for one in (baseline.central(job), baseline.alone(job, 0)):
            assert one.algorithm.name == "fedavg" and one.algorithm.server.name == "sgd"
            assert one.algorithm.tables["algorithm"]["lr"] == 0.3 and one.algorithm.batches.size == 8
            assert one.cohort is None and one.simulate == Simulate() and one.stop_at is None and one.patience is None


def test_central_makes_as_many_passes(heart: Job) -> None:
    half = replace(heart, cohort=2, algorithm=fedavg(epochs=3))
    assert baseline.central(half).algorithm.batches.epochs == 1.5
    assert baseline.alone(half, 0).algorithm.batches.epochs == 3
    steps = replace(heart, cohort=3, algorithm=fedavg(steps=5))
    assert baseline.central(steps).algorithm.batches.steps == 15
    assert baseline.alone(steps, 0).algorithm.batches.steps == 5
    poisson = replace(heart, cohort=0.25, sampling="poisson", algorithm=fedavg(epochs=2))
    assert baseline.central(poisson).algorithm.batches.epochs == 0.5


def test_leave_one_out_never_sees_the_client(heart: Job) -> None:
    job = baseline.leave_one_out(replace(heart, cohort=4, quorum=4), 2)
    assert len(job.federation) == 3 and "Switzerland" not in list(job.federation.names) and job.cohort == 3
    assert job.name == "heart-without-switzerland"
    found = baseline.fit(job, Local())
    assert list(baseline.judge(heart, found, Local(), [2]).clients) == [2]


def test_table_of_baselines(heart: Job) -> None:
    pooled = baseline.pooled(heart, Local)
    assert pooled.kind == "central" and set(pooled.metrics) == {"loss", "accuracy", "auc"} and len(pooled.clients) == 4
    alone = baseline.all_alone(heart, Local)
    assert alone.kind == "local" and list(alone.few) == [2]  # one healthy patient in Switzerland's held-out rows
    auc = [alone.clients[i]["auc"] for i in (0, 1, 3)]
    assert alone.metrics["auc"] == pytest.approx(sum(auc) / 3)
    low, high = alone.ranges()["auc"]
    assert low == min(m["auc"] for m in alone.alone_on_all.values()) < high
    told = alone.to_json()
    assert told["type"] == "baseline" and told["alone_on_all"]["0"]["auc"] == alone.alone_on_all[0]["auc"]
    assert str(pooled).startswith("baseline central")


def test_the_sources_own_test_set_counts() -> None:
    """Where a source has its own test set, baselines are judged on it, as the run is."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(60, 3)).astype(np.float32))
    y = (x[:, 0] > 0).long()
    fed = Federation.of_tensors(x, y, [range(30), range(30, 60)], test=0.0)
    own = fed.slab([0])._replace(rows=np.arange(30), off=np.array([0, 30]))
    fed = replace(fed, own=own, test_mode="own")
    job = Job(LOGISTIC, fedavg(lr=0.5), fed, rounds=2)
    found = baseline.fit(job, Local())
    assert baseline.judge(job, found, Local()).metrics == dict(found.final)
    alone = baseline.all_alone(job, Local)
    assert alone.clients == {} and set(alone.alone_on_all) == {0, 1}
    assert alone.metrics["accuracy"] == pytest.approx(sum(m["accuracy"] for m in alone.alone_on_all.values()) / 2)


def test_of_many_clients_some_are_drawn() -> None:
    x, y = torch.zeros(600, 1), torch.arange(600) % 2
    fed = Federation.of_tensors(x, y, np.arange(0, 601, 3), test=0.0)
    job = Job(LOGISTIC, fedavg(), fed, rounds=1)
    some = baseline.everyone(job)
    assert len(some) == baseline.MOST and len(set(some.tolist())) == baseline.MOST
    assert some.tolist() == baseline.everyone(job).tolist() != baseline.everyone(replace(job, seed=1)).tolist()


class Silent(Local):
    """A runtime whose clients never answer when they are to train."""

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        if ask.verb == "train":
            return [Lost(int(i), "error", "gone") for i in ask.to]
        return super().ask(ask)


def test_a_baseline_that_fails_says_so(heart: Job) -> None:
    with pytest.raises(RunFailed) as info:
        baseline.fit(baseline.alone(heart, 0), Silent())
    assert info.value.code == "baseline-failed" and "heart-alone" in str(info.value)
