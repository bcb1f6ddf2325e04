"""FedNova's client."""

from __future__ import annotations

from torch import Tensor

from manyloom.core.parts import Seen, State, Work
from manyloom.core.slots import Slots
from manyloom.work.local import Local, descend


def nova(opt: Local) -> Work:
    """Sends u_i / A_i and A_i, the length of its own work: who does more steps doesn't weigh more.

    A_i = ||a_i||_1 is how far a client would go, over eta_l, if every gradient were 1 (`lengths`). Both travel in
    units of A(`steps`) where that is given, so that equal work is A_i = 1 and cancels to the bit.

    Wang et al. 2020, NeurIPS, arXiv:2007.07481.
    """

    def report(u: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        found = lengths(opt, state["lr"], max(opt.steps or 0, int(seen.steps.max())))
        unit = found[opt.steps - 1] if opt.steps else 1.0
        a = u.new_tensor([a / unit for a in found])[seen.steps.long() - 1]  # [K, 1]
        return {"u": u / a, "a": a}, kept

    return descend(opt, report=report, sends={"u": "d", "a": "1"})


def lengths(opt: Local, rate: float, steps: int) -> list[float]:
    """A after 1 .. `steps` steps of local SGD, by running it on one number from 0 with gradient 1.

    tau for plain SGD; [tau - rho (1 - rho^tau) / (1 - rho)] / (1 - rho) with momentum rho; weight decay lambda and a
    proximal pull alike are (1 - (1 - eta lambda)^tau) / (eta lambda).

    >>> from manyloom.work.local import local
    >>> lengths(local({}), 0.1, 3)[-1], round(lengths(local({"momentum": 0.9, "weight_decay": 0.5}), 0.1, 7)[-1], 4)
    (3.0, 18.3116)
    """
    found: list[float] = []
    a = m = 0.0
    for _ in range(steps):
        m = opt.momentum * m + 1 - opt.weight_decay * rate * a
        found.append(a := a + m)
    return found
