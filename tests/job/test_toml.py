"""Job files: read, written, the same job again; nothing in a file is passed over."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyloom import algorithms, data, server
from manyloom.core.errors import BadInput
from manyloom.core.signature import Key
from manyloom.core.task import Shape
from manyloom.core.validate import rules_of
from manyloom.job import later, reference
from manyloom.job.job import Job
from manyloom.job.tables import HORIZONTAL, TABLES, canonical
from manyloom.job.toml import lines, parse, parse_override, read, shipped, write
from manyloom.job.vertical.tables import VERTICAL

ROOT = Path(__file__).parents[2]
BASE = """
[job]
rounds = 2
[data]
source = "heart-disease"
[model]
name = "logistic"
"""
DIGITS = """
[job]
rounds = 2
seed = 5
[data]
source = "digits"
[partition]
scheme = "iid"
clients = 4
[model]
name = "mlp"
"""


def job(folder: Path, text: str, overrides=None, **keys) -> Job:
    file = folder / "test.toml"
    file.write_text(text)
    return read(file, overrides, **keys)


def codes(folder: Path, text: str, overrides=None) -> list[str]:
    with pytest.raises(BadInput) as caught:
        job(folder, text, overrides)
    return [p.code for p in caught.value.problems]


def again(made: Job, folder: Path) -> Job:
    file = folder / "again.toml"
    file.write_text(made.to_toml())
    return read(file, base=made.base)


# ---- the same job again


@pytest.mark.parametrize("name", [n for n in shipped() if n != "mnist-writers"])
def test_shipped_jobs_round_trip(name, tmp_path):
    made = read(name)
    assert made.name == name
    assert again(made, tmp_path).digest == made.digest
    assert again(made, tmp_path).tables == made.tables


def test_the_shipped_job_of_writers_has_no_wrong_key():
    with pytest.raises(BadInput) as caught:
        read("mnist-writers", data_dir="nowhere")
    assert caught.value.code == "data-missing"


def test_defaults_are_filled_in_and_change_no_digest(tmp_path):
    short, long = (
        job(tmp_path, BASE),
        read("heart", {"job.name": "test", "job.rounds": 2, "job.seed": 0, "algorithm.batch_size": 32}),
    )
    assert short.digest == long.digest
    assert short.tables["model"] == {
        "name": "logistic",
        "classes": 2,
        "loss": "binary",
        "metrics": ["accuracy", "auc"],
        "buffers": "refuse",
        "freeze": [],
    }
    assert short.tables["data"]["seed"] == 0 and list(short.tables["job"])[0] == "name"


def test_a_python_job_and_its_file_are_the_same(tmp_path):
    task = read("digits").task
    fed = data.digits(partition=data.dirichlet(clients=5, alpha=1), seed=3, test=0)
    made = Job(task, algorithms.fedadam(lr=1, epochs=2, server=server.adam(lr=1)), fed, rounds=3, cohort=0.5)
    assert again(made, tmp_path).digest == made.digest


def test_one_and_one_point_nought_are_one_learning_rate_but_two_cohorts(tmp_path):
    texts = [BASE + f"[algorithm]\nlr = {lr}\n" for lr in ("1", "1.0")]
    assert len({job(tmp_path, t).digest for t in texts}) == 1
    assert len({job(tmp_path, BASE, {"job.cohort": c}).digest for c in (1, 1.0)}) == 2


def test_what_does_not_decide_the_result_is_not_in_the_digest(tmp_path):
    made = job(tmp_path, BASE)
    other = job(tmp_path, BASE, {"runtime.name": "sequential", "card.use": "a test", "data.data_dir": "x"})
    assert made.digest == other.digest and made.tables != other.tables
    assert again(other, tmp_path).execution.name == "sequential" and again(other, tmp_path).card == {"use": "a test"}


def values(key: Key) -> st.SearchStrategy[object]:
    """Values that a key takes."""
    kinds = reference.typed(key.hint)
    if kinds.startswith('"'):
        return st.sampled_from([w.strip('"') for w in kinds.split(", ")])
    numbers = st.floats(1e-6, 0.999) | st.floats(1.0, 1e6) | st.integers(0, 1000)
    strategy = {
        "int": st.integers(0, 1000),
        "bool": st.booleans(),
        "number": numbers,
        "text": st.text(max_size=8),
        "int or share": st.integers(1, 4) | st.floats(0.01, 1.0),
        "0, 1": st.sampled_from([0, 1]),
    }[kinds]
    return strategy.filter(lambda v: all(rule(v) for rule in rules_of(key.hint) if not isinstance(v, (str, bool))))


def some_of(table: str, name: str | None, leave: tuple[str, ...] = ()) -> st.SearchStrategy[dict[str, object]]:
    known = TABLES[table].known(name)
    return st.fixed_dictionaries({}, optional={k: values(v) for k, v in known.items() if k not in leave})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_keys_round_trip(drawn, tmp_path):
    bound = ("fedper", "fedbn", "fedbuff", "coral")  # they ask more of model and job than keys say
    recipe = drawn.draw(st.sampled_from([n for n in TABLES["algorithm"].names if n not in bound]))
    step = drawn.draw(st.sampled_from(TABLES["server"].names))
    keys = drawn.draw(some_of("algorithm", recipe, ("name", "momentum", "optimiser", "weights")))
    if "steps" in keys:
        keys.pop("epochs", None)
    others = ("kind", "watch", "min_available", "quorum", "sampling", "partial", "over_provision")
    settings = drawn.draw(some_of("job", None, others))
    tables = {
        "job": settings | {"rounds": drawn.draw(st.integers(1, 10**9))},
        "data": {"source": "heart-disease"},
        "model": {"name": "logistic"},
        "algorithm": {"name": recipe, **keys},
        "server": {"name": step, **drawn.draw(some_of("server", step, ("name",)))},
        "card": drawn.draw(some_of("card", None)),
    }
    made = job(tmp_path, write(tables))
    for table, given_keys in canonical(tables).items():
        assert given_keys.items() <= made.tables.get(table, {}).items()
    assert again(made, tmp_path).digest == made.digest


scalars = st.text(max_size=8) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.dictionaries(st.text(max_size=5), scalars | st.lists(scalars, max_size=3), max_size=3),
        max_size=3,
    )
)
def test_what_is_written_is_what_is_read(tables):
    assert tomllib.loads(write(tables)) == tables


# ---- what follows from the rest


def test_the_target_decides_loss_and_metrics(tmp_path):
    assert job(tmp_path, DIGITS).task.metrics == ["accuracy", "f1"]
    assert job(tmp_path, DIGITS).task.loss == "cross-entropy"
    (tmp_path / "n.csv").write_text("who,x,y\n" + "".join(f"{'ab'[i % 2]},{i},{i / 7}\n" for i in range(20)))
    made = job(
        tmp_path,
        BASE.replace('"heart-disease"', '"csv"\npath = "n.csv"\nlabel = "y"\nkey = "who"').replace(
            "logistic", "linear"
        ),
    )
    assert (made.task.loss, made.task.metrics, made.watched) == ("mse", ["rmse", "mae", "r2"], "rmse")
    assert made.tables["data"]["path"] == "n.csv" and again(made, tmp_path).digest == made.digest


def test_a_server_table_changes_only_what_it_names(tmp_path):
    made = job(tmp_path, BASE + '[algorithm]\nname = "fedadam"\n[server]\nlr = 0.03\n')
    assert made.tables["server"] == {"name": "adam", "lr": 0.03, "beta1": 0.9, "beta2": 0.99, "tau": 0.001}
    assert job(tmp_path, BASE).tables["server"] == {"name": "sgd", "lr": 1.0}
    assert codes(tmp_path, BASE + "[server]\ntau = 0.1\n") == ["unknown-key"]


def test_the_seed_of_the_data_is_the_job_s_or_its_own(tmp_path):
    assert job(tmp_path, DIGITS).tables["data"]["seed"] == 5
    assert job(tmp_path, DIGITS, {"data.seed": 1}).tables["data"]["seed"] == 1


def test_more_classes_than_labels_and_fewer(tmp_path):
    made = job(tmp_path, DIGITS, {"model.classes": 12})
    assert made.task.build(Shape((64,), made.federation.classes))[-1].out_features == 12
    assert again(made, tmp_path).digest == made.digest != job(tmp_path, DIGITS).digest
    assert codes(tmp_path, DIGITS, {"model.classes": 5}) == ["label-range"]


@pytest.mark.parametrize(
    "text", ["[aggregate]\n", '[aggregate]\nrule = "mean"\n', "[simulate]\n[card]\n[partition]\n[server]\n"]
)
def test_empty_tables_and_given_defaults_say_nothing(text, tmp_path):
    assert job(tmp_path, BASE + text).digest == job(tmp_path, BASE).digest


def test_later_keys_with_the_value_of_today_are_taken(tmp_path):
    text = BASE.replace("rounds = 2", 'rounds = 2\nkind = "horizontal"\npartial = false\nover_provision = 1')
    assert job(tmp_path, text).digest == job(tmp_path, BASE).digest
    assert set(codes(tmp_path, text.replace("horizontal", "vertical"))) == {"other-kind"}
    assert codes(tmp_path, text.replace("horizontal", "diagonal")) == ["out-of-range"]


# ---- everything wrong is told


@pytest.mark.parametrize("table", later.TABLES)
def test_tables_of_later_versions_are_refused(table, tmp_path):
    assert codes(tmp_path, BASE + f"[{table}]\n") == ["not-yet"]


@pytest.mark.parametrize(("table", "key"), [(t, k) for t, keys in later.KEYS.items() for k in keys])
def test_keys_of_later_versions_are_refused_and_not_known(table, key, tmp_path):
    shown = {
        t: set(TABLES[t].known(name))
        for t, name in {
            "job": None,
            "model": "mlp",
            "data": "digits",
            "algorithm": "fedavg",
            "aggregate": "mean",
        }.items()
    }
    assert key not in shown.get(table, TABLES[table].known())
    value = "[[1]]" if later.KEYS[table][key] is None else "3.25"
    text = BASE.replace(f"[{table}]\n", f"[{table}]\n{key} = {value}\n")
    assert codes(tmp_path, text if text != BASE else BASE + f"[{table}]\n{key} = {value}\n") == ["not-yet"]


@pytest.mark.parametrize(("table", "key", "name"), [(t, k, n) for (t, k), names in later.VALUES.items() for n in names])
def test_names_of_later_versions_are_refused_and_not_known(table, key, name, tmp_path):
    assert name not in TABLES[table].names
    assert set(codes(tmp_path, BASE, {f"{table}.{key}": name})) == {"not-yet"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"job.cohort": 0}, ["out-of-range"]),
        ({"job.cohort": 1.5}, ["out-of-range"]),
        ({"job.rounds": True}, ["wrong-type"]),
        ({"job.retries": 2}, ["wrong-type"]),
        ({"job.retries": True}, ["wrong-type"]),
        ({"job.seed": -1}, ["out-of-range"]),
        ({"job.watch": "acuracy"}, ["unknown-name"]),
        ({"job.sampling": "poisson"}, ["out-of-range"]),
        ({"job.stop_at": float("nan")}, ["out-of-range"]),
        ({"data.source": "hart-disease"}, ["unknown-name"]),
        ({"data.source": 3}, ["wrong-type"]),
        ({"data.test": 1.0}, ["out-of-range"]),
        ({"data.test": "own"}, ["out-of-range"]),
        ({"data.length": 3}, ["unknown-key"]),
        ({"data.source": "csv"}, ["missing-key", "missing-key"]),
        ({"data.source": "digits"}, ["missing-key"]),
        ({"partition.scheme": "dirichlet"}, ["missing-key"]),
        ({"partition.scheme": "dirichlet", "partition.clients": 0}, ["out-of-range"]),
        ({"partition.alpha": 0.3}, ["unknown-key"]),
        ({"model.name": "mlp", "model.hidden": [64, 0]}, ["out-of-range"]),
        ({"model.metrics": ["acc"]}, ["unknown-name"]),
        ({"model.metrics": ["rmse"]}, ["metric-target"]),
        ({"model.loss": "mze"}, ["out-of-range"]),
        ({"model.loss": 3}, ["wrong-type"]),
        ({"algorithm.name": "scaffold", "algorithm.momentum": 0.9}, ["scaffold-optimiser"]),
        ({"algorithm.server": 3}, ["unknown-key"]),
        ({"server.name": "adamm"}, ["unknown-name"]),
        ({"aggregate.rule": "meen"}, ["unknown-name"]),
        ({"simulate.dropout": 2}, ["out-of-range"]),
        ({"simulate.drop": ["1:nobody"]}, ["out-of-range"]),
        ({"runtime.group": 0}, ["out-of-range"]),
        ({"card.use": 3}, ["wrong-type"]),
        ({"jobb.rounds": 3}, ["unknown-table"]),
        ({"job.rounds": {"a": 1}}, ["wrong-type"]),
    ],
)
def test_wrong_values(change, found, tmp_path):
    with pytest.raises(BadInput) as caught:
        job(tmp_path, BASE, change)
    assert [p.code for p in caught.value.problems] == found
    assert all(p.where for p in caught.value.problems)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[job]\nrounds = \n", 2),
        ("[job]\nrounds = 1\nrounds = 2\n", 3),
        ("[job\n", 1),
        ('[job]\nname = "a\n', 2),
        ("[job]\nx = [1,\n", 2),
    ],
)
def test_what_is_no_toml_says_where(text, line, tmp_path):
    with pytest.raises(BadInput) as caught:
        job(tmp_path, text)
    assert caught.value.code == "bad-toml" and caught.value.where
    assert abs(int(re.findall(r"\d+$", caught.value.where)[0]) - line) <= 1


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput) as caught:
        read(tmp_path / "x.toml")
    assert caught.value.code == "bad-toml"


def test_an_empty_file_misses_three_keys(tmp_path):
    assert codes(tmp_path, "") == ["missing-key"] * 3


# ---- where things stand


def test_lines_of_statements_over_several_lines():
    text = 'top = 1\n# [no]\n[a]\nx = """\n[b]\ny = 1\n"""\nz = [\n  1, # ]\n  2,\n]\n"w v" = 3\n\n[a2] # c\nq.r = 1\n'
    assert lines(text) == {
        ("top", ""): 1,
        ("a", ""): 3,
        ("a", "x"): 4,
        ("a", "z"): 8,
        ("a", "w v"): 12,
        ("a2", ""): 14,
        ("a2", "q"): 15,
    }
    assert lines("job.rounds = 3\r\ndata = {source = 1}\r\n") == {
        ("job", ""): 1,
        ("job", "rounds"): 1,
        ("data", ""): 2,
        ("data", "source"): 2,
    }


def test_overrides_make_tables_and_keys(tmp_path):
    (tmp_path / "x.toml").write_text(BASE)
    source = parse(
        tmp_path / "x.toml", dict([parse_override("simulate.dropout = 0.5"), parse_override("job.name=a-b")])
    )
    assert (
        source.given["simulate"] == {"dropout": 0.5}
        and source.where("simulate", "dropout") == "override simulate.dropout"
    )
    assert source.where("job", "name") == "override job.name" and source.where("job", "rounds") == "x.toml, line 3"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("3", 3),
        ("0.1", 0.1),
        ("fedprox", "fedprox"),
        ('"3"', "3"),
        ("[1, 2]", [1, 2]),
        ("a=b", "a=b"),
        ("2e-3", 0.002),
        ("3:0", "3:0"),
    ],
)
def test_values_of_overrides(text, value):
    assert parse_override(f"table.key={text}") == ("table.key", value)


# ---- module:function

CODE = """
from torch import nn
from manyloom import algorithms, data
import beside_it

