"""Populations: who owns which rows, what is held out, what is refused; and a million clients for megabytes."""

import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

import manyloom.data as data
from manyloom.core import seeds
from manyloom.core.errors import BadInput
from manyloom.data.holdout import hold_out


def small(test=0.5, **keys):
    x = torch.arange(40, dtype=torch.float32).reshape(20, 2)
    y = torch.arange(20) % 4
    return data.Federation.of_tensors(x, y, [range(8), range(8, 20)], test=test, **keys)


def rows_of(fed, i, part="train"):
    return fed.slab([i], part).gather()[0]


def test_a_slab_names_the_rows_of_the_clients_asked():
    fed = small()
    slab = fed.slab([1, 0])
    assert slab.off.tolist() == [0, 8, 12]  # of 12 and 8 rows, a third and a half are held out: 1 of 3, 1 of 2 a class
    x, y = slab.gather()
    assert torch.equal(x[: slab.off[1]], rows_of(fed, 1)) and torch.equal(x[slab.off[1] :], rows_of(fed, 0))
    assert torch.equal(y, (x[:, 0] / 2).long() % 4)
    assert fed.sizes.tolist() == np.diff(fed.slab([0, 1]).off).tolist()


def test_train_and_held_out_rows_are_all_rows_once():
    fed = small()
    rows = torch.cat([rows_of(fed, i, part)[:, 0] for i in (0, 1) for part in ("train", "test")])
    assert torch.equal(rows.sort().values, torch.arange(0, 40, 2.0))
    assert fed.sizes.tolist() == [4, 8] and fed.tests.tolist() == [4, 4]


def test_offsets_are_a_shorter_way_to_say_ranges():
    a, b = (
        small(),
        data.Federation.of_tensors(
            torch.arange(40, dtype=torch.float32).reshape(20, 2), torch.arange(20) % 4, np.array([0, 8, 20]), test=0.5
        ),
    )
    for part in ("train", "test"):
        assert torch.equal(a.slab([0, 1], part).gather()[0], b.slab([0, 1], part).gather()[0])


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    share=st.sampled_from([0.0, 0.1, 0.2, 0.29, 0.5, 0.999]),
    seed=st.integers(0, 1000),
)
def test_the_held_out_share_is_rounded_down_for_each_client_and_class(sizes, share, seed):
    off = np.concatenate([[0], np.cumsum(sizes)])
    n = int(off[-1])
    y = np.random.default_rng(seed).integers(0, 3, n)
    ids = np.arange(len(sizes), dtype=np.uint64)
    parts = hold_out(np.arange(n), off, ids, share, seed, y)
    assert np.array_equal(np.sort(np.concatenate([parts.train, parts.test])), np.arange(n))
    for i, size in enumerate(sizes):
        own = y[off[i] : off[i + 1]]
        held = y[parts.test[parts.test_off[i] : parts.test_off[i + 1]]]
        for c in range(3):
            assert (held == c).sum() == int(np.floor(share * (own == c).sum() + 1e-9))
        assert size == 0 or parts.train_off[i + 1] > parts.train_off[i]


def test_a_clients_held_out_rows_do_not_depend_on_the_others():
    def held(names, sizes):
        off = np.concatenate([[0], np.cumsum(sizes)])
        ids = np.array([seeds.name_id(n) for n in names], np.uint64)
        parts = hold_out(np.arange(off[-1]), off, ids, 0.3, 5)
        i = names.index("b")
        return (parts.test[parts.test_off[i] : parts.test_off[i + 1]] - off[i]).tolist()

    assert held(["a", "b"], [7, 20]) == held(["b", "c", "d"], [20, 3, 11]) == held(["b"], [20])


def test_the_last_rows_in_time_are_held_out_where_order_matters():
    parts = hold_out(np.arange(10), np.array([0, 4, 10]), np.arange(2, dtype=np.uint64), 0.5, 0, ordered=True)
    assert parts.test.tolist() == [2, 3, 7, 8, 9]
    role = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    parts = hold_out(np.arange(10), np.array([0, 10]), np.zeros(1, np.uint64), 0.5, 0, role, ordered=True)
    assert parts.test.tolist() == [2, 3, 7, 8, 9]  # of each role of a client, its last


