"""The examples of clients that lie, differ or have a thin pipe, in a small form: shipped digits, made files."""

from __future__ import annotations

import csv
import gzip
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from examples.banks_against_fraud import prepare as banks
from examples.companies import prepare as companies
from examples.pneumonia import hospitals
from manyloom.cli.app import entry

EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(file, overrides and flags...)`: its JSON, with the text of its report under "html"."""

    def call(file: str, *args: str) -> Any:
        code = entry(["run", str(EXAMPLES / file), *args, "--json", "--home", str(tmp_path / "home")])
        found = capsys.readouterr()
        assert code == 0, found
        out = json.loads(found.out)
        return out | {"html": (tmp_path / "home" / "runs" / out["run_id"] / "report.html").read_text()}

    return call


# ---- under_attack


def test_the_mean_falls_and_the_rule_holds(run: Run, tmp_path: Path) -> None:
    short = ("job.rounds=4", "job.eval_every=4", "algorithm.lr=0.4", "algorithm.steps=4", "model.hidden=[16]")
    calm, mean, robust = (run(f"under_attack/{name}.toml", *short) for name in ("calm", "mean", "robust"))
    assert mean["final"]["accuracy"] < 0.3 < 0.5 < robust["final"]["accuracy"]
    assert robust["final"]["accuracy"] > calm["final"]["accuracy"] - 0.1
    lines = (tmp_path / "home" / "runs" / robust["run_id"] / "events.jsonl").read_text().splitlines()
    filtered = [e for e in map(json.loads, lines) if e["type"] == "client_filtered"]
    liars = {e["name"] for e in filtered}
    assert len(liars) == 4 and len(filtered) == 4 * 4  # the same four in each round
    assert all(f"{name} 4 times (rounds 1 to 4)" in robust["html"] for name in liars)
    assert "filtered" not in calm["html"]


# ---- thin_pipe


def test_one_bit_is_a_twenty_fifth_of_the_bytes(run: Run) -> None:
    whole, bits = (run(f"thin_pipe/{n}.toml", "job.rounds=2", "job.eval_every=2") for n in ("float32", "one_bit"))
    up, thin = (sum(h["bytes_up"] for h in found["history"]) for found in (whole, bits))
    assert 25 * thin <= up
    assert bits["final"]["accuracy"] > 0.2


# ---- everyone_differs


def test_the_jobs_differ_in_the_algorithm_only() -> None:
    found = [tomllib.loads(path.read_text()) for path in sorted((EXAMPLES / "everyone_differs").glob("*.toml"))]
    found = [tables for tables in found if "simulate" not in tables]
    for tables in found:
        del tables["job"]["name"]
    for name in ("job", "data", "partition", "model"):
        assert all(tables[name] == found[0][name] for tables in found)
    assert len({tables["algorithm"]["name"] for tables in found}) == len(found) >= 4


def test_each_algorithm_goes_its_own_way(run: Run) -> None:
    short = ("job.rounds=2", "job.eval_every=2", "job.cohort=20", "algorithm.steps=5", "model.hidden=[8]")
    names = ("fedavg", "scaffold", "feddyn", "ditto")
    finals = {n: run(f"everyone_differs/{n}.toml", *short)["final"] for n in names}
    assert all(0 < f["loss"] < 3 for f in finals.values())
    assert len({finals[n]["loss"] for n in ("fedavg", "scaffold", "feddyn")}) == 3


def test_a_buffer_waits_for_nobody(run: Run, tmp_path: Path) -> None:
    def clock(name: str, rounds: int) -> tuple[float, int]:
        found = run(f"everyone_differs/{name}.toml", f"job.rounds={rounds}", f"job.eval_every={rounds}")
        lines = (tmp_path / "home" / "runs" / found["run_id"] / "events.jsonl").read_text().splitlines()
        done = [e for e in map(json.loads, lines) if e["type"] == "round_done"]
        return sum(e["virtual_s"] for e in done), sum(e["back"] for e in done)

    (slow, updates), (fast, as_many) = clock("waiting", 4), clock("buffered", 8)
    assert updates == as_many == 40 and fast < slow / 2


# ---- banks_against_fraud


@pytest.fixture(scope="module")
def payments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made file in the form of the original, through prepare.py: fraud moves all columns a little."""
    folder = tmp_path_factory.mktemp("banks")
    draw, fraud = np.random.default_rng(0), np.arange(400) % 4 == 0
    centres = draw.normal(0, 3, (5, 29))  # of the five kinds of fraud
    x = draw.normal(0, 1, (400, 29)) + np.where(fraud[:, None], centres[draw.integers(0, 5, 400)] + 1, 0)
    with (folder / "original.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "Time", *(f"V{i}" for i in range(1, 29)), "Amount", "Class"])
        for i, row in enumerate(x):
            writer.writerow([i, float(i), *row[:28], abs(row[28]), int(fraud[i])])
    names, read, said = banks.read(folder / "original.csv")
    assert said.tolist() == fraud.tolist() and "Time" not in names and read.shape == (400, 29)
    banks.write(folder / "banks.csv", names, read, said, banks.deal(read, said))
    return folder / "banks.csv"


def test_banks_beside_each_alone_and_pooled(run: Run, payments: Path) -> None:
    found = run("banks_against_fraud/banks.toml", f"data.path={payments}", "job.rounds=3", "--baselines")
    assert found["final"]["auc"] > 0.8
    kinds = found["baselines"]
    assert set(kinds) == {"central", "local"} and len(kinds["local"]["alone_on_all"]) == 5
    assert "bank-1" in found["html"]


def test_a_lying_bank_is_left_out(run: Run, payments: Path) -> None:
    short = (f"data.path={payments}", "job.rounds=4", "job.eval_every=4")
    robust = run("banks_against_fraud/lying.toml", *short)
    mean = run("banks_against_fraud/banks.toml", *short, "attack.name=ipm", "attack.clients=1", "attack.scale=20")
    assert robust["final"]["auc"] > 0.8 > mean["final"]["auc"]


# ---- companies


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made lines in the form of the census, through prepare.py: the longer at school, the likelier above 50K."""
    folder, draw = tmp_path_factory.mktemp("companies"), np.random.default_rng(0)
    jobs = ["Sales", "Craft-repair", "Tech-support", "Exec-managerial", "?", "Armed-Forces"]
    for name in companies.FILES:
        lines = ["|1x3 Cross validator"] if "test" in name else []
        for i in range(240):
            school, job = int(draw.integers(1, 17)), jobs[i % 6]
            income = ">50K" if school + draw.normal(0, 2) > 10 else "<=50K"
            end = f"{income}{'.' if 'test' in name else ''}"
            person = f"{20 + i % 50}, Private, 7, Any, {school}, Never-married, {job}, Own-child, White, Male"
            lines.append(f"{person}, 0, 0, 40, ?, {end}")
        with gzip.open(folder / name, "wt") as file:
            file.write("\n".join([*lines, ""]))
    assert len(companies.write(folder / "companies.csv", folder)) == 400  # without the armed forces
    return folder / "companies.csv"


def test_companies_learn_one_model(run: Run, people: Path) -> None:
    short = (f"data.path={people}", "job.rounds=3")
    found = run("companies/companies.toml", *short)
    assert found["final"]["auc"] > 0.8 and len(found["clients"]) == 5
    assert run("companies/lying.toml", *short, "attack.clients=1", "aggregate.f=1")["final"]["auc"] > 0.7


# ---- pneumonia


def test_hospitals_with_their_shares_and_the_own_test(run: Run, tmp_path: Path) -> None:
    """The job as it is, over a made file in the form of the original: ill lungs are brighter."""
    draw = np.random.default_rng(0)

    def images(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = (draw.random(n) < 0.7).astype(np.uint8)
        return (draw.integers(0, 120, (n, 28, 28)) + 100 * y[:, None, None]).astype(np.uint8), y

    x, y = images(300)
    own = images(60)
    fed = hospitals.federation(x, y, own, 0)
    ill = [counts[1] / counts.sum() for counts in fed.label_counts()]
    assert int(fed.sizes.sum()) == 300 and ill == sorted(ill, reverse=True) and ill[0] > 0.85 > 0.5 > ill[-1]
    assert fed.own_test and fed.own is not None and len(fed.own.rows) == 60
    assert torch.equal(fed.slab([0]).gather()[0].amin().sign(), torch.tensor(-1.0))  # pixels / 255 - .5
    path = tmp_path / hospitals.FILE
    path.parent.mkdir(parents=True)
    np.savez(path, train_images=x, train_labels=y[:, None], test_images=own[0], test_labels=own[1][:, None])
    short = ("--data-dir", str(tmp_path), "job.rounds=2", "job.eval_every=2")
    assert run("pneumonia/pneumonia.toml", *short)["final"]["auc"] > 0.8
    assert run("pneumonia/lying.toml", *short)["final"]["auc"] > 0.8
