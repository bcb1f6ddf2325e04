"""A saved model predicts on raw rows what the run's own model says of its prepared rows."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import manyloom.data as data
from manyloom.algorithms import fedavg
from manyloom.core.errors import BadInput
from manyloom.core.task import Shape, Task
from manyloom.data.federation import Federation
from manyloom.data.sources.heart_disease import COLUMNS
from manyloom.data.table import Column, Table, TableSchema
from manyloom.job import baseline
from manyloom.job.events import RunDone
from manyloom.job.job import Job
from manyloom.job.loop import loop, start
from manyloom.job.prepare import module_of, prepare
from manyloom.job.state import State
from manyloom.models import model
from manyloom.runtime.local import Local
from manyloom.track import rows
from manyloom.track.model import load_model, save_model

AUC = ("accuracy", "auc")


def task(
    name: str = "logistic", loss: str = "binary", metrics: Sequence[str] = ("accuracy", "auc"), **keys: Any
) -> Task:
    made = model(name, **keys)

    def build(shape: Shape) -> nn.Module:
        return made.build(shape.features, shape.classes, loss)

    table: Mapping[str, object] = {
        "name": name,
        "loss": loss,
        "metrics": list(metrics),
        "buffers": "refuse",
        **keys,
    }
    return Task(build, loss=loss, metrics=metrics, needs_shape=True, name=name, table=table)  # pyright: ignore[reportArgumentType]


def trained(job: Job) -> tuple[State, Any, nn.Module]:
    runtime = Local()
    ready = prepare(job, runtime)
    *_, last = loop(job, runtime, ready, start(job, ready))
    assert isinstance(last, RunDone) and last.state is not None
    theta = job.algorithm.server.model(last.state.server)
    return last.state, ready.preprocess, module_of(job.task, ready.shape, job.seed, last.state.server, theta)


@pytest.fixture(scope="module")
def heart(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job, nn.Module]:
    folder = tmp_path_factory.mktemp("runs") / "heart-k3q9"
    folder.mkdir()
    job = Job(task("mlp", hidden=[5]), fedavg(lr=0.1, batch_size=16), data.heart_disease(seed=7), rounds=2, seed=7)
    state, pre, module = trained(job)
    digest = save_model(folder, job, state, pre)
    assert len(digest) == 64
    return folder, job, module


def raw(job: Job, client: int, label: bool = True) -> dict[str, list[Any]]:
    """A hospital's held-out patients as its file has them: texts, gaps as "?"."""
    table = job.federation.table([client], "test")
    assert table is not None
    columns = {c: ["?" if math.isnan(v) else f"{v:g}" for v in table.numbers[:, i]] for i, c in enumerate(COLUMNS)}
    return columns | ({"disease": [str(y) for y in table.y.tolist()]} if label else {})


