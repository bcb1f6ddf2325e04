"""Documents packed into rows are as good as documents alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.llm.packing import PAD, isolated, labels_of, lay, packed, pieces
from tests.llm import toys


@given(st.lists(st.integers(1, 32), max_size=60))
@settings(max_examples=100, deadline=None)
def test_every_document_has_one_place(lengths):
    rows = packed(lengths, 32)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    sums = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < s <= 32 for s in sums)
    assert rows == sorted(sorted(row) for row in rows)
    assert len(rows) <= 1.5 * np.ceil(sum(lengths) / 32) + 1  # best fit decreasing is within 11/9 of the best
    assert sum(a + b <= 32 for n, a in enumerate(sums) for b in sums[:n]) == 0  # no two rows fit into one


def test_a_document_too_long_for_a_row():
    with pytest.raises(ValueError, match="9 tokens"):
        packed([3, 9], 8)
    assert [p.tolist() for p in pieces(np.arange(9), 4)] == [[0, 1, 2, 3], [4, 5, 6, 7]]  # the last asks for nothing
    assert [len(p) for p in pieces(np.arange(10), 4)] == [4, 4, 2] and pieces(np.arange(1), 4) == []


def row_of(documents, width, together):
    row = torch.empty(3, width, dtype=torch.int64)
    lay([(np.array(d), np.ones(len(d), bool)) for d in documents], row, 99, together)
    return row.tolist()


def test_the_tail_of_a_row():
    assert row_of([[5, 6, 7], [8, 9]], 7, True) == [
        [5, 6, 7, 8, 9, 99, 99],
        [0, 1, 2, 0, 1, 0, 1],
        [6, 7, -100, 9, -100, -100, -100],  # 8 is no target of 7
    ]
    assert row_of([[5, 6, 7]], 5, False) == [[5, 6, 7, 99, 99], [0, 1, 2, PAD, PAD], [6, 7, -100, -100, -100]]


def forward(model, cache=False):
    def run(ids, positions):
        return model(input_ids=ids, position_ids=positions, use_cache=cache).logits

    return run


@pytest.fixture(scope="module")
def model():
    return toys.llama(toys.bytelevel())


def losses(model, rows):
    x = torch.tensor(rows)
    logits = forward(model)(x[:, 0], x[:, 1])
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 2].flatten(), reduction="none")
    return logits, each.view(x[:, 2].shape)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_documents_are_as_alone(model, attention):
    model.set_attn_implementation(attention)
    rng = np.random.default_rng(0)
    documents = [rng.integers(3, 400, n).tolist() for n in (9, 20, 4, 13, 30, 2)]
    rows = packed([len(d) for d in documents], 32)
    assert len(rows) == 3
    with torch.no_grad():
        logits, loss = losses(model, [row_of([documents[i] for i in row], 32, True) for row in rows])
        for r, row in enumerate(rows):
            at = 0
            for i in row:
                n = len(documents[i])
                alone, each = losses(model, [row_of([documents[i]], n, False)])
                assert (logits[r, at : at + n] - alone[0]).abs().max() < 1e-5
                assert (loss[r, at : at + n] - each[0]).abs().max() < 1e-5
                at += n


def test_right_padding_with_a_mask_is_as_alone(model):
    documents = [[5, 6, 7, 8, 9, 10], [11, 12, 13]]
    x = torch.tensor([row_of([d], 6, False) for d in documents])
    with torch.no_grad():
        mask = x[:, 1] != PAD
        both = model(input_ids=x[:, 0], attention_mask=mask.long(), position_ids=x[:, 1].clamp(min=0), use_cache=False)
        alone, _ = losses(model, [row_of([documents[1]], 3, False)])
    assert (both.logits[1, :3] - alone[0]).abs().max() < 1e-5


def test_the_probe_sees_documents_that_see_each_other(model):
    first, second = range(5, 17), range(40, 49)
    assert isolated(forward(model), first, second)
    assert not isolated(forward(model, cache=True), first, second)  # the restart is ignored silently

    def masked(ids, positions):
        return model(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits

    assert not isolated(masked, first, second)


def test_labels_are_the_next_tokens():
    ids, keep = np.array([4, 5, 6, 7]), np.array([True, False, True, True])
    assert labels_of(ids, keep).tolist() == [-100, 6, 7, -100]  # the first token is asked of nobody
    assert labels_of(ids[:1], keep[:1]).tolist() == [-100]
