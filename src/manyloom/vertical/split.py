"""Split learning: parties with different columns of the same rows train one network that exists nowhere whole.

A step draws its rows from the shared seed, so no indices travel; each feature party sends z_k = f_k(x_k; th_k), the
label party computes g(z), the loss and dl/dz_k. Going back through step s and computing step s + 1 are one ask, so a
step takes one round trip. (Vepakomma et al. 2018, arXiv:1812.00564.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core import seeds
from manyloom.core.errors import Problem, RunFailed, bad
from manyloom.core.exchange import Ask, Exchange, Lost
from manyloom.core.slots import Slots, size_bytes
from manyloom.core.task import LOSSES
from manyloom.models.split import Part, SplitModel, first_label_side, label_part
from manyloom.privacy.source import Secret, Source
from manyloom.vertical.cut import encode, key, like, rows_at_once
from manyloom.vertical.defence import defended, says
from manyloom.vertical.hearing import Spoken, forwards, heard
from manyloom.vertical.leak import Attack, attack, leaked
from manyloom.vertical.passes import Judged, Pass, Passes, held_out
from manyloom.vertical.settings import Cut
from manyloom.vertical.split_party import chunks
from manyloom.vertical.split_party import handlers as handlers
from manyloom.vertical.split_party import part as part
from manyloom.vertical.steps import SplitLearning as SplitLearning
from manyloom.vertical.steps import batch, fresh, stepped, steps_of, walk
from manyloom.work.local import Local


class _Here(NamedTuple):
    """What the label party knows."""

    model: SplitModel
    opt: Local
    cut: Cut
    seed: int
    x: Tensor
    y: Tensor
    parties: tuple[str, ...]
    classes: int | None
    test: float
    deadline_s: float
    source: Source | None

    @property
    def side(self) -> Part:
        return label_part(self.model, self.x.shape[1], len(self.parties), self.model.outputs(self.classes))


def passes(
    model: SplitModel,
    algorithm: SplitLearning,
    cut: Cut,
    *,
    seed: int,
    rounds: int,
    x: Tensor,
    y: Tensor,
    classes: int | None,
    parties: Sequence[str],
    test: float = 0.2,
    deadline_s: float = 3600.0,
    source: Source | None = None,
) -> Passes:
    """Split learning as a run sees it.

    Args:
        model: the split network.
        algorithm: how every part is trained.
        cut: what happens to what is sent.
        seed: of the job; every party knows it.
        rounds: passes in all.
        x: the label party's own columns of all aligned rows, in the agreed order [m, F]; F may be 0.
        y: their labels [m].
        classes: how many there are; None: a number is predicted.
        parties: names of the feature parties, in the order of their numbers.
        test: share of the aligned rows that is held out.
        deadline_s: of an ask.
        source: of the defence's noise; None: the operating system's generator.

    Raises:
        BadInput: nothing to train on, or a batch that is no body of 8 MiB.
    """
    opt = algorithm.local  # tells every wrong option
    _check(model, algorithm, cut, len(x), test)
    noise = source or (Secret() if cut.defence != "none" else None)
    here = _Here(model, opt, cut, seed, x, y, tuple(parties), classes, test, deadline_s, noise)

    def start() -> Slots:
        outputs = model.outputs(classes)
        theta = first_label_side(model, x.shape[1], seed=seed, parties=here.parties, outputs=outputs)
        return fresh(opt, theta.to(x.dtype))

    return Passes(
        name="split-learning",
        start=start,
        one=lambda state, round: _one(here, state, round),
        judge=lambda state, round: _judge(here, state, round),
        handlers=handlers(model, algorithm, cut, seed=seed, test=test),
        threats=threats(cut),
        traffic=lambda rows, held: traffic(here, rounds, rows, held),
        parts=lambda state: here.side.layout.state_dict(state["theta"]),
    )


def threats(cut: Cut) -> tuple[str, str, str, str]:
    """Who learns what: label party, feature party, hub, and what that rests on."""
    learns = "embeddings z (invertible in principle)"
    rests = "none: noise at the cut hinders attacks, it proves nothing" if cut.defence != "none" else "none"
    return learns, says(cut), "sizes", rests


def _check(model: SplitModel, algorithm: SplitLearning, cut: Cut, m: int, test: float) -> None:
    if m - int(m * test) < 1:
        raise bad(
            "nothing-aligned",
            "no aligned row is left to train on",
            got=f"{m} aligned rows, a share of {test:g} held out",
            mend="check [data] ids and id_types: they decide which rows match",
        )
    if algorithm.batch_size > (most := rows_at_once(cut.bits, model.cut)):
        raise bad(
            "body-too-large",
            "a batch of embeddings is above 8 MiB",
            got=f"batch_size = {algorithm.batch_size}, {model.cut} numbers a row of {cut.bits} bits",
            rule=f"at most {most} rows a step",
            mend=f"batch_size = {most}, or fewer [cut] bits",
        )


def _drops(here: _Here, round: int, steps: int) -> Tensor:
    """Which party is left out of which step [K, steps], from the seed and the parties' names."""
    share = here.cut.dropped
    if not share:
        return torch.zeros(len(here.parties), steps, dtype=torch.bool)
    ids = np.array([seeds.name_id(p) for p in here.parties], np.uint64)
    u = seeds.counters(seeds.key(here.seed, round, ids, "cut/dropout"), steps) >> np.uint64(11)
    return torch.tensor((u.astype(np.float64) * 2.0**-53 < share).tolist())


