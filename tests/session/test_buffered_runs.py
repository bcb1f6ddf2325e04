"""A run whose clients are at work when its process is killed goes on as if it had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manyloom import algorithms as A
from manyloom.algorithms.buffered import Open
from manyloom.job import checkpoint
from manyloom.job.job import Job, Simulate
from manyloom.track.folder import Folder
from tests.toys import classes, history, job, play

ROUNDS = 7
CHILD = """
import sys, time, manyloom as ml
sys.path.insert(0, {root!r})
from tests.session.test_buffered_runs import flying
for event in ml.run(flying(), home={home!r}, resume={resume!r}):
    print(event.type, getattr(event, "round", ""), flush=True)
    if [event.type, getattr(event, "round", "")] == {pause!r}:
        time.sleep(60)
"""


def flying() -> Job:
    """Eleven of fourteen clients at work at a time; three updates make a version, after which ten are at work."""
    algorithm = A.fedbuff(buffer=3, lr=0.1, batch_size=5, steps=3)
    slow = Simulate(speed="lognormal", speed_sigma=1.0)
    return job(algorithm, classes((12,) * 14, seed=5), cohort=11, rounds=ROUNDS, simulate=slow)


def child(home: Path, pause: list[object] | None = None, resume: str | None = None) -> subprocess.Popen[str]:
    code = CHILD.format(root=str(Path(__file__).parents[2]), home=str(home), pause=pause, resume=resume)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [["phase", 4], ["client_done", 3], ["round_done", 5]])
def test_killed_with_ten_in_flight(tmp_path: Path, pause: list[object]) -> None:
    process = child(tmp_path, pause)
    assert process.stdout is not None
    for line in process.stdout:
        if line.split() == [str(p) for p in pause]:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    [folder] = (tmp_path / "runs").iterdir()
    state = checkpoint.latest(folder / "checkpoints")
    assert state is not None and len(Open.of(state.open).asks) == 10
    on = child(tmp_path, resume=folder.name)
    assert on.stdout is not None
    out = on.stdout.read()
    on.stdout.close()
    assert on.wait(timeout=120) == 0, out
    told = list(Folder(folder).events())
    clock = {"seconds", "phases", "t", "seq", "v"}
    kinds = ("round_done", "evaluated", "client_done", "client_lost")
    again = [{k: v for k, v in e.items() if k not in clock} for e in told if e["type"] in kinds]
    assert again == json.loads(json.dumps(history(play(flying()))))
