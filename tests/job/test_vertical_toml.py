"""Vertical jobs as files: the same job again, defaults filled in, and everything wrong told with its place."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from manyloom import data
from manyloom.core.errors import BadInput
from manyloom.job.job import Job
from manyloom.job.kinds import horizontal
from manyloom.job.toml import read
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.tables import VERTICAL
from manyloom.models.split import SplitModel
from manyloom.vertical.settings import Align, Cut
from manyloom.vertical.split import SplitLearning

BREAST = """\
[job]
kind = "vertical"
rounds = 3
seed = 4

[data]
source = "breast-cancer"

[model]
name = "split-mlp"

[algorithm]
lr = 1
[runtime]
"""
FILES = """\
[job]
kind = "vertical"
rounds = 2

[parties]
shop = "data/shop.csv"
bank = "data/bank.csv"

[data]
source = "csv"
label = "y"
ids = ["id"]
id_types = ["int"]

[model]
name = "split-mlp"
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bank.csv").write_text("id,limit,y\n1,10,a\n002,20,b\n,30,a\n4,5,b\n")
    (tmp_path / "data" / "shop.csv").write_text("id,spent,town\n4,1,Ulm\n2,3,Kiel\n9,5,Kiel\n")
    return tmp_path


def job(folder: Path, text: str, overrides=None, **keys) -> Vertical:
    file = folder / "test.toml"
    file.write_text(text)
    made = Job.from_toml(str(file), overrides, **keys)
    assert isinstance(made, Vertical)
    return made


def told(folder: Path, changes, text: str = BREAST, overrides=None) -> BadInput:
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(BadInput) as caught:
        job(folder, text, overrides)
    return caught.value


# ---- the same job again


@pytest.mark.parametrize("text", [BREAST, FILES])
def test_a_job_is_the_same_after_it_was_written(text, folder):
    made = job(folder, text)
    (folder / "again.toml").write_text(made.to_toml())
    again = read(folder / "again.toml", base=made.base)
    assert again.tables == made.tables and again.digest == made.digest
    assert made.to_toml().startswith("[job]\n")
    assert set(made.tables) <= set(VERTICAL.tables)


def test_defaults_are_filled_in(folder):
    tables = job(folder, BREAST).tables
    assert tables["job"] == {"name": "test", "kind": "vertical", "rounds": 3, "seed": 4, "eval_every": 1,
                             "watch": "auc", "deadline_s": 3600.0}  # fmt: skip
    assert tables["data"] == {"source": "breast-cancer", "test": 0.2, "standardise": True, "seed": 4}
    assert tables["model"] == {"name": "split-mlp", "bottom": [32], "cut": 16, "top": [32], "loss": "binary",
                               "metrics": ["accuracy", "auc"]}  # fmt: skip
    assert tables["algorithm"]["name"] == "split-learning" and tables["algorithm"]["lr"] == 1.0
    assert tables["cut"] == {"bits": 32, "defence": "max-norm", "strength": 1.0, "dropout": 0.0, "on_missing": "error"}
    assert job(folder, BREAST, {"cut.on_missing": "impute"}).tables["cut"]["dropout"] == 0.25


def test_a_python_job_and_its_file_are_the_same(folder):
    made = Vertical(
        data.breast_cancer_parties(seed=4),
        SplitModel(),
        SplitLearning(lr=1.0),
        Align(),
        Cut(),
        rounds=3,
        seed=4,
        name="test",
    )
    assert made.digest == job(folder, BREAST).digest


def test_what_decides_the_result_is_in_the_digest_and_nothing_else(folder):
    first = job(folder, FILES).digest
    other = {"cut.bits": 8, "align.casefold": True, "model.cut": 4, "algorithm.batch_size": 2, "data.test": 0.4,
             "job.seed": 1, "parties.bank": str(folder / "data" / "bank.csv")}  # fmt: skip
    for key, value in other.items():
        assert job(folder, FILES, {key: value}).digest != first
    assert job(folder, FILES, {"card.use": "a test", "runtime.name": "sequential"}).digest == first


