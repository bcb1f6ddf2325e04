"""By discovery over all rules, bare and after nearest-neighbour mixing: what must hold for each of them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manyloom.aggregate import RULES, TooFew, filtered, screen
from tests.aggregate.plain import CASES, IDS, REFERENCES, enough, make, nnm, reduce, updates

every = pytest.mark.parametrize("name, pre", CASES, ids=IDS)
FEW = settings(max_examples=12, deadline=None)


@every
@pytest.mark.parametrize("n, d", [(7, 5), (20, 300), (9, 40_000)])
def test_a_rule_is_its_formula(name, pre, n, d):
    f = enough(n) // 2
    x = updates(n, d, seed=n)
    x[:f] = x[:f] * 3 + 2
    exact = x.double().numpy()
    want = REFERENCES[name](exact if pre is None else nnm(exact, f), f)
    got, _, _ = reduce(make(name, f, pre), x)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=3e-5)


def test_every_rule_has_a_reference_here_and_the_mean_is_its_own():
    assert set(REFERENCES) == set(RULES)
    x = updates(6, 4)
    assert torch.allclose(reduce(RULES["mean"](), x)[0], x.double().mean(0))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 5, 12])
def test_equal_updates_give_that_update(name, pre, dtype, n):
    row = updates(1, 33, dtype=dtype)
    got, _, _ = reduce(make(name, enough(n), pre), row.repeat(n, 1))
    torch.testing.assert_close(got.double(), row[0].double(), rtol=1e-6, atol=1e-7)


@every
@FEW
@given(x=hnp.arrays(np.float32, st.tuples(st.integers(5, 9), st.integers(1, 4)), elements=st.integers(-3, 3)),
       order=st.randoms(use_true_random=False))  # fmt: skip
def test_the_order_of_the_clients_decides_nothing_also_among_ties(name, pre, x, order):
    turn = list(range(len(x)))
    order.shuffle(turn)
    rule = make(name, 1, pre)
    got, _, _ = reduce(rule, torch.tensor(x))
    turned, _, _ = reduce(rule, torch.tensor(x[turn]))
    torch.testing.assert_close(turned, got, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_among_ties_exactly_as_many_are_chosen(m):
    x = torch.arange(7.0)[:, None]  # scores in pairs around the middle
    got, kept, _ = reduce(make("multi-krum", 1, m=m), x)
    assert (kept > 0).sum() == m and torch.allclose(got, x[kept > 0].mean(0))


@every
def test_who_is_kept_turns_with_the_clients(name, pre):
    x = updates(12, 50)
    turn = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    rule = make(name, 2, pre)
    torch.testing.assert_close(reduce(rule, x[turn])[1], reduce(rule, x)[1][turn], rtol=1e-4, atol=1e-4)


@every
@pytest.mark.parametrize("what", [float("nan"), float("inf"), -float("inf"), 1e30, "one"])
def test_a_row_that_is_no_number_is_dropped_and_named(name, pre, what):
    x = updates(12, 40)
    clean, _, _ = reduce(make(name, 1, pre), x[1:])
    if what == "one":
        x[0, 7] = float("nan")
    else:
        x[0] = what
    assert list(screen({"u": x}).why) == [0] and screen({"u": x}).ok.tolist() == [False] + [True] * 11
    got, kept, _ = reduce(make(name, 2, pre), x)  # one of the two faults is used up
    assert kept[0] == 0 and filtered(kept)[0]
    torch.testing.assert_close(got, clean)


@every
def test_one_and_two_updates(name, pre):
    x = updates(2, 6)
    alone, _, _ = reduce(make(name, 0, pre), x[:1])
    torch.testing.assert_close(alone, x[0])
    alone.zero_()
    assert x[0].all()  # no view of the client's message
    if "krum" in name:
        with pytest.raises(TooFew, match=r"needs n >= 2f\+3: 2 usable updates, f = 0"):
            reduce(make(name, 0, pre), x)
    else:
        got, _, _ = reduce(make(name, 0, pre), x)
        low, high = x.min(0).values, x.max(0).values
        assert name == "norm-clipping" or ((got >= low - 1e-6) & (got <= high + 1e-6)).all()
        assert got.isfinite().all()


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(name, pre, dtype):
    x = updates(9, 3000, dtype=dtype)
    got, _, _ = reduce(make(name, 2, pre), x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, reduce(make(name, 2, pre), x.float())[0])


@every
def test_nothing_is_written_to_and_zeros_are_legal(name, pre):
    x = updates(9, 30)
    x[3] = 0
    before, weights = x.clone(), torch.ones(9, dtype=torch.float64)
    state = {"v.u": torch.zeros(30)}
    reduce(make(name, 2, pre), x, weights, state)
    assert torch.equal(x, before) and torch.equal(weights, torch.ones(9).double()) and not state["v.u"].any()
    assert not reduce(make(name, 2, pre), torch.zeros(9, 30))[0].any()


@every
@FEW
@given(seed=st.integers(0, 10**6), by=st.sampled_from([-1.0, 0.5, 4.0, 1024.0]), shift=st.integers(-8, 8))
def test_scale_and_shift_go_through(name, pre, seed, by, shift):
    x = updates(9, 12, seed)
    rule = make(name, 2, pre)
    got, _, _ = reduce(rule, x)
    torch.testing.assert_close(reduce(rule, x * by)[0], got * by, rtol=1e-3, atol=1e-4 * abs(by))
    if name != "norm-clipping":  # which is a matter of the origin
        torch.testing.assert_close(reduce(rule, x + shift)[0], got + shift, rtol=1e-3, atol=1e-4)
