"""CSV and Parquet: clients by key or by file, kinds guessed and declared, and each wrong input told once."""

import gzip
import json

import numpy as np
import pytest
import torch

import manyloom.data as data
from manyloom.core.errors import BadInput
from manyloom.data.sources.frame import read_csv
from tests.data.talk import learnt

WARDS = """ward,age,sex,dose,code,ill
north, 61,f,1.5,007,yes
north,58,m,?,012,no
north,49,f,2.5,007,yes
south,70,f,NA,012,no
south,,m,4.0,007,yes
south,33,m,1.0,012,no
"""


@pytest.fixture
def wards(tmp_path):
    path = tmp_path / "wards.csv"
    path.write_text(WARDS)
    return path


def read(path, **keys):
    return data.csv(path=str(path), **{"label": "ill", "key": "ward", "test": 0.0, **keys})


def test_a_key_column_makes_the_clients(wards):
    fed = read(wards)
    assert list(fed.names) == ["north", "south"] and fed.sizes.tolist() == [3, 3]
    assert fed.labels == ("no", "yes") and fed.label_counts().tolist() == [[1, 2], [2, 1]]
    schema = fed.schema
    assert [(c.name, c.kind) for c in schema.columns] == [
        ("age", "number"), ("sex", "category"), ("dose", "number"), ("code", "number")]  # fmt: skip
    assert fed.gaps().tolist() == [[0, 0, 1, 0], [1, 0, 1, 0]]
    pre = learnt(fed)
    assert pre.columns == ("age", "sex=f", "sex=m", "dose", "code")
    x, y = fed.prepare(pre).slab([0]).gather()
    assert x[:, 1].tolist() == [1, 0, 1] and x[1, 3] == 0 and y.tolist() == [1, 0, 1]


def test_declared_categories_keep_their_texts(wards):
    fed = read(wards, categorical=["code"], drop=["dose"])
    assert learnt(fed).columns == ("age", "sex=f", "sex=m", "code=007", "code=012")
    assert [c.name for c in read(wards, features=["dose", "age"]).schema.columns] == ["dose", "age"]


def test_the_table_makes_it_again(wards):
    fed = read(wards, categorical=["code"], drop=["dose"])
    own = dict(fed.tables["data"])
    assert own.pop("source") == "csv" and own["target"] == "class" and own["missing"] == ["", "?", "NA", "NaN"]
    again = data.csv(**own)
    assert again.tables == fed.tables and np.array_equal(again.label_counts(), fed.label_counts())


def test_files_are_clients(tmp_path):
    for name, rows in (("b", "x,y\n1,0\n2,1\n"), ("a", "y,x\n1,3\n"), ("c", "x,y\n5,?\n")):
        (tmp_path / f"{name}.csv").write_text(rows)
    for path in (tmp_path, tmp_path / "*.csv"):
        with pytest.raises(BadInput) as caught:
            data.csv(path=str(path), label="y", test=0.0)
        assert caught.value.code == "empty-client" and "client c: no row has a label" in str(caught.value)
    spec = data.natural(drop_empty=True)
    fed = data.csv(path=str(tmp_path), label="y", test=0.0, partition=spec)
    assert list(fed.names) == ["a", "b", "c"] and fed.sizes.tolist() == [1, 2, 0] and fed.skipped == (2,)
    assert fed.table([0]).numbers.tolist() == [[3.0]]  # columns go by name, not by place


def test_rows_dealt_by_a_scheme(wards):
    fed = read(wards, key=None, drop=["ward"], partition=data.iid(clients=3))
    assert len(fed) == 3 and fed.sizes.tolist() == [2, 2, 2]
    with pytest.raises(BadInput, match="no clients of its own"):
        read(wards, key=None)


