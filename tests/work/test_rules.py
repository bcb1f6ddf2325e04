"""Client rules by hand: one or two steps on numbers that are checked on paper, [K, d] rows at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from manyloom.core.parts import Seen
from manyloom.work.dyn import dyn
from manyloom.work.local import local
from manyloom.work.moon import cosine, moon
from manyloom.work.nova import lengths, nova
from manyloom.work.personal import ditto
from manyloom.work.sam import sam

PLAIN = local({"lr": 0.5})


def rows(*found: list[float]) -> Tensor:
    return torch.tensor(found, dtype=torch.float64)


def seen(*steps: int) -> Seen:
    one = torch.ones(len(steps), 1, dtype=torch.float64)
    return Seen(1, 10, 10 * one, rows(*[[float(s)] for s in steps]), 0 * one)


def walk(work, theta: Tensor, kept, gradient, steps: int, about: Seen | None = None):  # type: ignore[no-untyped-def]
    """Begin, so many steps along gradient(w), finish; every client takes them all."""
    about = about or seen(*[steps] * 2)
    down = {"theta": theta}
    w0, state = work.begin(down, kept, about)
    w = w0.expand(about.clients, -1).clone()
    for _ in range(steps):
        if work.drive:
            work.drive.step(w, lambda point, batch=0: gradient(point), state)
        else:
            work.step(w, gradient(w).clone(), state)
    return w, *work.finish(w, down, state, kept, about)


# ---- FedNova


@pytest.mark.parametrize(("options", "tau", "length"), [
    ({}, 7, 7.0),
    ({"momentum": 0.9}, 1, 1.0),
    ({"momentum": 0.9}, 3, 1 + 1.9 + 2.71),
    ({"momentum": 0.9}, 7, (7 - 0.9 * (1 - 0.9**7) / 0.1) / 0.1),
    ({"weight_decay": 0.5}, 7, (1 - 0.95**7) / 0.05),
    ({"momentum": 0.9, "weight_decay": 0.5}, 7, 18.3116),
])  # fmt: skip
def test_the_length_of_local_work(options, tau, length):  # type: ignore[no-untyped-def]
    opt = local({"lr": 0.1, **options})
    assert lengths(opt, 0.1, tau)[-1] == pytest.approx(length, rel=1e-5)
    one = torch.ones(1, 1, dtype=torch.float64)
    w, *_ = walk(nova(opt), torch.zeros(1, dtype=torch.float64), {}, torch.ones_like, tau, seen(tau))
    assert torch.allclose(w, -0.1 * lengths(opt, 0.1, tau)[-1] * one)  # what the rule's own steps really do


def test_nova_sends_its_update_divided_by_its_length():
    """Two clients took 2 and 4 steps of rate .5: u / A, and A; in units of A(4) where every client is to take 4."""
    u = rows([-1.0, 2.0], [-4.0, 8.0])
    for more, unit in (({}, 1.0), ({"steps": 4}, 4.0)):
        work = nova(local({"lr": 0.5, **more}))
        down = {"theta": torch.ones(2, dtype=torch.float64)}
        _, state = work.begin(down, {}, seen(2, 4))
        up, memory = work.finish(down["theta"] + u, down, state, {}, seen(2, 4))
        assert up["a"].flatten().tolist() == [2 / unit, 4 / unit] and memory == {}
        assert torch.equal(up["u"], u * rows([unit / 2], [unit / 4]))


# ---- FedDyn


def test_dyn_by_hand():
    """alpha .1, lr .5, theta (1, 0), gradient 1, h_0 = (2, 0), h_1 = 0.

    Client 0: w = theta - .5 (1 - 2, 1 - 0) = (1.5, -.5); then - .5 (1 - 2 + .1 (.5), 1 + .1 (-.5)) = (1.975, -.975).
    Client 1: (.5, -.5), then - .5 (1 - .05) = (.025, -.975). h_i -= .1 u_i.
    """
    kept = {"h": rows([2.0, 0.0], [0.0, 0.0])}
    theta = torch.tensor([1.0, 0.0], dtype=torch.float64)
    w, up, memory = walk(dyn(PLAIN, 0.1), theta, kept, torch.ones_like, 2)
    assert torch.allclose(w, rows([1.975, -0.975], [0.025, -0.975]))
    assert torch.allclose(up["u"], rows([0.975, -0.975], [-0.975, -0.975]))
    assert torch.allclose(memory["h"], rows([1.9025, 0.0975], [0.0975, 0.0975]))


# ---- FedSAM


def test_sam_by_hand():
    """f = |w|^2 / 2: g = w = (3, 4), norm 5, rho 1: the gradient at w + (.6, .8); a gradient of zero stays."""
    w, up, memory = walk(sam(PLAIN, 1.0), rows([3.0, 4.0], [0.0, 0.0]), {}, lambda p: p.clone(), 1)
    assert torch.allclose(w, rows([3 - 0.5 * 3.6, 4 - 0.5 * 4.8], [0.0, 0.0])) and memory == {}
    assert sam(PLAIN, 0.0).drive is None


@pytest.mark.parametrize("tiny", [1e-30, 1e-42])
def test_sam_of_a_tiny_gradient_goes_nowhere(tiny: float):
    """A float32 gradient whose square is zero must not be blown up to rho."""
    points: list[Tensor] = []
    w = torch.full((1, 3), 1.0)
    sam(PLAIN, 0.05).drive.step(w, lambda p: points.append(p.clone()) or torch.full_like(p, tiny), {"lr": 0.5})  # type: ignore[union-attr]
    assert torch.allclose(points[1], points[0]) and torch.isfinite(w).all()


# ---- MOON


def test_the_cosine_of_nothing_is_zero_and_pulls_nowhere():
    a = rows([1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [-2.0, 0.0]).requires_grad_()
    b = rows([2.0, 0.0], [3.0, 0.0], [1.0, 1.0], [1.0, 0.0])
    found = cosine(a, b)
    assert found.tolist() == pytest.approx([1.0, 2**-0.5, 0.0, -1.0])
    found.sum().backward()
    assert torch.isfinite(a.grad).all()  # type: ignore[arg-type]
    assert cosine(b, 0 * b).tolist() == [0.0] * 4


def test_moon_by_hand():
    """Features W x with W = w as a 2 x 2 matrix, x = (1, 0): z = (1, 0), z_glob = (0, 1), z_prev = (1, 0).

    sim is 0 and 1, temperature .5: l = -log(1 / (1 + e^2)) = 2.1269; a client without a last result has l = 0.
    """

    class Forward:
        def __call__(self, vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            z = x @ vector.view(2, 2).T
            return z.sum(-1), z

        def loss(self, output: Tensor, y: Tensor) -> Tensor:
            return (output - y).square()

    work = moon(PLAIN, 3.0, 0.5)
    theta, x = torch.tensor([0.0, 9, 1, 9], dtype=torch.float64), rows([1.0, 0.0], [2.0, 0.0])
    w, y = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64), torch.tensor([0.0, 0.0], dtype=torch.float64)
    kept = {"prev": rows([5.0, 0, 0, 0]), "met": rows([1.0])}
    _, state = work.begin({"theta": theta}, kept, seen(1))
    anchors = {n: v[0] if v.dim() > 1 else v for n, v in state.items() if isinstance(v, Tensor)}
    assert work.objective is not None
    found = work.objective(Forward(), w, (x, y), anchors)
    assert found.tolist() == pytest.approx([1 + 3 * 2.126928, 4 + 3 * 2.126928])
    strange = work.objective(Forward(), w, (x, y), anchors | {"prev": 0 * theta, "met": torch.zeros(1)})
    assert strange.tolist() == [1.0, 4.0]
    up, memory = work.finish(rows([1.0, 2, 3, 4]), {"theta": theta}, state, kept, seen(1))
    assert torch.equal(memory["prev"], rows([1.0, 2, 3, 4])) and memory["met"].tolist() == [[1.0]]
    assert moon(PLAIN, 0.0, 0.5).objective is None


# ---- Ditto


def test_ditto_by_hand():
    """f = |w|^2 / 2, lr .5, lam 2, theta (2, 2); client 0 has v = (4, 0), client 1 is new: v = theta.

    w = theta - .5 theta = (1, 1). v_0 = (4, 0) - .5 ((4, 0) + 2 (2, -2)) = (0, 2); v_1 = (2, 2) - .5 (2, 2) = (1, 1).
    """
    work = ditto(PLAIN, 2.0)
    theta = torch.tensor([2.0, 2.0], dtype=torch.float64)
    kept = {"v": rows([4.0, 0.0], [0.0, 0.0]), "met": rows([1.0], [0.0])}
    assert work.personal is not None
    assert torch.equal(work.personal({"theta": theta}, kept), rows([4.0, 0.0], [2.0, 2.0]))
    w, up, memory = walk(work, theta, kept, lambda p: p.clone(), 1)
    assert torch.allclose(up["u"], rows([-1.0, -1.0], [-1.0, -1.0])) and list(up) == ["u"]
    assert torch.allclose(memory["v"], rows([0.0, 2.0], [1.0, 1.0])) and memory["met"].tolist() == [[1.0], [1.0]]
    assert torch.equal(work.personal({"theta": 9 * theta}, memory), memory["v"])


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"optimiser": "adam"}, {"clip_grad": 0.3}])
def test_ditto_without_a_pull_is_its_own_local_optimiser(options):  # type: ignore[no-untyped-def]
    """lam 0, from theta: v goes exactly where w goes, each with its own optimiser's state."""
    work = ditto(local({"lr": 0.1, **options}), 0.0)
    kept = {"v": torch.zeros(2, 3, dtype=torch.float64), "met": torch.zeros(2, 1, dtype=torch.float64)}
    start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    w, _, memory = walk(work, start, kept, lambda p: p.pow(3), 4)
    assert torch.equal(memory["v"], w) and not torch.equal(w[0], start)
