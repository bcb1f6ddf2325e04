"""What every transform must do, by discovery."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.seeds import Draw
from manyloom.core.slots import from_bytes, size_bytes, to_bytes
from manyloom.gate import Slot, leave
from manyloom.transforms import chain
from tests.transforms.every import CASES, FEEDBACK, PLAIN, UNSEEN, draw, normal, nothing, sent, through

numbers = st.one_of(
    st.floats(-1e30, 1e30),
    st.floats(-10, 10),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-40, 1e30, 1.0, 1.0]),
)
vectors = st.lists(numbers, min_size=1, max_size=80)
dtypes = st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])
each = pytest.mark.parametrize("case", CASES, ids=str)


def rows_of(values, dtype):
    top = torch.finfo(dtype).max / 4
    return torch.tensor([values], dtype=torch.float64).clamp(-top, top).to(dtype)


def norms(rows):
    return torch.linalg.vector_norm(rows.double(), dim=1)


def shapes(message):
    return {n: (t.shape, t.dtype) for n, t in message.items()}


def test_every_key_is_covered():
    assert not UNSEEN


@each
@settings(max_examples=6, deadline=None)
@given(values=vectors, dtype=dtypes)
def test_norms_are_bounded_and_sizes_told_before(case, values, dtype):
    rows = rows_of(values, dtype)
    d = rows.shape[1]
    for t in (case.make(d), case.make()):
        told = t.size({"u": torch.empty(d, dtype=dtype, device="meta")})
        message = sent(t, rows)
        assert shapes({n: m[0] for n, m in message.items()}) == shapes(told)
        assert set(message) == set(told) and size_bytes(message) == size_bytes(told)
        assert size_bytes(from_bytes(to_bytes(message))) == size_bytes(message)
        back = t.undo(message, draw())["u"]
        assert back.shape == rows.shape and bool(torch.isfinite(back).all())
        bound = t.bound(float(norms(rows)))
        assert float(norms(back)) <= bound * (1 + 1e-5) + 1e-42 * d
        if rows.count_nonzero() == 0:
            assert back.count_nonzero() == 0
    unbounded = case in FEEDBACK
    assert (case.make(d).bound(1.0) == float("inf")) == unbounded


def test_the_bound_can_fail():
    """The least levels of the coarsest codes do make vectors longer."""
    case = next(c for c in PLAIN if c.table == {"uniform": 1})
    rows = normal(50, 40)
    longest = float((norms(through(case.make(40), rows)) / norms(rows)).max())
    assert 1.2 < longest < case.make(40).bound(1.0)


@each
def test_a_row_depends_on_itself_alone(case):
    """Any group, any order, twice the same bits."""
    t, rows = case.make(), normal(5, 203, 1)
    together, by = sent(t, rows), draw(5)
    order = [3, 0, 4, 1, 2]
    shuffled = sent(t, rows[order], by._replace(ids=by.ids[order]))
    for i in range(5):
        alone = sent(t, rows[i : i + 1], by._replace(ids=by.ids[i : i + 1]))
        for n, whole in together.items():
            assert torch.equal(alone[n][0], whole[i]) and torch.equal(shuffled[n][order.index(i)], whole[i])
    back = t.undo(together, by)["u"]
    one = t.undo({n: m[2:3] for n, m in together.items()}, by._replace(ids=by.ids[2:3]))["u"]
    assert torch.equal(one[0], back[2])


@each
def test_another_seed_round_or_client_draws_otherwise(case):
    t, rows = case.make(), normal(1, 203)
    first = to_bytes(sent(t, rows, draw()))
    assert to_bytes(sent(t, rows, draw())) == first
    others = [to_bytes(sent(t, rows, by)) for by in (draw(round=2), draw(seed=1), draw(first=1))]
    assert all((o != first) == case.drawn for o in others)


@each
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_is_dropped_by_name(case, bad):
    """Also where its bad coordinate would not have been sent; what the client remembers stays as it was."""
    rows = normal(3, 65)
    rows[1, 64] = bad
    t = case.make()
    message, memory = t.apply({"u": rows}, nothing(t, rows), {}, draw(3))
    schema = {n: Slot(tuple(m.shape), not m.is_floating_point()) for n, m in t.size({"u": rows[0]}).items()}
    ok, lost = leave(np.arange(3), message, schema)
    assert ok.tolist() == [True, False, True] and [x.client for x in lost] == [1]
    assert all(torch.isfinite(m).all() and not m[1].any() for m in memory.values())


@each
def test_other_slots_pass_and_named_ones_are_packed_apart(case):
    t, rows, n = case.make(names=("u", "dc")), normal(2, 64), torch.ones(2, 1)
    message = {"u": rows, "dc": rows.clone(), "a": n, "buffers": normal(2, 7)}
    memory = {name: torch.zeros(2, 64) for name in t.memory}
    packed, _ = t.apply(message, memory, {}, draw(2))
    assert packed["a"] is n and torch.equal(packed["buffers"], message["buffers"])
    told = t.size({name: m[0] for name, m in message.items()})
    assert set(told) == set(packed) and {"a", "buffers"} <= set(told)
    assert size_bytes(packed) == 2 * size_bytes(told)
    back = t.undo(packed, draw(2))
    assert set(back) == set(message)
    assert torch.equal(back["u"], back["dc"]) != case.drawn  # two slots are two draws


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(case, dtype):
    t, rows = case.make(), normal(2, 130).to(dtype)
    before = rows.clone()
    back = through(t, rows)
    assert torch.equal(rows, before)
    if "clip" in case.table and len(case.table) == 1:
        assert back.dtype == dtype and bool((norms(back) <= 1).all())
    elif "clip" not in case.table:
        torch.testing.assert_close(back, through(t, rows.float()), rtol=1e-5, atol=1e-6)


def ratio(xhat, x):
    """||mean - x||^2 over what it is without a bias, E||xhat - x||^2 / n: about 1."""
    return float((xhat.mean(0) - x).square().sum() * len(xhat) / (xhat - x).square().sum(1).mean())


@pytest.mark.parametrize("case", [c for c in PLAIN if c.unbiased and c.drawn], ids=str)
def test_unbiased(case):
    x = normal(1, 300, 5) * torch.linspace(0.1, 3, 300)
    xhat = through(case.make(), x.expand(400, -1), draw(400)).double()
    assert ratio(xhat, x) < 1.4
    assert ratio(1.5 * xhat, x) > 1.7


@pytest.mark.parametrize("case", [c for c in CASES if not c.unbiased and c.drawn and "clip" not in c.table], ids=str)
def test_a_biased_one_is_caught(case):
    """Least squares makes vectors shorter."""
    x = normal(1, 300, 5)
    assert ratio(through(case.make(), x.expand(150, -1), draw(150)).double(), x) > 1.7


@each
def test_one_number_is_a_vector_too(case):
    if "qsgd" in case.table or case.table.get("random_k", 1.0) != 1.0:
        return  # a random number of levels
    x = torch.tensor([[-3.0], [0.5], [0.0], [1e-45]])
    expected = x.clamp(-1, 1) if "clip" in case.table else x
    torch.testing.assert_close(through(case.make(), x), expected, rtol=1e-5, atol=2e-45)


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_no_rows_at_all(case):
    t = case.make(9)
    empty = Draw(0, 1, np.zeros(0, np.uint64))
    assert t.undo(t.apply({"u": torch.zeros(0, 9)}, {}, {}, empty)[0], empty)["u"].shape == (0, 9)


def test_chained_by_hand_is_the_same():
    by_table = next(c for c in PLAIN if c.table == {"clip": 1.0, "random_k": 0.5, "eden": 4}).make()
    from manyloom.transforms import clip, eden, random_k

    by_hand = chain(clip(1.0), random_k(0.5), eden(4))
    assert to_bytes(sent(by_table, normal(3, 50))) == to_bytes(sent(by_hand, normal(3, 50)))
