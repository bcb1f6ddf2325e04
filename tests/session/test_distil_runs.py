"""Distillation as a run: one message of labels, a student that needs nobody, resumed bit for bit, a party lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import manyloom as ml
from manyloom.core.errors import BadInput
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.job.events import RoundDone, RunDone
from manyloom.job.vertical.job import Vertical
from manyloom.runtime.parties import LocalParties

TOML = """
[job]
kind = "vertical"
rounds = 4
[data]
source = "breast-cancer"
[model]
name = "split-mlp"
bottom = [8]
[algorithm]
name = "distil"
steps = 10
teacher_steps = 60
"""


def job(tmp_path: Path, **changes: object) -> Vertical:
    path = tmp_path / "job.toml"
    path.write_text(TOML)
    made = ml.Job.from_toml(str(path), {k.replace("__", "."): v for k, v in changes.items()})
    assert isinstance(made, Vertical)
    return made


class Listening(LocalParties):
    """Hears what is asked; may lose a verb once."""

    def __init__(self, lose: str = "") -> None:
        self.verbs: list[str] = []
        self.sent: list[torch.Tensor] = []
        self.lose = lose

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        self.verbs.append(ask.verb)
        self.sent += [t for t in ask.body.values() if t.is_floating_point()]
        if ask.verb == self.lose:
            return [Lost(0, "error", "gone for lunch")]
        return super().ask(ask)


def test_one_message_teaches_a_student_that_needs_nobody(tmp_path: Path) -> None:
    j, heard = job(tmp_path), Listening()
    done = list(ml.run(j, heard, home=tmp_path))[-1]
    assert isinstance(done, RunDone) and done.status == "done" and done.final["auc"] > 0.9
    told = [v for v in heard.verbs if v.startswith("distil.")]
    assert told.count("distil.labels") == 1 and told.count("distil.train") == 4
    [soft] = heard.sent  # all that is no place or count
    assert soft.shape[1] == 1 and bool(((soft > 0) & (soft < 1)).all())
    joint = ml.load(done.result.run_id, home=tmp_path)
    rows = {"id": ["1", "2"]} | {c: [0.1, 0.2] for c in j.data.features[0].columns}
    found = joint.predict({"lab": rows})
    assert len(found) == 2 and found.ids["id"] == ["1", "2"]
    with pytest.raises(BadInput, match="a model of its own"):
        joint.predict({"lab": rows, "clinic": rows})


def test_hard_labels_are_the_labels(tmp_path: Path) -> None:
    heard = Listening()
    list(ml.run(job(tmp_path, algorithm__labels="hard"), heard, home=tmp_path))
    [hard] = heard.sent
    assert set(hard.flatten().tolist()) == {0.0, 1.0}


def test_bytes_are_those_of_the_plan(tmp_path: Path) -> None:
    j = job(tmp_path)
    plan = ml.plan(j)
    rounds = [e for e in ml.run(j, home=tmp_path) if isinstance(e, RoundDone)]
    assert sum(e.bytes_up for e in rounds) == plan.bytes["up"]
    assert abs(sum(e.bytes_down for e in rounds) - plan.bytes["down"]) <= len(rounds)  # a pass is told as the mean


@pytest.mark.parametrize("verb", ["distil.labels", "distil.train", "distil.forward"])
def test_a_party_lost_anywhere_is_named_and_the_run_goes_on_later(verb: str, tmp_path: Path) -> None:
    j = job(tmp_path)
    whole = list(ml.run(j, home=tmp_path / "whole"))[-1]
    failed = list(ml.run(j, Listening(verb), home=tmp_path))[-1]
    assert isinstance(failed, RunDone) and failed.status == "failed" and "lab" in str(failed.reason)
    again = list(ml.resume(failed.result.run_id, home=tmp_path))[-1]
    assert isinstance(again, RunDone) and isinstance(whole, RunDone) and again.state and whole.state
    assert again.status == "done"
    for one, other in ((again.state.server, whole.state.server), (again.state.clients, whole.state.clients)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[n], other[n]) for n in one if n.endswith("theta"))


def test_stopped_and_resumed_it_is_the_same_run(tmp_path: Path) -> None:
    j = job(tmp_path)
    whole = list(ml.run(j, home=tmp_path / "whole"))[-1]
    cut = list(ml.run(j, home=tmp_path, stop=lambda: True))[-1]
    again = list(ml.resume(cut.result.run_id, home=tmp_path))[-1]
    assert torch.equal(again.state.clients["0/theta"], whole.state.clients["0/theta"])
    assert again.final == whole.final
