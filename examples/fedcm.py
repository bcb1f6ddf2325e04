"""FedCM, an algorithm in one file: `[algorithm] name = "examples.fedcm:fedcm"` takes it as it stands."""

from typing import Annotated, Unpack

import torch
from torch import Tensor

from manyloom.aggregate import mean
from manyloom.core.errors import bad
from manyloom.core.parts import Algorithm, Seen, ServerStep, State
from manyloom.core.slots import Slots
from manyloom.core.validate import Within, checked
from manyloom.server import sgd
from manyloom.work.local import LocalOptions, descend, local


@checked
def fedcm(*, alpha: Annotated[float, Within(0, 1)] = 0.1, **options: Unpack[LocalOptions]) -> Algorithm:
    """Clients mix the last round's mean direction into each gradient: alpha g + (1 - alpha) delta.

    delta = -mean(u) / (K eta_l), which the server sends beside theta; alpha = 1 is FedAvg, bit for bit.
    Xu et al. 2021, "FedCM: Federated Learning with Client-level Momentum", arXiv:2106.10874.

    Args:
        alpha: share of the client's own gradient.

    >>> fedcm(steps=10)
    Algorithm(fedcm, server sgd, mean by samples)
    """
    opt = local(options)
    if opt.steps is None:
        raise bad("missing-key", "fedcm needs steps", rule="delta is divided by K", mend="steps = 10 instead of epochs")
    length = opt.steps * opt.lr

    # the client's half: what a round knows, and what it adds to a gradient [K, d]
    def constants(down: Slots, kept: Slots, seen: Seen) -> State:
        return {"delta": down["delta"]}

    def correct(grad: Tensor, w: Tensor, state: State) -> None:
        grad.mul_(alpha).add_(state["delta"], alpha=1 - alpha)

    # the server's half: plain SGD that remembers the direction and sends it down
    plain = sgd()

    def init(theta: Tensor) -> Slots:
        return plain.init(theta) | {"delta": torch.zeros_like(theta)}

    def apply(state: Slots, mean: Slots) -> Slots:
        return plain.apply(state, mean) | {"delta": (-mean["u"] / length).to(state["delta"].dtype)}

    def down(state: Slots) -> Slots:
        return plain.down(state) | {"delta": state["delta"]}

    return Algorithm(
        name="fedcm",
        work=descend(opt, correct=correct, constants=constants),
        server=ServerStep("sgd", init, apply, down),
        aggregate=mean(),
        batches=opt.batches,
        weights=opt.weights,
        tables={"algorithm": {"name": "examples.fedcm:fedcm", "alpha": alpha, **options}},
        paper="Xu et al. 2021, arXiv:2106.10874",
    )
