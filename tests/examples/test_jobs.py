"""The example jobs: the same files as the shipped ones, only keys that exist, parts that can be built."""

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
JOBS = sorted(EXAMPLES.rglob("*.toml"))
SHIPPED = {"heart": "heart/heart.toml", "digits": "digits/digits.toml", "mnist-writers": "mnist_writers/mlp.toml"}


def test_shipped_jobs_are_the_examples():
    shipped = {
        path.name: path.read_text() for path in (files("manyloom") / "jobs").iterdir() if path.name.endswith(".toml")
    }
    assert shipped == {f"{name}.toml": (EXAMPLES / path).read_text() for name, path in SHIPPED.items()}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_job_has_a_name_of_its_own_and_a_seed(path):
    job = tomllib.loads(path.read_text())["job"]
    assert {"name", "rounds", "seed"} <= set(job)
    assert [tomllib.loads(other.read_text())["job"]["name"] for other in JOBS].count(job["name"]) == 1


def test_every_folder_has_a_readme_that_the_index_names():
    index = (EXAMPLES / "README.md").read_text()
    for folder in {path.parent for path in JOBS}:
        text = (folder / "README.md").read_text()
        assert all(path.name in text for path in JOBS if path.parent == folder)
        assert f"({folder.name}/" in index
