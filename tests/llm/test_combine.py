"""Combining adapters, against dense formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from manyloom.core.flat import Layout
from manyloom.llm.adapters import Pair, pairs_of
from manyloom.llm.combine import averaged, error_of, refactored, stack, svd

M, N = 7, 5


def factors(k: int, r: int, m: int = M, n: int = N, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    b, a = torch.randn(k, m, r, generator=rng).double(), torch.randn(k, r, n, generator=rng).double()
    w = torch.rand(k, generator=rng).double() + 0.1
    return b, a, w / w.sum()


def dense(b: Tensor, a: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("k,kmr,krn->mn", w, b, a)


def best(x: Tensor, rank: int) -> Tensor:
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("r", [1, 3, 5])  # 5 = n; S > min(m, n) for k = 8
@pytest.mark.parametrize("m, n", [(7, 5), (5, 9)])
def test_it_is_the_best_product_of_that_rank_for_unequal_weights_and_scales(k: int, r: int, m: int, n: int) -> None:
    b, a, p = factors(k, r, m, n)
    s = torch.linspace(0.5, 2.0, k).double()
    ideal = dense(b, a, p * s)
    for scale in (2.0, 0.25):
        found = refactored(stack(b, a, p * s), r, scale)
        torch.testing.assert_close(scale * found.b @ found.a, best(ideal, r), rtol=0, atol=1e-10)
        torch.testing.assert_close(found.b.norm(dim=0), found.a.norm(dim=1))  # balanced
        if k == 1:
            torch.testing.assert_close(scale * found.b @ found.a, ideal, rtol=0, atol=1e-12)


def test_in_float32_the_error_is_that_of_float32() -> None:
    b, a, p = factors(4, 2)
    found = refactored(stack(b.float(), a.float(), p), 4, 1.0)
    torch.testing.assert_close(found.b @ found.a, best(dense(b, a, p), 4), rtol=0, atol=1e-5)


def test_the_largest_entry_of_each_left_vector_is_positive_so_that_a_run_repeats() -> None:
    b, a, p = factors(3, 2)
    found = refactored(stack(b, a, p), 4, 1.0)
    assert bool((found.b.gather(0, found.b.abs().argmax(0)[None]) > 0).all())
    turned = refactored(stack(-b, -a, p), 4, 1.0)
    torch.testing.assert_close(turned.b, found.b)
    torch.testing.assert_close(turned.a, found.a)


def test_energy_keeps_the_fewest_directions() -> None:
    b, a = torch.eye(4).double()[None], torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.1])).double()[None]
    of = stack(b, a, torch.ones(1))
    assert [refactored(of, 4, 1.0, tau).live for tau in (0.1, 0.9, 0.96, 0.9999, 1.0)] == [1, 2, 3, 4, 4]
    assert refactored(of, 2, 1.0, 0.9999).live == 2
    assert refactored(stack(b * 0, a, torch.ones(1)), 4, 1.0, 0.9).live == 0


def test_the_error_from_factors_is_the_dense_figure() -> None:
    b, a, p = factors(4, 2)
    b0, a0, _ = factors(1, 2, seed=1)
    b1, a1, _ = factors(1, 2, seed=2)
    s = 1.5
    one = torch.full((1,), s).double()
    ideal = dense(b, a, p * s)
    want = (s * b1[0] @ a1[0] - ideal).norm() / ((ideal - s * b0[0] @ a0[0]).norm() + 1e-12)
    found = error_of(stack(b1, a1, one), stack(b, a, p * s), stack(b0, a0, one))
    torch.testing.assert_close(found, want, rtol=1e-12, atol=0)


class Net(nn.Module):
    """Two adapted matrices and a head, named as PEFT names them."""

    def __init__(self, r: int) -> None:
        super().__init__()
        self.base_model = nn.ModuleDict({"model": nn.ModuleDict({"q": _factors(r, 7, 5), "v": _factors(r, 4, 6)})})
        self.head = nn.Linear(2, 1, bias=False)


def _factors(r: int, m: int, n: int) -> nn.Module:
    half = {"lora_A": nn.Linear(n, r, bias=False), "lora_B": nn.Linear(r, m, bias=False)}
    return nn.ModuleDict({name: nn.ModuleDict({"default": part}) for name, part in half.items()})


def cohort(
    r: int = 2, k: int = 3, s: float = 2.0, dtype: torch.dtype = torch.float64
) -> tuple[Layout, tuple[Pair, ...], Tensor, Tensor, Tensor]:
    layout = Layout.of(Net(r).to(dtype))
    rng = torch.Generator().manual_seed(3)
    theta = torch.randn(layout.d, generator=rng).to(dtype)
    u = 0.1 * torch.randn(k, layout.d, generator=rng).to(dtype)
    return layout, pairs_of(layout, s), theta, u, torch.tensor([3.0, 1.0, 4.0, 2.0][:k])


def ideal_of(layout: Layout, pair: Pair, theta: Tensor, u: Tensor, w: Tensor) -> Tensor:
    views = layout.views((theta + u).double())
    return dense(views[pair.b], views[pair.a], w.double() / w.double().sum() * pair.scale)


def product(layout: Layout, pair: Pair, theta: Tensor) -> Tensor:
    views = layout.views(theta.double())
    return pair.scale * views[pair.b] @ views[pair.a]


def test_pairs_know_their_module() -> None:
    assert [p.module for p in cohort()[1]] == ["q", "v"]


def test_the_mean_of_factors_is_not_the_mean_of_products_and_says_by_how_much() -> None:
    layout, pairs, theta, u, w = cohort()
    rule = averaged(pairs, layout)
    out, state = rule.reduce({"u": u}, w, rule.init(theta))
    want = (w.double() / w.sum())[:, None].mul(u).sum(0)
    torch.testing.assert_close(out["u"], want)
    errors: list[Tensor] = []
    for pair in pairs:
        ideal = ideal_of(layout, pair, theta, u, w)
        moved = (ideal - product(layout, pair, theta)).norm()
        errors.append((product(layout, pair, theta + want) - ideal).norm() / moved)
    torch.testing.assert_close(out["agg_error"], torch.stack([sum(errors) / 2, max(errors)]), rtol=1e-9, atol=0)
    assert float(out["agg_error"][0]) > 1e-3
    torch.testing.assert_close(state["start"], theta + want)


def test_svd_gives_the_best_rank_r_of_each_matrix_and_the_mean_of_the_rest() -> None:
    layout, pairs, theta, u, w = cohort()
    rule = svd(pairs, layout, seed=5)
    out, state = rule.reduce({"u": u}, w, rule.init(theta))
    new = theta + out["u"]
    for pair in pairs:
        ideal = ideal_of(layout, pair, theta, u, w)
        torch.testing.assert_close(product(layout, pair, new), best(ideal, 2), rtol=0, atol=1e-10)
    head = layout.mask(["head*"])
    torch.testing.assert_close(out["u"][head], (w / w.sum()).double() @ u[:, head])
    torch.testing.assert_close(state["start"], new)
    assert int(state["round"]) == 2
    plain = averaged(pairs, layout)
    beside = plain.reduce({"u": u}, w, plain.init(theta))[0]["agg_error"]
    assert float(out["agg_error"][0]) < float(beside[0])
    # the second round starts where the first ended
    again, _ = rule.reduce({"u": torch.zeros_like(u)}, w, state)
    for pair in pairs:
        after = product(layout, pair, new + again["u"])
        torch.testing.assert_close(after, product(layout, pair, new), atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype, most", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_exact_where_the_rank_is_enough(dtype: torch.dtype, most: float) -> None:
    layout, pairs, theta, u, w = cohort(r=6, k=4, dtype=dtype)  # r >= min(m, n)
    rule = svd(pairs, layout)
    assert float(rule.reduce({"u": u}, w, rule.init(theta))[0]["agg_error"][1]) < most
    layout, pairs, theta, u, w = cohort(k=1, dtype=dtype)
    assert float(svd(pairs, layout).reduce({"u": u}, w, rule.init(theta))[0]["agg_error"][1]) < most
    plain = averaged(pairs, layout)
    assert float(plain.reduce({"u": u}, w, plain.init(theta))[0]["agg_error"][1]) < most
    alike = u.expand(3, -1)
    for each in (svd(pairs, layout), plain):
        assert float(each.reduce({"u": alike}, torch.ones(3), each.init(theta))[0]["agg_error"][1]) < most


def test_frozen_halves_make_the_mean_exact() -> None:
    layout, pairs, theta, u, w = cohort(k=4)
    for half in ("*lora_A*", "*lora_B*"):  # ffa and both turns of rolora
        own = u.masked_fill(layout.mask([half]), 0.0)
        rule = averaged(pairs, layout)
        assert float(rule.reduce({"u": own}, w, rule.init(theta))[0]["agg_error"][1]) < 1e-12


def test_dead_directions_get_a_fresh_row_of_a_and_add_nothing() -> None:
    layout, pairs, theta, u, w = cohort(r=3)
    views = layout.views(theta)
    for pair in pairs:
        views[pair.b][:, 1:] = 0
    own = u * 0
    rule = svd(pairs, layout, seed=7)
    out, state = rule.reduce({"u": own}, w, rule.init(theta))
    new = layout.views(theta + out["u"])
    for pair in pairs:
        a, b = new[pair.a], new[pair.b]
        assert bool((b[:, 1:] == 0).all())
        torch.testing.assert_close(a.norm(dim=1), a[0].norm().expand(3))
        assert float(torch.dot(a[1], a[2]).abs() / a[0].norm() ** 2) < 0.999
        torch.testing.assert_close(product(layout, pair, theta + out["u"]), product(layout, pair, theta))
    same = rule.reduce({"u": own}, w, rule.init(theta))[0]["u"]
    assert torch.equal(same, out["u"])
    later = rule.reduce({"u": own}, w, rule.init(theta) | {"round": torch.tensor(2)})[0]["u"]
    other = svd(pairs, layout, seed=8).reduce({"u": own}, w, rule.init(theta))[0]["u"]
    assert not torch.equal(later, out["u"]) and not torch.equal(other, out["u"])
    assert not torch.equal(new[pairs[0].a][1, :2], new[pairs[1].a][1, :2])
    assert int(state["round"]) == 2


def test_all_zero_adapters_stay_as_they_were_sent() -> None:
    layout, pairs, theta, u, w = cohort()
    for pair in pairs:
        layout.views(theta)[pair.b].zero_()
    rule = svd(pairs, layout)
    out, _ = rule.reduce({"u": u * 0}, w, rule.init(theta))
    assert not out["u"].any()
    assert torch.isfinite(out["agg_error"]).all()
    none, state = rule.reduce({"u": u}, w * 0, rule.init(theta))  # nobody counts
    assert not none["u"].any() and int(state["round"]) == 1