def test_another_seed_holds_out_other_rows():
    assert not torch.equal(rows_of(small(seed=0), 1, "test"), rows_of(small(seed=1), 1, "test"))


def test_uint8_rows_become_floats_when_gathered():
    fed = data.Federation.of_tensors(np.full((4, 3), 255, np.uint8), torch.zeros(4), np.array([0, 4]), test=0.0)
    slab = fed.slab([0])
    assert slab.x.dtype == torch.uint8 and fed.target == "number" and fed.classes is None
    assert torch.equal(slab.gather()[0], torch.ones(4, 3))


def test_a_memory_map_is_used_in_place(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.float32).reshape(12, 2))
    for mode in ("r", "c"):
        x = np.load(tmp_path / "x.npy", mmap_mode=mode)
        fed = data.Federation.of_tensors(x, np.arange(12) % 2, np.array([0, 6, 12]), test=0.0)
        assert fed.slab([1]).x.data_ptr() == x.ctypes.data
        assert rows_of(fed, 1)[0].tolist() == [12.0, 13.0]


def test_float64_rows_are_cast_when_gathered():
    fed = data.Federation.of_tensors(np.ones((4, 2)), np.zeros(4, int), np.array([0, 4]), test=0.0)
    assert rows_of(fed, 0).dtype == torch.float32


def test_tensors_are_dealt_by_a_scheme_and_have_a_test_set_of_their_own():
    x, y = torch.randn(60, 3), torch.arange(60) % 3
    fed = data.Federation.of_tensors(x, y, data.shards(clients=6, classes_per_client=1), own=(x[:5], y[:5]), seed=2)
    assert len(fed) == 6 and ((fed.label_counts() > 0).sum(1) == 1).all()
    own = fed.central()
    assert own is not None and torch.equal(own.gather()[0], x[:5]) and fed.own_test
    with pytest.raises(BadInput, match="does not fit"):
        data.Federation.of_tensors(x, y, data.iid(clients=2), own=(x[:5, :2], y[:5]))


class Squares(Dataset):
    """A data set as users write one; it counts how often it is read."""

    def __init__(self, n):
        self.n, self.reads = n, 0

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.reads += 1
        return torch.tensor([float(i)]), i % 2


def test_data_sets_are_read_when_their_client_is_asked():
    sets = {"a": Squares(5), "b": Squares(10)}
    fed = data.Federation.of_datasets(sets, classes=2, test=0.2)
    assert list(fed.names) == ["a", "b"] and (fed.sizes.tolist(), fed.tests.tolist()) == ([4, 8], [1, 2])
    assert sets["b"].reads == 0
    x, y = fed.slab([1, 0]).gather()
    assert x.shape == (12, 1) and torch.equal(y, x[:, 0].long() % 2)
    reads = sets["b"].reads
    fed.slab([1], "test")
    assert sets["b"].reads == reads  # kept in the small cache
    both = torch.cat([fed.slab([1]).x, fed.slab([1], "test").x]).flatten().sort().values
    assert torch.equal(both, torch.arange(10.0))


def test_a_tensor_data_set_finds_its_classes_itself():
    fed = data.Federation.of_datasets([TensorDataset(torch.zeros(3, 2), torch.tensor([0, 1, 2]))], test=0.0)
    assert fed.classes == 3 and fed.features == (2,) and fed.names[0] == "client-0"


def test_callables_make_clients_when_asked():
    asked = []

    def load(i):
        asked.append(i)
        return torch.full((3, 2), float(i)), torch.zeros(3, dtype=torch.int64)

    fed = data.Federation.of_callables(load, [3] * 1000, classes=2, features=[2], test=0.4)
    assert asked == []
    assert fed.slab([7, 900]).x[:, 0].tolist() == [7, 7, 900, 900]
    assert asked == [7, 900]


