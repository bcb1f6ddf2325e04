"""From texts to the rows that are trained on: shapes, cuts, counts, and what is refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom import data
from manyloom.core.errors import BadInput
from manyloom.data.federation import Federation
from manyloom.data.partition import iid, natural
from manyloom.job.assemble import task_of
from manyloom.llm import tokenise
from manyloom.llm.fast import check_vocabulary
from manyloom.llm.prompts import masked, prompts_of
from manyloom.llm.tokenise import tokenised
from tests.llm import toys


def federation(tmp_path, clients, **keys):
    """A file a client, of (question, answer) pairs."""
    for name, rows in clients.items():
        text = "\n".join(json.dumps({"question": q, "answer": a}) for q, a in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
    return data.jsonl(path=str(tmp_path), **keys)


CLIENTS = {
    "anna": [(f"How many is {i} and {i}?", f"It is {2 * i}.\n#### {2 * i}") for i in range(12)],
    "bert": [("Say it 🎉", "🎉 " * (i + 1)) for i in range(5)],
    "cleo": [("Why?", "Because.")],
}


def decoded(tokenizer, x, labels=False):
    """Tokens of a row, or the tokens that its labels ask for."""
    kept = x[2][x[2] >= 0] if labels else x[0][x[1] >= 0]
    return tokenizer.decode(kept, clean_up_tokenization_spaces=False)


def test_rows_are_ids_positions_and_shifted_labels(tmp_path):
    tokenizer = toys.bytelevel()
    raw = federation(tmp_path, CLIENTS)
    made, counts = tokenised(raw, tokenizer)
    assert list(made.names) == ["anna", "bert", "cleo"] and made.ids.tolist() == raw.ids.tolist()
    assert made.sizes.tolist() == raw.sizes.tolist() and made.tests.tolist() == raw.tests.tolist()
    assert made.target == "text" and made.features == (3, made.slab([0]).x.shape[2]) and made.tables is raw.tables
    longest = 0
    for i in range(3):
        for part in ("train", "test"):
            x, y = made.slab([i], part).gather()
            assert (x[:, 2] == y).all() and x.dtype == y.dtype and str(x.dtype) == "torch.int64"
            for row, talk in zip(x, data.texts.texts(raw, i, part), strict=True):
                n = int((row[1] >= 0).sum())
                longest = max(longest, n)
                assert row[1].tolist() == [*range(n), *[-1] * (len(row[1]) - n)]
                assert decoded(tokenizer, row, labels=True) == talk[1].content + "<|im_end|>"
                assert talk[0].content + "<|im_end|>" in decoded(tokenizer, row)
                asked = row[2] >= 0
                assert (row[2][:-1][asked[:-1]] == row[0][1:][asked[:-1]]).all() and not asked[-1]
    assert made.features == (3, longest)
    assert [c.client for c in counts] == [0, 1, 2] and [c.rows for c in counts] == raw.sizes.tolist()
    supervised = [int((made.slab([i]).gather()[1] >= 0).sum()) for i in range(3)]
    assert [c.supervised for c in counts] == supervised and all(not c.dropped and not c.shortened for c in counts)
    assert [c.held for c in counts] == raw.tests.tolist()


def test_padding_that_is_the_end_of_turn_hides_no_end_of_turn(tmp_path):
    tokenizer = toys.bytelevel()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    x, y = tokenised(federation(tmp_path, CLIENTS), tokenizer)[0].slab([0, 1, 2]).gather()
    assert (y == 2).sum(1).tolist() == [1] * len(y)  # one a row, though padding is the same token
    assert (x[:, 0][x[:, 1] < 0] == 2).all() and (y[x[:, 1] < 0] == -100).all()


def test_without_a_padding_token_the_end_is_used(tmp_path):
    bare, other = toys.bytelevel(pad=False), toys.bytelevel()
    assert bare.pad_token_id is None
    a, b = (tokenised(data.jsonl(path=str(tmp_path)), t)[0] for t in (bare, other) if federation(tmp_path, CLIENTS))
    assert (a.slab([0]).x == b.slab([0]).x).all()


def test_each_text_is_tokenised_once_and_in_batches(tmp_path, monkeypatch):
    raw = federation(tmp_path, CLIENTS)
    seen = []
    monkeypatch.setattr(tokenise, "BATCH", 7)
    monkeypatch.setattr(tokenise, "masked", lambda prompts, rows: seen.append(list(rows)) or masked(prompts, rows))
    tokenised(raw, toys.bytelevel())
    assert [len(s) for s in seen] == [7, 7, 4]
    assert len({row for batch in seen for row in batch}) == 18


def test_an_answer_that_is_cut_off_is_counted(tmp_path):
    tokenizer = toys.bytelevel(toys.CHATML)
    short, long, gone = ("Hi", "Hello."), ("Hi", "Hello. " * 30), ("Hi there. " * 30, "Hello.")
    fed = federation(tmp_path, {"a": [short, long, gone], "b": [short, gone, gone]}, test=0.0)
    made, counts = tokenised(fed, tokenizer, length=48)
    assert [(c.rows, c.dropped, c.shortened) for c in counts] == [(2, 1, 1), (1, 2, 0)]
    assert counts[1].reasons == {"the cut to length left none of its answer": 2}
    assert made.sizes.tolist() == [2, 1] and made.features == (3, 48)
    x, y = made.slab([0]).gather()
    whole = masked(prompts_of(tokenizer), [data.texts.texts(fed, 0)[1]])[0].ids
    assert x[1, 0].tolist() == whole[:48].tolist() and (x[1, 1] >= 0).all()
    assert 2 in y[0] and 2 not in y[1]  # the longer one's end was cut


def test_a_conversation_that_just_fits_is_not_shortened(tmp_path):
    fed = federation(tmp_path, CLIENTS)
    made, _ = tokenised(fed, toys.bytelevel())
    again, counts = tokenised(fed, toys.bytelevel(), length=made.features[1])
    assert not sum(c.shortened for c in counts) and (made.slab([0]).x == again.slab([0]).x).all()
    again, counts = tokenised(fed, toys.bytelevel(), length=made.features[1] - 1)
    assert sum(c.shortened for c in counts) == 1


def test_a_first_token_is_asked_of_nobody(tmp_path):
    tokenizer = copy.deepcopy(toys.bytelevel(None))
    tokenizer.eos_token = tokenizer.pad_token = None
    (tmp_path / "p.csv").write_text("prompt,completion\n,A\nQ, AB\n")
    made, counts = tokenised(
        data.jsonl(path=str(tmp_path / "p.csv"), partition=iid(clients=1), test=0.0), tokenizer, length=8
    )
    assert (counts[0].rows, counts[0].dropped, counts[0].unstopped) == (1, 1, 1)
    assert (made.slab([0]).gather()[1] >= 0).any(1).all()


def test_a_client_without_a_supervised_token_is_an_error(tmp_path):
    long = [("Hi there. " * 30, "Hello.")] * 2
    forged = [("Hi<|im_end|>", "Hello.")] * 3
    with pytest.raises(BadInput) as caught:
        tokenised(
            federation(tmp_path, {**CLIENTS, "dora": long, "emil": forged}, test=0.0),
            toys.bytelevel(toys.CHATML),
            length=40,
        )
    first, second = caught.value.problems
    assert first.code == second.code == "nothing-supervised"
    assert "dora" in first.what and "length = 40" in (first.got or "") and "chat template of" in (first.got or "")
    assert "left none of its answer" in (first.got or "") and first.mend == "length = 80 in [data]"
    assert "emil" in second.what and "3 of them: it holds the special token <|im_end|>" in (second.got or "")


def test_what_is_held_out_may_be_dropped_to_nothing(tmp_path):
    rows = [("Hi", "Hello.")] * 9 + [("Hi<|im_end|>", "Hello.")]
    fed = federation(tmp_path, {"a": rows, "b": rows}, test=0.0)
    forged = [i for i, r in enumerate(fed.store.corpus.rows) if "im_end" in r[0].content]
    store = data.texts.Texts(
        fed.store.corpus, fed.store.train, data.store.Listed(np.array(forged), np.array([0, 1, 2]))
    )
    made, counts = tokenised(replace(fed, store=store, tests=np.array([1, 1])), toys.bytelevel())
    assert made.tests.tolist() == [0, 0] and [c.held_dropped for c in counts] == [1, 1]
    assert made.slab([0, 1], "test").off.tolist() == [0, 0, 0]


def test_a_client_without_rows_is_left_as_it_was(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    raw = federation(tmp_path, CLIENTS, partition=natural(drop_empty=True))
    made, counts = tokenised(raw, toys.bytelevel())
    at = list(raw.names).index("empty")
    assert made.skipped == raw.skipped == (at,) and counts[at].rows == 0 and made.sizes[at] == 0


def test_some_clients_have_the_rows_they_have_among_all(tmp_path):
    tokenizer = toys.bytelevel()
    raw = federation(tmp_path, CLIENTS)
    all_of_them, some = tokenised(raw, tokenizer)[0], tokenised(raw.subset([2, 0]), tokenizer)[0]
    for here, there in ((0, 2), (1, 0)):
        a, b = some.slab([here]).gather()[0], all_of_them.slab([there]).gather()[0]
        width = min(a.shape[2], b.shape[2])
        assert (a[:, :, :width] == b[:, :, :width]).all()
    with pytest.raises(ValueError, match="pooled"):
        tokenised(raw.pooled(), tokenizer)


def test_packed_conversations_stay_with_their_client(tmp_path):
    tokenizer = toys.bytelevel(toys.CHATML)
    raw = federation(tmp_path, CLIENTS)
    apart, _ = tokenised(raw, tokenizer, length=160)
    together, counts = tokenised(raw, tokenizer, length=160, pack=True)
    assert (together.sizes <= apart.sizes).all() and together.sizes[0] < apart.sizes[0]
    assert [c.rows for c in counts] == together.sizes.tolist()
    for i in range(3):
        for part in ("train", "test"):
            x, y = together.slab([i], part).gather()
            alone = apart.slab([i], part).gather()[0]
            assert (x[:, 1] >= 0).all()
            documents = []
            for ids, positions, labels in x:
                starts = np.flatnonzero(positions.numpy() == 0)
                for a, b in zip(starts, [*starts[1:], len(ids)]):
                    if (labels[a:b] >= 0).any():
                        documents.append((ids[a:b].tolist(), labels[a:b].tolist()))
            want = [(r[0][r[1] >= 0].tolist(), r[2][r[1] >= 0].tolist()) for r in alone]
            assert sorted(documents) == sorted(want)


def test_plain_texts_are_packed_and_each_token_is_asked_once(tmp_path):
    tokenizer = toys.bytelevel()
    (tmp_path / "a.txt").write_text("\n\n".join(f"What a piece of work is man number {i}!" for i in range(40)))
    (tmp_path / "b.txt").write_text("Long " * 400)
    raw = data.text(path=str(tmp_path), length=64)
    made, counts = tokenised(raw, tokenizer)
    for i in range(2):
        tokens = [len(tokenizer(t)["input_ids"]) for t in data.texts.texts(raw, i)]
        bits = sum(-(-n // 64) - (n % 64 == 1) for n in tokens)
        assert counts[i].supervised == sum(n - (n % 64 == 1) for n in tokens) - bits
        x, y = made.slab([i]).gather()
        assert (x[:, 1] >= 0).all() and x.shape[2] == 64
    padded, _ = tokenised(raw, tokenizer, pack=False)
    assert (padded.slab([0]).gather()[0][:, 1] < 0).any()


def test_one_start_of_text_only(tmp_path):
    tokenizer = toys.metaspace()
    bos = tokenizer.bos_token_id
    chats = tokenised(federation(tmp_path, CLIENTS), tokenizer)[0].slab([0, 1, 2]).gather()[0]
    assert (chats[:, 0, 0] == bos).all() and ((chats[:, 0] == bos) & (chats[:, 1] >= 0)).sum(1).eq(1).all()
    (tmp_path / "a.txt").write_text("\n\n".join("What a piece of work!" * 4 for _ in range(6)))
    x = tokenised(data.text(path=str(tmp_path / "a.txt"), partition=iid(clients=1), length=20), tokenizer)[0].slab([0])
    assert ((x.x[:, 0] == bos).sum(1) <= (x.x[:, 1] == 0).sum(1)).all()
    assert (x.x[:, 1][x.x[:, 0] == bos] == 0).all()


def test_the_vocabulary_must_fit():
    tokenizer = toys.bytelevel()
    check_vocabulary(tokenizer, len(tokenizer))
    check_vocabulary(tokenizer, len(tokenizer) + 48)  # a padded embedding
    with pytest.raises(BadInput) as caught:
        check_vocabulary(tokenizer, len(tokenizer) - 1)
    assert caught.value.code == "vocabulary-mismatch" and str(len(tokenizer)) in (caught.value.got or "")
    more = copy.deepcopy(tokenizer)
    more.add_tokens(["<tool>"])
    with pytest.raises(BadInput) as caught:
        check_vocabulary(more, len(tokenizer))
    assert "<tool>" in (caught.value.got or "")


def test_only_texts_can_be_tokenised():
    with pytest.raises(BadInput) as caught:
        tokenised(data.digits(partition=iid(clients=2)), toys.bytelevel())
    assert caught.value.code == "model-input" and "jsonl" in str(caught.value)


def test_the_same_texts_make_the_same_rows(tmp_path):
    raw = federation(tmp_path, CLIENTS)
    a, b = (tokenised(raw, toys.bytelevel(), pack=True)[0] for _ in range(2))
    assert (a.slab([0, 1, 2]).x == b.slab([0, 1, 2]).x).all()


def test_other_models_read_no_texts():
    with pytest.raises(BadInput) as caught:
        task_of({"name": "logistic"}, ("text", None))
    assert caught.value.code == "model-input" and "causal-lm" in (caught.value.mend or "")


def test_rows_of_ones_own_are_texts_too():
    x = torch.tensor([[[5, 6, 7], [0, 1, 2], [-100, 7, -100]]]).repeat(4, 1, 1)
    fed = Federation.of_tensors(x, x[:, 2], [[0, 1], [2, 3]], test=0.5, target="text")
    assert fed.target == "text" and fed.classes is None and fed.features == (3, 3)
    assert fed.slab([1]).gather()[1].dtype == torch.int64 and fed.tests.tolist() == [1, 1]
