"""Transforms on the waist: both halves, memory, bounds, and a job through them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom import algorithms as A
from manyloom.core.parts import Aggregator, Transform
from manyloom.core.seeds import Draw
from manyloom.transforms import chain
from tests.toys import classes, history, job, play, theta

DRAW = Draw(0, 1, np.zeros(1, np.uint64))


def scale(by: float) -> Transform:
    return Transform(
        name=f"scale {by}",
        apply=lambda message, memory, down, draw: ({n: v * by for n, v in message.items()}, memory),
        undo=lambda message, draw: {n: v / by for n, v in message.items()},
        bound=lambda c: c * by,
    )


def shift(by: float) -> Transform:
    return Transform(
        name=f"shift {by}",
        apply=lambda message, memory, down, draw: ({n: v + by for n, v in message.items()}, memory),
        undo=lambda message, draw: {n: v - by for n, v in message.items()},
    )


def rounded(step: float) -> Transform:
    """Send multiples of `step` as int16 under another name; what was cut off is sent next time."""

    def apply(message, memory, down, draw):
        whole = message["u"] + memory["rest"]
        sent = (whole / step).round()
        return {"q": sent.to(torch.int16)}, {"rest": whole - sent * step}

    return Transform("rounded", apply, lambda m, draw: {"u": m["q"] * step}, memory={"rest": "d"},
                     size=lambda m: {"q": m["u"].to(torch.int16)})  # fmt: skip


def test_halves_compose_in_reverse():
    both = chain(scale(2.0), shift(1.0))
    sent, _ = both.apply({"u": torch.tensor([3.0])}, {}, {}, DRAW)
    assert sent["u"].tolist() == [7.0] and both.undo(sent, DRAW)["u"].tolist() == [3.0]
    assert both.name == "scale 2.0, shift 1.0" and both.bound(1.0) == float("inf")
    assert chain(scale(2.0), scale(3.0)).bound(1.0) == 6.0
    assert chain().apply is None and chain(Transform(), scale(2.0)).name == "scale 2.0"


def test_a_job_through_a_chain_is_the_job():
    plain = job(A.fedavg(lr=0.1, batch_size=5))
    through = replace(plain, algorithm=replace(plain.algorithm, uplink=chain(scale(4.0), scale(0.5))))
    torch.testing.assert_close(theta(plain), theta(through))


def test_a_transform_that_remembers_and_packs():
    """Bytes fall to half a float32, memory is kept by client and restored on resume, the model stays near."""
    plain = job(A.fedavg(lr=0.1, batch_size=5), cohort=3, rounds=6)
    packed = replace(plain, algorithm=replace(plain.algorithm, uplink=rounded(1e-3)))
    whole = play(packed)
    first = next(e for e in whole if e.type == "round_done")
    d = theta(plain).numel()
    assert first.bytes_up == 3 * (2 * d + 12)
    assert set(whole[-1].state.clients) == {"clients", "rest"}
    torch.testing.assert_close(whole[-1].state.server["theta"], theta(plain), atol=5e-3, rtol=0)
    state = [e.state for e in whole if e.type == "round_done"][2]
    rest = play(packed, state=state)
    assert torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])
    assert history(rest) == [e for e in history(whole) if e["round"] > 3]


@pytest.mark.parametrize("uplink", [Transform(), rounded(1e-4)])
def test_a_rule_that_needs_each_update_gets_the_cohort_matrix(uplink):
    seen = []

    def reduce(rows, weights, state):
        seen.append((rows["u"].shape, weights.shape))
        return {n: v.double().median(0).values for n, v in rows.items()}, state

    plain = job(A.fedavg(lr=0.1, batch_size=5, weights="uniform"), classes(sizes=(20, 20, 20)))
    rule = Aggregator("median", "each", reduce)
    done = play(replace(plain, algorithm=replace(plain.algorithm, aggregate=rule, uplink=uplink)))[-1]
    assert done.status == "done" and seen[0] == ((3, theta(plain).numel()), (3,))
