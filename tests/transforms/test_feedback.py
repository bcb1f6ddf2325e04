"""What was not sent is sent later."""

import pytest
import torch

from manyloom.transforms import clip, error_feedback, random_k, uplink
from tests.transforms.every import FEEDBACK, draw, normal, nothing


def rounds(t, updates, start=None):
    """Sum of what the server decodes, the last memory."""
    memory, total = start or nothing(t, updates[0]), torch.zeros_like(updates[0])
    for r, u in enumerate(updates, 1):
        message, memory = t.apply({"u": u}, memory, {}, draw(len(u), r))
        total = total + t.undo(message, draw(len(u), r))["u"]
    return total, memory


@pytest.mark.parametrize("case", FEEDBACK, ids=str)
def test_the_sum_of_what_is_sent_is_the_sum_of_updates_less_the_last_error(case):
    t = case.make()
    updates = [normal(3, 70, r) for r in range(12)]
    total, memory = rounds(t, updates)
    assert list(t.memory) == ["u.error"] and t.memory["u.error"] == "d" and t.bound(1.0) == float("inf")
    torch.testing.assert_close(total + memory["u.error"], torch.stack(updates).sum(0), rtol=1e-4, atol=1e-4)
    assert memory["u.error"].norm() > 0.1


@pytest.mark.parametrize(
    "table", [{"random_k": 0.1}, {"qsgd": 1}, {"uniform": 1}, {"eden": 1}, {"top_k": 0.1}], ids=str
)
def test_inside_it_the_coarsest_brings_nearer_too(table):
    """||p - C(p)|| <= ||p||, though all but the last two make vectors much longer outside of it."""
    t = uplink(**table, error_feedback=True)
    u = normal(4, 130)
    message, memory = t.apply({"u": u}, nothing(t, u), {}, draw(4))
    assert bool((memory["u.error"].norm(dim=1) <= u.norm(dim=1) * (1 + 1e-5)).all())


@pytest.mark.parametrize("case", FEEDBACK, ids=str)
def test_the_error_of_an_update_that_stays_the_same_stays_small(case):
    u = normal(4, 130)
    _, memory = rounds(case.make(), [u] * 40)
    assert float((memory["u.error"].norm(dim=1) / u.norm(dim=1)).max()) < 30


def test_an_unbiased_one_of_high_variance_would_not():
    t = error_feedback(random_k(0.1))
    _, memory = rounds(t, [normal(4, 130)] * 40)
    assert float(memory["u.error"].norm()) > 1e10


def test_a_clip_before_it_bounds_the_update_alone():
    t = uplink(clip=1.0, top_k=0.3, error_feedback=True)
    u = 100 * normal(2, 50)
    total, memory = rounds(t, [u])
    torch.testing.assert_close(total + memory["u.error"], clip(1.0).apply({"u": u}, {}, {}, draw(2))[0]["u"])
    assert t.bound(1.0) == float("inf")


def test_half_precision_updates_keep_a_whole_error():
    t = uplink(top_k=0.3, error_feedback=True)
    total, memory = rounds(t, [normal(2, 40, r).to(torch.bfloat16) for r in range(3)])
    assert memory["u.error"].dtype == torch.float32
