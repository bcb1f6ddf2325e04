"""The parts of a vertical run: each party's folder holds its own alone; together they predict new rows."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from manyloom.core.errors import BadInput
from manyloom.core.metrics import auc
from manyloom.data.sources.vertical import csv_parties
from manyloom.job.vertical.job import Vertical
from manyloom.models.split import SplitModel
from manyloom.session import load, train
from manyloom.track.parts import JointModel, load_parts
from manyloom.vertical.settings import Cut
from manyloom.vertical.split import SplitLearning

ROWS, NEW = 160, 30
COLUMNS = {"bank": ["income", "branch"], "shop": ["spent", "visits"], "telecom": ["calls"]}
JOB = """
[job]
kind = "vertical"
name = "toy"
rounds = 10
seed = 3
[parties]
bank = "bank.csv"
shop = "shop.csv"
telecom = "telecom.csv"
[data]
source = "csv"
label = "late"
ids = ["id"]
id_types = ["int"]
test = 0.2
[cut]
defence = "none"
on_missing = "{missing}"
bits = {bits}
[model]
name = "split-mlp"
bottom = [8]
cut = 4
top = [8]
[algorithm]
name = "split-learning"
lr = 0.01
batch_size = 32
"""


def people(n: int, seed: int, first: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Rows of each party, in an order of its own; who is late follows from everybody's columns."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 4))
    kind = draw.choice(["a", "b", "c"], n)
    late = (x.sum(1) + (kind == "a") > 0).astype(int)
    bank = [{"id": first + i, "income": f"{x[i, 0]:.4f}", "branch": kind[i], "late": late[i]} for i in range(n)]
    shop = [{"id": f"0{first + i}", "spent": f"{100 + 5 * x[i, 1]:.4f}", "visits": f"{x[i, 2]:.4f}"} for i in range(n)]
    telecom = [{"calls": f"{x[i, 3]:.4f}", "id": first + i} for i in range(n)]
    return {"bank": bank, "shop": [shop[i] for i in draw.permutation(n)], "telecom": telecom[::-1]}


def write(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in rows.items():
        with open(folder / f"{name}.csv", "w", newline="") as file:
            to = csv.DictWriter(file, list(table[0]))
            to.writeheader()
            to.writerows(table)
    return {name: folder / f"{name}.csv" for name in rows}


def trained(folder: Path, missing: str = "error", bits: int = 32) -> Path:
    files = write(folder, people(ROWS, 0))
    parties = csv_parties(
        parties={name: str(path) for name, path in files.items()}, label="late", ids=["id"], id_types=["int"]
    )
    cut = Cut(defence="none", on_missing=missing, bits=bits)  # type: ignore[arg-type]
    model = SplitModel(bottom=(8,), cut=4, top=(8,))
    job = Vertical(parties, model, SplitLearning(lr=0.02, batch_size=16), cut=cut, rounds=6, seed=3, name="toy")
    return train(job, progress=None, home=folder / "home").folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def lenient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("lenient"), "impute")


# ---- what a folder holds


def test_each_party_keeps_its_own_part_and_nothing_of_another(run: Path) -> None:
    assert sorted(p.name for p in (run / "parts").iterdir()) == ["bank", "shop", "telecom"]
    assert not (run / "model.safetensors").exists()
    for name in COLUMNS:
        place = run / "parts" / name
        assert sorted(p.name for p in place.iterdir()) == ["model.json", "model.safetensors"]
        tensors = load_file(place / "model.safetensors")
        assert any("top" in n for n in tensors) == (name == "bank")
        said = (place / "model.json").read_text()
        info = json.loads(said)
        assert info["role"] == ("label" if name == "bank" else "feature")
        others = [c for other, columns in COLUMNS.items() if other != name for c in columns]
        assert not [c for c in others if c in said], (name, said)
        assert ("late" in said) == (name == "bank")
        assert [c["name"] for c in info["reader"]["preprocess"]["columns"]] == COLUMNS[name]
    shop = json.loads((run / "parts" / "shop" / "model.json").read_text())
    assert "parties" not in shop and "labels" not in shop and "classes" not in shop
    mean = next(c["mean"] for c in shop["reader"]["preprocess"]["columns"] if c["name"] == "spent")
    assert mean == pytest.approx(100, abs=1)  # its own statistics


def test_tensors_are_those_of_the_last_state(run: Path) -> None:
    from manyloom.job import checkpoint

    state = checkpoint.latest(run / "checkpoints")
    assert state is not None
    for name, theta in (("bank", state.server["theta"]), ("shop", state.clients["0/theta"])):
        tensors = load_file(run / "parts" / name / "model.safetensors")
        assert torch.equal(torch.cat([t.flatten() for t in tensors.values()]).sort().values, theta.sort().values)


# ---- predicting


def test_new_rows_meet_by_their_ids_in_whatever_order(run: Path, tmp_path: Path) -> None:
    model = load(run)
    assert isinstance(model, JointModel) and model.names == ("bank", "shop", "telecom")
    rows = people(NEW, 1, first=5000)
    found = model.predict(write(tmp_path, rows))
    assert found.metrics is not None and found.metrics["auc"] > 0.85 and found.labelled == NEW
    assert list(found.ids) == ["id"] and found.ids["id"] == [str(5000 + i) for i in range(NEW)]
    assert list(found.table())[:3] == ["row", "id", "prediction"]
    assert found.p is not None and found.p.shape == (NEW, 2)
    back = {name: table[::-1] for name, table in rows.items()}
    again = model.predict(write(tmp_path / "again", back))
    assert np.allclose(again.p[::-1], found.p, atol=1e-6)  # type: ignore[index]
    in_memory = {n: {c: [r[c] for r in table] for c in table[0]} for n, table in rows.items()}
    assert np.allclose(model.predict(in_memory).p, found.p)  # type: ignore[arg-type]


def test_the_joint_prediction_is_what_training_judged(run: Path) -> None:
    """The held-out rows of the job, predicted from their raw files: the metrics of the last evaluation."""
    from manyloom.vertical.ids import canonical
    from manyloom.vertical.passes import held_out
    from manyloom.vertical.psi_wire import agreed_order

    rows = people(ROWS, 0)
    ids = [r["id"] for r in rows["bank"]]
    keys = canonical([ids], ["int"]).keys
    order = np.asarray(agreed_order(keys))
    test = {ids[order[i]] for i in held_out(ROWS, 0.2, 3)[1].tolist()}
    some = {name: [r for r in table if int(r["id"]) in test] for name, table in rows.items()}
    columns = {n: {c: [r[c] for r in table] for c in table[0]} for n, table in some.items()}
    found = load_parts(run).predict(columns)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    last = [e for e in events if e["type"] == "evaluated"][-1]["metrics"]
    assert found.metrics is not None
    for name in ("loss", "auc", "accuracy"):
        assert found.metrics[name] == pytest.approx(last[name], abs=1e-5), name


def test_rows_without_label_or_id(run: Path, tmp_path: Path) -> None:
    rows = people(NEW, 2, first=7000)
    for r in rows["bank"]:
        del r["late"]
    rows["bank"][3]["id"] = ""
    found = load_parts(run).predict(write(tmp_path, rows))
    assert found.metrics is None and found.left_out == 1 and len(found) == NEW - 1
    assert found.rows is not None and 4 not in found.rows and found.rows[3] == 5
    assert all(math.isfinite(v) for v in found.table()["p_1"])


def test_quantised_cut_predicts_too(tmp_path: Path) -> None:
    model = load_parts(trained(tmp_path, bits=4))
    found = model.predict(write(tmp_path / "new", people(NEW, 1, first=5000)))
    assert found.metrics is not None and found.metrics["auc"] > 0.8


def test_the_best_round(run: Path, tmp_path: Path) -> None:
    files = write(tmp_path, people(NEW, 1, first=5000))
    assert len(load_parts(run, "best").predict(files)) == NEW


# ---- what may lack


def test_a_row_that_a_party_lacks_is_an_error_that_names_it(run: Path, tmp_path: Path) -> None:
    rows = people(NEW, 1, first=5000)
    rows["shop"] = [r for r in rows["shop"] if int(r["id"]) not in (5003, 5007)]
    with pytest.raises(BadInput) as told:
        load_parts(run).predict(write(tmp_path, rows))
    (problem,) = told.value.problems
    assert problem.code == "rows-missing" and problem.what.startswith("shop lacks 2 of the 30 rows")
    assert "5003 and 5007" in str(problem.got) and "impute" in str(problem.mend)


def test_or_is_made_up_for(lenient: Path, tmp_path: Path) -> None:
    rows = people(NEW, 1, first=5000)
    model = load_parts(lenient)
    whole = model.predict(write(tmp_path, rows))
    rows["shop"] = [r for r in rows["shop"] if int(r["id"]) not in (5003, 5007)]
    some = model.predict(write(tmp_path, rows))
    assert whole.missing == {} and some.missing == {"shop": 2}
    changed = np.flatnonzero(np.abs(some.p - whole.p).max(1) > 1e-6)  # type: ignore[operator]
    assert changed.tolist() == [3, 7]
    files = write(tmp_path, rows)
    alone = model.predict({"bank": files["bank"]})
    assert alone.missing == {"shop": NEW, "telecom": NEW} and alone.metrics is not None
    assert alone.metrics["auc"] < whole.metrics["auc"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"shop", "telecom"}, "party-missing", "bank"),
        ({"bank", "shop"}, "party-missing", "telecom"),
        ({"bank", "shop", "telecom", "shp"}, "unknown-name", 'did you mean "shop"?'),
    ],
)
def test_who_is_missing_or_unknown(run: Path, tmp_path: Path, given: set[str], code: str, said: str) -> None:
    files = write(tmp_path, people(NEW, 1))
    with pytest.raises(BadInput) as told:
        load_parts(run).predict({name: files.get(name, tmp_path / "x.csv") for name in given})
    assert [p.code for p in told.value.problems] == [code] and said in told.value.problems[0].text()


def test_a_file_with_other_columns_says_whose_it_is(run: Path, tmp_path: Path) -> None:
    files = write(tmp_path, people(NEW, 1))
    with pytest.raises(BadInput) as told:
        load_parts(run).predict(files | {"shop": files["telecom"]})
    assert told.value.problems[0].code == "columns-missing" and "shop" in told.value.problems[0].what
    rows = people(NEW, 1)
    rows["telecom"] = [{"nr": r["id"], "calls": r["calls"]} for r in rows["telecom"]]
    with pytest.raises(BadInput) as told:
        load_parts(run).predict(write(tmp_path, rows))
    assert "telecom" in told.value.problems[0].what and '"id"' in told.value.problems[0].what


def test_a_part_that_was_changed_or_is_not_here(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run / "parts", copy / "parts")
    path = copy / "parts" / "shop" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadInput) as told:
        load_parts(copy)
    assert told.value.problems[0].code == "model-damaged" and "shop" in told.value.problems[0].what
    shutil.rmtree(copy / "parts" / "shop")
    with pytest.raises(BadInput) as told:
        load_parts(copy)
    assert told.value.problems[0].code == "model-missing" and "shop" in told.value.problems[0].what
    with pytest.raises(BadInput):
        load_parts(tmp_path)


def test_auc_helper_is_the_same(run: Path, tmp_path: Path) -> None:
    rows = people(NEW, 1, first=5000)
    found = load_parts(run).predict(write(tmp_path, rows))
    y = torch.tensor([int(r["late"]) for r in rows["bank"]])
    assert found.metrics is not None and found.p is not None
    assert found.metrics["auc"] == pytest.approx(auc(torch.from_numpy(found.p[:, 1]), y == 1))