def test_the_label_party_is_found_and_keys_are_canonical(folder):
    made = job(folder, FILES)
    bank, (shop,) = made.parties.label, made.parties.features
    assert made.names == ("shop", "bank") and (made.parties.classes, made.parties.labels) == (2, ("a", "b"))
    assert bank.keys == [b"\x01\0\0\x001", b"\x01\0\0\x002", b"\x01\0\0\x004"]  # "002" is 2; no id: left out
    assert (
        bank.y.tolist() == [0, 1, 1] and bank.x.shape == (3, 1) and shop.columns == ("spent", "town=Kiel", "town=Ulm")
    )
    assert shop.keys[0] == bank.keys[2]
    new = made.party(made.data.read("shop", {"id": ["7", ""], "spent": [3, 1], "town": ["Ulm", "Ulm"]}))
    assert new.keys == [b"\x01\0\0\x007"] and new.x.tolist() == [[0, 0, 1]]


def test_parties_of_ones_own_module(folder):
    (folder / "mine.py").write_text(
        "from manyloom.data import breast_cancer_parties\n"
        "def halves(seed=0, quick=False):\n    return breast_cancer_parties(seed=seed)\n"
    )
    made = job(folder, BREAST.replace('"breast-cancer"', '"mine:halves"\nquick = true'))
    assert made.tables["data"] == {"source": "mine:halves", "quick": True, "seed": 4}
    (folder / "again.toml").write_text(made.to_toml())
    assert read(folder / "again.toml", base=made.base).digest == made.digest
    (folder / "other.py").write_text("def halves():\n    return 3\n")
    assert "must return Parties" in str(told(folder, {'"breast-cancer"': '"other:halves"'}))


def test_parties_without_a_name_have_a_digest_but_no_file():
    nameless = data.breast_cancer_parties()
    made = Vertical(type(nameless)(nameless.label, nameless.features, ("int",), classes=2), rounds=1)
    assert made.digest.startswith("~")
    with pytest.raises(BadInput) as caught:
        made.to_toml()
    assert caught.value.code == "unnamed-part"


# ---- everything wrong is told


