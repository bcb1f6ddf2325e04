"""Vertical runs in their folder: every file a run has, resume, kill -9, parties lost, nothing raw on disk."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import manyloom as ml
from manyloom.core.errors import BadInput, RunFailed
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.job import checkpoint
from manyloom.runtime.parties import LocalParties, memory_of
from manyloom.track.folder import Folder

TOML = """
[job]
kind = "vertical"
rounds = 4
seed = 3
[parties]
bank = "bank.csv"
shop = "shop.csv"
[data]
source = "csv"
label = "default"
ids = ["person"]
id_types = ["text"]
test = 0.25
[cut]
defence = "none"
[model]
name = "split-mlp"
bottom = [4]
cut = 3
top = [4]
[algorithm]
name = "split-learning"
lr = 0.05
batch_size = 8
"""
ODD = 8437.2109375  # exact in float32; one customer's value in one column of each party
CLOCK = {"seconds", "phases", "t", "seq", "v"}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty people, of whom the bank knows 36 and the shop 34; ids that can be searched for."""
    folder = tmp_path_factory.mktemp("meeting")
    rng = np.random.default_rng(3)
    people = [f"zq{i:02d}-{rng.integers(10**9):09d}" for i in range(40)]
    x = rng.normal(size=(40, 4))
    y = (x.sum(1) > 0).astype(int)
    x[7, 1] = x[7, 3] = ODD
    bank = [f"{people[i]},{x[i, 0]:.6f},{x[i, 1]:.7f},{y[i]}" for i in range(36)]
    shop = [f"{people[i]},{x[i, 2]:.6f},{x[i, 3]:.7f}" for i in rng.permutation(np.arange(6, 40))]
    (folder / "bank.csv").write_text("person,limit,bills,default\n" + "\n".join(bank) + "\n")
    (folder / "shop.csv").write_text("person,basket,visits\n" + "\n".join(shop) + "\n")
    (folder / "job.toml").write_text(TOML)
    return folder


def job(table: Path, **changes: object):
    return ml.Job.from_toml(str(table / "job.toml"), {k.replace("__", "."): v for k, v in changes.items()})


def events(folder: Path, *kinds: str) -> list[dict]:
    return [e for e in Folder(folder).events() if e["type"] in kinds]


def told(folder: Path) -> list[dict]:
    """What must repeat of a run, in its folder."""
    kinds = ("round_done", "evaluated", "client_done", "leak")
    return [{k: v for k, v in e.items() if k not in CLOCK} for e in events(folder, *kinds)]


def same(a: Path, b: Path) -> bool:
    """Two runs that ended alike: every bit of the last state."""
    one, two = checkpoint.latest(a / "checkpoints"), checkpoint.latest(b / "checkpoints")
    slots = [(getattr(one, k), getattr(two, k)) for k in ("server", "clients", "preprocess")]
    return one.round == two.round and all(
        set(x) == set(y) and all(torch.equal(x[n], y[n]) for n in x) for x, y in slots
    )


