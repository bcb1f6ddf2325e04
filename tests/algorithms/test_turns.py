"""Parts that are trained in turn: only the part moves, only the part travels, the turn counts accepted rounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import manyloom as ml
from manyloom.core.errors import BadInput
from manyloom.job.events import RoundDone
from manyloom.job.loop import loop, start
from manyloom.job.plan import of
from manyloom.job.prepare import prepare
from manyloom.privacy.settings import Privacy
from manyloom.runtime.local import Local
from manyloom.secure.settings import Secure

TURNS = (("2.*",), ("0.*",))  # the last layer first


def job(**more: object) -> ml.Job:
    x = torch.randn(120, 6, generator=torch.Generator().manual_seed(1))
    fed = ml.Federation.of_tensors(x, (x[:, 0] > 0).long(), [range(i * 15, i * 15 + 15) for i in range(8)])
    task = ml.Task(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)))
    algorithm = replace(ml.algorithms.fedavg(lr=0.1, batch_size=5), turns=TURNS, **more.pop("parts", {}))  # type: ignore
    return ml.Job(task, algorithm, fed, **{"rounds": 4, "seed": 3, **more})  # type: ignore[arg-type]


def states(j: ml.Job) -> list[dict[str, torch.Tensor]]:
    runtime = Local()
    ready = prepare(j, runtime)
    first = start(j, ready)
    found = [first.server]
    for event in loop(j, runtime, ready, first):
        if isinstance(event, RoundDone):
            assert event.state is not None
            found.append(event.state.server)
    return found


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"secure": Secure(), "quorum": 1.0, "client_metrics": "release"},
        {"privacy": Privacy(clip=1.0, noise_multiplier=0.1), "cohort": 0.9},
    ],
    ids=["plain", "secure", "private"],
)
def test_only_the_part_whose_turn_it_is_moves(more: dict[str, object]) -> None:
    j = job(**more)
    found = states(j)
    index = [t.places for t in prepare(j, Local()).turns]
    for round in range(1, len(found)):
        now, before = found[round]["theta"], found[round - 1]["theta"]
        mine, other = index[(round + 1) % 2], index[round % 2]
        assert torch.equal(now[other], before[other])
        assert not torch.equal(now[mine], before[mine])
        assert set(found[round]) == {"theta"}


def test_one_turn_of_all_is_plain_training_bit_for_bit() -> None:
    plain = job(parts={})
    plain = replace(plain, algorithm=replace(plain.algorithm, turns=()))
    whole = replace(plain, algorithm=replace(plain.algorithm, turns=(("*",),)))
    assert torch.equal(states(plain)[-1]["theta"], states(whole)[-1]["theta"])


def test_only_the_part_travels_and_plan_knows_it() -> None:
    j = job()
    runtime = Local()
    ready = prepare(j, runtime)
    sent = [(e.bytes_up, e.bytes_down) for e in loop(j, runtime, ready, start(j, ready)) if isinstance(e, RoundDone)]
    last, first = 4 * (2 * 5 + 2), 4 * (6 * 5 + 5)
    assert [up for up, _ in sent] == [8 * (part + 12) for part in (last, first, last, first)]
    assert {down for _, down in sent} == {8 * (last + first + 8)}  # both parts, and whose turn it is
    p = of(j, ready)
    assert (p.bytes["up"], p.bytes["down"]) == tuple(sum(x) for x in zip(*sent))


def test_a_skipped_round_leaves_the_turn() -> None:
    j = job(failed_round="skip", retries=0, quorum=1.0)
    j = replace(j, simulate=j.simulate._replace(drop=["1:0"]))
    found = states(j)
    last = prepare(j, Local()).turns[0].places
    assert torch.equal(found[1]["theta"], found[0]["theta"])
    assert not torch.equal(found[2]["theta"][last], found[0]["theta"][last])


@pytest.mark.parametrize("make", [
    lambda: ml.algorithms.fedadam(), lambda: ml.algorithms.scaffold(), lambda: ml.algorithms.moon(),
    lambda: ml.algorithms.fedavg(server=ml.server.momentum()) if hasattr(ml, "server") else ml.algorithms.fedavgm(),
])  # fmt: skip
def test_what_remembers_a_whole_model_is_refused(make: object) -> None:
    with pytest.raises(BadInput) as error:
        replace(job(), algorithm=replace(make(), turns=TURNS))  # type: ignore[operator]
    assert "turns-state" in [p.code for p in error.value.problems]


def test_parts_that_overlap_are_refused() -> None:
    with pytest.raises(BadInput, match="trained in two turns"):
        prepare(replace(job(), algorithm=replace(job().algorithm, turns=(("*",), ("0.*",)))), Local())