def net(features, classes, *, width=4):
    return nn.Sequential(nn.Linear(features[0], width), nn.Linear(width, classes))

def rows(*, clients, seed=0, partition=None):
    return data.digits(partition=partition or data.iid(clients=clients), seed=seed)

def fednew(*, strength, **options):
    return algorithms.fedavg(**options)
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own_parts.py").write_text(CODE)
    (tmp_path / "beside_it.py").write_text("X = 1\n")
    (tmp_path / "jobs").mkdir()
    return tmp_path / "jobs"


OWN = """
[job]
rounds = 1
seed = 9
[data]
source = "own_parts:rows"
clients = 3
[model]
name = "own_parts:net"
width = 5
[algorithm]
name = "own_parts:fednew"
strength = 2
lr = 0.3
"""


def test_parts_of_one_s_own(own):
    made = job(own, OWN)
    assert len(made.federation) == 3 and made.task.build(Shape((64,), 10))[0].out_features == 5
    assert made.tables["data"] == {"source": "own_parts:rows", "clients": 3, "seed": 9}
    assert made.tables["model"]["width"] == 5 and made.tables["model"]["loss"] == "cross-entropy"
    assert made.tables["algorithm"]["lr"] == 0.3 and made.tables["algorithm"]["strength"] == 2
    assert made.tables["algorithm"]["name"] == "own_parts:fednew"
    assert again(made, own).digest == made.digest
    with_scheme = job(own, OWN, {"partition.scheme": "shards", "partition.clients": 4})
    assert len(with_scheme.federation) == 4 and again(with_scheme, own).digest == with_scheme.digest


