"""Partitioners: the guarantees hold for every scheme, and the numbers are those of a plain reference."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.errors import BadInput
from manyloom.data import partition as parts
from manyloom.data.partition import SCHEMES, Split, skew, split
from manyloom.data.topup import top_up

DEALT = [name for name in SCHEMES if name != "natural"]
OPTIONS = {"dirichlet": {"alpha": 0.1}, "shards": {"classes_per_client": 2}, "quantity": {"sigma": 2.0}}


def make(name: str, clients: int, least: int = 1, **keys: float) -> parts.Partition:
    return parts.scheme(name, clients=clients, min_samples=least, **{**OPTIONS.get(name, {}), **keys})


def owners(s: Split, n: int) -> np.ndarray:
    out = np.full(n, -1)
    for i, (a, b) in enumerate(pairwise(s.off.tolist())):
        out[s.rows[a:b]] = i
    return out


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(DEALT),
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=120),
    clients=st.integers(1, 12),
    least=st.integers(0, 6),
    seed=st.integers(0, 2**31),
)
def test_every_scheme_keeps_its_guarantees(name, labels, clients, least, seed):
    y = np.array(labels)
    spec = make(name, clients, least)
    if clients * least > len(y):
        with pytest.raises(BadInput) as caught:
            split(spec, y, seed)
        assert caught.value.code == "out-of-range"
        return
    s = split(spec, y, seed)
    assert np.array_equal(np.sort(s.rows), np.arange(len(y)))  # every row once
    assert all((np.diff(s.rows[a:b]) > 0).all() for a, b in pairwise(s.off.tolist()))  # sorted within a client
    assert len(s.off) == clients + 1
    assert np.diff(s.off).min() >= least
    again = split(spec, y, seed)
    assert np.array_equal(s.rows, again.rows) and np.array_equal(s.off, again.off)
    report = s.report(y)
    assert np.array_equal(report.sizes, np.diff(s.off))
    assert ((report.distance >= 0) & (report.distance <= 1 + 1e-12)).all()
    assert ((report.entropy >= -1e-12) & (report.entropy <= np.log(6) + 1e-12)).all()


@settings(max_examples=80, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    clients=st.integers(1, 8),
    least=st.integers(0, 7),
    seed=st.integers(0, 1000),
)
def test_topping_up_is_the_stated_rule(labels, clients, least, seed):
    codes = np.array(labels)
    if clients * least > len(codes):
        return
    owner = np.random.default_rng(seed).integers(0, clients, len(codes)) ** 2 // max(clients - 1, 1)
    expected, moves = reference(owner.copy(), codes, clients, least)
    got = owner.copy()
    assert top_up(got, codes, clients, least) == moves
    assert np.array_equal(got, expected)


def reference(owner, codes, clients, least):
    """The rule of the specification, row by row, without a heap."""
    moves = 0
    for client in range(clients):
        while (owner == client).sum() < least:
            donor = np.bincount(owner, minlength=clients).argmax()
            kinds = np.bincount(codes[owner == donor], minlength=codes.max() + 1)
            has = np.isin(np.arange(len(kinds)), codes[owner == client])
            shared = np.where(has, kinds, 0)
            kind = (shared if shared.any() else kinds).argmax()
            owner[np.flatnonzero((owner == donor) & (codes == kind))[0]] = client
            moves += 1
    return owner, moves


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3, 0.5])
def test_a_small_dirichlet_always_returns_quickly(alpha):
    y = np.repeat(np.arange(10), 6000)
    for clients in (10, 20, 50, 100, 200, 500, 1000):
        began = time.perf_counter()
        s = split(parts.dirichlet(clients=clients, alpha=alpha, min_samples=10), y, seed=1)
        assert time.perf_counter() - began < 1.0
        assert np.diff(s.off).min() >= 10 and len(np.unique(s.rows)) == len(y)


def test_a_tiny_alpha_does_not_divide_by_nothing():
    s = split(parts.dirichlet(clients=50, alpha=1e-6, min_samples=0), np.repeat(np.arange(3), 100), seed=0)
    assert sorted(np.diff(s.off)[np.diff(s.off) > 0].tolist(), reverse=True)[0] >= 100


def test_a_large_alpha_is_nearly_iid_and_a_small_one_skewed():
    y = np.repeat(np.arange(10), 1000)
    even = split(parts.dirichlet(clients=20, alpha=1000.0), y, 0).report(y).distance.mean()
    skewed = split(parts.dirichlet(clients=20, alpha=0.1), y, 0).report(y).distance.mean()
    assert even < 0.05 and skewed > 0.5


def test_iid_parts_differ_by_one_row():
    sizes = np.diff(split(parts.iid(clients=7), np.zeros(100, int), 0).off)
    assert sizes.max() - sizes.min() <= 1


def test_shards_give_few_classes():
    y = np.repeat(np.arange(10), 100)
    s = split(parts.shards(clients=20, classes_per_client=2), y, 0)
    assert all(len(np.unique(y[s.rows[a:b]])) <= 2 for a, b in pairwise(s.off.tolist()))
    assert set(np.diff(s.off).tolist()) == {50}


def test_quantity_sizes_are_lognormal():
    s = split(parts.quantity(clients=200, sigma=1.0), np.zeros(100_000, int), 0)
    logs = np.log(np.diff(s.off))
    assert 0.8 < logs.std() < 1.2


def test_zero_mass_classes_and_one_client():
    y = np.array([7, 7, 9, 9, 9])  # classes 0 to 6 and 8 have no row
    for name in DEALT:
        s = split(make(name, 1), y, 3)
        assert np.array_equal(s.rows, np.arange(5))


def test_numbers_are_dealt_by_tenths():
    y = np.linspace(0.0, 1.0, 1000)
    s = split(parts.dirichlet(clients=10, alpha=0.05), y, 0)
    spread = [y[s.rows[a:b]].std() for a, b in pairwise(s.off.tolist())]
    assert np.median(spread) < y.std()


def test_too_many_clients_say_what_would_fit():
    with pytest.raises(BadInput) as caught:
        split(parts.iid(clients=30, min_samples=5), np.zeros(100, int), 0)
    assert "clients = 20" in str(caught.value) and "min_samples = 3" in str(caught.value)


def test_natural_clients_and_groups_of_them():
    group = np.repeat(np.arange(6), [3, 1, 4, 1, 5, 9])
    y = np.zeros(len(group), int)
    own = split(parts.natural(), y, 0, group, 6)
    assert own.natural and np.array_equal(np.diff(own.off), [3, 1, 4, 1, 5, 9])
    fewer = split(parts.natural(clients=2), y, 0, group, 6)
    owner = owners(fewer, len(group))
    assert not fewer.natural
    assert all(len(np.unique(owner[group == g])) == 1 for g in range(6))  # a natural client is never cut
    assert sorted(len(np.unique(group[owner == c])) for c in range(2)) == [3, 3]


def test_natural_clients_are_not_topped_up():
    group = np.repeat(np.arange(3), [1, 5, 5])
    with pytest.raises(BadInput, match="topped up"):
        split(parts.natural(min_samples=2), np.zeros(11, int), 0, group, 3)
    with pytest.raises(BadInput, match="only 3"):
        split(parts.natural(clients=4), np.zeros(11, int), 0, group, 3)
    with pytest.raises(BadInput, match="no clients of its own"):
        split(parts.natural(), np.zeros(11, int), 0)


def test_the_global_generator_is_not_touched():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    split(parts.dirichlet(clients=5), np.arange(50) % 5, 0)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_a_split_of_a_seed_is_the_same_everywhere():
    s = split(parts.dirichlet(clients=3, alpha=0.5), np.arange(12) % 3, seed=7)
    assert (s.rows.tolist(), s.off.tolist()) == GOLDEN


GOLDEN = ([0, 3, 6, 1, 2, 4, 5, 7, 8, 10, 11, 9], [0, 3, 11, 12])


def test_skew_of_an_empty_client_is_none():
    report = skew(np.array([[2, 2], [0, 0]]))
    assert report.distance.tolist() == [0.0, 0.0] and report.entropy[1] == 0


@pytest.mark.parametrize("wrong", [{"clients": 0}, {"alpha": 0.0}, {"alpha": -1.0}, {"min_samples": -1}])
def test_wrong_values_are_named(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        parts.dirichlet(**{"clients": 3, **wrong})


def test_the_table_makes_the_partition_again():
    spec = parts.shards(clients=4, classes_per_client=3)
    keys = dict(spec.table())
    assert parts.scheme(str(keys.pop("scheme")), **keys) == spec