def test_a_lazy_client_is_checked_when_it_comes():
    def fed(x, y, **keys):
        return data.Federation.of_callables(lambda i: (x, y), [2], features=[1], test=0.0, **keys)

    ok, y = torch.zeros(2, 1), torch.tensor([0, 1])
    with pytest.raises(BadInput, match="another number of rows"):
        fed(ok[:1], y[:1], classes=2).slab([0])
    with pytest.raises(BadInput) as caught:
        fed(torch.tensor([[0.0], [np.inf]]), y, classes=2).slab([0])
    assert caught.value.code == "not-finite" and "row 2" in str(caught.value)
    with pytest.raises(BadInput) as caught:
        fed(ok, torch.tensor([0, 5]), classes=2).slab([0])
    assert caught.value.code == "label-range" and "label 5 in client client-0, row 2" in str(caught.value)


def test_labels_outside_the_classes_are_told():
    with pytest.raises(BadInput) as caught:
        data.Federation.of_tensors(
            torch.zeros(6, 1), torch.tensor([0, 1, 2, 3, 7, 0]), np.array([0, 3, 6]), names=["a", "b"], classes=5
        )
    assert str(caught.value) == (
        "error: a label is outside the classes the model has\n"
        "  got    label 7 in client b, row 2\n"
        "  rule   [model] classes = 5 takes labels 0 to 4\n"
        '  mend   set classes = 8, or check label = "y" in [data]'
    )
    with pytest.raises(BadInput, match="label-range|outside"):
        small().check_labels(2)
    small().check_labels(4)


def test_numbers_that_are_none_are_told():
    x = torch.zeros(5, 2)
    x[3, 1] = float("nan")
    with pytest.raises(BadInput) as caught:
        data.Federation.of_tensors(x, torch.zeros(5), np.array([0, 2, 5]), names=["a", "b"])
    assert caught.value.code == "not-finite"
    assert "1 NaN in rows of client b, first in row 2" in str(caught.value)


def test_empty_clients_of_ones_own_are_skipped():
    fed = data.Federation.of_tensors(torch.zeros(4, 1), torch.zeros(4).long(), [[0, 1], [], [2, 3]], test=0.0)
    assert fed.skipped == (1,) and fed.sizes.tolist() == [2, 0, 2]
    assert fed.slab([1]).off.tolist() == [0, 0]


def test_nobody_is_a_population_too():
    fed = data.Federation.of_tensors(torch.zeros(0, 3), torch.zeros(0).long(), [], classes=2)
    assert len(fed) == 0 and fed.label_counts().shape == (0, 2)
    assert len(fed.slab([]).rows) == 0


def test_an_empty_client_of_a_source_is_refused_or_left_out():
    spec = data.iid(clients=2000, min_samples=0)
    with pytest.raises(BadInput) as caught:
        data.digits(partition=spec)
    assert caught.value.code == "empty-client" and "drop_empty = true" in str(caught.value)
    assert caught.value.what == "203 of 2000 clients have no training rows"
    fed = data.digits(partition=data.iid(clients=2000, min_samples=0, drop_empty=True))
    assert len(fed.skipped) == 203 and (fed.sizes[list(fed.skipped)] == 0).all()


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(BadInput, match="not all in the data"):
        data.Federation.of_tensors(torch.zeros(3, 1), torch.zeros(3), [[0, 5]])
    with pytest.raises(BadInput, match="names"):
        data.Federation.of_tensors(torch.zeros(3, 1), torch.zeros(3), [[0], [1]], names=["a"])
    with pytest.raises(BadInput, match="two clients are called"):
        data.Federation.of_tensors(torch.zeros(3, 1), torch.zeros(3), [[0], [1]], names=["a", "a"])
    with pytest.raises(BadInput, match="below 1"):
        data.Federation.of_tensors(torch.zeros(3, 1), torch.zeros(3), [[0, 1]], test=1.0)


def test_pooled_keeps_where_each_test_row_came_from():
    fed = small()
    pooled = fed.pooled()
    assert len(pooled) == 1 and pooled.names[0] == "all" and pooled.sizes[0] == fed.sizes.sum()
    assert torch.equal(pooled.slab([0]).gather()[0], fed.slab([0, 1]).gather()[0])
    assert pooled.origins is not None
    for i in (0, 1):
        own = pooled.slab([0], "test").gather()[0][torch.from_numpy(pooled.origins == i)]
        assert torch.equal(own, rows_of(fed, i, "test"))
    assert pooled.label_counts().tolist() == [fed.label_counts().sum(0).tolist()]


