"""`algorithms`, `data`, `doctor`: what there is, and whether it can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from manyloom.algorithms import RECIPES
from manyloom.cli.catalogue import NAMES
from manyloom.data.sources.registry import sources
from tests.cli.conftest import Cli, golden, narrow, valid


def test_the_lists(here: Cli) -> None:
    assert tuple(RECIPES) == NAMES
    for verb, known in (("algorithms", tuple(RECIPES)), ("data", tuple(sources()))):
        done = here(verb)
        assert (done.code, done.err) == (0, "")
        narrow(done.out)
        golden(verb, done.out)
        document = here(verb, "--json").json
        valid(document)
        assert tuple(i["name"] for i in document["items"]) == known
        assert here(verb, "--quiet").out.split() == list(known)


@pytest.mark.parametrize("verb,name", [("algorithms", n) for n in RECIPES] + [("data", n) for n in sources()])
def test_one_in_detail(verb: str, name: str, here: Cli) -> None:
    done = here(verb, name)
    assert (done.code, done.err) == (0, "")
    narrow(done.out)
    assert done.out.startswith(f"name     {name}") and "\nkeys\n" in done.out
    document = here(verb, name, "--json").json
    valid(document)
    assert document["items"][0]["keys"] and all(k["meaning"] for k in document["items"][0]["keys"])


def test_unknown_names(here: Cli) -> None:
    assert 'did you mean "fedprox"?' in here("algorithms", "fedprxo").err
    assert 'did you mean "mnist"?' in here("data", "mnst").err


def test_files_that_are_there(here: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "d" / "vision" / "fashion_mnist"
    folder.mkdir(parents=True)
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"):
        (folder / name).touch()
    text = here("data", "--data-dir", "d").out
    assert "missing  fashion-mnist: put the other 2 files under d/vision/fashion_mnist" in text
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (folder / name).touch()
    assert "missing  fashion-mnist" not in here("data", "--data-dir", "d").out
    assert "fashion-mnist in d" in here("doctor", "--data-dir", "d").out


def test_a_healthy_machine(here: Cli) -> None:
    done = here("doctor", "heart")
    assert (done.code, done.err) == (0, "")
    narrow(done.out)
    for word in ("python", "cores", "memory", "disk", "runs", "data", "charts", "job", "clients"):
        assert f"\n{word} " in done.out
    assert "doctor   no problem\nnext     manyloom run heart\n" in done.out
    valid(here("doctor", "heart", "--json").json)


def test_problems_are_told_with_their_mend(here: Cli, tmp_path: Path) -> None:
    done = here("doctor", "heart", "job.rounds=0", "algorithm.name=fedprxo", "--data-dir", "nowhere", "--json")
    assert done.code == 1
    valid(done.json)
    wrong = {c["found"]: c["mend"] for c in done.json["checks"] if c["mend"]}
    assert done.json["problems"] == len(wrong) == 3 and not done.json["ok"]
    assert 'did you mean "fedprox"?' in wrong['there is no algorithm "fedprxo"']
    text = here("doctor", "heart", "job.rounds=0").out
    narrow(text)
    assert "doctor   1 problem\n" in text


def test_an_index_that_differs_is_mended(here: Cli, tmp_path: Path) -> None:
    here("run", "heart", "job.rounds=1", "--quiet")
    (tmp_path / ".manyloom" / "runs.sqlite").write_bytes(b"no database")
    done = here("doctor", "--fix")
    assert done.code == 0 and "1 run in .manyloom" in done.out
    assert "checkpoints" not in done.out
