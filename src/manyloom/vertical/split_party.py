"""A feature party's half of split learning: its bottom, its optimiser, and what it answers.

Every ask of a pass says `at` = (round, step gone back through or -1, step to compute or -1). An ask that comes twice
is answered twice alike and counts once; a late or a foreign one is refused and changes nothing. What a pass began with
is kept until the next one begins, so a pass that is asked for again starts where it started.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from manyloom.core.exchange import Handler
from manyloom.core.slots import Slots
from manyloom.core.tensors import ints
from manyloom.models.split import SplitModel, bottom_part, first_bottom
from manyloom.vertical.cut import decode, encode, key, names, rows_at_once
from manyloom.vertical.party import Party
from manyloom.vertical.passes import held_out
from manyloom.vertical.settings import Cut
from manyloom.vertical.steps import SplitLearning, batch, fresh, stepped, walk

BEGAN = "start/"  # the same tensors as they were when the pass began


def handlers(model: SplitModel, algorithm: SplitLearning, cut: Cut, *, seed: int, test: float) -> dict[str, Handler]:
    """What a feature party answers, the same for all: its name and its columns come with its rows.

    Its memory must have `rows` [m], its row numbers in the agreed order; kept are `theta` [d], the optimiser's state,
    `at`, and these as they were when the pass began.

    Args:
        model: the split network.
        algorithm: how every part is trained.
        cut: what happens to what is sent.
        seed: of the job.
        test: share of the aligned rows that is held out.
    """
    opt, kept = algorithm.local, ("theta", *algorithm.kept)

    @lru_cache(maxsize=2)
    def order(m: int, round: int) -> Tensor:
        return walk(m, test, seed, round)

    @lru_cache(maxsize=1)
    def held(m: int) -> Tensor:
        return held_out(m, test, seed)[1]

    def own(memory: Slots, data: Party) -> Slots:
        if memory["theta"].numel():
            return {n: memory[n] for n in kept}
        return fresh(opt, first_bottom(model, data.x.shape[1], seed=seed, party=data.name).to(data.x.dtype))

    def forward(theta: Tensor, memory: Slots, data: Party, places: Tensor) -> Tensor:
        return bottom_part(model, data.x.shape[1])(theta, data.x[memory["rows"][places]])

    def sent(theta: Tensor, memory: Slots, data: Party, places: Tensor, at: tuple[int, int], way: str) -> Slots:
        with torch.no_grad():
            z = forward(theta, memory, data, places)
        return encode(z, "z", cut.bits, key(seed, at[0], at[1], data.name, way))

    def back(state: Slots, memory: Slots, data: Party, places: Tensor, body: Slots) -> Slots:
        g = decode(body, "grad", cut.bits, len(places), model.cut, data.x.dtype, len(places))
        theta = state["theta"].detach().requires_grad_()
        z = forward(theta, memory, data, places)
        (grad,) = torch.autograd.grad(z, theta, g)
        return stepped(opt, state, grad)

    def step(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        round, gone, ahead = _at(body, 3)
        was = _last(memory)
        rows = order(len(memory["rows"]), round)
        changes: Slots = {"at": body["at"]}
        if gone < 0:
            again = was[0] == round
            state = {n: memory[BEGAN + n] for n in kept} if again else own(memory, data)
            changes |= {BEGAN + n: t for n, t in state.items()}
        elif (round, gone, ahead) == was:
            state = own(memory, data)  # asked before: what it said is said again
        elif (round, gone) == (was[0], was[2]):
            state = back(own(memory, data), memory, data, batch(rows, opt.batch_size, gone), body)
        else:
            raise ValueError(f"step {gone + 1} of pass {round} is not what waits here: " + _waiting(was))
        changes |= state
        if ahead < 0:
            return {}, changes
        places = batch(rows, opt.batch_size, ahead)
        if not len(places):
            raise ValueError(f"pass {round} has no step {ahead + 1}")
        return sent(state["theta"], memory, data, places, (round, ahead), "up"), changes

    def judge(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        round, k = _at(body, 2)
        places = _chunk(held(len(memory["rows"])), k, cut, model.cut)
        return sent(own(memory, data)["theta"], memory, data, places, (round, k), "judge"), {}

    def predict(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
        round, k = _at(body, 2)
        places = _chunk(torch.arange(len(memory["rows"])), k, cut, model.cut)
        return sent(own(memory, data)["theta"], memory, data, places, (round, k), "predict"), {}

    nothing = torch.zeros(0)
    start = dict.fromkeys((*kept, *(BEGAN + n for n in kept)), nothing) | {"at": torch.tensor([0, -1, -1])}
    reply = names("z")
    return {
        "cut.forward": Handler(step, reply, start),
        "cut.step": Handler(step, reply, start),
        "cut.backward": Handler(step, reply, start),
        "cut.judge": Handler(judge, reply, start),
        "cut.predict": Handler(predict, reply, start),
    }


def part(model: SplitModel, features: int, memory: Slots) -> Slots:
    """A feature party's part of the model by name, for saving alone."""
    return bottom_part(model, features).layout.state_dict(memory["theta"])


def chunks(rows: int, cut: Cut, d: int) -> int:
    """In how many bodies the embeddings of so many rows travel."""
    return -(-rows // rows_at_once(cut.bits, d))


def _chunk(places: Tensor, k: int, cut: Cut, d: int) -> Tensor:
    size = rows_at_once(cut.bits, d)
    if not 0 <= k < max(1, chunks(len(places), cut, d)):
        raise ValueError(f"{len(places)} rows have no chunk {k + 1}")
    return places[k * size : (k + 1) * size]


def _at(body: Slots, n: int) -> list[int]:
    at = body.get("at")
    if at is None or at.dtype != torch.int64 or list(at.shape) != [n]:
        raise ValueError(f'"at" must be int64 [{n}]')
    return ints(at)


def _last(memory: Slots) -> tuple[int, int, int]:
    round, gone, ahead = ints(memory["at"])
    return round, gone, ahead


def _waiting(was: tuple[int, int, int]) -> str:
    round, _, ahead = was
    if round == 0:
        return "no pass has begun"
    return f"pass {round} is over" if ahead < 0 else f"step {ahead + 1} of pass {round} waits for its gradient"