def test_the_module_of_another_folder_is_another_module(own, tmp_path_factory):
    assert len(job(own, OWN).federation) == 3
    other = tmp_path_factory.mktemp("other")
    (other / "own_parts.py").write_text(
        CODE.replace("import beside_it", "").replace("clients=clients", "clients=clients + 1")
    )
    assert len(job(other, OWN).federation) == 4


def test_wrong_parts_of_one_s_own(own):
    assert codes(own, OWN, {"model.wdth": 3}) == ["unknown-key"]
    assert codes(own, OWN.replace("clients = 3", "")) == ["missing-key"]
    assert codes(own, OWN.replace("strength = 2", "")) == ["missing-key"]
    assert codes(own, OWN, {"model.name": "own_parts:nett"}) == ["unknown-name"]
    assert codes(own, OWN, {"data.source": "no_such:thing"}) == ["unknown-name"]
    assert codes(own, OWN, {"algorithm.name": "own_parts:net", "algorithm.features": 1, "algorithm.classes": 1})
    (own / "broken.py").write_text("1 / 0")
    with pytest.raises(BadInput) as caught:
        job(own, OWN, {"data.source": "broken:rows"})
    assert caught.value.rule == "ZeroDivisionError: division by zero"
    assert caught.value.where == "override data.source"


