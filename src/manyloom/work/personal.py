"""Clients with a model of their own: Ditto's, and parts that stay at the client."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from manyloom.core.parts import Drive, Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend
from manyloom.work.prox import prox


def ditto(opt: Local, lam: float) -> Work:
    """w as FedAvg; on the same minibatch v_i steps along g_i(v_i) + lam (v_i - theta), and is what is judged.

    v_i [d] is memory; a client never seen begins with the theta it received. v_i has its own local optimiser, so it is
    FedProx's step from another start. Two gradients a step.

    Li et al. 2021, ICML, arXiv:2012.04221.
    """
    shared, own = descend(opt), prox(opt, lam)

    def personal(down: Slots, kept: Slots) -> Tensor:
        return torch.where(kept["met"] != 0, kept["v"], down["theta"])

    def begin(down: Slots, kept: Slots, seen: Seen) -> tuple[Tensor, State]:
        w, state = shared.begin(down, kept, seen)
        mine = {f"own {n}": x for n, x in own.begin(down, kept, seen)[1].items()}
        return w, state | mine | {"own": personal(down, kept)}

    def drive(w: Tensor, grad_at: Callable[..., Tensor], state: State) -> None:
        mine = {n.removeprefix("own "): x for n, x in state.items() if n.startswith("own ")}
        shared.step(w, grad_at(w), state)
        own.step(state["own"], grad_at(state["own"]), mine)

    def finish(w: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        up, _ = shared.finish(w, down, state, {}, seen)
        return up, {"v": state["own"], "met": torch.ones_like(kept["met"])}

    return Work(begin, shared.step, finish, {"v": "d", "met": "1"}, drive=Drive(drive), personal=personal)


def held(work: Work, shared: Tensor, own: Tensor) -> Work:
    """`work` on all of theta [d], of which the server knows theta[shared] [p]; w[own] is the client's memory.

    Trained together, w = (theta_shared, own_i): FedPer's head (Arivazhagan et al. 2019, arXiv:1912.00818), FedBN's
    BatchNorm (Li et al. 2021, ICLR, arXiv:2102.07623). A client never seen begins with the first model's own part.

    Args:
        work: any rule that gets theta alone from the server.
        shared, own: indices into theta, [p] and [d - p].
    """

    def whole(down: Slots, kept: Slots) -> Slots:
        theta = down["theta"].new_empty(len(kept["own"]), len(shared) + len(own))
        theta[:, shared], theta[:, own] = down["theta"], kept["own"]
        return down | {"theta": theta}

    def begin(down: Slots, kept: Slots, seen: Seen) -> tuple[Tensor, State]:
        return work.begin(whole(down, kept), kept, seen)

    def finish(w: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        up, memory = work.finish(w, whole(down, kept), state, kept, seen)
        up = {n: rows[:, shared] if work.sends[n] == "d" else rows for n, rows in up.items()}
        return up, memory | {"own": w[:, own]}

    def personal(down: Slots, kept: Slots) -> Tensor:
        wide = whole(down, kept)
        return work.personal(wide, kept) if work.personal else wide["theta"]

    return work._replace(begin=begin, finish=finish, memory={**work.memory, "own": "own"}, personal=personal)