def write(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    with open(path, "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(zip(*columns.values(), strict=True))
    return path


def test_raw_rows_give_what_training_saw(heart: tuple[Path, Job, nn.Module], tmp_path: Path) -> None:
    folder, job, module = heart
    saved = load_model(folder)
    pre = saved.preprocess
    assert pre is not None
    for client in (0, 2):
        x, y = job.federation.prepare(pre).slab([client], "test").gather()
        with torch.inference_mode():
            want = module(x).double().sigmoid().squeeze(1).numpy()
        columns = raw(job, client)
        shuffled = {c: columns[c] for c in reversed(columns)} | {"ward": ["a"] * len(y)}
        found = saved.predict(write(tmp_path / f"{client}.csv", shuffled))
        assert found.p is not None
        np.testing.assert_array_equal(found.p[:, 1], want)
        assert list(found.prediction) == [("healthy", "disease")[int(p > 0.5)] for p in want]
        assert list(found.ignored) == ["ward"] and len(found.columns) == 13
        gaps = {c: v.count("?") for c, v in columns.items() if "?" in v}
        assert dict(found.filled) == gaps


def test_metrics_are_those_of_the_run(heart: tuple[Path, Job, nn.Module], tmp_path: Path) -> None:
    folder, job, _ = heart
    saved = load_model(folder)
    found = saved.predict(raw(job, 0))
    state, pre, _ = trained(job)
    judged = baseline.judge(job, baseline.fitted(job, state, pre), Local(), [0]).clients[0]
    assert found.metrics is not None and found.labelled == judged["rows"]
    assert found.metrics == pytest.approx({k: judged[k] for k in ("loss", "accuracy", "auc")}, abs=1e-9)


def test_kinds_of_rows_agree(heart: tuple[Path, Job, nn.Module], tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    folder, job, _ = heart
    saved = load_model(folder)
    columns = raw(job, 1)
    numbers = {c: [None if v == "?" else float(v) for v in vs] for c, vs in columns.items()}
    want = saved.predict(columns)
    rows.write_file(tmp_path / "new.parquet", numbers)
    records = [dict(zip(columns, row)) for row in zip(*columns.values())]
    for kind in (
        pd.DataFrame(numbers),
        tmp_path / "new.parquet",
        str(write(tmp_path / "n.csv", columns)),
        records,
    ):
        found = saved.predict(kind)
        assert found.p is not None and want.p is not None
        np.testing.assert_array_equal(found.p, want.p)
        assert found.metrics == want.metrics
    assert list(want.table()) == ["row", "prediction", "p_0", "p_1"]
    assert want.frame()["row"].tolist() == list(range(1, len(want) + 1))


def test_rows_without_a_label_or_with_some(heart: tuple[Path, Job, nn.Module]) -> None:
    folder, job, _ = heart
    saved = load_model(folder)
    assert saved.predict(raw(job, 0, label=False)).metrics is None
    some = raw(job, 0)
    some["disease"][3:] = [""] * (len(some["disease"]) - 3)
    assert saved.predict(some).labelled == 3
    named = raw(job, 0)
    named["disease"] = ["disease" if v == "1" else "healthy" for v in named["disease"]]
    assert saved.predict(named).metrics == saved.predict(raw(job, 0)).metrics


def test_no_rows(heart: tuple[Path, Job, nn.Module]) -> None:
    found = load_model(heart[0]).predict({c: [] for c in COLUMNS})
    assert len(found) == 0 and found.p is not None and found.p.shape == (0, 2)


def refusal(call: Any) -> BadInput:
    with pytest.raises(BadInput) as info:
        call()
    return info.value


def test_bad_rows_are_told(heart: tuple[Path, Job, nn.Module], tmp_path: Path) -> None:
    folder, job, _ = heart
    saved = load_model(folder)
    good = raw(job, 0)
    lacking = {c: v for c, v in good.items() if c not in ("oldpeak", "slope")}
    error = refusal(lambda: saved.predict(write(tmp_path / "new-patients.csv", lacking)))
    assert str(error) == (
        "error: new-patients.csv lacks 2 columns that the model was trained on\n"
        '  got    11 of 13 columns; missing "oldpeak", "slope"\n'
        "  rule   names as in training; order and further columns don't matter\n"
        "  mend   rename or add them; all 13 are in the run's model.json"
    )
    text = {**good, "chol": ["many", *good["chol"][1:]], "age": [*good["age"][:-1], "old"]}
    error = refusal(lambda: saved.predict(text))
    assert [p.code for p in error.problems] == ["not-a-number"] * 2
    assert '"old" in row' in str(error) and '"many" in row 1' in str(error)
    assert refusal(lambda: saved.predict({**good, "disease": ["7"] * len(good["age"])})).code == "label-range"
    assert refusal(lambda: saved.predict(tmp_path / "none.csv")).code == "data-missing"
    assert refusal(lambda: saved.predict(3)).code == "wrong-type"
    (tmp_path / "half.csv").write_text("age,sex\n1,2\n3")
    assert refusal(lambda: saved.predict(tmp_path / "half.csv")).code == "data-corrupt"
    (tmp_path / "half.parquet").write_bytes(b"PAR1xx")
    assert refusal(lambda: saved.predict(tmp_path / "half.parquet")).code == "data-corrupt"
    infinite = {**good, "age": ["inf", *good["age"][1:]]}
    assert refusal(lambda: saved.predict(infinite)).code == "not-finite"


def test_categories_and_numbers(tmp_path: Path) -> None:
    """A regression on a table with a text column: values that nobody had count as none."""
    schema = TableSchema((Column("size"), Column("town", "category")), "price", "number")
    rng = np.random.default_rng(0)
    n = 40
    size, town = rng.normal(3, 1, n), rng.integers(0, 3, n).astype(np.int32)
    table = Table(schema, size[:, None], town[:, None], (("ulm", "bonn", "kiel"),), size * 2 + town)
    from manyloom.data.build import federate
    from manyloom.data.partition import iid
    from manyloom.data.sources.info import SourceInfo

    fed = federate(table, SourceInfo("homes", "homes"), partition=iid(clients=2), test=0.2, seed=0, standardise=True)
    job = Job(task("linear", "mse", ("rmse", "r2")), fedavg(lr=0.1), fed, rounds=1)
    state, pre, module = trained(job)
    save_model(tmp_path, job, state, pre)
    saved = load_model(tmp_path)
    new = {"town": ["kiel", "rome", None], "size": ["3", "", "2.5"], "price": ["5", "?", "7"]}
    found = saved.predict(new)
    assert dict(found.unseen) == {"town": 1} and dict(found.filled) == {"size": 1, "town": 1}
    assert list(found.table()) == ["row", "value"] and found.labelled == 2
    assert found.metrics is not None and set(found.metrics) == {"loss", "rmse", "r2"}
    x, _ = job.federation.prepare(pre).slab([0, 1], "test").gather()
    own = job.federation.table([0, 1], "test")
    assert own is not None
    again = saved.predict({"size": own.numbers[:, 0].tolist(), "town": [own.values[0][c] for c in own.codes[:, 0]]})
    with torch.inference_mode():
        np.testing.assert_array_equal(again.prediction, module(x).double().squeeze(1).numpy())


def test_tensor_sources(tmp_path: Path) -> None:
    fed = data.digits(partition=data.iid(clients=4), seed=1)
    job = Job(task("mlp", "cross-entropy", ("accuracy", "f1"), hidden=[8]), fedavg(lr=0.1), fed, rounds=1)
    state, pre, module = trained(job)
    save_model(tmp_path, job, state, pre)
    saved = load_model(tmp_path)
    x, y = fed.slab([2], "test").gather()
    found = saved.predict(x)
    with torch.inference_mode():
        want = module(x).double().softmax(-1).numpy()
    assert found.p is not None
    np.testing.assert_array_equal(found.p, want)
    flat = {f"pixel_{i}": x.reshape(len(x), -1)[:, i].tolist() for i in range(64)} | {"label": y.tolist()}
    again = saved.predict(flat)
    assert again.p is not None and again.metrics is not None
    np.testing.assert_allclose(again.p, want, atol=1e-12)
    assert again.metrics["accuracy"] == (module(x).argmax(1) == y).double().mean().item()
    assert refusal(lambda: saved.predict(torch.zeros(2, 3))).code == "model-input"
    assert refusal(lambda: saved.predict({"a": [1.0]})).code == "columns-missing"


def test_pixels_are_divided(tmp_path: Path) -> None:
    x = torch.randint(0, 256, (20, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    fed = Federation.of_tensors(x, torch.arange(20) % 2, [range(10), range(10, 20)])
    job = Job(task(), fedavg(lr=0.1), fed, rounds=1)
    state, pre, module = trained(job)
    save_model(tmp_path, job, state, pre)
    found = load_model(tmp_path).predict(x)
    with torch.inference_mode():
        want = module(x.float() / 255).double().sigmoid().squeeze(1).numpy()
    assert found.p is not None
    np.testing.assert_array_equal(found.p[:, 1], want)


def test_a_model_without_a_name(tmp_path: Path) -> None:
    def net() -> nn.Module:
        return nn.Linear(64, 10)

    fed = data.digits(partition=data.iid(clients=3), seed=1)
    job = Job(Task(net), fedavg(lr=0.1), fed, rounds=1)
    state, pre, module = trained(job)
    save_model(tmp_path, job, state, pre)
    saved = load_model(tmp_path)
    assert refusal(lambda: saved.module).code == "unnamed-part"
    x, _ = fed.slab([0], "test").gather()
    x = x.reshape(len(x), -1)
    again = saved.into(net)
    with torch.inference_mode():
        assert torch.equal(again(x), module(x))


OWN = """
import torch
def net(features, classes, width):
    nn = torch.nn
    return nn.Sequential(nn.Linear(features[0], width), nn.BatchNorm1d(width), nn.Linear(width, classes))
"""
JOB = """
[job]
rounds = 2
seed = 1
[data]
source = "heart-disease"
[model]
name = "some_models_of_mine:net"
width = 3
buffers = "average"
"""


def test_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module is found beside the job that trained it, and averaged running statistics are saved with it."""
    (tmp_path / "some_models_of_mine.py").write_text(OWN)
    (tmp_path / "job.toml").write_text(JOB)
    job = Job.from_toml(str(tmp_path / "job.toml"))
    state, pre, module = trained(job)
    save_model(tmp_path, job, state, pre)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    saved = load_model(tmp_path)
    assert not torch.equal(saved.tensors["1.running_mean"], torch.zeros(3))
    x, _ = job.federation.prepare(pre).slab([0], "test").gather()
    with torch.inference_mode():
        np.testing.assert_array_equal(saved.predict(raw(job, 0)).p, module(x).double().softmax(-1).numpy())


def test_from_the_top(tmp_path: Path) -> None:
    import manyloom as ml

    job = Job(task(), fedavg(lr=0.1), data.heart_disease(seed=7), rounds=1, seed=7)
    result = ml.train(job, progress=None, home=tmp_path)
    saved = ml.load("last", home=tmp_path)
    assert repr(saved) == f"SavedModel({result.run_id}: logistic, 14 parameters)"
    own, again = result.model.state_dict(), saved.module.state_dict()
    assert own.keys() == again.keys() and all(torch.equal(own[k], again[k]) for k in own)
    assert repr(saved.predict(raw(job, 1))).startswith("Predictions(58 rows, loss=0.")


def test_damage_and_absence(heart: tuple[Path, Job, nn.Module], tmp_path: Path) -> None:
    folder = heart[0]
    assert refusal(lambda: load_model(tmp_path)).code == "model-missing"
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert refusal(lambda: load_model(tmp_path)).code == "model-damaged"


def test_the_best_round(tmp_path: Path) -> None:
    from manyloom.job import checkpoint

    job = Job(task(), fedavg(lr=0.1), data.heart_disease(seed=7), rounds=3, seed=7)
    state, pre, _ = trained(job)
    save_model(tmp_path, job, state, pre)
    assert refusal(lambda: load_model(tmp_path, "best")).code == "model-missing"
    other = replace(state, round=1, server={k: torch.zeros_like(v) for k, v in state.server.items()})
    checkpoint.save(other, tmp_path / "checkpoints")
    checkpoint.save(replace(state, record=state.record | {"best_round": 1}), tmp_path / "checkpoints")
    best = load_model(tmp_path, "best")
    assert all((t == 0).all() for t in best.tensors.values())
    assert any((t != 0).any() for t in load_model(tmp_path).tensors.values())


def test_nothing_is_pickled_and_no_row_is_kept(heart: tuple[Path, Job, nn.Module]) -> None:
    text = (heart[0] / "model.json").read_text()
    assert '"mean"' in text and "lambda" not in text and "object at" not in text