def test_some_clients_keep_their_rows_names_and_ids():
    fed = data.heart_disease()
    some = fed.subset([3, 1])
    assert list(some.names) == ["Long Beach VA", "Hungary"] and list(some.keys) == ["long-beach-va", "hungary"]
    assert np.array_equal(some.ids, fed.ids[[3, 1]])
    assert np.array_equal(some.label_counts(), fed.label_counts()[[3, 1]])
    one = some.only(1)
    assert list(one.names) == ["Hungary"] and len(one.client(0).table) == fed.sizes[1]
    with pytest.raises(IndexError):
        fed.subset([4])


def test_label_counts_are_of_training_rows():
    fed = small()
    y = fed.slab([1]).gather()[1]
    assert fed.label_counts([1]).tolist() == [torch.bincount(y, minlength=4).tolist()]
    assert small(target="number").label_counts().shape == (2, 0)


def test_one_line_and_a_fragment():
    fed = data.heart_disease()
    assert repr(fed) == "Federation(heart-disease, 4 hospitals, 740 patients + 180 held out, 2 classes)"
    many = data.synthetic(partition=data.quantity(clients=200))
    named = small(names=["<script>", "b&c"])
    classes = data.Federation.of_tensors(torch.zeros(2000, 1), torch.arange(2000) % 90, data.iid(clients=20))
    digits = data.digits(partition=data.dirichlet(clients=20))
    assert digits._repr_html_().count("<i ") > 60
    for f in (fed, many, named, fed.pooled(), classes, digits):
        text = f._repr_html_()
        assert len(text) < 30_000 and "<script" not in text and len(repr(f)) < 120
    assert "&lt;script&gt;" in named._repr_html_()


def test_a_million_clients_cost_megabytes_and_no_time():
    tracemalloc.start()
    began = time.perf_counter()
    fed = data.synthetic(partition=data.iid(clients=1_000_000))
    seconds = time.perf_counter() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(fed) == 1_000_000 and seconds < 1.0 and peak < 50e6
    assert fed.names[999_999] == "client-999999" and fed.ids[12] == 12
    with pytest.raises(IndexError):
        fed.names[1_000_000]


def test_a_million_clients_over_one_tensor():
    x, y = torch.zeros(2_000_000, 1), torch.zeros(2_000_000, dtype=torch.int64)
    began = time.perf_counter()
    fed = data.Federation.of_tensors(x, y, np.arange(0, 2_000_001, 2), test=0.0)
    assert time.perf_counter() - began < 2.0 and len(fed) == 1_000_000


def test_made_rows_do_not_depend_on_who_else_is_asked():
    fed = data.synthetic(partition=data.iid(clients=1000), features=8, seed=3)
    together = fed.slab([5, 900])
    assert torch.equal(together.x[16:], fed.slab([900]).x)
    assert not torch.equal(
        fed.slab([5]).x, data.synthetic(partition=data.iid(clients=1000), features=8, seed=4).slab([5]).x
    )
    x, y = fed.slab(range(1000)).gather()
    assert abs(float((x - x.mean(0)).pow(2).mean()) - 1.75) < 0.35 and y.unique().tolist() == list(range(10))


def test_made_rows_are_dealt_by_any_scheme():
    fed = data.synthetic(partition=data.dirichlet(clients=100, alpha=0.1), features=4)
    assert int(fed.sizes.sum() + fed.tests.sum()) == 2000
    assert data.Partition is not None and fed.label_counts([3]).sum() == fed.sizes[3]
    assert fed.slab([3]).y.bincount(minlength=10).tolist() == fed.label_counts([3])[0].tolist()
    with pytest.raises(BadInput, match="number of clients"):
        data.synthetic()
    with pytest.raises(BadInput, match="at most"):
        data.synthetic(partition=data.dirichlet(clients=10_000_000))
