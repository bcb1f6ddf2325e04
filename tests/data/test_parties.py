"""Parties that differ in columns: who has what, encoded by own statistics, and everything wrong is told."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from manyloom import data
from manyloom.core.errors import BadInput
from manyloom.data.parties import Reader
from manyloom.data.sources import vertical

REAL = pytest.mark.skipif(not os.environ.get("MANYLOOM_DATA"), reason="MANYLOOM_DATA names no data directory")
BANK = "id,limit,job,y\n4,,smith,\n1,10,clerk,0\n2,20,,1\n003,60,smith,1\n"
SHOP = "town,id,spent\nKiel,3,1.5\nBonn,1,\nKiel,9,4.5\n"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "bank.csv").write_text(BANK)
    (tmp_path / "shop.csv").write_text(SHOP)
    return {"bank": str(tmp_path / "bank.csv"), "shop": str(tmp_path / "shop.csv")}


def made(files, **keys):
    return data.csv_parties(**{"parties": files, "label": "y", "ids": ["id"], "id_types": ["int"], **keys})


def wrong(files, **keys):
    with pytest.raises(BadInput) as caught:
        made(files, **keys)
    return caught.value.problems


def test_who_has_the_label_and_what_the_others_have(files):
    found = made(files)
    assert found.names == ("shop", "bank") and found.label.name == "bank"
    assert found.label.ids == (["1", "2", "003"],)  # 4 has no label
    assert found.label.y.tolist() == [0, 1, 1] and found.label.y.dtype == torch.int64
    assert (found.classes, found.labels, found.target) == (2, ("0", "1"), "class")
    shop = found.features[0]
    assert shop.columns == ("town=Bonn", "town=Kiel", "spent") and shop.y is None
    assert repr(found) == "Parties(bank 3 rows x 3 + label, shop 3 x 3)"


def test_each_party_is_encoded_by_its_own_rows_alone(files):
    shop = made(files).features[0]
    assert torch.equal(shop.x, torch.tensor([[0.0, 1, -1], [1, 0, 0], [0, 1, 1]]))  # mean 3, deviation 1.5; a gap is 0
    bank = Path(files["bank"])
    bank.write_text(bank.read_text().replace("60", "6000"))
    assert torch.equal(made(files).features[0].x, shop.x)


def test_without_scaling_numbers_pass_unchanged(files, tmp_path):
    (tmp_path / "shop.csv").write_text(SHOP.replace("Bonn,1,", "Bonn,1,2"))
    assert made(files, standardise=False, features=["limit", "spent"]).features[0].x.tolist() == [[1.5], [2], [4.5]]


def test_features_and_drop_are_of_whichever_file_has_them(files):
    found = made(files, drop=["town"], features=["town", "spent"])
    assert found.features[0].columns == ("spent",)
    assert found.label.x.shape == (3, 0) and found.label.columns == ()  # labels alone are a party, too


def test_a_number_is_predicted(files):
    found = made(files, target="number")
    assert found.label.y.dtype == torch.float32 and found.classes is None and found.labels == ()


def test_new_rows_are_encoded_by_the_statistics_that_were_kept(files, tmp_path):
    found = made(files)
    new = tmp_path / "new.csv"
    new.write_text("spent,id,town,more\n3.0,77,Kiel,x\n,78,Ulm,x\n")
    kept = Reader.from_json(json.loads(json.dumps(found.features[0].reader.to_json())))
    for rows in (found.read("shop", new), kept.read(new), kept.read({"id": [77, 78], "spent": [3.0, None],
                                                                     "town": ["Kiel", "Ulm"]})):  # fmt: skip
        assert rows.ids == (["77", "78"],) and rows.y is None and rows.name == "shop"
        assert rows.x.tolist() == [[0, 1, 0], [0, 0, 0]]  # an unseen town is nothing


def test_new_rows_of_a_party_of_labels_alone(files, tmp_path):
    found = made(files, features=["spent"])
    rows = found.read("bank", files["bank"])
    assert rows.x.shape == (4, 0) and rows.y.tolist() == [-1, 0, 1, 1]


def test_new_rows_without_their_ids_or_columns(files):
    found = made(files)
    cases = [
        ({"town": ["Kiel"], "spent": [1]}, "unknown-name"),
        ({"id": [1], "town": ["a"]}, "columns-missing"),
        ({"id": [1], "town": ["a"], "spent": ["much"]}, "not-a-number"),
    ]
    for rows, code in cases:
        with pytest.raises(BadInput) as caught:
            found.read("shop", rows)
        assert caught.value.code == code
    with pytest.raises(BadInput) as caught:
        found.read("shopp", {"id": [1]})
    assert 'did you mean "shop"' in str(caught.value)


def test_gzip_other_separators_and_several_ids(files, tmp_path):
    for name in ("bank", "shop"):
        text = (tmp_path / f"{name}.csv").read_text().replace(",", ";").replace("id", "a;b", 1)
        rows = [
            line.replace(";", ";x;", 1) if i and name == "bank" else line for i, line in enumerate(text.split("\n"))
        ]
        text = "\n".join(rows) if name == "bank" else "town;a;b;spent\nKiel;3;x;1\n"
        (tmp_path / f"{name}.csv").write_bytes(gzip.compress(text.encode()))
    found = made(files, separator=";", ids=["a", "b"], id_types=["int", "text"])
    assert found.features[0].ids == (["3"], ["x"]) and found.label.ids[1] == ["x", "x", "x"]


@pytest.mark.parametrize(
    ("change", "codes", "text"),
    [
        ({"label": "z"}, ["unknown-name"], 'no party has the label "z"'),
        ({"label": "limits"}, ["unknown-name"], 'did you mean "limit" of bank.csv'),
        ({"label": "id"}, ["contradiction"], "the label can't be an id"),
        ({"ids": ["ID"]}, ["unknown-name", "unknown-name"], 'party "shop" has no id column "ID"'),
        ({"ids": []}, ["out-of-range"], "rows need an id"),
        ({"ids": ["id", "id"]}, ["contradiction", "contradiction"], "named twice"),
        ({"id_types": ["int", "text"]}, ["contradiction"], "must be as many"),
        ({"id_types": ["integer"]}, ["wrong-type"], "id_types must be a list"),
        ({"separator": ";;"}, ["out-of-range"], "one character"),
        ({"features": ["limitt", "id"]}, ["unknown-name", "out-of-range"], 'did you mean "limit"'),
        ({"drop": ["spend"], "categorical": ["twn"]}, ["unknown-name"] * 2, 'did you mean "spent"'),
        ({"drop": ["town", "spent"]}, ["out-of-range"], 'party "shop" has no column to learn from'),
        ({"test": 1.0}, ["out-of-range"], "test must be"),
    ],
)
def test_what_does_not_fit_is_told(files, change, codes, text):
    found = wrong(files, **change)
    assert [p.code for p in found] == codes
    assert text in str(BadInput(*found))


def test_parties_that_are_none_or_one_or_have_the_label_twice(files, tmp_path):
    assert wrong({})[0].what.startswith("[parties] needs two")
    assert wrong({"bank": files["bank"]})[0].code == "missing-key"
    assert [p.code for p in wrong({"a b": files["bank"], "Shop": files["shop"], "shop": files["shop"]})] == [
        "out-of-range",
        "out-of-range",
    ]
    twice = wrong({**files, "other": files["bank"]})
    assert twice[0].code == "contradiction" and "bank.csv" in str(twice[0].rule)
    gone = wrong({"bank": files["bank"] + "x", "shop": str(tmp_path / "shp.csv"), "third": files["shop"]})
    assert [p.code for p in gone] == ["data-missing"] * 2 and "shop.csv" in str(gone[1].mend)


def test_numbers_that_are_none_are_told_with_their_file(files):
    shop = Path(files["shop"])
    shop.write_text(SHOP.replace("1.5", "inf"))
    found = wrong(files)
    assert [p.code for p in found] == ["not-finite"] and found[0].where == "shop.csv"
    shop.write_text(SHOP)
    assert wrong(files, standardise=False)[0].where == "shop.csv"  # a gap that nothing fills


def test_breast_cancer_by_columns_is_the_same_patients_in_another_order():
    found = data.breast_cancer_parties(seed=3, standardise=False)
    clinic, lab = found.label, found.features[0]
    assert (clinic.x.shape, lab.x.shape, found.test) == ((569, 10), (569, 20), 0.2)
    assert list(lab.ids[0]) != list(clinic.ids[0]) and sorted(lab.ids[0]) == sorted(clinic.ids[0])
    from sklearn.datasets import load_breast_cancer

    whole = load_breast_cancer()
    rows = np.array([int(i) for i in lab.ids[0]])
    assert np.array_equal(lab.x.numpy(), whole.data[rows, 10:].astype(np.float32))
    assert clinic.y.tolist() == whole.target.tolist()
    assert data.breast_cancer_parties(seed=3).features[0].ids == lab.ids != data.breast_cancer_parties().features[0].ids


@pytest.mark.parametrize(
    ("n", "overlap", "test"), [(30_000, 100, 0.2), (30_000, 24_000, 0.2), (57, 3, 0.29), (9, 2, 0.0)]
)
def test_the_overlap_leaves_as_many_rows_to_train_on_as_it_says(n, overlap, test):
    rows, share = vertical._common(n, overlap, test, 1)
    held = int(len(rows) * share)  # as `vertical.passes.held_out` counts
    assert (len(rows) - held, held) == (overlap, int(n * test)) and len(set(rows.tolist())) == len(rows)
    assert not np.array_equal(rows, vertical._common(n, overlap, test, 2)[0]) or len(rows) == n


def test_an_overlap_larger_than_what_there_is():
    with pytest.raises(BadInput) as caught:
        vertical._common(10, 9, 0.2, 0)
    assert "overlap = 8" in str(caught.value)


def test_default_credit_needs_its_files(tmp_path):
    with pytest.raises(BadInput) as caught:
        data.default_credit(data_dir=str(tmp_path))
    assert caught.value.code == "data-missing"
    folder = tmp_path / "finance" / "fate_vertical"
    folder.mkdir(parents=True)
    for f in ("guest", "host"):
        (folder / f"default_credit_hetero_{f}.csv.gz").write_bytes(gzip.compress(b"id,y\n1,2\n"))
    with pytest.raises(BadInput) as caught:
        data.default_credit(data_dir=str(tmp_path))
    assert caught.value.code == "data-corrupt"


@REAL
def test_default_credit_as_it_is():
    found = data.default_credit(overlap=100, data_dir=os.environ["MANYLOOM_DATA"])
    bank, shop = found.label, found.features[0]
    assert (bank.x.shape, shop.x.shape, int(bank.y.sum())) == ((30_000, 13), (6_100, 10), 6_636)
    assert set(shop.ids[0]) <= set(bank.ids[0]) and int(len(shop) * found.test) == 6_000


def test_ids_that_a_float_can_not_tell_apart_are_refused(tmp_path: Path) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    reader = data.breast_cancer_parties().label.reader
    columns = {c.name: [0.0, 1.0] for c in reader.preprocess.schema.columns}
    for ids, fits in (([2**53 + 1, 1], False), ([2**53 - 1, 1], True)):
        pq.write_table(pa.table({reader.ids[0]: ids, **columns}), tmp_path / "new.parquet")
        if fits:
            assert list(reader.read(tmp_path / "new.parquet").ids[0]) == [str(2**53 - 1), "1"]
        else:
            with pytest.raises(BadInput, match="inexactly"):
                reader.read(tmp_path / "new.parquet")
