"""Local optimisation: the part that all client rules share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor

from manyloom.core.errors import BadInput, bad
from manyloom.core.parts import Batches, Seen, State, Work
from manyloom.core.signature import Default, defaults, options, wrong
from manyloom.core.slots import Slots
from manyloom.core.validate import Above, AtLeast, Below


class LocalOptions(TypedDict, total=False):
    """How a client trains; keys of every recipe, and of `[algorithm]`.

    Args:
        lr: local step size eta_l.
        batch_size: rows of a minibatch.
        epochs: passes over the client's rows, also fractional.
        steps: exactly so many batches instead, cycling.
        optimiser: local optimiser, with fresh state each round.
        momentum: of local SGD.
        weight_decay: L2 in the gradient (sgd, adam), decoupled (adamw).
        clip_grad: largest L2 norm of a local gradient.
        lr_schedule: of lr, over rounds.
        lr_decay: factor a round of "exponential".
        adapt: local steps before a client is judged: fine-tuning.
        weights: of the mean: by samples, or all clients alike; "uniform" under [privacy], else "samples".
    """

    lr: Annotated[float, Above(0), Default(0.1)]
    batch_size: Annotated[int, AtLeast(1), Default(32)]
    epochs: Annotated[float, Above(0), Default(1)]
    steps: Annotated[int | None, AtLeast(1), Default(None)]
    optimiser: Annotated[Literal["sgd", "adam", "adamw"], Default("sgd")]
    momentum: Annotated[float, Below(1), Default(0.0)]
    weight_decay: Annotated[float, AtLeast(0), Default(0.0)]
    clip_grad: Annotated[float | None, Above(0), Default(None)]
    lr_schedule: Annotated[Literal["constant", "cosine", "exponential"], Default("constant")]
    lr_decay: Annotated[float, Above(0), Default(0.99)]
    adapt: Annotated[int, AtLeast(0), Default(0)]
    weights: Annotated[Literal["samples", "uniform"] | None, Default(None)]


class Local(NamedTuple):
    """`LocalOptions`, checked and filled in."""

    lr: float
    batch_size: int
    epochs: float
    steps: int | None
    optimiser: Literal["sgd", "adam", "adamw"]
    momentum: float
    weight_decay: float
    clip_grad: float | None
    lr_schedule: Literal["constant", "cosine", "exponential"]
    lr_decay: float
    adapt: int
    weights: Literal["samples", "uniform"] | None

    @property
    def batches(self) -> Batches:
        return Batches(self.batch_size, self.epochs, self.steps)

    def rate(self, seen: Seen) -> float:
        """eta_l of a round: constant, eta (1 + cos(pi (t-1)/T))/2, or eta decay^(t-1)."""
        t, total = seen.round - 1, max(1, seen.rounds)
        if self.lr_schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * t / total))
        return self.lr * self.lr_decay**t if self.lr_schedule == "exponential" else self.lr


def local(given: LocalOptions) -> Local:
    """Options with their defaults; every wrong one is told.

    >>> local({"lr": 0.5}).batch_size
    32
    """
    known = options(LocalOptions)
    if unknown := [k for k in given if k not in known]:
        raise bad("unknown-key", f'unknown key "{unknown[0]}"', rule="a recipe takes " + ", ".join(known))
    if problems := wrong(known, dict(given)):
        raise BadInput(*problems)
    if given.get("steps") is not None and given.get("epochs") is not None:
        raise bad(
            "contradiction",
            "epochs and steps contradict each other",
            got=f"epochs = {given.get('epochs')}, steps = {given.get('steps')}",
            rule="a client makes passes, or an exact number of steps",
            mend="give one of them",
        )
    filled: dict[str, Any] = defaults(LocalOptions) | dict(given)
    return Local(**filled)


Correct = Callable[[Tensor, Tensor, State], object]  # (grad, w, state): adds to the gradient, in place


def descend(
    opt: Local,
    *,
    correct: Correct | None = None,
    constants: Callable[[Slots, Slots, Seen], State] | None = None,
    report: Callable[[Tensor, Slots, State, Slots, Seen], tuple[Slots, Slots]] | None = None,
    memory: Mapping[str, str] | None = None,
    sends: Mapping[str, str] | None = None,
) -> Work:
    """Local SGD or Adam from theta, with what a rule adds to the gradient: g <- correct(g), w <- w - eta_l opt(g).

    Args:
        opt: the local options.
        correct: adds the rule's term to the gradient [K, d], in place.
        constants: what the rule computes once a round in `begin`, into the state.
        report: (u, down, state, memory, seen) -> further slots of `up`, new memory.
        memory: names of what the client keeps, with their lengths ("d" or "1").
        sends: all slots of `up`, likewise; u alone by default.
    """
    init, apply = OPTIMISERS[opt.optimiser]

    def begin(down: Slots, kept: Slots, seen: Seen) -> tuple[Tensor, State]:
        theta = down["theta"]
        state: State = {"lr": opt.rate(seen), "theta": theta} | init(opt, theta, seen.clients)
        return theta, state | constants(down, kept, seen) if constants else state

    def step(w: Tensor, grad: Tensor, state: State) -> None:
        if opt.clip_grad is not None:
            grad.mul_((opt.clip_grad / norms(grad)).clamp_(max=1.0).to(grad.dtype))
        if correct is not None:
            correct(grad, w, state)
        apply(opt, w, grad, state)

    def finish(w: Tensor, down: Slots, state: State, kept: Slots, seen: Seen) -> tuple[Slots, Slots]:
        u = w - down["theta"]
        more, kept = report(u, down, state, kept, seen) if report else ({}, kept)
        return {"u": u, **more}, kept

    return Work(begin, step, finish, memory or {}, sends or {"u": "d"})


def norms(x: Tensor) -> Tensor:
    """L2 norms [K, 1] of rows [K, d]: float32 within blocks of 32k coordinates, summed in float64."""
    blocks = [b.square().sum(-1, keepdim=True).double() for b in torch.split(x, 32768, -1)]
    return torch.stack(blocks).sum(0).sqrt().clamp_min(1e-30)


Init = Callable[[Local, Tensor, int], State]
Apply = Callable[[Local, Tensor, Tensor, State], None]


def _sgd_init(opt: Local, theta: Tensor, clients: int) -> State:
    return {"momentum": theta.new_zeros(clients, theta.shape[-1])} if opt.momentum else {}


def _sgd(opt: Local, w: Tensor, grad: Tensor, state: State) -> None:
    if opt.weight_decay:
        grad.add_(w, alpha=opt.weight_decay)
    if opt.momentum:
        grad = state["momentum"].mul_(opt.momentum).add_(grad)
    w.sub_(grad, alpha=state["lr"])


def _adam_init(opt: Local, theta: Tensor, clients: int) -> State:
    zeros = theta.new_zeros(clients, theta.shape[-1])
    return {"m": zeros, "v": zeros.clone(), "t": [0]}


def _adam(opt: Local, w: Tensor, grad: Tensor, state: State, b1: float = 0.9, b2: float = 0.999) -> None:
    """Kingma & Ba 2015 with bias correction, eps 1e-8; adamw decouples the decay (Loshchilov & Hutter 2019)."""
    state["t"][0] += 1
    t: int = state["t"][0]
    if opt.weight_decay and opt.optimiser == "adamw":
        w.mul_(1 - state["lr"] * opt.weight_decay)
    elif opt.weight_decay:
        grad.add_(w, alpha=opt.weight_decay)
    m, v = state["m"].lerp_(grad, 1 - b1), state["v"].mul_(b2).addcmul_(grad, grad, value=1 - b2)
    torch.div(v, 1 - b2**t, out=grad)
    w.addcdiv_(m, grad.sqrt_().add_(1e-8), value=-state["lr"] / (1 - b1**t))


OPTIMISERS: dict[str, tuple[Init, Apply]] = {
    "sgd": (_sgd_init, _sgd),
    "adam": (_adam_init, _adam),
    "adamw": (_adam_init, _adam),
}
