"""The parts by themselves: order statistics, Gram matrix, screening, conditions, slots, who was kept, memory."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manyloom.aggregate import (
    RULES,
    TooFew,
    centred_clipping,
    filtered,
    krum,
    median,
    multi_krum,
    planned,
    remarks,
    screen,
    trimmed_mean,
)
from manyloom.aggregate import order as O
from manyloom.aggregate.cohort import Cohort
from manyloom.aggregate.gram import centred, distances
from manyloom.aggregate.screen import row_norms
from manyloom.core.errors import BadInput, RunFailed
from tests.aggregate.plain import CASES, IDS, ROBUST, make, reduce, squared, updates

every = pytest.mark.parametrize("name, pre", CASES, ids=IDS)


def cohort(x, f=0):
    return Cohort({"u": x}, np.arange(len(x)), {"u": row_norms(x)}, f)


# ---- order statistics


@settings(max_examples=60, deadline=None)
@given(x=hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.integers(1, 5)), elements=st.integers(-9, 9)),
       data=st.data())  # fmt: skip
def test_the_pruned_network_takes_the_ranks(x, data):
    lo = data.draw(st.integers(0, len(x) - 1))
    hi = data.draw(st.integers(lo + 1, len(x)))
    want = np.sort(x, axis=0)[lo:hi].mean(0, dtype=np.float64)
    np.testing.assert_allclose(O.middle(x.copy(), lo, hi), want, rtol=1e-6)


@pytest.mark.parametrize("n", range(1, 18))
def test_the_network_sorts_every_pattern_of_noughts_and_ones(n):
    """What sorts these sorts everything (Knuth's 0-1 principle): each rank by its own network."""
    patterns = (np.arange(min(2**n, 4096))[:, None] * (2**n // min(2**n, 4096)) >> np.arange(n) & 1).T.astype(
        np.float32
    )
    for rank in range(n):
        assert np.array_equal(O.middle(patterns.copy(), rank, rank + 1), np.sort(patterns, axis=0)[rank])


def test_comparators_are_as_few_as_the_pruning_promises():
    counts = {n: (len(O.batcher(n)), len(O.network(n, (n - 1) // 2, n // 2 + 1)), len(O.network(n, n // 5, n - n // 5)))
              for n in (20, 50, 100)}  # fmt: skip
    assert counts == {20: (97, 80, 84), 50: (395, 329, 334), 100: (1077, 888, 908)}


def test_sorting_and_the_network_agree():
    x = updates(O.SORTED, 300)
    for make_one in (median, lambda: trimmed_mean(20)):
        got, _, _ = reduce(make_one(), x)
        few, _, _ = reduce(make_one(), x.double())
        torch.testing.assert_close(got.double(), few, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(reduce(median(), x)[0], torch.quantile(x, 0.5, dim=0))


def test_blocks_and_threads_change_nothing():
    x = updates(11, 40_000)
    one, _, _ = reduce(trimmed_mean(2), x)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(reduce(trimmed_mean(2), x)[0], one)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(reduce(trimmed_mean(2), x[:, 16_000:17_000])[0], one[16_000:17_000])


# ---- distances


@pytest.mark.parametrize("large", [1e2, 1e4, 1e6, 1e9])
def test_one_large_row_spoils_no_distance_among_the_others(large):
    x = updates(20, 5000)
    x[0] = large
    d = distances(centred(cohort(x), "u"))[1:, 1:]
    exact = squared(x[1:].double().numpy())
    off = ~np.eye(19, dtype=bool)
    assert np.abs(d[off] / exact[off] - 1).max() < 1e-5
    mean = (x - x.mean(0)).numpy()
    spoilt = distances((mean @ mean.T).astype(np.float64))[1:, 1:]
    assert large < 1e4 or np.abs(spoilt[off] / exact[off] - 1).max() > 1e-3  # the control: centred on the mean


@pytest.mark.parametrize("offset", [1e2, 1e4])
def test_full_weights_in_place_of_updates(offset):
    """A common offset of 1e4 times the spread: same choice as in float64; without centring it is not."""
    x = updates(21, 4000) + offset * torch.randn(4000, generator=torch.Generator().manual_seed(9))
    exact = squared(x.double().numpy())
    d = distances(centred(cohort(x), "u"))
    off = ~np.eye(21, dtype=bool)
    assert np.abs(d[off] / exact[off] - 1).max() < 1e-5
    kept = [reduce(multi_krum(5), v)[1] for v in (x, x.double())]
    assert torch.equal(*kept)
    plain = x.numpy()
    assert np.abs(distances((plain @ plain.T).astype(np.float64))[off] / exact[off] - 1).max() > 1e-3


def test_a_centre_far_from_most_is_left_for_the_medoid():
    """The row of median norm may be a liar's: then the others' distances are taken around the medoid."""
    direction = torch.randn(2000, generator=torch.Generator().manual_seed(3))
    x = direction + 1e-4 * updates(11, 2000)
    norms = row_norms(x)[:9]
    x[9] = -0.5 * direction  # the shortest, so that five are below
    x[10] = -direction * float(np.sort(norms)[3:5].mean() / direction.norm())
    assert int(np.argsort(row_norms(x))[5]) == 10
    exact = squared(x[:9].double().numpy())
    d = distances(centred(cohort(x), "u"))[:9, :9]
    off = ~np.eye(9, dtype=bool)
    assert np.abs(d[off] / exact[off] - 1).max() < 1e-5


# ---- screening


def test_screening_says_what_is_wrong_row_by_row():
    x = updates(6, 4)
    x[1, 2], x[2], x[3] = float("nan"), float("-inf"), 1e20
    s = screen({"u": x, "dc": torch.tensor([0, 0, 0, 0, 0, 1e30])[:, None]})
    assert s.ok.tolist() == [True, False, False, False, True, False]
    assert s.why == {
        1: '1 of 4 numbers in "u" is not finite',
        2: '4 of 4 numbers in "u" are not finite',
        3: 'the norm of "u" is 2e+20, above 1e+15',
        5: 'the norm of "dc" is 1e+30, above 1e+15',
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_is_large_or_long_but_meant_passes(dtype):
    x = torch.full((2, 50_000), 60_000.0 if dtype == torch.float16 else 1e12 if dtype != torch.bfloat16 else 4e12)
    assert screen({"u": x.to(dtype)}).ok.all()
    assert not screen({"u": torch.full((1, 1), 1e300, dtype=torch.float64)}).ok.any()
    assert screen({"u": torch.full((1, 1), 1e15, dtype=torch.float64)}).ok.all()


def test_a_wrong_shape_is_a_blank_row_that_counts_as_a_fault():
    shapes = {"u": (3,), "b": (2, 2)}
    good = {"u": updates(4, 3), "b": torch.ones(4, 2, 2)}
    assert screen(good, shapes).rows is good and screen(good, shapes).ok.all()
    bad = [{"u": updates(1, 2), "b": torch.ones(1, 2, 2)}, {"u": updates(1, 3)}]
    seen = [screen(b, shapes) for b in bad]
    assert [s.why[0] for s in seen] == ['"u" has the shape [2], declared [3]', "it holds u, declared b, u"]
    parts = [screen(good, shapes), *seen]
    rows = {name: torch.cat([p.rows[name] for p in parts]) for name in shapes}
    weights = torch.cat([p.ok for p in parts]).double()
    got, kept, _ = reduce(trimmed_mean(2), rows, weights)  # two faults, both used up: the mean of the rest
    torch.testing.assert_close(got["u"], good["u"].mean(0))
    assert got["b"].shape == (2, 2) and kept.tolist()[4:] == [0, 0]


def test_nobody_is_nobody():
    assert screen({"u": torch.zeros(0, 5)}).ok.tolist() == []
    with pytest.raises(TooFew):
        reduce(median(), torch.zeros(0, 5))


# ---- n against f


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("pre", [None, "nnm"])
def test_conditions_before_the_job_and_on_the_survivors(name, pre):
    least = 2 * 3 + (3 if "krum" in name else 1)
    rule = make(name, 3, pre)
    assert planned(rule, least) is None
    said = planned(rule, least - 1)
    assert said is not None and said.code == "too-few" and f"at least {least} updates with f = 3" in (said.mend or "")
    assert "f = 2 at most" in (said.mend or "")
    x = updates(least, 4)
    reduce(rule, x)
    with pytest.raises(TooFew, match=f"{least - 1} usable updates, f = 3"):
        reduce(rule, x[1:])
    x[0] = float("nan")
    reduce(rule, x)  # n' = n - 1, f' = f - 1
    with pytest.raises(TooFew, match=f"{least - 1} usable updates, f = 3"):
        reduce(make(name, 3, pre, keep_f=True), x)
    assert issubclass(TooFew, RunFailed) and planned(rule, 999) is None


def test_absurd_f_is_refused():
    for f in (999, 1):  # each accepted by a peer's Krum with 5 or 4 clients
        with pytest.raises(TooFew):
            reduce(krum(f), updates(4, 3))
    for call in (lambda: krum(f=-1), lambda: krum(f=1.5), lambda: median(pre="nnm"), lambda: median(f=1, pre="nmm")):
        with pytest.raises(BadInput):
            call()
    with pytest.raises(TooFew, match="n >= 9"):
        reduce(multi_krum(1, m=9), updates(8, 3))
    assert planned(RULES["mean"](), 1) is None


def test_what_a_plan_says():
    assert remarks(multi_krum(4), 20) == ["multi-krum takes the mean of m = 16; the theorem asks m <= n - f - 2 = 14."]
    assert not remarks(multi_krum(4, m=14), 20) and not remarks(RULES["mean"](), 20, skewed=True)
    assert "0.20" in remarks(centred_clipping(f=4), 20)[0] and not remarks(centred_clipping(f=2), 20)
    assert "nnm" in remarks(median(), 20, skewed=True)[0] and not remarks(median(f=4, pre="nnm"), 20, skewed=True)


def test_a_rule_writes_the_table_that_makes_it_again():
    for name, pre in CASES:
        rule = make(name, 2, pre)
        keys = dict(rule.reduce.table)
        assert keys.pop("rule") == name and RULES[name](**keys).reduce.table == rule.reduce.table
    assert multi_krum(1, m=3).reduce.table == {"rule": "multi-krum", "f": 1, "m": 3, "keep_f": False}


# ---- slots, and who was kept


def three_slots(n=12, d=30):
    u = updates(n, d)
    return {"u": u, "dc": -20 * u + updates(n, d, 1), "buffers": 1e-3 * updates(n, 4, 2)}


@pytest.mark.parametrize("name", ["krum", "multi-krum", "geometric-median"])
def test_rules_that_weigh_clients_weigh_them_alike_in_every_slot(name):
    rows = three_slots()
    got, kept, _ = reduce(make(name, 3), rows)
    for slot, x in rows.items():
        torch.testing.assert_close(got[slot], ((kept / 12) @ x.double()).float(), rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("slot", ["u", "dc", "buffers"])
def test_a_liar_in_one_slot_is_found_there(name, pre, slot):
    rows = three_slots()
    clean, _, _ = reduce(make(name, 3, pre), rows)
    lied = {k: v.clone() for k, v in rows.items()}
    lied[slot][:2] = 1e6
    got, kept, _ = reduce(make(name, 3, pre), lied)
    far = {k: float((got[k] - clean[k]).norm() / rows[k].norm(dim=1).mean()) for k in rows}
    assert max(far.values()) < 3, far
    if name in ("krum", "multi-krum", "geometric-median"):
        assert filtered(kept)[:2].all()


@every
def test_a_slot_that_is_zero_for_most_and_one_number_wide(name, pre):
    rows = {"u": updates(9, 20), "a": torch.ones(9, 1), "z": torch.zeros(9, 3)}
    rows["z"][0] = 5.0
    got, _, _ = reduce(make(name, 2, pre), rows)
    assert {k: v.shape for k, v in got.items()} == {"u": (20,), "a": (1,), "z": (3,)}
    torch.testing.assert_close(got["a"], torch.ones(1))
    assert got["z"].abs().max() <= 5 / 2


@pytest.mark.parametrize("name, pre", [("trimmed-mean", "nnm"), ("multi-krum", None), ("geometric-median", "nnm"),
                                       ("krum", "nnm"), ("median", "nnm")])  # fmt: skip
def test_kept_names_the_liars_and_nobody_else(name, pre):
    """IPM x 10 of 4 in 20, updates with a common direction: filtered are the 4 (Krum keeps one neighbourhood)."""
    common = torch.randn(400, generator=torch.Generator().manual_seed(1))
    x = common + 0.7 * updates(20, 400)
    x[[2, 5, 11, 17]] = -10 * x[[i for i in range(20) if i not in (2, 5, 11, 17)]].mean(0)
    _, kept, _ = reduce(make(name, 4, pre), x)
    assert filtered(kept).nonzero().flatten().tolist() == [2, 5, 11, 17]


def test_dropped_rows_are_never_read():
    x = updates(8, 5)
    weights = torch.ones(8, dtype=torch.float64)
    weights[3] = 0
    want, _, _ = reduce(median(), torch.cat([x[:3], x[4:]]))
    assert torch.equal(reduce(median(), x, weights)[0], want)


# ---- memory


@every
def test_no_rule_copies_the_cohort(name, pre):
    x = updates(30, 300_000)
    rule = make(name, 5, pre)
    reduce(rule, x[:, :10])
    tracemalloc.start()
    try:
        reduce(rule, x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.25 * x.numel() * 4, f"{peak / x.numel() / 4:.2f} of the cohort"
