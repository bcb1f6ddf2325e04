"""Small federations, and the textbook loop that every engine is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from manyloom.algorithms import fedavg
from manyloom.core.parts import Algorithm, Batches, Seen, Work
from manyloom.core.seeds import key, permutations
from manyloom.core.task import Shape, Task
from manyloom.data.store import Slab
from manyloom.engine import Engine, Failed, build, fresh

B = 4
SIZES = (0, 1, B - 1, B, B + 1, 3 * B + 2, 2 * B, 1, 7)


class Toy:
    """A federation of random rows: clients' rows are scattered over one tensor."""

    def __init__(self, sizes: Sequence[int] = SIZES, width: int = 5, classes: int | None = 3, seed: int = 0):
        rng = np.random.default_rng(seed)
        n = int(np.sum(sizes))
        self.sizes = np.array(sizes, np.int64)
        self.tests = self.sizes.copy()
        self.ids = rng.integers(0, 2**63, len(sizes), dtype=np.uint64)
        self.x = torch.from_numpy(rng.normal(size=(n, width)))
        signal = (self.x[:, : classes or 1] + torch.from_numpy(rng.normal(size=(n, classes or 1)))).argmax(1)
        self.y = signal if classes else self.x[:, 0] * 2 + torch.from_numpy(rng.normal(size=n))
        order = rng.permutation(n)
        self.rows = np.split(order, np.cumsum(self.sizes)[:-1])
        self.cast: Callable[[Tensor], Tensor] | None = None

    def slab(self, clients: Sequence[int], part: str = "train") -> Slab:
        rows = [self.rows[c] for c in clients]
        off = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
        whole = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        return Slab(self.x, self.y, whole, off, self.cast)

    def of(self, client: int) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(self.rows[client])
        x = self.x[rows]
        return (self.cast(x) if self.cast else x), self.y[rows]


def mlp(width: int = 5, out: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 6), nn.Tanh(), nn.Linear(6, out)).double()


def task(**more: object) -> Task:
    return Task(mlp, **more)  # type: ignore[arg-type]


def algorithm(work: Work | None = None, **batches: object) -> Algorithm:
    """FedAvg, perhaps with another client."""
    plain = fedavg(lr=0.1, batch_size=B)
    return replace(plain, work=work or plain.work, batches=Batches(B, **batches))  # type: ignore[arg-type]


def engine(t: Task, a: Algorithm, fed: Toy, *, classes: int | None = 3, **more: object) -> Engine:
    x, y = next(fed.of(c) for c in np.argsort(-fed.sizes))
    given = {"seed": 1, "rounds": 10, "cohort": len(fed.sizes), "probe": (x[:8], y[:8]), **more}
    return build(t, Shape(tuple(x.shape[1:]), classes), a, **given)  # type: ignore[arg-type]


def down_of(e: Engine, a: Algorithm, theta: Tensor | None = None) -> dict[str, Tensor]:
    """What the server sends; vectors beside theta are random, so that they matter."""
    first = e.shared.flatten(e.layout.views(e.initial if theta is None else theta))
    body = a.server.down(a.server.init(first))
    rng = torch.Generator().manual_seed(5)
    if a.before is not None:  # what another client sent
        features = int(str(e.record["features"]))
        body |= {n: first.new_zeros(k) for n, k in a.before.down(features).items()}
    return {n: v if n == "theta" else 0.1 * torch.randn(v.shape, generator=rng, dtype=v.dtype) for n, v in body.items()}


def memory_of(e: Engine, ids: np.ndarray) -> dict[str, Tensor]:
    """A memory that is a function of the client, whoever asks."""
    found: dict[str, Tensor] = {}
    for name, start in e.strangers.items():
        if name == "buffers":
            found[name] = start.expand(len(ids), -1)
            continue
        rows = [
            torch.randn(start.shape, generator=torch.Generator().manual_seed(int(i)), dtype=start.dtype) for i in ids
        ]
        found[name] = 0.1 * torch.stack(rows)
    return found


def trained(e: Engine, fed: Toy, down: dict[str, Tensor], clients: Sequence[int] | None = None, round: int = 1):
    """client -> (up, memory, samples, steps, loss) of one round."""
    asked = np.arange(len(fed.sizes)) if clients is None else np.array(clients, np.int64)
    found: dict[int, tuple[dict[str, Tensor], dict[str, Tensor], float, int, float]] = {}
    for g in e.train(fed, asked, down, lambda ids: memory_of(e, ids), round):  # type: ignore[arg-type]
        assert not isinstance(g, Failed), g.traceback
        for j, c in enumerate(g.clients.tolist()):
            up = {n: v[j].clone() for n, v in g.up.items()}
            kept = {n: v[j].clone() for n, v in g.memory.items()}
            found[c] = (up, kept, float(g.samples[j]), int(g.steps[j]), float(g.loss[j]))
    return found


