"""The transfer example in a small form: the aligned head gains where it should."""

from __future__ import annotations

import os

import pytest

from examples.transfer.compare import credit, digits, table


def test_an_aligned_head_is_another_one() -> None:
    assert digits("blurred", 0.0, seed=3, rounds=20) != digits("blurred", 0.3, seed=3, rounds=20)


@pytest.mark.slow
def test_an_aligned_head_reads_blurred_digits_better() -> None:
    unaligned, aligned = (digits("blurred", eta, seed=3) for eta in (0.0, 0.3))
    assert aligned > unaligned + 0.1


@pytest.mark.slow
@pytest.mark.skipif("MANYLOOM_DATA" not in os.environ, reason="needs the default-credit files")
def test_distillation_wins_on_a_small_overlap_and_both_grow() -> None:
    mean = {(n, how): sum(credit(n, how, s, None) for s in range(3)) / 3 for n in (100, 500, 2000)
            for how in ("soft", "hard")}  # fmt: skip
    for how in ("soft", "hard"):
        assert mean[100, how] < mean[500, how] < mean[2000, how]
    assert mean[100, "soft"] > mean[100, "hard"] and mean[500, "soft"] > mean[500, "hard"]


def test_a_table_tells_the_gain(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(("a", "b", "c"), [("x", [0.5, 0.7], [0.8, 0.8])]) == [("x", pytest.approx(0.2))]
    assert "+0.200" in capsys.readouterr().out