GOLDEN = {
    "a table of horizontal jobs": (
        {"[runtime]": "[privacy]\nclip = 1.0"},
        """
        error: [privacy] is for horizontal jobs
          got    [privacy]                                            test.toml, line 14
          rule   noise on sums of many clients' updates says nothing of two parties; see
                 [cut] defence
          mend   leave it out, or set kind = "horizontal" in [job]
        """,
    ),
    "a key of horizontal jobs": (
        {"seed = 4": "cohort = 2"},
        """
        error: cohort in [job] is for horizontal jobs
          got    cohort = 2 in [job]                                   test.toml, line 4
          rule   all parties take part in every pass: a row is whole only with all of
                 them
          mend   leave it out, or set kind = "horizontal" in [job]
        """,
    ),
    "a source of horizontal jobs": (
        {'"breast-cancer"': '"heart-disease"'},
        """
        error: data source "heart-disease" is for horizontal jobs
          got    source = "heart-disease" in [data]                    test.toml, line 7
          rule   in a vertical job parties differ in columns, not in rows
          mend   leave it out, or set kind = "horizontal" in [job]
        """,
    ),
    "an unknown key": (
        {"[runtime]": "[cut]\nbit = 8"},
        """
        error: unknown key "bit" in [cut]
          got    bit = 8                                              test.toml, line 15
          rule   [cut] takes bits, defence, strength, dropout, on_missing
          mend   did you mean "bits"?
        """,
    ),
    "an unknown table": (
        {"[runtime]": "[algin]"},
        """
        error: unknown table [algin]
          got    [algin]                                              test.toml, line 14
          mend   did you mean [align]?
        """,
    ),
    "a value that is none": (
        {"[runtime]": "[cut]\nbits = 7"},
        """
        error: bits must be 32, 16, 8, 4 or 2
          got    bits = 7 (a whole number) in [cut]                   test.toml, line 15
        """,
    ),
    "rows that may not be known": (
        {"[runtime]": '[align]\nreveal = "count"'},
        """
        error: parties can't train on rows that they may not know
          got    reveal = "count" in [align]                          test.toml, line 15
          rule   to train, each party must know its rows of the ids in common
          mend   reveal = "both" in [align]; manyloom psi matches and counts without
                 training
        """,
    ),
    "strength of nothing": (
        {"[runtime]": "[cut]\nstrength = 2"},
        """
        error: strength is of the isotropic noise alone
          got    strength = 2 in [cut]                                test.toml, line 15
          rule   defence = "max-norm"
          mend   leave strength out, or set defence = "isotropic"
        """,
    ),
    "parties of the source's own": (
        {"[runtime]": '[parties]\nbank = "bank.csv"'},
        """
        error: "breast-cancer" has parties of its own
          got    [parties]                                            test.toml, line 14
          mend   leave [parties] out, or set source = "csv" in [data]
        """,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, tmp_path):
    changes, text = GOLDEN[name]
    found = str(told(tmp_path, changes))
    assert found == textwrap.dedent(text).strip()
    assert all(len(line) <= 80 for line in found.splitlines())


@pytest.mark.parametrize(
    ("changes", "codes", "where"),
    [
        ({"data/shop.csv": "data/shp.csv"}, ["data-missing"], "test.toml, line 6"),
        ({'shop = "data/shop.csv"\n': ""}, ["missing-key"], "test.toml, line 6"),
        ({'"data/shop.csv"': "3"}, ["wrong-type"], "test.toml, line 6"),
        ({'label = "y"\n': "", 'ids = ["id"]\n': ""}, ["missing-key", "missing-key"], "test.toml, line 9"),
        ({'"y"': '"z"'}, ["unknown-name"], "test.toml, line 11"),
        ({'["int"]': '["number"]'}, ["wrong-type"], "test.toml, line 13"),
        ({'name = "split-mlp"': 'name = "split-mlp"\nloss = "mse"'}, ["loss-target"], "test.toml, line 17"),
        ({'name = "split-mlp"': 'name = "split-mlp"\nmetrics = ["rmse"]'}, ["metric-target"], "test.toml, line 17"),
        ({'name = "split-mlp"': 'name = "split-mlp"\ncut = 0'}, ["out-of-range"], "test.toml, line 17"),
        ({'"split-mlp"': '"mlp"'}, ["other-kind"], "test.toml, line 16"),
        ({"rounds = 2": 'rounds = 2\nwatch = "rmse"'}, ["unknown-name"], "test.toml, line 4"),
        ({"rounds = 2": "rounds = 0"}, ["out-of-range"], "test.toml, line 3"),
        ({"[model]": "[cut]\ndropout = 1.0\n[model]"}, ["out-of-range"], "test.toml, line 16"),
    ],
)
def test_each_problem_has_its_place(changes, codes, where, folder):
    found = told(folder, changes, FILES).problems
    assert [p.code for p in found] == codes and found[0].where == where


def test_ids_that_are_none_are_told_with_their_party(folder):
    shop = folder / "data" / "shop.csv"
    shop.write_text("id,spent\n4.5,1\n2,3\n")
    (folder / "data" / "bank.csv").write_text("id,limit,y\n1,10,a\n01,20,b\n")
    found = told(folder, {}, FILES).problems
    assert [p.code for p in found] == ["bad-id", "duplicate-ids"]
    assert 'party "shop"' in str(found[0].where) and 'party "bank"' in str(found[1].where)
    shop.write_text("id,spent\n4,1\n2,3\n")
    assert job(folder, FILES, {"align.duplicates": "first"}).parties.label.y.tolist() == [0]


def test_a_party_with_labels_alone_needs_the_other_one(folder):
    changes = {'id_types = ["int"]': 'id_types = ["int"]\nfeatures = ["spent"]\n[cut]\non_missing = "impute"'}
    assert told(folder, changes, FILES).code == "contradiction"
    assert job(folder, FILES, {"data.features": ["spent"]}).parties.label.x.shape == (3, 0)


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path):
    found = told(tmp_path, {"rounds = 3": "roundz = 3", "lr = 1": "lr = 0", "[runtime]": "[secure]\n[runtime]"})
    assert [p.code for p in found.problems] == ["unknown-key", "out-of-range", "other-kind"]


def test_the_kinds_do_not_mix():
    with pytest.raises(BadInput) as caught:
        horizontal(Vertical(data.breast_cancer_parties(), rounds=1), "a sweep")
    assert "a sweep is for horizontal jobs" in str(caught.value)


def test_wrong_values_in_python_are_told_at_once():
    with pytest.raises(BadInput) as caught:
        Vertical(data.breast_cancer_parties(), algorithm=SplitLearning(lr=-1.0), cut=Cut(bits=7), rounds=0)  # type: ignore
    assert sorted(p.code for p in caught.value.problems) == ["out-of-range", "out-of-range", "wrong-type"]


def test_a_model_of_more_classes(folder):
    (folder / "data" / "bank.csv").write_text("id,limit,y\n1,10,a\n2,20,b\n4,5,c\n")
    made = job(folder, FILES)
    assert made.model.loss == "cross-entropy" and made.metrics == ("accuracy", "f1")
    assert made.parties.label.y.dtype == torch.int64 and made.watched == "accuracy"
