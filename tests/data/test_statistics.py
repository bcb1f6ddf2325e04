"""Federated statistics equal pooled ones; preprocessing is the same from tensors, from JSON, at training and later."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import manyloom.data as data
from manyloom.core.errors import BadInput, RunFailed
from manyloom.core.exchange import Lost, play
from manyloom.data import statistics
from manyloom.data.build import federate
from manyloom.data.preprocess import Preprocess
from manyloom.data.sources.info import SourceInfo
from manyloom.data.table import Column, Table, TableSchema
from tests.data.talk import answers, folded, learnt

SCHEMA = TableSchema((Column("age"), Column("ward", "category"), Column("dose")), "ill", "class", ("no", "yes"))
WARDS = ("east", "north", "west")


def table(numbers, codes=None):
    n = len(numbers)
    codes = np.zeros(n, int) if codes is None else codes
    return Table(SCHEMA, np.asarray(numbers, float), np.asarray(codes, np.int32)[:, None], (WARDS,), np.arange(n) % 2)


def hospitals(numbers, codes=None, groups=None, standardise=True):
    t = table(numbers, codes)
    group = np.zeros(len(t), int) if groups is None else np.asarray(groups)
    names = [f"h{i}" for i in range(int(group.max()) + 1)]
    return federate(t, SourceInfo("toy", "toy"), partition=None, test=0.0, seed=0, groups=(names, names, group),
                    standardise=standardise)  # fmt: skip


VALUES = st.floats(-1e4, 1e4) | st.just(float("nan"))


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES, st.integers(0, 2)), min_size=3, max_size=40))
def test_federated_statistics_equal_pooled_ones(rows):
    numbers = np.array([[a, b] for a, b, _ in rows])
    groups = np.array([0, 1, 2] + [g for _, _, g in rows[3:]])
    fed = hospitals(numbers, groups=groups)
    for answer in (answers, folded):
        pre = learnt(fed, answer)
        for j in range(2):
            here = numbers[~np.isnan(numbers[:, j]), j]
            mean = here.mean() if len(here) else 0.0
            assert pre.mean[j] == pytest.approx(mean, rel=1e-9, abs=1e-9)
            if len(here) and here.std() > 1e-4 * max(abs(mean), 1e-9):
                assert pre.sd[j] == pytest.approx(here.std(), rel=1e-6)
            else:
                assert pre.sd[j] > 0
        x = pre.encode(fed.table([0, 1, 2]))
        assert np.isfinite(x).all()
        assert (x[np.isnan(fed.table([0, 1, 2]).numbers[:, 0]), 0] == 0).all()  # a gap is the mean


def test_heart_disease_equals_pooled():
    fed = data.heart_disease(seed=3)
    raw = fed.table(range(4)).numbers
    pre = learnt(fed)
    assert np.allclose(pre.mean, np.nanmean(raw, 0), rtol=1e-12) and np.allclose(pre.sd, np.nanstd(raw, 0), rtol=1e-9)
    one = learnt(fed.pooled())
    assert np.allclose(one.mean, pre.mean) and np.allclose(one.sd, pre.sd)
    assert pre.width == 13 and pre.columns[0] == "age"


def test_a_client_without_a_value_is_no_problem_and_is_told():
    nan = float("nan")
    fed = hospitals([[1.0, nan], [3.0, nan], [5.0, 2.0], [7.0, 4.0]], groups=[0, 0, 1, 1])
    for answer in (answers, folded):
        pre = learnt(fed, answer)
        assert pre.mean.tolist() == [4.0, 3.0] and pre.notes == ("h0 has no value of dose",)
    x = pre.encode(fed.client(0).table)
    assert (x[:, -1] == 0).all()


def test_a_column_without_any_value_and_a_constant_one_are_safe():
    nan = float("nan")
    fed = hospitals([[nan, 1e9 + 0.1], [nan, 1e9 + 0.1], [nan, 1e9 + 0.1]], groups=[0, 1, 1])
    pre = learnt(fed)
    x = pre.encode(fed.table([0, 1]))
    assert np.isfinite(x).all() and np.abs(x[:, [0, -1]]).max() < 1e-5


def test_categories_are_one_hot_and_an_unseen_one_is_none():
    fed = hospitals([[1.0, 2.0], [2.0, 3.0], [3.0, 5.0]], codes=[1, 1, 2], groups=[0, 1, 1])
    pre = learnt(fed)
    assert pre.vocabulary == (("north", "west"),) and pre.columns == ("age", "ward=north", "ward=west", "dose")
    new = Table(SCHEMA, np.zeros((4, 2)), np.array([[0], [1], [2], [-1]], np.int32), (("moon", "north", "west"),))
    assert pre.encode(new)[:, 1:3].tolist() == [[0, 0], [1, 0], [0, 1], [0, 0]]
    assert pre.unseen(new) == {"ward": 1} and pre.filled(new) == {"ward": 1}


def test_a_declared_vocabulary_is_not_asked_for():
    fed = hospitals([[1.0, 2.0], [2.0, 3.0]], codes=[0, 1], groups=[0, 1])
    verbs = []

    def answer(ask):
        verbs.append(ask.verb)
        return answers(fed)(ask)

    talk = statistics.statistics(SCHEMA, np.arange(2), vocabulary={"ward": ["south", "east"]})
    assert play(talk, answer).vocabulary == (("south", "east"),)
    assert verbs == ["statistics"]


def test_without_standardise_numbers_pass_unchanged_and_gaps_are_refused():
    fed = hospitals([[1.0, 2.0], [5.0, 3.0]], groups=[0, 1], standardise=False)
    pre = learnt(fed)
    assert not pre.fill and pre.encode(fed.table([0, 1]))[:, 0].tolist() == [1.0, 5.0]
    with pytest.raises(BadInput) as caught:
        pre.encode(table([[1.0, float("nan")]]))
    assert caught.value.code == "not-finite" and "standardise = true" in (caught.value.mend or "")


def test_gaps_without_standardise_are_told_before_anything_trains():
    with pytest.raises(BadInput) as caught:
        data.heart_disease(standardise=False)
    assert caught.value.what == "features hold values that are not numbers"
    assert caught.value.got == (
        '1 NaN in column "trestbps" of client hungary, first in row 91 (so have 9 more columns)'
    )
    assert caught.value.rule == "the model takes finite numbers only"
    assert caught.value.mend == "[data] standardise = true fills them with federated means; or clean it"


def test_infinite_numbers_are_told():
    with pytest.raises(BadInput, match="infinite"):
        hospitals([[float("inf"), 1.0], [1.0, 2.0]])


def test_only_named_tensors_of_sums_leave():
    fed = data.heart_disease()
    body, memory = statistics.HANDLERS["statistics"].run({}, {}, fed.client(2))
    assert {k: (tuple(v.shape), v.dtype) for k, v in body.items()} == {
        "count": ((1, 13), torch.float64), "sum": ((1, 13), torch.float64), "square": ((1, 13), torch.float64),
        "absent": ((1, 13), torch.uint8)}  # fmt: skip
    assert memory == {}


def test_the_record_travels_as_tensors_and_is_kept_as_json():
    fed = hospitals([[1.0, 2.0], [2.0, float("nan")], [3.0, 5.0]], codes=[1, -1, 2], groups=[0, 1, 1])
    pre = learnt(fed)
    rows = fed.table([0, 1])
    by_slots = Preprocess.from_slots(SCHEMA, pre.to_slots())
    by_json = Preprocess.from_json(json.loads(json.dumps(pre.to_json())))
    assert all(isinstance(t, torch.Tensor) for t in pre.to_slots().values())
    for again in (by_slots, by_json):
        assert np.array_equal(again.encode(rows), pre.encode(rows)) and again.columns == pre.columns
    assert by_json.schema == SCHEMA and by_json.notes == pre.notes


def test_prepared_tables_are_tensors_everywhere():
    fed = data.heart_disease()
    with pytest.raises(RuntimeError, match="prepare"):
        fed.slab([0])
    pre = learnt(fed)
    ready = fed.prepare(pre)
    assert ready.features == (13,) and ready.sizes.tolist() == fed.sizes.tolist()
    assert np.array_equal(ready.slab([2]).gather()[0].numpy(), pre.encode(fed.client(2).table))
    for a, b in ((ready.only(1), fed.only(1).prepare(pre)), (ready.pooled(), fed.pooled().prepare(pre)),
                 (ready.pooled().only(0), fed.pooled().only(0).prepare(pre))):  # fmt: skip
        for part in ("train", "test"):
            assert torch.equal(a.slab([0], part).gather()[0], b.slab([0], part).gather()[0])
    assert data.digits(partition=data.iid(clients=2)).prepare(pre).features == (64,)


def test_nobody_answering_is_a_failed_run_and_somebody_is_enough():
    fed = data.heart_disease()
    with pytest.raises(RunFailed, match="no client answered"):
        play(statistics.of(fed), lambda ask: [Lost(int(i), "error", "") for i in ask.to])
    part = play(statistics.of(fed), lambda ask: answers(fed)(ask)[:2])
    assert np.isfinite(part.mean).all()
    with pytest.raises(ValueError, match="tensors"):
        next(statistics.of(data.digits(partition=data.iid(clients=2))))