@pytest.mark.parametrize(
    ("values", "target", "labels"),
    [
        (["a", "b", "a"], "class", ("a", "b")),
        (["true", "FALSE", "true"], "class", ("false", "true")),
        (["10", "9", "10"], "class", ("9", "10")),
        (["1.0", "0.0", "1"], "class", ("0", "1")),
        (["1.5", "0.0", "1"], "number", ()),
        ([str(i) for i in range(21)], "number", ()),
        ([str(i) for i in range(20)], "class", tuple(str(i) for i in range(20))),
    ],
)
def test_what_is_predicted_is_guessed(tmp_path, values, target, labels):
    (tmp_path / "t.csv").write_text("x,y\n" + "".join(f"{i},{v}\n" for i, v in enumerate(values)))
    fed = data.csv(path=str(tmp_path / "t.csv"), label="y", partition=data.iid(clients=1))
    assert (fed.target, fed.labels) == (target, labels)
    assert fed.classes == (len(labels) or None)


def test_the_target_can_be_declared(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,0\n2,1\n3,2\n")
    fed = data.csv(path=str(tmp_path / "t.csv"), label="y", target="number", partition=data.iid(clients=1), test=0.0)
    y = fed.prepare(learnt(fed)).slab([0]).gather()[1]
    assert y.dtype == torch.float32 and y.tolist() == [0, 1, 2]
    with pytest.raises(BadInput, match="holds text"):
        (tmp_path / "t.csv").write_text("x,y\n1,a\n")
        data.csv(path=str(tmp_path / "t.csv"), label="y", target="number", partition=data.iid(clients=1))


def test_no_header_another_separator_gzip_and_tabs(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"1;a;x\n2;b;y\n"))
    fed = data.csv(path=str(tmp_path / "t.csv.gz"), label="2", key="1", header=False, separator=";", test=0.0)
    assert list(fed.names) == ["a", "b"] and [c.name for c in fed.schema.columns] == ["0"]
    (tmp_path / "t.tsv").write_text("\ufeffx\ty\n1\ta\n")
    assert read_csv(tmp_path / "t.tsv", [""], separator="\t") == {"x": ["1"], "y": ["a"]}


def test_quoted_values_hold_separators_and_newlines(tmp_path):
    (tmp_path / "t.csv").write_text('a,b\n"x, y","two\nlines"\n')
    assert read_csv(tmp_path / "t.csv", [""]) == {"a": ["x, y"], "b": ["two\nlines"]}