@pytest.fixture(scope="module")
def whole(table: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run to its end."""
    return ml.train(job(table), progress=None, home=tmp_path_factory.mktemp("home"))


class Losing(LocalParties):
    """Loses one party at the first ask of a verb that goes to it."""

    def __init__(self, verb: str, only: int = 0) -> None:
        self.verb, self.only, self.done = verb, only, False

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        if self.done or ask.verb != self.verb or self.only not in ask.to:
            return super().ask(ask)
        self.done = True
        gone = Lost(self.only, "away", "the line is dead", None, ask.number)
        rest = ask.to[ask.to != self.only]
        return [gone, *(super().ask(replace(ask, to=rest)) if len(rest) else [])]


# ---- the folder


def test_a_run_leaves_a_whole_folder(whole):
    names = {p.name for p in whole.folder.iterdir()}
    assert {"run.json", "job.toml", "job.digest", "env.json", "events.jsonl", "checkpoints", "parts"} <= names
    assert {p.name for p in (whole.folder / "parts").iterdir()} == {"bank", "shop"}
    record = json.loads((whole.folder / "run.json").read_text())
    assert (record["status"], record["algorithm"], record["model"]) == ("done", "split-learning", "split-mlp")
    assert record["model_digest"]
    kinds = [e["type"] for e in Folder(whole.folder).events()]
    assert kinds[:4] == ["run_started", "phase", "aligned", "planned"] and kinds[-1] == "run_done"
    assert whole.status == "done" and len(whole.history) == 4 and set(whole.final) == {"loss", "accuracy", "auc"}
    assert whole.bytes_up == sum(r["bytes_up"] for r in whole.history) > 0


def test_the_plan_predicts_what_the_run_sent(table, whole):
    p = ml.plan(job(table))
    [aligned] = events(whole.folder, "aligned")
    judged = events(whole.folder, "evaluated")
    assert (p.bytes["up"], p.bytes["down"]) == (whole.bytes_up, whole.bytes_down)
    assert (p.bytes["align_up"], p.bytes["align_down"]) == (aligned["bytes_up"], aligned["bytes_down"])
    ways = ("up", "down")
    assert [p.bytes[f"evaluate_{w}"] for w in ways] == [sum(e[f"bytes_{w}"] for e in judged) for w in ways]
    assert p.rows == {"common": aligned["common"], "train": aligned["train"], "test": aligned["test"]}
    assert max(map(len, str(p).splitlines())) <= 80 and json.dumps(p.to_json())


def test_the_digest_is_that_of_the_file_and_the_file_makes_it_again(table, whole):
    again = ml.Job.from_toml(str(whole.folder / "job.toml"), base=str(table))
    assert again.digest == job(table).digest == (whole.folder / "job.digest").read_text().strip()


def test_the_parts_make_the_joint_model_again(table, whole):
    model = ml.load(whole.run_id, home=whole.folder.parents[1])
    heads = {"bank": "person,limit,bills\n", "shop": "person,basket,visits\n"}
    rows = {}
    for name, head in heads.items():
        body = [",".join(x.split(",")[:3]) for x in (table / f"{name}.csv").read_text().splitlines()[1:]]
        both = [x for x in body if 6 <= int(x[2:4]) < 36]
        rows[name] = table / f"new-{name}.csv"
        rows[name].write_text(head + "\n".join(both) + "\n")
    assert len(model.predict(rows)) == 30 and whole.model.parameters == model.parameters


# ---- going on


@pytest.mark.parametrize("at", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_stopped_and_resumed(table, whole, tmp_path, at):
    seen: list[object] = []
    for event in ml.run(job(table), home=tmp_path, stop=lambda: len(seen) >= at):
        if event.type == "round_done":
            seen.append(event)
    assert event.status == "interrupted"
    last = list(ml.resume(event.result.run_id, home=tmp_path))[-1]
    assert last.status == "done" and same(last.result.folder, whole.folder)
    assert told(last.result.folder) == told(whole.folder)
    assert last.result.final == whole.final and len(events(last.result.folder, "aligned")) == 1


def test_more_rounds_change_the_job(table, whole, tmp_path):
    short = ml.train(job(table, job__rounds=2), progress=None, home=tmp_path)
    longer = list(ml.resume(short.run_id, home=tmp_path, rounds=4))[-1].result
    assert longer.status == "done" and same(longer.folder, whole.folder)
    assert (longer.folder / "job.digest").read_text().strip() == job(table).digest


QUICK = ("open.check", "ids.remask", "cut.step", "cut.judge")
SLOW = ("open.hello", "ids.open", "ids.masked", "ids.return", "ids.confirm", "cut.forward", "cut.backward")


def test_these_are_all_verbs_of_a_run(table, tmp_path):
    asked: set[str] = set()

    class Listening(LocalParties):
        def ask(self, ask: Ask) -> list[Reply | Lost]:
            asked.add(ask.verb)
            return super().ask(ask)

    assert list(ml.run(job(table, job__rounds=1), Listening(), home=tmp_path))[-1].status == "done"
    assert asked == {*QUICK, *SLOW}


@pytest.mark.parametrize("verb", [*QUICK, *(pytest.param(v, marks=pytest.mark.slow) for v in SLOW)])
def test_a_lost_party_fails_the_run_which_goes_on(table, whole, tmp_path, verb):
    with pytest.raises(RunFailed) as error:
        for event in ml.run(job(table), Losing(verb), home=tmp_path):
            if event.type == "run_done" and event.status == "failed":
                raise RunFailed(*[ml_problem(event.error)])
    assert error.value.code == "party-lost" and "shop" in error.value.what and "manyloom resume" in error.value.mend
    [folder] = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert [e["name"] for e in events(folder, "client_lost")] == ["shop"]
    last = list(ml.resume(folder.name, home=tmp_path))[-1]
    assert last.status == "done" and same(folder, whole.folder)
    assert [e for e in told(folder) if e["type"] == "round_done"] == [
        e for e in told(whole.folder) if e["type"] == "round_done"
    ]


def ml_problem(error: dict):
    from manyloom.core.errors import Problem

    return Problem(**error)


def test_other_data_is_refused_on_resume(table, tmp_path):
    for name in ("bank.csv", "shop.csv", "job.toml"):
        (tmp_path / name).write_text((table / name).read_text())
    run = ml.train(job(tmp_path, job__rounds=1), progress=None, home=tmp_path / "home")
    lines = (tmp_path / "shop.csv").read_text().splitlines()
    (tmp_path / "shop.csv").write_text("\n".join([lines[0], *lines[2:], lines[1]]) + "\n")
    with pytest.raises(BadInput) as error:
        ml.resume(run.run_id, home=tmp_path / "home", rounds=2)
    assert error.value.code == "data-changed" and "shop" in error.value.what


CHILD = """
import sys, time, manyloom as ml
events = ml.resume({resume!r}, home={home!r}) if {resume!r} else ml.run(ml.Job.from_toml({path!r}), home={home!r})
for event in events:
    print(event.type, getattr(event, "round", ""), getattr(event, "phase", ""), flush=True)
    if [event.type, getattr(event, "round", ""), getattr(event, "phase", "")] == {pause!r}:
        time.sleep(60)
"""


def child(table: Path, home: Path, pause: list[object] | None = None, resume: str = "") -> subprocess.Popen[str]:
    code = CHILD.format(path=str(table / "job.toml"), home=str(home), pause=pause, resume=resume)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [["phase", 0, "align"], ["phase", 3, "train"], ["round_done", 2, ""]])
def test_killed_in_the_middle_it_goes_on_bit_for_bit(table, whole, tmp_path, pause):
    process = child(table, tmp_path, pause)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == [str(p) for p in pause if p != ""]:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    [folder] = (tmp_path / "runs").iterdir()
    on = child(table, tmp_path, resume=folder.name)
    assert on.stdout is not None
    out = on.stdout.read()
    on.stdout.close()
    assert on.wait(timeout=120) == 0, out
    assert same(folder, whole.folder) and told(folder) == told(whole.folder)


# ---- nothing raw


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".sqlite":
            yield str(path.relative_to(folder)), path.read_bytes()


def found(folder: Path, signs: list[bytes]) -> list[str]:
    return [name for name, data in files(folder) if any(s in data for s in signs)]


def test_a_run_keeps_no_id_no_feature_and_no_label(table, whole):
    """Ids as text or key, raw values and encoded ones, the labels in any order that a party could have them in."""
    made = job(table)
    ids = [line.split(",")[0].encode() for line in (table / "bank.csv").read_text().splitlines()[1:]]
    home = whole.folder.parents[1]
    whole.report()
    assert found(home, ids) == []
    values = [b"8437.21", struct.pack("<f", ODD), struct.pack("<d", ODD)]
    for party in (*made.parties.features, made.parties.label):
        i, j = divmod(int(party.x.abs().argmax()), party.x.shape[1])
        odd = float(party.x[i, j])
        values += [struct.pack("<f", odd), struct.pack("<d", odd), f"{odd:.6f}".encode()]
        values += [party.x[r].numpy().tobytes() for r in range(len(party.x))]
    assert found(home, values) == []
    state = checkpoint.latest(whole.folder / "checkpoints")
    y = made.parties.label.y
    ordered = y[state.preprocess["rows"]]
    labels = [t.to(kind).numpy().tobytes() for t in (y, ordered) for kind in (torch.int64, torch.float32, torch.uint8)]
    assert found(home, labels) == []
    (whole.folder / "leak.bin").write_bytes(b"xx" + labels[0])  # the search can fail
    assert found(home, labels) == ["runs/" + whole.run_id + "/leak.bin"]
    (whole.folder / "leak.bin").unlink()


def test_no_secret_is_in_a_checkpoint(table, tmp_path):
    """Keys, masks and scalars of the opening and the alignment are in RAM alone."""
    runtime, seen = LocalParties(), list[bytes]()
    for event in ml.run(job(table, job__rounds=1), runtime, home=tmp_path):
        if event.type == "planned":
            kept = [t.numpy().tobytes() for s in runtime.sites for t in s.secret.values()]
            seen = [data for data in kept if len(set(data)) >= 12]  # a place or a count is no secret
    assert len(seen) >= 3 and found(tmp_path, seen) == []
    state = checkpoint.latest(tmp_path / "runs" / event.result.run_id / "checkpoints")
    assert set(memory_of(state.clients, 0)) >= {"rows", "theta"}


def test_a_partys_folder_has_nothing_of_the_other(table, whole):
    bank, shop = whole.folder / "parts" / "bank", whole.folder / "parts" / "shop"
    assert found(shop, [b"limit", b"bills", b"default"]) == [] and found(bank, [b"basket", b"visits"]) == []
    assert found(bank, [b"limit"]) and found(shop, [b"basket"])


# ---- a party that is made up for, and more of them


@pytest.fixture
def four(table: Path, tmp_path: Path) -> Path:
    """The bank and three others, each of which lacks some people."""
    rows = (table / "shop.csv").read_text().splitlines()
    for i, name in enumerate(("phone", "rail")):
        head = ["person,calls,minutes", "person,trips,kilometres"][i]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *rows[1 + i :]]) + "\n")
    for name in ("bank.csv", "shop.csv"):
        (tmp_path / name).write_text((table / name).read_text())
    more = 'shop = "shop.csv"\nphone = "phone.csv"\nrail = "rail.csv"\n'
    (tmp_path / "job.toml").write_text(TOML.replace('shop = "shop.csv"\n', more))
    return tmp_path


@pytest.mark.parametrize("verb", ["cut.forward", pytest.param("cut.judge", marks=pytest.mark.slow)])
def test_one_of_three_is_made_up_for_where_the_job_says_so(four, verb):
    made = job(four, cut__on_missing="impute", job__rounds=2)
    last = list(ml.run(made, Losing(verb, only=1), home=four / "home"))[-1]
    folder = last.result.folder
    assert last.status == "done" and [e["name"] for e in events(folder, "client_lost")] == ["phone"]
    missed = not same(folder, ml.train(made, progress=None, home=four / "home").folder)
    assert missed == (verb == "cut.forward")  # what a party says of held-out rows changes no state
    assert [e["quorum"] for e in events(folder, "round_started")] == [1, 1]
    last = list(ml.run(job(four), Losing(verb, only=1), home=four / "home"))[-1]
    assert last.status == "failed" and last.error["what"].startswith("phone was lost in ")


def test_three_parties_beside_the_label_party(four):
    made = job(four, job__rounds=2)
    p, result = ml.plan(made), ml.train(made, progress=None, home=four / "home")
    [aligned] = events(result.folder, "aligned")
    assert result.status == "done" and set(aligned["parties"]) == {"bank", "shop", "phone", "rail"}
    assert (p.bytes["up"], p.bytes["align_up"]) == (result.bytes_up, aligned["bytes_up"])
    assert {p.name for p in (result.folder / "parts").iterdir()} == {"bank", "shop", "phone", "rail"}
