"""Noise on gradients: what each defence promises, and where its noise comes from."""

import inspect
import itertools

import pytest
import torch

from manyloom.privacy.source import Injected, Secret
from manyloom.vertical import defence
from manyloom.vertical.settings import Cut

SECRET = Secret()


def repeated() -> Injected:
    """The same bytes again and again, for tests alone."""
    count = itertools.count()
    return Injected(lambda n: bytes((next(count) * 37) % 256 for _ in range(n)))


def many(g: torch.Tensor, cut: Cut, n: int = 3000) -> torch.Tensor:
    return torch.stack([defence.defended(g, cut, SECRET) for _ in range(n)])


def test_normal_numbers():
    x = defence.normal(SECRET, 200, 501)
    assert x.shape == (200, 501) and torch.isfinite(x).all()
    assert abs(float(x.mean())) < 0.02 and abs(float(x.var()) - 1) < 0.03
    assert abs(float((x.abs() < 1.0).double().mean()) - 0.6827) < 0.01


def test_max_norm_makes_expected_norms_alike_and_keeps_the_mean():
    g = torch.tensor([[3.0, 4.0, 0.0], [0.3, 0.0, 0.1], [0.0, -1.0, 1.0]])
    seen = many(g, Cut())
    assert torch.allclose(seen.square().sum(2).mean(0), torch.full((3,), 25.0), rtol=0.15)
    assert torch.equal(seen[:, 0], g[:1].expand(3000, 3))  # the largest needs no noise
    assert (seen.mean(0) - g).abs().max() < 0.4
    across = seen[:, 1] - (seen[:, 1] @ g[1] / g[1].square().sum())[:, None] * g[1]
    assert across.abs().max() < 1e-4  # noise along the gradient alone


def test_a_zero_gradient_does_not_show():
    g = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    seen = many(g, Cut())
    assert (seen[:, 0].abs().sum(1) > 0).all()
    assert abs(float(seen[:, 0].square().sum(1).mean()) - 4.0) < 0.6
    assert torch.allclose(seen[:, 0].square().mean(0), torch.full((3,), 4 / 3), rtol=0.25)  # in every direction


def test_all_zero_stays_zero_and_nothing_is_nothing():
    assert torch.equal(defence.defended(torch.zeros(3, 2), Cut(), SECRET), torch.zeros(3, 2))
    assert defence.defended(torch.zeros(0, 2), Cut(), SECRET).shape == (0, 2)


def test_isotropic_spread():
    g = torch.tensor([[3.0, 4.0], [0.1, 0.0]])
    seen = many(g, Cut(defence="isotropic", strength=0.5))
    assert torch.allclose(seen.var(0), torch.full((2, 2), 0.25 / 2 * 25), rtol=0.15)


def test_none_changes_nothing():
    g = torch.randn(4, 3)
    assert defence.defended(g, Cut(defence="none"), SECRET) is g


@pytest.mark.parametrize("cut", [Cut(), Cut(defence="isotropic")])
def test_noise_comes_from_the_source_alone(cut):
    g = torch.randn(8, 4)
    torch.manual_seed(0)
    first = defence.defended(g, cut, SECRET)
    torch.manual_seed(0)
    assert not torch.equal(first, defence.defended(g, cut, SECRET))
    assert torch.equal(defence.defended(g, cut, repeated()), defence.defended(g, cut, repeated()))
    assert "seed" not in inspect.signature(defence.defended).parameters
