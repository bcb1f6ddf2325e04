"""Sentences and intervals from numbers: where federated wins, loses, ties, diverged, stopped, failed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from manyloom.track import intervals, verdict
from manyloom.track.record import Run, of_events

from . import streams


def run(better: float = 0.0, rows: int = 10_000, alone: float = -0.05, **kind) -> Run:
    """A run whose federated AUC is `better` than pooled, over so many rows."""
    found = of_events(streams.run(**kind))
    assert found.last is not None and found.final is not None
    found.last.rows, found.last.positives = rows, rows // 2
    found.baselines["central"].metrics["auc"] = found.final["auc"] - better
    for m in found.baselines["local"].on_all.values():
        m["auc"] = found.final["auc"] + alone
    for i, m in found.baselines["local"].clients.items():
        m["auc"] = found.last.clients[i]["auc"] - 0.01
    return found


def said(found: Run) -> str:
    return " ".join(verdict.verdict(found))


def test_federated_wins() -> None:
    found = run(better=0.05)
    assert "0.050 above training on pooled records, which is better." in said(found)
    assert "That is 0.050 above what one hospital alone reaches on everyone." in said(found)
    assert verdict.title_result(found) == "Federated training beats pooling by 0.050"


def test_federated_loses() -> None:
    found = run(better=-0.05)
    assert "0.050 below training on pooled records; pooling is better." in said(found)
    assert verdict.title_result(found) == "Federated training stays 0.050 behind pooling"


def test_a_tie_is_no_difference_that_so_many_could_show() -> None:
    found = run(better=-0.004, rows=230)
    assert "0.004 below training on pooled records, no difference that 230 patients could show." in said(found)
    assert verdict.title_result(found) == "Federated training comes within 0.005 of pooling"
    assert "the same as training on pooled records" in said(run(better=0.0))


def test_worse_than_alone_is_said() -> None:
    found = run(alone=0.05)
    assert "No hospital gains on everyone: each model trained alone is at least as good." in said(found)
    for i in (1, 3):
        found.baselines["local"].clients[i]["auc"] = 0.99
    assert "On their own patients, Hungary and Long Beach VA alone still do better." in said(found)


def test_less_is_better_for_a_loss() -> None:
    found = run()
    found.watch = "loss"
    found.baselines["central"].metrics["loss"] = found.final["loss"] + 0.1
    assert "0.100 below training on pooled records." in said(found)  # no formula: whether it is chance is not said
    assert verdict.title_result(found) == "Federated training ends 0.100 ahead of pooling"


def test_diverged() -> None:
    found = of_events(streams.run(harm=0.3))
    assert verdict.diverged(found)
    assert "Training diverged: the loss went from 0.752 to 6.425." in said(found)
    assert "reaches AUC" not in said(found)
    nowhere = of_events(streams.run())
    nowhere.last.metrics["loss"] = None
    assert "to no number at all" in said(nowhere)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ({"end": "stopped", "reason": "patience"}, "It stopped after round 12 of 20: AUC no longer got better."),
        ({"end": "stopped", "reason": "target"}, "It stopped after round 12 of 20: the target for AUC was reached."),
        ({"end": "failed", "reason": "the disk is full"}, "It failed after round 12 of 20: the disk is full."),
        ({"end": "interrupted"}, "It was interrupted after round 12 of 20; nothing that was saved is lost"),
        ({"end": None}, "It is still running: 12 of 20 rounds are done"),
    ],
)
def test_how_it_ended(kind: dict, sentence: str) -> None:
    assert sentence in said(of_events(streams.run(rounds=12, planned=20, baselines=False, **kind)))


def test_nothing_is_said_of_a_run_without_rounds() -> None:
    found = of_events(streams.run(rounds=0, planned=20, end="failed", reason="no data", baselines=False))
    assert said(found) == "It failed before the first round was done: no data."


def test_an_auc_of_few_rows_of_a_class_says_little() -> None:
    assert intervals.says_little(31, 29) and intervals.says_little(31, 2) and not intervals.says_little(40, 20)
    assert not intervals.says_little(None, None)


def test_hanley_mcneil_is_near_the_spread_of_drawn_aucs() -> None:
    rng = np.random.default_rng(0)
    n = 60
    drawn = []
    for _ in range(400):
        a, b = rng.exponential(1.0, n), rng.exponential(3.0, n)  # the model of the formula: AUC 0.75
        drawn.append(np.mean(b[:, None] > a[None, :]))
    assert np.mean(drawn) == pytest.approx(0.75, abs=0.01)
    assert intervals.auc_error(0.75, n, n) == pytest.approx(np.std(drawn), rel=0.15)


def test_wilson_covers() -> None:
    rng, p, n = np.random.default_rng(1), 0.9, 40
    ends = [intervals.wilson(k / n, n) for k in rng.binomial(n, p, 2000)]
    assert 0.93 < np.mean([lo <= p <= hi for lo, hi in ends]) < 0.98
    assert intervals.wilson(0.0, 10)[0] == 0.0 and intervals.wilson(1.0, 10)[1] == pytest.approx(1.0)


def test_intervals_where_there_is_no_formula() -> None:
    assert intervals.interval("rmse", 1.0, 100) is None and intervals.interval("auc", 0.5, 10, 10) is None
    assert intervals.bootstrap([1.0] * 7, [1.0] * 7) is None
    lo, hi = intervals.bootstrap([0.0, 1.0] * 20, [1.0] * 40) or (math.nan, math.nan)
    assert lo < 0.5 < hi and hi - lo < 0.4


def test_total_variation_of_labels() -> None:
    found = of_events(streams.run())
    for i, labels in enumerate(([10, 0], [0, 10], [5, 5], [5, 5])):
        found.people[i].labels = labels
    assert verdict.label_distance(found) == pytest.approx({0: 0.5, 1: 0.5, 2: 0.0, 3: 0.0})