def test_a_declared_vocabulary(wards, tmp_path):
    words = tmp_path / "words.json"
    words.write_text(json.dumps({"sex": ["m", "f", "x"]}))
    fed = read(wards, vocabulary=str(words), drop=["code"])
    assert learnt(fed).columns == ("age", "sex=m", "sex=f", "sex=x", "dose")
    with pytest.raises(BadInput, match="no vocabulary file"):
        read(wards, vocabulary=str(tmp_path / "none.json"))
    words.write_text("[1]")
    with pytest.raises(BadInput, match="is no vocabulary"):
        read(wards, vocabulary=str(words))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label": "il"}, 'did you mean "ill"?'),
        ({"key": "wrad"}, 'has no column "wrad"'),
        ({"drop": ["dos", "aeg"]}, 'did you mean "age"?'),
        ({"features": ["ill"]}, "can't be a feature"),
        ({"features": []}, "no column to learn from"),
        ({"separator": "ab"}, "one character"),
        ({"target": "thing"}, "target must be"),
    ],
)
def test_wrong_keys_are_told(wards, keys, message):
    with pytest.raises(BadInput) as caught:
        read(wards, **keys)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"", "data-corrupt", "no rows"),
        (b"a,b\n", "data-corrupt", "no rows"),
        (b"a,b\n1,2\n3\n", "data-corrupt", "line 3 has 1 values, the first 2"),
        (b"a,a\n1,2\n", "data-corrupt", 'two columns called "a"'),
        (b"a,b\n\xff\xfe,2\n", "data-corrupt", "UTF-8"),
        (b"\x1f\x8bxx", "data-corrupt", "no CSV file"),
        (b"a,b\n1,\n", "data-corrupt", "no row of t.csv has a label"),
        (b"a,b\n1,x\n2,x\n", "out-of-range", "nothing to tell apart"),
        (b"a,b\ninf,1\n2,0\n", "not-finite", "infinite"),
        (b"a,b\n1,0.5\n2,inf\n", "not-finite", "infinite"),
    ],
)
def test_broken_files_are_told(tmp_path, content, code, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        data.csv(path=str(tmp_path / "t.csv"), label="b", partition=data.iid(clients=1))
    assert caught.value.code == code and message in str(caught.value)


def test_a_missing_file_names_the_nearest(wards):
    with pytest.raises(BadInput) as caught:
        read(wards.with_name("wrads.csv"))
    assert caught.value.code == "data-missing" and "wards.csv?" in (caught.value.mend or "")
    with pytest.raises(BadInput, match="no csv file"):
        (wards.parent / "empty").mkdir()
        read(wards.parent / "empty")


def test_other_columns_in_another_file(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,0\n")
    (tmp_path / "b.csv").write_text("x,z\n1,0\n")
    with pytest.raises(BadInput) as caught:
        data.csv(path=str(tmp_path), label="y")
    assert 'lacks "y" and has also "z"' in str(caught.value)


def test_a_stray_text_among_numbers_is_told(tmp_path):
    rows = "".join(f"{i + 0.5},{i % 2}\n" for i in range(100))
    (tmp_path / "t.csv").write_text("chol,y\n" + rows + "n/a,1\n")
    with pytest.raises(BadInput) as caught:
        data.csv(path=str(tmp_path / "t.csv"), label="y", partition=data.iid(clients=2))
    assert '"n/a", first in row 101' in str(caught.value) and "missing" in str(caught.value)
    fed = data.csv(path=str(tmp_path / "t.csv"), label="y", partition=data.iid(clients=2), missing=["", "n/a"])
    assert fed.schema.columns[0].kind == "number" and int(fed.gaps().sum()) <= 1


def test_a_row_without_a_client_is_told(tmp_path):
    (tmp_path / "t.csv").write_text("k,x,y\na,1,0\n,2,1\n")
    with pytest.raises(BadInput, match="belong to no client"):
        data.csv(path=str(tmp_path / "t.csv"), label="y", key="k")


def test_keys_are_numbered_in_order(tmp_path):
    (tmp_path / "t.csv").write_text("k,x,y\n10,1,0\n9,2,1\n100,2,1\n")
    assert list(data.csv(path=str(tmp_path / "t.csv"), label="y", key="k").names) == ["9", "10", "100"]


def test_parquet_is_read_as_csv_is(wards, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {
            "ward": ["north"] * 3 + ["south"] * 3,
            "age": arrow.array([61, 58, 49, 70, None, 33]),
            "sex": arrow.array(["f", "m", "f", "f", "m", "m"]).dictionary_encode(),
            "dose": [1.5, None, 2.5, float("nan"), 4.0, 1.0],
            "code": arrow.array([7, 12, 7, 12, 7, 12]),
            "ill": [True, False, True, False, True, False],
            "__index_level_0__": list(range(6)),
        }
    )
    path = tmp_path / "t.parquet"
    parquet.write_table(table, path)
    fed = data.parquet(path=str(path), label="ill", key="ward", test=0.0)
    plain = read(wards)
    assert fed.schema.columns == plain.schema.columns and fed.labels == ("false", "true")
    assert np.array_equal(fed.gaps(), plain.gaps()) and np.array_equal(fed.label_counts(), plain.label_counts())
    a, b = (f.prepare(learnt(f)).slab([0, 1]).gather()[0] for f in (fed, plain))
    assert torch.equal(a, b)
    named = data.parquet(path=str(path), label="ill", key="ward", categorical=["code"])
    assert "code=7" in learnt(named).columns
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput) as caught:
        data.parquet(path=str(path), label="ill")
    assert caught.value.code == "data-corrupt"


def test_an_extra_that_is_missing_says_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for make, extra in (
        (lambda: data.parquet(path=str(tmp_path / "t.parquet"), label="y"), "parquet"),
        (lambda: data.huggingface(dataset="mnist"), "huggingface"),
    ):
        with pytest.raises(BadInput) as caught:
            make()
        assert caught.value.code == "extra-missing" and caught.value.mend == f'pip install "manyloom[{extra}]"'


def test_a_folder_that_datasets_reads(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text(WARDS)
    fed = data.huggingface(dataset=str(tmp_path / "set"), label="ill", key="ward", data_dir=str(tmp_path / "cache"))
    assert list(fed.names) == ["north", "south"] and fed.labels == ("no", "yes")
