"""The error texts that concern the job file, as people read them."""

from __future__ import annotations

import textwrap

import pytest

from manyloom.core.errors import BadInput
from manyloom.job.toml import find, parse_override, read

# Line numbers matter here: each text names one.
HEART = """\
[job]
name = "heart"
rounds = 40
seed = 7
cohort = 4

[data]
source = "heart-disease"

[model]
name = "logistic"

[algorithm]
name = "fedavg"
lr = 0.1
batch_size = 16
epochs = 1

[server]
lr = 1.0
[runtime]
"""


def text_of(folder, changes, overrides=None) -> str:
    """What `read` says of HEART with some lines exchanged."""
    text = HEART
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "heart.toml"
    file.write_text(text)
    with pytest.raises(BadInput) as caught:
        read(file, overrides)
    return str(caught.value)


def plain(text: str) -> str:
    return textwrap.dedent(text).strip()


GOLDEN = {
    "unknown-key": (
        {"rounds = 40": "roundz = 40"},
        """
        error: unknown key "roundz" in [job]
          got    roundz = 40                                          heart.toml, line 3
          rule   [job] takes name, kind, rounds, seed, cohort, sampling, quorum, ...
          mend   did you mean "rounds"?
        """,
    ),
    "unknown-table": (
        {"[runtime]": "[privcy]"},
        """
        error: unknown table [privcy]
          got    [privcy]                                            heart.toml, line 21
          mend   did you mean [privacy]?
        """,
    ),
    "unknown-name": (
        {'"fedavg"': '"fedprxo"'},
        """
        error: there is no algorithm "fedprxo"
          got    name = "fedprxo" in [algorithm]                     heart.toml, line 14
          mend   did you mean "fedprox"? All names: manyloom algorithms
        """,
    ),
    "wrong-type": (
        {"rounds = 40": 'rounds = "40"'},
        """
        error: rounds must be a whole number
          got    rounds = "40" (text) in [job]                        heart.toml, line 3
          mend   write rounds = 40 without quotes
        """,
    ),
    "out-of-range": (
        {"lr = 0.1": "lr = -0.1"},
        """
        error: lr must be above 0
          got    lr = -0.1 in [algorithm]                            heart.toml, line 15
          mend   try lr = 0.1
        """,
    ),
    "cohort-too-large": (
        {"cohort = 4": "cohort = 10"},
        """
        error: the cohort is larger than the population
          got    cohort = 10, clients 4                               heart.toml, line 5
          mend   set cohort = 4, or leave it out to ask everyone
        """,
    ),
    "a table of vertical jobs": (
        {"[runtime]": "[align]"},
        """
        error: [align] is for vertical jobs
          got    [align]                                             heart.toml, line 21
          rule   in a horizontal job clients differ in rows, not in columns
          mend   leave it out, or set kind = "vertical" in [job]
        """,
    ),
    "a model of vertical jobs": (
        {'"logistic"': '"split-mlp"'},
        """
        error: model "split-mlp" is for vertical jobs
          got    name = "split-mlp" in [model]                       heart.toml, line 11
          rule   in a horizontal job clients differ in rows, not in columns
          mend   leave it out, or set kind = "vertical" in [job]
        """,
    ),
    "a key of vertical jobs": (
        {'source = "heart-disease"': 'source = "heart-disease"\nids = ["id"]'},
        """
        error: ids in [data] is for vertical jobs
          got    ids = ["id"] in [data]                               heart.toml, line 9
          rule   in a horizontal job clients differ in rows, not in columns
          mend   leave it out, or set kind = "vertical" in [job]
        """,
    ),
    "not-yet, a key": (
        {"[runtime]": "[runtime]\nworkers = 4"},
        """
        error: workers in [runtime] is not in this version
          got    workers = 4                                         heart.toml, line 22
          mend   leave workers out
        """,
    ),
    "not-yet, a value": (
        {"[runtime]": '[runtime]\nprovider = "graph"'},
        """
        error: provider = "graph" is not in this version
          got    provider = "graph" in [runtime]                     heart.toml, line 22
          mend   leave provider out
        """,
    ),
    "a key of another table": (
        {"seed = 7": "batch_size = 7"},
        """
        error: unknown key "batch_size" in [job]
          got    batch_size = 7                                       heart.toml, line 4
          rule   [job] takes name, kind, rounds, seed, cohort, sampling, quorum, ...
          mend   batch_size belongs to [algorithm]
        """,
    ),
    "a key of another algorithm": (
        {"batch_size = 16": "mu = 0.1"},
        """
        error: unknown key "mu" in [algorithm]
          got    mu = 0.1                                            heart.toml, line 16
          rule   [algorithm] with name = "fedavg" takes name, lr, batch_size, ...
          mend   mu belongs to name = "fedprox" or "moon"
        """,
    ),
    "missing-key": (
        {"rounds = 40": ""},
        """
        error: [job] needs rounds
          got    no rounds in [job]                                   heart.toml, line 1
          rule   rounds: counted from 1
          mend   add rounds = 20 to [job]
        """,
    ),
    "a number for a list": (
        {'name = "logistic"': 'name = "mlp"\nhidden = 64'},
        """
        error: hidden must be a list of whole numbers
          got    hidden = 64 (a whole number) in [model]             heart.toml, line 12
          mend   write hidden = [64]
        """,
    ),
    "one of some words": (
        {"batch_size = 16": 'optimiser = "adm"'},
        """
        error: optimiser must be "sgd", "adam" or "adamw"
          got    optimiser = "adm" in [algorithm]                    heart.toml, line 16
          mend   did you mean "adam"?
        """,
    ),
    "told by the factory": (
        {"batch_size = 16": "steps = 4"},
        """
        error: epochs and steps contradict each other
          got    epochs = 1, steps = 4                               heart.toml, line 17
          rule   a client makes passes, or an exact number of steps
          mend   give one of them
        """,
    ),
    "no quotes": (
        {'"fedavg"': "fedavg"},
        """
        error: heart.toml is no TOML
          got    name = fedavg                                       heart.toml, line 14
          rule   Invalid value
          mend   text stands in quotes: name = "fedavg"
        """,
    ),
    "outside of a table": (
        {"rounds = 40\n": "", "[job]\n": "rounds = 3\n[job]\n"},
        """
        error: unknown key "rounds" outside of a table
          got    rounds = 3                                           heart.toml, line 1
          rule   a job file has tables: [job], [data], [partition], [model],
                 [algorithm], [server], [uplink], [downlink], [lora], [aggregate],
                 [validation], [privacy], [secure], [attack], [simulate], [runtime],
                 [card]
          mend   put it below [job]
        error: [job] needs rounds
          got    no rounds in [job]                                   heart.toml, line 2
          rule   rounds: counted from 1
          mend   add rounds = 20 to [job]
        """,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name, tmp_path):
    changes, text = GOLDEN[name]
    told = text_of(tmp_path, changes)
    assert told == plain(text)
    assert all(len(line) <= 80 for line in told.splitlines())


def test_an_override_is_named(tmp_path):
    told = text_of(tmp_path, {}, {"algorithm.lr": -0.1, "server.beta": 0.5})
    assert told == plain("""
        error: lr must be above 0
          got    lr = -0.1 in [algorithm]                          override algorithm.lr
          mend   try lr = 0.1
        error: unknown key "beta" in [server]
          got    beta = 0.5                                         override server.beta
          rule   [server] with name = "sgd" takes name, lr
          mend   beta belongs to name = "momentum"
        """)


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path):
    told = text_of(
        tmp_path,
        {"rounds = 40": "roundz = 40", '"logistic"': '"logistik"', "lr = 0.1": "lr = 0", "[runtime]": "[align]"},
    )
    assert [line for line in told.splitlines() if line.startswith("error")] == [
        'error: unknown key "roundz" in [job]',
        'error: there is no model "logistik"',
        "error: lr must be above 0",
        "error: [align] is for vertical jobs",
    ]


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ("algorithm.lr:0.1", "algorithm.lr=0.1"),
        ("seed=1", "job.seed=1"),
        ("batch_size:8", "algorithm.batch_size=8"),
        ("algorithm.lr", "algorithm.lr=0.1"),
        ("algorithm.lr=", "algorithm.lr=0.1"),
        ("model.hidden=[8", "algorithm.lr=0.1"),
        ("=3", "algorithm.lr=0.1"),
        ("a.b.c=3", "algorithm.lr=0.1"),
        ("job.seed=1\nx = 2", "algorithm.lr=0.1"),
    ],
)
def test_bad_overrides(given, mend):
    with pytest.raises(BadInput) as caught:
        parse_override(given, "heart.toml")
    assert (caught.value.code, caught.value.what) == ("bad-override", f'can\'t read the override "{given}"')
    assert caught.value.rule == "table.key=value, as in algorithm.lr=0.1"
    assert caught.value.mend == f"manyloom run heart.toml {mend}"


def test_job_not_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heart.toml").write_text(HEART)
    with pytest.raises(BadInput) as caught:
        find("haert.toml")
    assert str(caught.value) == plain("""
        error: there is no job file "haert.toml"
          rule   a path to a TOML file, or a shipped job: heart, digits, mnist-writers
          mend   did you mean heart.toml?
        """)
    (tmp_path / "heart.toml").unlink()
    mends = {"haert": "did you mean heart?", "digts.toml": "did you mean digits?", "zzz": "make one: manyloom new NAME"}
    for name, mend in mends.items():
        with pytest.raises(BadInput) as caught:
            find(name)
        assert caught.value.mend == mend
