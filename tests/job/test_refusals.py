"""What a job with [privacy] or [secure] refuses: each says what, why and the mend, before anything trains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import manyloom as ml
from manyloom import algorithms as A
from manyloom.core.errors import BadInput, Problem
from manyloom.core.parts import Aggregator, Transform
from manyloom.core.task import Task
from manyloom.job.job import Job
from manyloom.job.plan import plan
from manyloom.privacy.settings import Privacy
from manyloom.runtime.local import Local
from manyloom.secure.settings import Secure
from tests.toys import hospitals, job, private, secured, theta, writers

CLAIM = {"privacy": Privacy(clip=1.0, noise_multiplier=1.0), "cohort": 1.0}
SUMS = {"secure": Secure(fidelity="ideal")}
BOTH = pytest.mark.parametrize("table", [CLAIM, SUMS], ids=["privacy", "secure"])


def refused(make) -> Problem:
    """The one problem of what a call refuses; it says what, why (the rule) and the mend."""
    with pytest.raises(BadInput) as error:
        make()
    [problem] = error.value.problems
    assert problem.what and problem.rule and problem.mend, problem
    assert problem.where is None or ".toml" in problem.where
    assert max(map(len, problem.text().splitlines())) <= 80 or " " not in max(problem.text().splitlines(), key=len)
    return problem


def changed(**parts):
    algorithm = A.fedavg(lr=0.1, batch_size=5)
    return replace(algorithm, **parts)


def toml(tmp_path: Path, tables: str, data: str = 'source = "heart-disease"') -> Job:
    path = tmp_path / "job.toml"
    head = f'[job]\nrounds = 2\n[data]\n{data}\n[model]\nname = "logistic"\n'
    path.write_text(head + tables)
    return ml.Job.from_toml(str(path))


# ---- parts that do not fit


@BOTH
def test_a_rule_that_needs_each_update(table):
    median = Aggregator("median", "each", lambda rows, w, s: ({k: v.median(0).values for k, v in rows.items()}, s))
    p = refused(lambda: job(changed(aggregate=median), hospitals(), **table))
    assert p.code == "needs-each" and '"median" needs each update' in p.what
    assert ("calibrated for a sum" in p.rule) == ("privacy" in table) and "leave [aggregate] out" in p.mend


def passes(message, memory, down, draw):
    return message, memory


@BOTH
@pytest.mark.parametrize(
    ("uplink", "code", "mend"),
    [
        (Transform("top-k", passes, memory={"e": "d"}), "error-feedback", "error_feedback = false"),
        (Transform("sign", passes), "unbounded-message", "leave [uplink] out"),
        (Transform("half", passes, bound=lambda c: c / 2), "compression-beside-sum", "leave it out"),
    ],
)
def test_transforms_that_undo_the_bound_or_change_the_sum(table, uplink, code, mend):
    p = refused(lambda: job(changed(uplink=uplink), hospitals(), **table))
    assert p.code == code and mend in p.mend and uplink.name in p.got


@BOTH
def test_numbers_of_its_own_beside_the_update(table):
    weights = {"weights": "uniform"} if "privacy" in table else {}
    p = refused(lambda: job(A.fednova(lr=0.1, **weights), hospitals(), **table))
    assert p.code == "numbers-beside-sum" and "fednova" in p.what and "fedavg" in p.mend


def test_weights_by_samples_under_a_claim(tmp_path):
    p = refused(
        lambda: toml(
            tmp_path,
            '[partition]\nscheme = "iid"\nclients = 20\n[algorithm]\nweights = "samples"\n'
            "[privacy]\nclip = 1.0\nnoise_multiplier = 1.0\n",
            'source = "digits"',
        )
    )
    assert p.code == "weights-under-noise" and "thousandfold" in p.rule and 'weights = "uniform"' in p.mend
    followed = private()
    assert followed.algorithm.weights == "uniform"  # what follows where nothing is said
    assert secured().algorithm.weights == "samples"


def test_running_statistics_under_a_claim():
    net = lambda: nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))  # noqa: E731
    make = lambda buffers: Job(Task(net, buffers=buffers), A.fedavg(), hospitals(), rounds=1, **CLAIM)  # noqa: E731
    p = refused(lambda: make("average"))
    assert p.code == "buffers-under-noise" and "GroupNorm" in p.mend
    make("local")
    with pytest.raises(BadInput) as error:
        plan(make("refuse"), Local())
    assert error.value.code == "batchnorm"


def test_every_problem_is_told_at_once():
    median = Aggregator("median", "each", lambda rows, w, s: (rows, s))
    with pytest.raises(BadInput) as error:
        job(changed(aggregate=median, uplink=Transform("sign", passes)), hospitals(), **SUMS)
    assert [p.code for p in error.value.problems] == ["needs-each", "unbounded-message"]


# ---- the claim


def test_an_accountant_that_does_not_cover_the_cohort():
    p = refused(lambda: private(cohort=10, table={"noise_multiplier": 1.0, "accountant": "pld"}))
    assert p.code == "accountant-invalid" and "fixed size" in p.what
    assert 'privacy.accountant = "rdp"' in p.mend and "poisson" in p.mend
    assert private(cohort=10).privacy.accountant == "rdp" and private(cohort=0.5).privacy.accountant == "pld"
    with pytest.raises(BadInput) as error:  # truncated Poisson has no RDP accountant here
        private(federation=writers(100), cohort=0.5, quorum=0.4, table={"noise_multiplier": 1.0, "accountant": "rdp"},
                secure=Secure())  # fmt: skip
    assert error.value.code == "accountant-invalid" and '"pld"' in error.value.mend


@pytest.mark.parametrize("delta", [1 / 40, 0.5])
def test_delta_at_or_above_one_over_n(delta):
    p = refused(lambda: private(table={"noise_multiplier": 1.0, "delta": delta}))
    assert p.code == "delta-too-large" and "1/N = 0.025" in p.what and "0.0173" in p.mend
    assert private(table={"noise_multiplier": 1.0, "delta": 0.0249}).privacy.delta == 0.0249
    assert private().privacy.delta == pytest.approx(40**-1.1)


def test_neither_epsilon_nor_noise():
    p = refused(lambda: private(table={"delta": 1e-3}))
    assert p.code == "missing-key" and "epsilon or noise_multiplier" in p.what and "epsilon = 8.0" in p.mend


def test_a_clip_that_is_missing_or_no_number(tmp_path):
    with pytest.raises(BadInput) as error:
        toml(tmp_path, "[privacy]\nepsilon = 8.0\n")
    assert error.value.code == "missing-key" and "clip" in error.value.what and "clip = 1.0" in error.value.mend
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(BadInput) as error:
            private(table={"clip": wrong, "noise_multiplier": 1.0})
        assert error.value.code == "out-of-range", wrong


@pytest.mark.parametrize("key", ["epsilon", "noise_multiplier"])
@pytest.mark.parametrize("wrong", [0.0, -2.0, float("nan")])
def test_numbers_out_of_range(key, wrong):
    with pytest.raises(BadInput) as error:
        private(table={key: wrong})
    assert error.value.code == "out-of-range" and key in error.value.what


def test_an_adaptive_clip_of_too_few_clients():
    """2 sigma_b = n/10 must exceed z: with z = 1 more than ten clients."""
    p = refused(lambda: private(federation=writers(10), table={"noise_multiplier": 1.0, "adaptive": True}))
    assert p.code == "adaptive-cohort-too-small" and "more than 10 clients" in p.mend and "adaptive = false" in p.mend
    private(federation=writers(11), table={"noise_multiplier": 1.0, "adaptive": True})


def test_a_scale_without_room():
    small = Job(Task(lambda: nn.Linear(6, 3)), A.fedavg(lr=0.1), hospitals(), rounds=1, cohort=1.0,
                privacy=Privacy(clip=1.0, noise_multiplier=2000.0))  # fmt: skip
    assert small.protection.scale(21) == 256  # z S must stay below 2^20, and S above sqrt(d)
    p = refused(lambda: small.protection.scale(300_000))
    wide = Task(lambda: nn.Sequential(nn.Linear(6, 30_000), nn.Linear(30_000, 3)))
    with pytest.raises(BadInput) as error:  # told before anything trains
        plan(replace(small, task=wide), Local())
    assert error.value.code == p.code == "scale-too-small" and "smaller noise multiplier" in p.mend
    p = refused(lambda: secured(table={"scale": 2**30}))
    assert p.code in ("overflow", "secure-below-floor") and "scale" in p.mend
    p = refused(lambda: secured(table={"range": 1e7}))
    assert p.code == "overflow" and "range" in p.mend


# ---- the secure sum


def test_fewer_than_three():
    for fed in (hospitals(sizes=(9, 9)), hospitals(sizes=(9,))):
        p = refused(lambda fed=fed: secured(federation=fed))
        assert p.code == "secure-too-few" and "the sum of one is no secret" in p.rule
    p = refused(lambda: secured(cohort=2, client_metrics="release"))
    assert p.code == "secure-too-few" and "raise cohort" in p.mend


@pytest.mark.parametrize("judges", [{"eval_cohort": 2}, {"eval_cohort": 3}, {"eval_cohort": 0.3}])
def test_too_few_that_judge(judges):
    """Of three one may be lost by delta_drop, and two then share no secret: no sum of metrics would ever come."""
    p = refused(lambda: secured(**judges))
    assert p.code == "secure-too-few" and "hold rows out" in p.what and 'client_metrics = "release"' in p.mend
    secured(client_metrics="release", **judges)
    if judges["eval_cohort"] == 3:
        secured(table={"delta_drop": 0.0}, **judges)


@pytest.mark.parametrize(
    "table", [{"neighbours": 2, "threshold": 2}, {"threshold": 1}, {"neighbours": 4, "threshold": 5}]
)
def test_neighbours_and_threshold_that_are_unsound(table):
    p = refused(lambda: secured(table=table))
    assert p.code == "secure-unsound" and "neighbours = " in p.got and "computed" in p.mend
    made = secured().secure
    assert secured(table={"neighbours": made.neighbours, "threshold": made.threshold}).secure == made


@pytest.mark.parametrize("table", [{"gamma": 0.0}, {"kappa": 20}, {"alpha": 0.4}, {"scale": 16}])
def test_what_every_client_would_refuse(table):
    p = refused(lambda: secured(table=table))
    [(key, value)] = table.items()
    assert p.code == "secure-below-floor" and "policy" in p.got and key in p.got and p.mend


def test_more_lost_or_corrupt_than_any_sum_survives():
    p = refused(lambda: secured(table={"delta_drop": 0.6}, client_metrics="release"))
    assert p.code == "secure-infeasible" and "lower delta_drop or gamma" in p.mend


def test_weights_whose_largest_is_found_or_must_be_said():
    """Rows that count ten each: by the rows alone every weight would be beyond the cap, and all clients weigh alike."""
    tens = Task(lambda: nn.Linear(6, 3), metrics=["accuracy"], size=lambda y: 10 * torch.ones_like(y))
    make = lambda table: replace(secured(table=table, rounds=1, eval_every=9), task=tens)  # noqa: E731
    fed = hospitals()
    rows = [fed.slab([i]).gather() for i in range(len(fed))]
    unread = ml.Federation.of_callables(rows.__getitem__, [len(y) for _, y in rows], test=0.0, classes=3, features=(6,))
    with pytest.raises(BadInput) as error:
        Job(tens, A.fedavg(lr=0.1), unread, rounds=1, **SUMS)
    [p] = [p for p in error.value.problems if p.code == "weight-cap-missing"]
    assert "weight_cap" in p.mend
    found = Job(tens, A.fedavg(lr=0.1), fed, rounds=1, **SUMS)
    assert found.secure is not None and found.secure.weight_cap == 10 * int(fed.sizes.max())
    j = make({"weight_cap": 220})
    torch.testing.assert_close(theta(j), theta(replace(j, secure=None)), rtol=0, atol=1e-5)
    alike = make({"weight_cap": 22})
    assert (theta(alike) - theta(replace(alike, secure=None))).abs().max() > 1e-3


def test_text_columns_whose_values_would_be_named(tmp_path):
    rows = [f"{'abcdef'[i % 6]},{i % 7},{'red' if i % 3 else 'blue'},{i % 2}" for i in range(80)]
    (tmp_path / "rows.csv").write_text("site,x,colour,label\n" + "\n".join(rows) + "\n")
    data = 'source = "csv"\npath = "rows.csv"\nlabel = "label"\nkey = "site"\n'
    p = refused(lambda: toml(tmp_path, "[secure]\n", data))
    assert p.code == "vocabulary-in-the-clear" and "colour" in p.got and "vocabulary" in p.mend
    (tmp_path / "words.json").write_text('{"colour": ["blue", "red"]}')
    toml(tmp_path, "[secure]\n", data + 'vocabulary = "words.json"\n')
    told = plan(toml(tmp_path, "[privacy]\nclip = 1.0\nepsilon = 8.0\ndelta = 0.01\n", data), Local()).privacy
    assert any("which values the text columns have" in line for line in told["uncovered"])


# ---- the tables


@pytest.mark.parametrize(
    ("tables", "near"),
    [
        ("[privacy]\nclip = 1.0\nepsilom = 8.0\n", "epsilon"),
        ("[privacy]\nclip = 1.0\nepsilon = 8.0\nnoise_mult = 1.0\n", "noise_multiplier"),
        ("[secure]\nneighbors = 4\n", "neighbours"),
        ("[secure]\ndelta_dorp = 0.1\n", "delta_drop"),
    ],
)
def test_unknown_keys_get_the_nearest_name(tmp_path, tables, near):
    with pytest.raises(BadInput) as error:
        toml(tmp_path, tables)
    [p] = [p for p in error.value.problems if p.code == "unknown-key"]
    assert near in p.mend


@pytest.mark.parametrize(
    ("tables", "allowed"),
    [
        ('[secure]\nmode = "passive"\n', "active"),
        ('[secure]\nfidelity = "fast"\n', "ideal"),
        ('[privacy]\nclip = 1.0\nepsilon = 8.0\nunit = "record"\n', "client"),
        ('[privacy]\nclip = 1.0\nepsilon = 8.0\naccountant = "gdp"\n', "rdp"),
    ],
)
def test_unknown_values_get_the_list(tmp_path, tables, allowed):
    with pytest.raises(BadInput) as error:
        toml(tmp_path, tables)
    assert allowed in error.value.problems[0].text()


def test_an_empty_table_switches_secure_sums_on(tmp_path):
    found = toml(tmp_path, "[secure]\n").secure
    assert found.mode == "active" and found.fidelity == "full" and found.neighbours == 3 and found.kappa == 80
    assert toml(tmp_path, "").secure is None


def test_a_claim_for_one_of_four():
    p = refused(lambda: private(federation=writers(4)))
    assert p.code == "too-few-to-hide" and "drowns" in p.rule and "[secure] hides updates" in p.mend