# ---- places


def test_paths_of_a_run_s_job_start_where_run_json_says(tmp_path):
    (tmp_path / "n.csv").write_text("who,x,y\n" + "".join(f"{'ab'[i % 2]},{i},{i % 3 == 0}\n" for i in range(20)))
    made = job(tmp_path, BASE.replace('"heart-disease"', '"csv"\npath = "n.csv"\nlabel = "y"\nkey = "who"'))
    run = tmp_path / "runs" / "test-2abc"
    run.mkdir(parents=True)
    (run / "job.toml").write_text(made.to_toml())
    with pytest.raises(BadInput) as caught:
        read(run / "job.toml")
    assert (caught.value.code, caught.value.got.split('"')[1]) == ("data-missing", "n.csv")
    (run / "run.json").write_text(json.dumps({"base": made.base}))
    assert read(run / "job.toml").digest == made.digest


def test_data_dir_by_argument_by_key_by_environment(tmp_path, monkeypatch):
    text = BASE.replace("heart-disease", "mnist")

    def looked(**keys) -> str:
        with pytest.raises(BadInput) as caught:
            job(tmp_path, text, **keys)
        return str(caught.value)

    monkeypatch.setenv("MANYLOOM_DATA", str(tmp_path / "env"))
    assert str(tmp_path / "env") in looked()
    assert str(tmp_path / "key") in looked(overrides={"data.data_dir": "key"})
    assert str(tmp_path / "arg") in looked(overrides={"data.data_dir": "key"}, data_dir=str(tmp_path / "arg"))


# ---- the documentation


def test_docs_are_made_of_the_code():
    scope = {"__name__": "make_docs", "__file__": str(ROOT / "scripts" / "make_docs.py")}
    exec(compile((ROOT / "scripts" / "make_docs.py").read_text(), "make_docs.py", "exec"), scope)
    for name, made in (("job.md", "page"), ("algorithms.md", "methods")):
        text = "\n".join(scope[made]()) + "\n"
        assert (ROOT / "docs" / name).read_text("utf-8") == text, "run scripts/make_docs.py"


def test_every_key_has_a_meaning():
    silent = [
        (table.name, name, r.key)
        for table in TABLES.values()
        for name in (None, *table.names)
        for r in reference.rows(table, name)
        if not r.meaning or not r.type
    ]
    assert silent == []


def test_words_for_defaults_are_of_keys_that_exist():
    for table, key in (*reference.FOLLOWS, *reference.ALWAYS):
        assert any(key in book.tables[table].known() for book in (HORIZONTAL, VERTICAL) if table in book.tables)


def test_deviations_are_told():
    assert reference.deviations("scaffold") == {"weights": "uniform"}
    assert reference.deviations("fedavg") == {}
