"""`drive`, `objective`, `measure` and `personal`: carried through the same loop and providers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from manyloom.core.parts import Drive, Measure, Seen, State, Work
from manyloom.core.slots import Slots
from tests.engine.toys import Toy, algorithm, batches_of, close, down_of, engine, memory_of, task, trained

ENGINES = [("autograd", 1), ("vmap", 1), ("vmap", 4), ("vmap", 16)]
LR, RHO, MU = 0.1, 0.05, 0.7
FED = Toy()


def begin(down: Slots, memory: Slots, seen: Seen) -> tuple[Tensor, State]:
    return down["theta"], {"theta": down["theta"]}


def no_step(w: Tensor, grad: Tensor, state: State) -> None:
    raise AssertionError("a driven rule has no plain step")


def finish(w: Tensor, down: Slots, state: State, memory: Slots, seen: Seen) -> tuple[Slots, Slots]:
    return {"u": w - down["theta"]}, memory


def sam(w: Tensor, grad_at, state: State) -> None:  # type: ignore[no-untyped-def]
    g = grad_at(w)
    point = w + RHO * g / g.norm(dim=-1, keepdim=True)
    w.sub_(grad_at(point), alpha=LR)


def mime(w: Tensor, grad_at, state: State) -> None:  # type: ignore[no-untyped-def]
    w.sub_(grad_at(w) - grad_at(state["theta"]), alpha=LR)  # the first is still there after the second


def both(w: Tensor, grad_at, state: State) -> None:  # type: ignore[no-untyped-def]
    g = grad_at(torch.stack([w, w + 0.1]))
    assert g.shape == (2, *w.shape)
    w.sub_(g[0] + 2 * g[1], alpha=LR)


def maml(w: Tensor, grad_at, state: State) -> None:  # type: ignore[no-untyped-def]
    w.sub_(grad_at(w - 0.2 * grad_at(w, 0), 1), alpha=LR)


def hidden(e, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
    p = e.layout.views(vector)
    z = torch.tanh(F.linear(x, p["0.weight"], p["0.bias"]))
    return F.linear(z, p["2.weight"], p["2.bias"]), z


def plain_gradient(e, vector: Tensor, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    v = vector.detach().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(hidden(e, v, x)[0], y), v)[0]


@pytest.mark.parametrize(
    ("rule", "batches"), [(sam, 1), (mime, 1), (both, 1), (maml, 2)], ids=lambda r: getattr(r, "__name__", r)
)
@pytest.mark.parametrize(("provider", "k"), ENGINES)
def test_drive(rule, batches: int, provider: str, k: int) -> None:  # type: ignore[no-untyped-def]
    work = Work(begin, no_step, finish, drive=Drive(rule, batches))
    a = algorithm(work, epochs=1.5)
    e = engine(task(), a, FED, provider=provider, group=k)
    assert e.record["provider"] == provider
    down = down_of(e, a)
    found = trained(e, FED, down)
    assert len(found) == 8
    for c, (up, _, _, steps, _) in found.items():
        x, y = FED.of(c)
        rows = batches_of(e, a, FED, c, 1)
        assert len(rows) == batches * steps
        w = down["theta"].clone()
        for t in range(steps):
            now = [torch.from_numpy(r) for r in rows[t * batches : (t + 1) * batches]]

            def grad_at(point: Tensor, batch: int = 0, now: list[Tensor] = now, x: Tensor = x, y: Tensor = y) -> Tensor:
                if point.dim() > 1:
                    return torch.stack([grad_at(q, batch) for q in point])
                return plain_gradient(e, point, x[now[batch]], y[now[batch]])

            rule(w, grad_at, {"theta": down["theta"]})
        close(up, {"u": w - down["theta"]})


def contrast(forward, w: Tensor, batch: tuple[Tensor, Tensor], anchors: Slots) -> Tensor:  # type: ignore[no-untyped-def]
    x, y = batch
    out, z = forward(w, x)
    near = F.cosine_similarity(z, forward(anchors["theta"], x)[1], dim=-1) / 0.5
    far = F.cosine_similarity(z, forward(anchors["prev"], x)[1], dim=-1) / 0.5
    return F.cross_entropy(out, y, reduction="none") + MU * anchors["met"] * (torch.logaddexp(near, far) - near)


@pytest.mark.parametrize(("provider", "k"), ENGINES)
def test_objective(provider: str, k: int) -> None:
    """Like MOON: features under w, under theta (shared) and under the client's last result (its own)."""

    def start(down: Slots, memory: Slots, seen: Seen) -> tuple[Tensor, State]:
        met = (memory["prev"].abs().sum(-1, keepdim=True) > 0).to(down["theta"])
        return down["theta"], {"theta": down["theta"], "prev": memory["prev"], "met": met, "lr": LR}

    def step(w: Tensor, grad: Tensor, state: State) -> None:
        w.sub_(grad, alpha=state["lr"])

    def keep(w: Tensor, down: Slots, state: State, memory: Slots, seen: Seen) -> tuple[Slots, Slots]:
        return {"u": w - down["theta"]}, {"prev": w.clone()}

    a = algorithm(Work(start, step, keep, {"prev": "d"}, objective=contrast), epochs=2)
    e = engine(task(), a, FED, provider=provider, group=k)
    assert e.record["provider"] == provider, e.record
    down = down_of(e, a)
    for c, (up, kept, *_) in trained(e, FED, down).items():
        x, y = FED.of(c)
        anchors = {"theta": down["theta"], "prev": memory_of(e, np.array([c]))["prev"][0], "met": torch.ones(1)}
        w = down["theta"].clone()
        for rows in batches_of(e, a, FED, c, 1):
            at = torch.from_numpy(rows)
            v = w.detach().requires_grad_()
            loss = contrast(lambda p, x: hidden(e, p, x), v, (x[at], y[at]), anchors).mean()
            w = w - LR * torch.autograd.grad(loss, v)[0]
        close(up, {"u": w - down["theta"]})
        close(kept, {"prev": w})


