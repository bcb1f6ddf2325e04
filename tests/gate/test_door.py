"""What may leave: declared names and shapes, finite numbers; one bad row holds back nobody else."""

import numpy as np
import torch

from manyloom.gate import Slot, leave

IDS = np.array([4, 7, 9])


def test_finite_rows_leave_and_others_are_named():
    u = torch.ones(3, 5)
    u[1, 2], u[1, 3] = float("nan"), float("inf")
    ok, lost = leave(IDS, {"u": u, "samples": torch.ones(3)}, {"u": Slot((5,)), "samples": Slot(())})
    assert ok.tolist() == [True, False, True]
    assert [(x.client, x.reason, x.text) for x in lost] == [(7, "not-finite", '2 of 5 numbers in "u" are not finite')]


def test_large_finite_numbers_whose_sum_overflows_may_leave():
    u = torch.full((1, 4), 3e38)
    ok, lost = leave(IDS[:1], {"u": u}, {"u": Slot((4,))})
    assert ok.tolist() == [True] and not lost


def test_undeclared_missing_and_misshapen_slots_hold_everybody_back():
    for body, text in [
        ({"u": torch.ones(3, 5), "x": torch.ones(3, 2)}, "undeclared x"),
        ({}, "missing u"),
        ({"u": torch.ones(3, 4)}, '"u" has the shape [4], declared [5]'),
        ({"u": torch.ones(2, 5)}, '"u" has the shape [5], declared [5]'),
    ]:
        ok, lost = leave(IDS, body, {"u": Slot((5,))})
        assert not ok.any() and [x.client for x in lost] == [4, 7, 9] and lost[0].reason == "malformed"
        assert lost[0].text == text
    ok, lost = leave(IDS, {"n": torch.ones(3)}, {"n": Slot((), whole=True)})
    assert not ok.any() and "whole" in lost[0].text
