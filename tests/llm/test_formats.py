"""Sources of texts: the formats they take, and what they say of a file that is none of them."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from manyloom import data
from manyloom.core.errors import BadInput
from manyloom.data.partition import dirichlet, iid
from manyloom.data.texts import Message, passages, texts

ALPACA = [
    {"instruction": "Add.", "input": "1 2", "output": "3"},
    {"instruction": "Say hi.", "input": " \n", "output": "Hi."},
    {"instruction": "Say bye.", "output": "Bye."},
    {"instruction": "Say no.", "input": None, "output": "No."},
]
CHATS = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "user": 7},
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}], "user": 10},
    {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}], "user": 7},
]
QA = [{"question": f"q{i}?", "answer": f"<<1+{i}={1 + i}>>\n#### {1 + i}"} for i in range(20)]


def lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n", "utf-8")
    return str(path)


def asked(*turns: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in turns)


def one(path: str, **keys: object) -> list[object]:
    fed = data.jsonl(path=path, partition=iid(clients=1), test=0.0, **keys)  # type: ignore[arg-type]
    return list(texts(fed, 0))


def test_alpaca_with_and_without_input(tmp_path):
    assert one(lines(tmp_path / "a.jsonl", ALPACA)) == [
        asked(("user", "Add.\n1 2"), ("assistant", "3")),
        asked(("user", "Say hi."), ("assistant", "Hi.")),
        asked(("user", "Say bye."), ("assistant", "Bye.")),
        asked(("user", "Say no."), ("assistant", "No.")),
    ]


def test_an_array_named_jsonl_and_a_gzipped_one_are_read(tmp_path):
    array = tmp_path / "array.jsonl"
    array.write_text("\ufeff \n" + json.dumps(ALPACA, indent=2), "utf-8")
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress("\n".join(json.dumps(r) for r in ALPACA).encode()))
    assert one(str(array)) == one(str(packed)) == one(lines(tmp_path / "a.jsonl", ALPACA))


def test_prompts_answers_and_messages_are_kept_as_they_are(tmp_path):
    found = one(lines(tmp_path / "p.jsonl", [{"prompt": " p \n", "completion": "\n c "}]))
    assert found == [asked(("user", " p \n"), ("assistant", "\n c "))]
    found = one(lines(tmp_path / "q.jsonl", QA))
    assert found[3] == asked(("user", "q3?"), ("assistant", "<<1+3=4>>\n#### 4"))
    found = one(lines(tmp_path / "m.jsonl", CHATS))
    assert found[1] == asked(("system", "s"), ("user", "c"))


def test_a_separator_inside_a_text_ends_no_line(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b\x0c", "completion": "c\x85"}, ensure_ascii=False), "utf-8")
    assert one(str(path)) == [asked(("user", "a\u2028b\x0c"), ("assistant", "c\x85"))]


def test_csv_with_these_columns(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('id,prompt,completion\n1,"a\nb","c, d"\n2,e,f\n', "utf-8")
    assert one(str(path)) == [asked(("user", "a\nb"), ("assistant", "c, d")), asked(("user", "e"), ("assistant", "f"))]
    path.write_text('prompt,completion\n"a\nb",c\nd\n', "utf-8")
    with pytest.raises(BadInput) as caught:
        one(str(path))
    assert 'p.csv, line 4: there is no field "completion"' in str(caught.value)


def test_clients_are_a_key_or_files(tmp_path):
    fed = data.jsonl(path=lines(tmp_path / "m.jsonl", CHATS), key="user", test=0.0)
    assert list(fed.names) == ["7", "10"] and fed.sizes.tolist() == [2, 1]
    assert [m.content for row in texts(fed, 0) for m in row] == ["a", "b", "d", "e"]
    (tmp_path / "f").mkdir()
    lines(tmp_path / "f" / "bert.jsonl", QA[:5])
    lines(tmp_path / "f" / "anna.jsonl", QA[5:])
    fed = data.jsonl(path=str(tmp_path / "f"))
    assert list(fed.names) == ["anna", "bert"] and fed.sizes.tolist() == [12, 4] and fed.tests.tolist() == [3, 1]
    assert fed.target == "text" and fed.classes is None and fed.label_counts().shape == (2, 0)
    assert "the next token" in repr(fed) and "the next token" in fed._repr_html_()
    before = [texts(fed, 0, p) for p in ("train", "test")]
    (tmp_path / "f" / "bert.jsonl").rename(tmp_path / "f" / "aaron.jsonl")
    fed = data.jsonl(path=str(tmp_path / "f"))
    assert list(fed.names) == ["aaron", "anna"]
    assert [texts(fed, 1, p) for p in ("train", "test")] == before  # it hangs on a client's own name


def test_a_source_writes_the_keys_that_make_it_again(tmp_path):
    fed = data.jsonl(path=lines(tmp_path / "q.jsonl", QA), partition=iid(clients=3), length=64, pack=True, seed=5)
    told = dict(fed.tables["data"])  # type: ignore[index]
    assert told.pop("source") == "jsonl" and told["format"] == "qa" and told["pack"] is True
    again = data.jsonl(**told, partition=iid(clients=3))  # type: ignore[arg-type]
    assert all(texts(fed, i, p) == texts(again, i, p) for i in range(3) for p in ("train", "test"))


def test_topics_are_dealt_unevenly(tmp_path):
    rows = [{"text": f"{i}", "about": "xy"[i % 2]} for i in range(200)]
    path = lines(tmp_path / "t.jsonl", rows)
    fed = data.jsonl(path=path, topic="about", partition=dirichlet(clients=4, alpha=0.1), test=0.0)
    odd = np.array([np.mean([int(t) % 2 for t in texts(fed, i)]) for i in range(4)])
    assert (np.abs(odd - 0.5) > 0.3).any()
    with pytest.raises(BadInput) as caught:
        data.jsonl(path=path, partition=dirichlet(clients=4))
    assert caught.value.code == "contradiction" and "topic" in str(caught.value)


def test_raw_texts_have_no_tensors_yet(tmp_path):
    fed = data.jsonl(path=lines(tmp_path / "q.jsonl", QA), partition=iid(clients=2))
    with pytest.raises(RuntimeError, match="tokenised"):
        fed.slab([0])
    half = fed.subset([1])
    assert texts(half, 0) == texts(fed, 1)
    assert len(texts(fed.pooled(), 0)) == fed.sizes.sum()


WRONG = [
    ('{"question": "a", "answer": "b"}\n{"question": "a", "answer"', "x.jsonl, line 2: this is no JSON"),
    ('{"question": "a", "answer": "b"}\n\n{"question": "a"}', 'x.jsonl, line 3: there is no field "answer"'),
    ('{"question": "a", "answer": "b"}\n{"question": "a", "answr": "b"}', 'did you mean "answr"'),
    ('{"question": "a", "answer": ["b"]}', 'x.jsonl, line 1: the field "answer" is not what it should be'),
    ('[{"prompt": "a", "completion": "b"}, {"prompt": "a"}]', 'x.jsonl, record 2: there is no field "completion"'),
    ('[{"prompt": "a",\n "completion": }]', "x.jsonl, line 2: this is no JSON"),
    ("17\n", "x.jsonl, line 1 is no JSON object"),
    ('{"body": "a"}', "the format of x.jsonl is not known"),
    ('{"prompt": "a", "chosen": "b", "rejected": "c"}', "learning from preferences is a later part"),
    ('{"messages": []}', 'the field "messages" is not what it should be'),
    ('{"messages": ["hi"]}', 'the field "messages[0]" is not what it should be'),
    ('{"messages": [{"role": "user"}]}', 'line 1, messages[0]: there is no field "content"'),
    ('{"messages": [{"role": "user", "content": null}]}', 'the field "content" is not what it should be'),
    ("", "there is no record"),
]


@pytest.mark.parametrize("content,told", WRONG)
def test_what_is_wrong_names_file_line_and_field(tmp_path, content, told):
    path = tmp_path / "x.jsonl"
    path.write_text(content, "utf-8")
    with pytest.raises(BadInput) as caught:
        one(str(path))
    assert told in str(caught.value).replace("\n       ", " ").replace("\n         ", " ")
    assert caught.value.rule


def test_files_that_are_no_text(tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}' * 50)[:-12])
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9"}')
    for name in ("cut.jsonl.gz", "latin.jsonl"):
        with pytest.raises(BadInput) as caught:
            one(str(tmp_path / name))
        assert caught.value.code == "data-corrupt" and name in caught.value.what
    with pytest.raises(BadInput) as caught:
        one(str(tmp_path / "latn.jsonl"))
    assert caught.value.code == "data-missing" and "latin.jsonl" in str(caught.value)


def test_a_file_without_a_record_is_an_empty_client(tmp_path):
    lines(tmp_path / "a.jsonl", QA)
    lines(tmp_path / "b.jsonl", [])
    with pytest.raises(BadInput) as caught:
        data.jsonl(path=str(tmp_path))
    assert caught.value.code == "empty-client" and "client b" in str(caught.value)


def test_the_key_must_be_there(tmp_path):
    path = lines(tmp_path / "m.jsonl", CHATS)
    with pytest.raises(BadInput) as caught:
        data.jsonl(path=path, key="usr")
    assert 'did you mean "user"' in str(caught.value)
    with pytest.raises(BadInput) as caught:
        data.jsonl(path=path, key="messages")
    assert "a name: text or a whole number" in str(caught.value)
    with pytest.raises(BadInput) as caught:
        data.jsonl(path=path)
    assert caught.value.code == "missing-key" and "iid" in str(caught.value)
    with pytest.raises(BadInput, match="standardised"):
        data.jsonl(path=path, key="user", standardise=True)


def test_a_text_is_cut_at_blank_lines_and_its_end_is_held_out(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\r\n \n\n".join(f"{name}{i} " + "x" * 90 for i in range(10)), "utf-8")
    fed = data.text(path=str(tmp_path), length=50, test=0.4)
    assert list(fed.names) == ["a", "b"] and fed.sizes.tolist() == [3, 3] and fed.tests.tolist() == [2, 2]
    assert [t[:2] for t in texts(fed, 1)] == ["b0", "b2", "b4"]
    assert [t[:2] for t in texts(fed, 1, "test")] == ["b6", "b8"]
    assert fed.row_word == ("passage", "passages")
    (tmp_path / "c.txt").write_text(" \n\n", "utf-8")
    with pytest.raises(BadInput) as caught:
        data.text(path=str(tmp_path))
    assert caught.value.code == "empty-client"


def test_a_passage_is_never_lost_nor_cut():
    text = "\n\n".join("p" * n for n in (3, 500, 3, 3, 40, 1))
    found = passages(text, 50)
    assert "\n\n".join(found) == text and found[1] == "p" * 500
    assert passages(" \n\n", 10) == [] and passages("one", 1) == ["one"]


@pytest.mark.skipif(not os.environ.get("MANYLOOM_DATA"), reason="MANYLOOM_DATA names no data directory")
def test_gsm8k():
    path = Path(os.environ["MANYLOOM_DATA"]) / "llm" / "gsm8k" / "train.jsonl.gz"
    if not path.is_file():
        pytest.skip("no GSM8K here")
    fed = data.jsonl(path=str(path), partition=iid(clients=8))
    assert int((fed.sizes + fed.tests).sum()) == 7473 and len(fed) == 8
    assert fed.tables["data"]["format"] == "qa"  # type: ignore[index]
    assert sum("<<" in m[1].content for i in range(8) for m in texts(fed, i)) > 0.97 * fed.sizes.sum()  # type: ignore[union-attr]