@pytest.mark.parametrize(("provider", "k"), ENGINES)
def test_measure(provider: str, k: int) -> None:
    """Losses and full gradients before and after, as begin and finish see them."""

    def start(down: Slots, memory: Slots, seen: Seen) -> tuple[Tensor, State]:
        return down["theta"], {"g": seen.measured["before.gradient"]}

    def step(w: Tensor, grad: Tensor, state: State) -> None:
        w.sub_(grad + state["g"], alpha=LR)

    def end(w: Tensor, down: Slots, state: State, memory: Slots, seen: Seen) -> tuple[Slots, Slots]:
        return {"u": w - down["theta"], **seen.measured}, {}

    measure = Measure(("loss", "gradient"), ("loss", "gradient"))
    a = algorithm(Work(start, step, end, measure=measure))
    e = engine(task(), a, FED, provider=provider, group=k)
    e.loop.judged = 6  # several batches a client
    down = down_of(e, a)
    for c, (up, *_) in trained(e, FED, down).items():
        x, y = FED.of(c)
        for when, at in (("before", down["theta"]), ("after", down["theta"] + up["u"])):
            loss = F.cross_entropy(hidden(e, at, x)[0], y)
            assert float(up[f"{when}.loss"]) == pytest.approx(float(loss), rel=1e-9)
            assert torch.allclose(up[f"{when}.gradient"], plain_gradient(e, at, x, y), atol=1e-9)


def test_personal() -> None:
    def mix(down: Slots, memory: Slots) -> Tensor:
        return 0.5 * down["theta"] + 0.5 * memory["v"]

    a = algorithm(Work(begin, lambda w, g, s: None, lambda w, d, s, m, seen: ({"u": w - d["theta"]}, m), {"v": "d"},
                       personal=mix))  # fmt: skip
    e = engine(task(), a, FED)
    down, ids = down_of(e, a), np.array([3, 5, 2])
    own = e.personal(ids, down, lambda ids: memory_of(e, ids))
    assert torch.allclose(own, 0.5 * down["theta"] + 0.5 * memory_of(e, ids)["v"])
    each = e.evaluate(FED, ids, own)  # type: ignore[arg-type]
    for j, c in enumerate(ids):
        alone = e.evaluate(FED, ids[j : j + 1], own[j])  # type: ignore[arg-type]
        x, y = FED.of(c)
        want = F.cross_entropy(hidden(e, own[j], x)[0], y, reduction="sum")
        assert float(each.loss_sums[j]) == pytest.approx(float(want)) == pytest.approx(float(alone.loss_sums[0]))
    a = algorithm()
    e = engine(task(), a, FED)
    assert torch.equal(e.personal(ids, down, lambda ids: {}), down["theta"].expand(3, -1))