def batches_of(e: Engine, a: Algorithm, fed: Toy, client: int, round: int, seed: int = 1) -> list[np.ndarray]:
    """Row numbers of each minibatch of a client, as the textbook says: shuffle, cut, shuffle again."""
    n, b = int(fed.sizes[client]), a.batches
    per = a.work.drive.batches if a.work.drive else 1
    found: list[np.ndarray] = []
    an_epoch = -(-n // b.size)
    total = b.steps * per if b.steps else int(np.ceil(round_(b.epochs * an_epoch)))
    total = -(-total // per) * per
    for epoch in range(total):
        order = permutations(key(seed, round, fed.ids[[client]], "shuffle", epoch), np.array([n]))[0]
        found += [order[i : i + b.size] for i in range(0, n, b.size)]
        if len(found) >= total:
            break
    return found[:total]


def round_(x: float) -> float:
    return float(np.round(x, 9))


def textbook(e: Engine, t: Task, a: Algorithm, fed: Toy, client: int, down: dict[str, Tensor], round: int = 1):
    """One client, plain autograd, one step after the other: what every engine must come to."""
    x, y = fed.of(client)
    a = e.algorithm  # with what stays at the client
    x = x.to(e.layout.dtype) if x.is_floating_point() else x
    module = fresh(t, Shape(tuple(x.shape[1:]), 3), 1).train()
    kept = memory_of(e, np.array([client]))
    rows, per = batches_of(e, a, fed, client, round), a.work.drive.batches if a.work.drive else 1
    size = t.size(y).double() if t.size else torch.ones(len(y), dtype=torch.float64)
    one = torch.ones(1, 1, dtype=e.layout.dtype)
    steps = len(rows) // per
    seen = Seen(round, 10, size.sum() * one, steps * one, 0 * one)
    w, state = a.work.begin(down, kept, seen)
    w = w.clone().reshape(1, -1)
    losses: list[float] = []
    for step in range(steps):
        losses.append(0.0)
        found: list[float] = []

        def grad_at(point: Tensor, batch: int = 0, step: int = step, found: list[float] = found) -> Tensor:
            at = torch.from_numpy(rows[step * per + batch])
            loss, grad = _gradient(e, t, a, module, point.reshape(-1), x[at], y[at], size[at] / size[at].sum(), state)
            found.append(loss)
            return grad.view_as(point)

        if a.work.drive:
            a.work.drive.step(w, grad_at, state)
        else:
            a.work.step(w, grad_at(w), state)
        losses[-1] = found[0]
    total = sum(losses)
    up, memory = a.work.finish(w, down, state, kept, seen._replace(loss=total * one))
    memory = {n: memory[n][0] for n in a.work.memory}
    return {n: v[0] for n, v in up.items()}, memory, float(size.sum()), steps, total / steps


def _gradient(e: Engine, t: Task, a: Algorithm, module: nn.Module, point: Tensor, x: Tensor, y: Tensor, weights: Tensor,
              state: dict[str, Tensor]) -> tuple[float, Tensor]:  # fmt: skip
    """Loss and gradient [d] at a point: of the task, or of a rule's objective (a Sequential's features)."""
    if a.work.objective is None:
        e.layout.load(module, point)
        module.zero_grad()
        loss = (t.losses(module(x), y) * weights).sum()
        loss.backward()
        grads = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        whole = {n: torch.zeros_like(p) for n, p in module.named_parameters()} | grads
        return float(loss.detach()), e.layout.flatten(whole)

    class Forward:
        loss = staticmethod(t.losses)

        def __call__(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            views, body = e.layout.views(vector), module[:-1]  # type: ignore[index]
            own = {n: views[n] for n, _ in body.named_parameters()}
            return functional_call(module, views, (x,)), functional_call(body, own, (x,)).flatten(1)

    vector = point.detach().clone().requires_grad_()
    anchors = {n: v[0] if v.dim() > 1 else v for n, v in state.items() if isinstance(v, Tensor)}
    loss = (a.work.objective(Forward(), vector, (x, y), anchors) * weights).sum()
    return float(loss.detach()), torch.autograd.grad(loss, vector)[0]


def close(found: dict[str, Tensor], want: dict[str, Tensor], tolerance: float = 1e-9) -> None:
    assert found.keys() == want.keys()
    for name, v in want.items():
        assert torch.allclose(found[name], v, rtol=tolerance, atol=tolerance), name