def _one(here: _Here, state: Slots, round: int) -> Exchange[Pass]:
    """A pass over the rows trained on: forward, then step after step, then the last gradients back."""
    own = dict(state)
    size = here.opt.batch_size
    order = walk(len(here.x), here.test, here.seed, round)
    steps, d, dtype = steps_of(len(order), size), here.model.cut, here.x.dtype
    drops = _drops(here, round, steps)
    waiting: dict[int, tuple[int, Slots]] = {}  # party -> the step whose gradient it has not got yet, and that
    attacks: dict[int, list[Attack | None]] = {}
    gone: dict[int, Lost] = {}
    total, up, down = 0.0, 0, 0

    for step in range(steps + 1):
        ahead = step if step < steps else -1
        to = [k for k in range(len(here.parties)) if k not in gone]
        to = [k for k in to if k in waiting] if ahead < 0 else [k for k in to if not drops[k, step]]
        z: dict[int, Tensor] = {}
        places = batch(order, size, step)
        if to:
            each: dict[int, Slots] = {}
            for k in to:
                back, grad = waiting.pop(k, (-1, {}))
                each[k] = {"at": torch.tensor([round, back, ahead])} | grad
            verb = (
                "cut.backward" if ahead < 0 else "cut.step" if any(len(b) > 1 for b in each.values()) else "cut.forward"
            )
            down += sum(size_bytes(b) for b in each.values())
            answers = yield Ask(np.array(to), verb, each=each, round=round, deadline_s=here.deadline_s)
            phase = f"{verb}, pass {round}" + (f", step {step + 1} of {steps}" if ahead >= 0 else ", the last gradient")
            n = len(places) if ahead >= 0 else None
            got = heard(answers, to, phase, here.cut, n, d, dtype)
            z, up = got.z, up + got.sent
            gone |= {x.client: x for x in got.lost}
            left = len(here.parties) - len(gone)
            if got.lost and (here.cut.on_missing == "error" or not here.cut.dropped or not left):
                return Pass(state, math.nan, step, 0, up, down, lost=list(gone.values()), enough=False)
        if ahead < 0:
            break
        own, loss, grads = _learn(here, own, places, z)
        if not math.isfinite(loss):
            raise _diverged(here, round, step)
        total += loss * len(places)
        for k, g in grads.items():
            sent = defended(g, here.cut, here.source) if here.source else g
            draw = key(here.seed, round, step, here.parties[k], "down")
            waiting[k] = step, encode(sent, "grad", here.cut.bits, draw, len(places))
            if here.classes is not None:  # before rounding, which only blurs what can be read
                attacks.setdefault(k, []).append(attack(sent, here.y[places]))

    leaks = [leaked(k, attacks[k]) for k in sorted(attacks)]
    return Pass(own, total / len(order), steps, len(order), up, down, leaks, list(gone.values()))


