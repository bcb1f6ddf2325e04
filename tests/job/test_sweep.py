"""Grids: their combinations, their table, what is best."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from manyloom.core.errors import BadInput, bad
from manyloom.job.sweep import Outcome, Settings, best, check, combinations, members, table, within

GRID = {"algorithm.lr": [0.3, 0.1], "job.seed": [1, 2, 3]}


def made(settings: Settings) -> Any:
    return SimpleNamespace(digest=str(sorted(settings.items())), watched="auc")


def outcome(settings: Settings, auc: float, loss: float = 0.5) -> tuple[str, Outcome]:
    return made(settings).digest, Outcome(f"run-{auc}", {"auc": auc, "loss": loss}, 2.0)


def test_every_combination_once() -> None:
    found = combinations(GRID)
    assert len(found) == 6 and found[0] == {"algorithm.lr": 0.3, "job.seed": 1}
    assert len({str(f) for f in found}) == 6


def test_table_over_seeds() -> None:
    grid = members(GRID, made)
    done = dict(
        outcome(
            m.settings,
            {0.3: 0.8, 0.1: 0.9}[float(str(m.settings["algorithm.lr"]))] + 0.01 * int(str(m.settings["job.seed"])),
        )
        for m in grid
    )
    rows = table(grid, done)
    assert [r.settings for r in rows] == [{"algorithm.lr": 0.1}, {"algorithm.lr": 0.3}]
    assert rows[0].seeds == 3 and rows[0].mean == pytest.approx(0.92) and rows[0].spread == pytest.approx(0.01)
    assert best(rows) is rows[0] and not within(rows, rows[0])


def test_equal_metrics_are_ordered_by_loss() -> None:
    grid = members({"algorithm.lr": [0.3, 0.1, 0.03], "job.seed": [1, 2]}, made)
    auc = {0.3: (0.890, 0.892), 0.1: (0.8905, 0.8915), 0.03: (0.80, 0.81)}
    loss = {0.3: 0.43, 0.1: 0.41, 0.03: 0.40}
    done = dict(
        outcome(m.settings, auc[lr][int(str(m.settings["job.seed"])) - 1], loss[lr])
        for m in grid
        for lr in [float(str(m.settings["algorithm.lr"]))]
    )
    rows = table(grid, done)
    assert [r.settings["algorithm.lr"] for r in rows] == [0.1, 0.3, 0.03]
    assert [r.settings["algorithm.lr"] for r in within(rows, rows[0])] == [0.3]


def test_unfinished_and_undefined_come_last() -> None:
    grid = members({"algorithm.lr": [0.3, 0.1, 0.03]}, made)
    done = dict([outcome(grid[1].settings, 0.7), outcome(grid[2].settings, float("nan"))])
    rows = table(grid, done)
    assert rows[0].settings == {"algorithm.lr": 0.1} and rows[0].spread is None
    assert [r.seeds for r in rows] == [1, 1, 0]
    assert best(table(grid, {})) is None


def test_less_is_better_for_errors() -> None:
    def number(settings: Settings) -> Any:
        return SimpleNamespace(digest=str(settings), watched="rmse")

    grid = members({"algorithm.lr": [0.3, 0.1]}, number)
    done = {m.digest: Outcome("r", {"rmse": float(str(m.settings["algorithm.lr"]))}, None) for m in grid}
    assert table(grid, done)[0].settings == {"algorithm.lr": 0.1}


def test_all_problems_before_anything_runs() -> None:
    def wrong(settings: Settings) -> Any:
        raise bad("out-of-range", f"lr must be above 0, not {settings['algorithm.lr']}")

    with pytest.raises(BadInput) as info:
        members({"algorithm.lr": [-1, -2], "job.seed": [1, 2]}, wrong)
    assert len(info.value.problems) == 2
    for grid in ({}, {"algorithm.lr": []}, {"job.seed": [1, 1]}):
        with pytest.raises(BadInput):
            check(grid)
