"""Job, runtime and store together: folders, results, resume in the same process and after kill -9."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import manyloom as ml
from manyloom.core.errors import BadInput, RunFailed
from manyloom.job import checkpoint
from manyloom.job.job import Simulate
from manyloom.track.folder import Folder
from tests.toys import history, job, play


def lines(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "events.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_whole_folder(tmp_path):
    result = ml.train(job(), progress=None, home=tmp_path)
    folder = tmp_path / "runs" / result.run_id
    names = {p.name for p in folder.iterdir()}
    assert {
        "run.json",
        "job.toml",
        "env.json",
        "events.jsonl",
        "checkpoints",
        "model.safetensors",
        "model.json",
    } <= names
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    assert not (folder / "lock").exists() or Folder(folder).holder() is None
    assert [e["type"] for e in lines(folder)][:2] == ["run_started", "planned"]
    assert [e["seq"] for e in lines(folder)] == list(range(1, len(lines(folder)) + 1))
    assert len(result.history) == 3 and result.history[0]["round"] == 1 and result.status == "done"
    assert result.bytes_up == sum(r["bytes_up"] for r in result.history) > 0
    assert repr(result).startswith(f"Result({result.run_id}: done, 3 rounds") and len(repr(result)) < 120


def test_the_plan_predicts_the_bytes(tmp_path):
    for algorithm in (ml.algorithms.fedavg(), ml.algorithms.scaffold(), ml.algorithms.fedadam()):
        j = job(algorithm, cohort=3)
        plan, result = ml.plan(j), ml.train(j, progress=None, home=tmp_path)
        assert (plan.bytes["up"], plan.bytes["down"]) == (result.bytes_up, result.bytes_down)
    assert max(map(len, str(plan).splitlines())) <= 80 and "privacy  none" in str(plan)


def test_the_model_that_comes_back_is_the_one_that_was_trained(tmp_path):
    j = job()
    result = ml.train(j, progress=None, home=tmp_path)
    state = play(j)[-1].state
    assert torch.equal(ml.Layout.of(result.model).flatten(result.model), state.server["theta"])
    assert not result.model.training


@pytest.mark.parametrize("stop_at", [1, 2])
def test_stopping_and_resuming_in_python(tmp_path, stop_at):
    j = job(ml.algorithms.scaffold(lr=0.1, batch_size=5), cohort=3, rounds=4)
    whole = ml.train(j, progress=None, home=tmp_path)
    seen = []
    for event in ml.run(j, home=tmp_path, stop=lambda: len(seen) >= stop_at):
        if event.type == "round_done":
            seen.append(event)
    assert event.status == "interrupted"
    rest = list(ml.run(j, home=tmp_path, resume=event.result.run_id))
    again = rest[-1].result
    assert again.run_id == event.result.run_id and again.status == "done"
    clock = lambda rounds: [{k: v for k, v in r.items() if k != "seconds"} for r in rounds]  # noqa: E731
    assert clock(again.history) == clock(whole.history)
    for a, b in zip(again.model.parameters(), whole.model.parameters()):
        assert torch.equal(a, b)
    assert again.bytes_up == whole.bytes_up


def test_another_job_does_not_go_on(tmp_path):
    done = ml.train(job(), progress=None, home=tmp_path)
    with pytest.raises(BadInput) as error:
        ml.run(job(seed=5), home=tmp_path, resume=done.run_id)
    assert error.value.code == "digest-changed"


def test_a_failed_run_raises_and_can_be_resumed_by_name(tmp_path):
    with pytest.raises(RunFailed) as error:
        ml.train(job(quorum=5, simulate=Simulate(drop=["2:1"])), progress=None, home=tmp_path)
    assert error.value.code == "quorum"
    [folder] = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    with pytest.raises(BadInput) as error:  # its job was made of a lambda
        ml.resume(folder.name, home=tmp_path)
    assert error.value.code == "unnamed-part"


def test_wrong_input_makes_no_folder(tmp_path):
    with pytest.raises(BadInput):
        ml.run(job(federation=None, cohort=99), home=tmp_path)
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    j = job(rounds=4)
    whole = ml.train(j, progress=None, home=tmp_path)
    folder = whole.folder / "checkpoints"
    kept = checkpoint.checkpoints(folder)
    assert len(kept) >= 2
    data = (kept[-1] / "state.safetensors").read_bytes()
    (kept[-1] / "state.safetensors").write_bytes(data[:-3])
    assert checkpoint.latest(folder).round < 4
    with pytest.raises(RunFailed):
        checkpoint.load(kept[-1])
    assert list(ml.run(j, home=tmp_path, resume=whole.run_id))[-1].status == "done"


CHILD = """
import sys, manyloom as ml
sys.path.insert(0, {root!r})
from tests.toys import job
from manyloom import algorithms as A
j = job(A.scaffold(lr=0.1, batch_size=5), cohort=3, rounds=8)
events = ml.run(j, home={home!r}, resume={resume!r})
for event in events:
    print(event.type, getattr(event, "round", ""), getattr(event, "phase", ""), flush=True)
    if {pause!r} and [event.type, getattr(event, "phase", "")] == {pause!r} and event.round == {at}:
        import time; time.sleep(60)