def _learn(here: _Here, own: Slots, places: Tensor, z: dict[int, Tensor]) -> tuple[Slots, float, dict[int, Tensor]]:
    """One step of the label party: its part after it, the mean loss, dl/dz_k of the parties that are in it."""
    theta = own["theta"].detach().requires_grad_()
    leaves = {k: t.detach().requires_grad_() for k, t in z.items()}
    none = here.x.new_zeros(len(places), here.model.cut)
    blocks = [leaves.get(k, none) for k in range(len(here.parties))]
    joined = torch.cat(blocks, 1) if blocks else none[:, :0]
    output = here.side(theta, here.x[places], joined)
    loss = LOSSES[here.model.loss_of(here.classes)](output, here.y[places]).mean()
    grad, *others = torch.autograd.grad(loss, [theta, *leaves.values()])
    return stepped(here.opt, own, grad), float(loss.detach()), dict(zip(leaves, others))


def _diverged(here: _Here, round: int, step: int) -> RunFailed:
    return RunFailed(
        Problem(
            "diverged",
            "the loss is no longer a number",
            got=f"pass {round}, step {step + 1}, lr = {here.opt.lr:g}",
            rule="a pass with a loss that is not finite trains nothing",
            mend=f"try lr = {here.opt.lr / 10:g}, or clip_grad = 1.0",
        )
    )


def _judge(here: _Here, state: Slots, round: int) -> Exchange[Judged]:
    """The joint model's outputs on the held-out rows."""
    places = held_out(len(here.x), here.test, here.seed)[1]
    said = yield from forwards(
        here.side, here.model.cut, here.cut, state["theta"], here.x[places], here.parties, "cut.judge", round=round,
        where=f"cut.judge after pass {round}", deadline_s=here.deadline_s)  # fmt: skip
    y = here.y[places][: len(said.output)]
    loss = float(LOSSES[here.model.loss_of(here.classes)](said.output, y).double().mean()) if len(y) else math.nan
    return Judged(said.output, y, loss, said.sent_up, said.sent_down, said.lost)


def forward(
    model: SplitModel,
    cut: Cut,
    theta: Tensor,
    x: Tensor,
    *,
    parties: Sequence[str],
    classes: int | None,
    places: Sequence[Tensor] | None = None,
    round: int = 0,
    deadline_s: float = 3600.0,
) -> Exchange[Spoken]:
    """Outputs of the joint model on any rows; only the label party gets them.

    Args:
        model: the split network.
        cut: what happens to embeddings on their way.
        theta: the label party's weights.
        x: its columns of the rows [n, F].
        parties: names of the feature parties, in the order of their numbers.
        classes: as in training.
        places: for party k, which rows of x its aligned rows are [m_k]; None: all, in this order. Other rows have a
            zero embedding, which `on_missing = "impute"` allows.
        round: makes the rounding of a quantised cut another one.
        deadline_s: of an ask.

    Raises:
        BadInput: `rows-missing` if a party lacks rows and `on_missing` is "error".
    """
    side = label_part(model, x.shape[1], len(parties), model.outputs(classes))
    return forwards(
        side, model.cut, cut, theta, x, parties, "cut.predict", round=round, where="cut.predict", places=places,
        deadline_s=deadline_s)  # fmt: skip


def traffic(here: _Here, rounds: int, rows: int, held: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Bytes up and down of a pass and of a judgement; with party dropout the mean over the passes.

    Args:
        here: the label party.
        rounds: passes in all.
        rows: aligned rows to train on.
        held: of them held out.
    """
    size, d, k, item = here.opt.batch_size, here.model.cut, len(here.parties), here.x.dtype
    steps = steps_of(rows, size)
    a_step = [size_bytes(like("z", here.cut.bits, min(size, rows - s * size), d, item)) for s in range(steps)]
    up = down = 0
    for number in range(1, rounds + 1):
        active = ~_drops(here, number, steps)
        payload = sum(int(active[:, s].sum()) * a_step[s] for s in range(steps))
        up, down = up + payload, down + payload + 24 * int(active.sum()) + 24 * int(active.any(1).sum())
    at_once = rows_at_once(here.cut.bits, d)
    parts = [min(at_once, held - i * at_once) for i in range(chunks(held, here.cut, d))]
    judged = k * sum(size_bytes(like("z", here.cut.bits, n, d, item)) for n in parts)
    return (round(up / rounds), round(down / rounds)), (judged, 16 * k * len(parts))
