"""Which rows at which step."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.parts import Batches
from manyloom.engine.plan import plan, schedule, stretches
from tests.engine.toys import Toy, task


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 13), min_size=1, max_size=6),
    size=st.integers(1, 6),
    epochs=st.sampled_from([0.3, 1.0, 1.5, 3.0]),
    steps=st.sampled_from([None, None, 1, 4]),
    per=st.integers(1, 3),
)
def test_every_epoch_reads_every_row_once(
    sizes: list[int], size: int, epochs: float, steps: int | None, per: int
) -> None:
    fed, b = Toy(sizes), Batches(size, epochs, steps)
    s = schedule(np.arange(len(sizes)), fed.sizes, b, per)
    assert set(s.clients.tolist()) == {c for c, n in enumerate(sizes) if n}
    assert (np.diff(s.steps) <= 0).all()
    if not len(s.clients):
        return
    slab = fed.slab(s.clients)
    p = plan(s, fed.ids[s.clients], slab, b, per, 3, 2, task(), torch.float64)
    for j, c in enumerate(s.clients.tolist()):
        own, n = set(fed.rows[c].tolist()), len(fed.rows[c])
        minis = int(s.steps[j]) * per
        want = steps * per if steps else -(-int(np.ceil(np.round(epochs * s.batches[j], 9))) // per) * per
        assert minis == want
        for m in range(minis):
            assert set(p.places[m, j].tolist()) <= own  # padding too is a row of its own
            w, r = p.weights[m, j], p.real[m, j]
            assert torch.allclose(w[:r], torch.full((r,), 1 / r, dtype=torch.float64)) and not w[r:].any()
        assert not p.real[minis:, j].any() and not p.weights[minis:, j].any()
        read = [int(i) for m in range(minis) for i in p.places[m, j, : p.real[m, j]]]
        for at in range(0, len(read), n):
            epoch = read[at : at + n]
            assert len(set(epoch)) == len(epoch)
        assert all(p.real[m, j] == min(size, n - m % s.batches[j] * size) for m in range(minis))


def test_a_plan_in_stretches_is_the_same_plan() -> None:
    fed, b = Toy((9, 3, 14, 1, 6, 6)), Batches(4, 2)
    s = schedule(np.arange(6), fed.sizes, b)
    whole = plan(s, fed.ids[s.clients], fed.slab(s.clients), b, 1, 0, 1, task(), torch.float64)
    for lo, hi in ((0, 2), (2, 4), (4, 6)):
        part = s.part(lo, hi)
        p = plan(part, fed.ids[part.clients], fed.slab(part.clients), b, 1, 0, 1, task(), torch.float64)
        for j in range(hi - lo):
            for m in range(int(part.steps[j])):
                r = p.real[m, j]
                assert r == whole.real[m, lo + j]
                assert torch.equal(p.places[m, j, :r], whole.places[m, lo + j, :r])


def test_stretches_are_whole_groups_and_small() -> None:
    sizes = np.full(1000, 600)
    s = schedule(np.arange(1000), sizes, Batches(32, 5))
    cut = list(stretches(s, Batches(32, 5), 1, 7, 4 * 784))
    assert cut[0][0] == 0 and cut[-1][1] == 1000 and len(cut) > 1
    assert all(a[1] == b[0] for a, b in zip(cut, cut[1:])) and all(lo % 7 == 0 for lo, _ in cut)
    assert max(hi - lo for lo, hi in cut) * 600 * 4 * 784 <= 2 * (64 << 20)
    assert list(stretches(schedule(np.arange(0), sizes[:0], Batches()), Batches(), 1, 7, 1)) == []


def test_batches_of_one_row_are_dropped_for_batchnorm() -> None:
    s = schedule(np.arange(4), np.array([1, 5, 8, 9]), Batches(4), pairs=True)
    assert s.clients.tolist() == [2, 3, 1] and s.steps.tolist() == [2, 2, 1]


def test_ten_thousand_shuffles_are_uniform() -> None:
    """Chi-squared of positions below 1.3 a degree of freedom (mean 1, sd .16 with 81 degrees)."""
    n, count = 10, 10_000
    s = schedule(np.arange(count), np.full(count, n), Batches(n))
    fed = Toy((1,))
    slab = fed.slab([0])._replace(rows=np.tile(np.arange(n), count), off=np.arange(count + 1) * n)
    ids = np.arange(count, dtype=np.uint64)
    p = plan(s, ids, slab, Batches(n), 1, 0, 1, task(), torch.float64)
    table = np.zeros((n, n))
    for place in range(n):
        table[place] = np.bincount(p.places[0, :, place].numpy(), minlength=n)
    chi = ((table - count / n) ** 2 / (count / n)).sum() / 81
    assert 0.5 < chi < 1.5