"""


def child(home, pause=None, at=0, resume=None):
    root = str(Path(__file__).parents[2])
    code = CHILD.format(root=root, home=str(home), pause=pause, at=at, resume=resume)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.parametrize(
    ("pause", "at"),
    [
        (["phase", "train"], 3),
        (["client_done", ""], 2),
        (["phase", "evaluate"], 4),
        (["round_done", ""], 5),
        (["saved", ""], 1),
    ],
)
def test_kill_9_in_each_phase_resumes_bit_for_bit(tmp_path, pause, at, whole_history):
    process = child(tmp_path, pause, at)
    for line in process.stdout:
        kind, round, *phase = line.split(" ")
        if kind == pause[0] and round.strip() == str(at) and "".join(phase).strip() == pause[1]:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    [folder] = (tmp_path / "runs").iterdir()
    on = child(tmp_path, resume=folder.name)
    out = on.stdout.read()
    on.stdout.close()
    assert on.wait(timeout=60) == 0, out
    told = list(Folder(folder).events())
    rounds = [e for e in told if e["type"] == "round_done"]
    assert [e["round"] for e in rounds] == list(range(1, 9))
    clock = {"seconds", "phases", "t", "seq", "v"}
    kinds = ("round_done", "evaluated", "client_done", "client_lost")
    again = [{k: v for k, v in e.items() if k not in clock} for e in told if e["type"] in kinds]
    assert again == whole_history
    assert json.loads((folder / "run.json").read_text())["status"] == "done"


@pytest.fixture(scope="module")
def whole_history():
    from manyloom import algorithms as A

    told = history(play(job(A.scaffold(lr=0.1, batch_size=5), cohort=3, rounds=8)))
    return json.loads(json.dumps(told))


def test_a_run_that_is_being_written_is_left_alone(tmp_path):
    process = child(tmp_path, ["phase", "train"], 2)
    try:
        while "phase 2 train" not in process.stdout.readline():
            time.sleep(0.01)
        [folder] = (tmp_path / "runs").iterdir()
        from manyloom import algorithms as A

        j = job(A.scaffold(lr=0.1, batch_size=5), cohort=3, rounds=8)
        with pytest.raises(RunFailed) as error:
            list(ml.run(j, home=tmp_path, resume=folder.name))
        assert error.value.code == "run-in-use"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_frozen_backbone_is_the_same_in_training_and_in_what_is_saved(tmp_path):
    """The result's module, judged by hand on the held-out rows, has the loss that the run reported."""
    from torch import nn

    from tests.toys import classes

    net = lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))  # noqa: E731
    fed = classes()
    j = ml.Job(ml.Task(net, freeze=["0.*"]), ml.algorithms.fedavg(lr=0.2, batch_size=5), fed, rounds=3, seed=4)
    result = ml.train(j, progress=None, home=tmp_path)
    x, y = fed.slab(range(len(fed)), "test").gather()
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(result.model(x), y))
    assert loss == pytest.approx(result.final["loss"], rel=1e-5)
    assert ml.Layout.of(result.model, ["0.*"]).d == 8 * 3 + 3
