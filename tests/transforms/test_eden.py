"""EDEN against its table, and a rotation that is none."""

import math

import numpy as np
import pytest
import torch

from manyloom.transforms import eden, qsgd, top_k, uniform
from manyloom.transforms.eden import centroids
from manyloom.transforms.rotate import block, padded, rotate, unrotate
from tests.transforms.every import draw, error, normal, through

# Lloyd-Max centroids of N(0, 1), the positive half or its start, and the distortions D and D/(1 - D)
CENTROIDS = {
    1: [0.79788],
    2: [0.45278, 1.51042],
    3: [0.24509, 0.75601, 1.34391, 2.15195],
    4: [0.12840, 0.38805, 0.65676, 0.94234, 1.25623, 1.61805, 2.06902, 2.73259],
    5: [0.06589, 0.19805, 0.33138, 0.46670],
    6: [0.03341, 0.10028, 0.16730, 0.23457],
    7: [0.01683, 0.05049, 0.08417, 0.11789],
    8: [0.00845, 0.02534, 0.04223, 0.05913],
}
BIASED = {1: 0.363380, 2: 0.117482, 3: 0.034548, 4: 0.009501, 5: 0.002505, 6: 0.000644, 7: 0.000163, 8: 0.000041}
UNBIASED = {1: 0.570796, 2: 0.133121, 3: 0.035784, 4: 0.009592, 5: 0.002511, 6: 0.000645, 7: 0.000164, 8: 0.000041}
DIGIT = 5e-7  # half of the tables' last


@pytest.mark.parametrize("bits", range(1, 9))
def test_centroids_are_lloyd_max(bits):
    c = centroids(bits)
    assert torch.equal(c, -c.flip(0)) and bool((c.diff() > 0).all())
    assert c[len(c) // 2 :][: len(CENTROIDS[bits])].tolist() == pytest.approx(CENTROIDS[bits], abs=6e-6)
    edges = torch.cat([torch.tensor([-math.inf]), (c[1:] + c[:-1]) / 2, torch.tensor([math.inf])]).double()
    mass = torch.diff(torch.erfc(-edges / math.sqrt(2)) / 2)
    d = 1 - float((mass * c.double().square()).sum())
    assert d == pytest.approx(BIASED[bits], abs=DIGIT)
    assert d / (1 - d) == pytest.approx(UNBIASED[bits], abs=2 * DIGIT)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("make", [normal, lambda *a: normal(*a).exp()], ids=["normal", "lognormal"])
def test_the_table(bits, make):
    x = make(24, 40_960)
    assert error(x, through(eden(bits), x)) == pytest.approx(UNBIASED[bits], rel=0.02, abs=DIGIT)
    if bits == 1:
        assert error(x, through(eden(bits, biased=True), x)) == pytest.approx(BIASED[bits], rel=0.02)


SPARSE = {"e1": [1.0], "two": [1.0, 1.0], "one and a half": [1.0, 0.5], "three": [1.0, 1.0, 1.0]}


def spikes(values, d):
    x = torch.zeros(1, d)
    x[0, : len(values)] = torch.tensor(values)
    return x


@pytest.mark.parametrize("d", [8192, 131_072])
@pytest.mark.parametrize("values", SPARSE.values(), ids=SPARSE)
def test_sparse_vectors_are_spread(values, d):
    """Also over blocks: these lie in the first of two, and of 32."""
    x = spikes(values, d).expand(max(4, 400_000 // d), -1)
    for bits in (1, 3):
        assert error(x, through(eden(bits), x)) == pytest.approx(UNBIASED[bits], rel=0.02)


def test_one_round_would_not_do():
    """e1 + e2 then is a vector of which half is zero: a sign of each is as wrong as nothing at all."""
    x = spikes([1.0, 1.0], 4096)
    once = rotate(x[0], np.array([5], np.uint64), times=1)
    assert float((once.abs() < 1e-6).float().mean()) == 0.5
    twice = rotate(x[0], np.array([5], np.uint64))
    assert float((twice.abs() < 1e-6).float().mean()) < 0.2
    vnmse = 4096 * float(x[0].square().sum()) * 4096 / float(once.abs().sum()) ** 2 - 1
    assert vnmse == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("d", [1, 2, 3, 7, 64, 65, 300, 4096, 4810, 10_000])
def test_a_rotation_keeps_lengths_and_comes_back(d):
    key = np.array([9], np.uint64)
    x, y = normal(2, d, 3)
    rx, ry = rotate(x, key), rotate(y, key)
    assert rx.shape == (padded(d),)
    torch.testing.assert_close(torch.dot(rx, ry) / padded(d), torch.dot(x, y), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(unrotate(rx, d, key), x, atol=1e-5, rtol=1e-5)


def test_padding_is_little_where_it_costs():
    assert padded(1_000_000) / 1_000_000 < 1.004
    for d in (*range(1, 3000, 7), 4810, 7850, 54321, 10**7):
        b = block(d)
        assert padded(d) % b == 0 and padded(d) - d < b and b & (b - 1) == 0
        assert padded(d) <= max(1.125 * d, 64 * math.ceil(d / 64))


def test_own_rotations_average_out():
    """20 clients, the same update: their errors cancel only if each rotates its own way."""
    x = normal(1, 8192).expand(20, -1)
    own = through(eden(1), x).mean(0, keepdim=True)
    assert error(x[:1], own) == pytest.approx(UNBIASED[1] / 20, rel=0.1)
    alike = draw(20)._replace(ids=np.zeros(20, np.uint64))
    same = through(eden(1), x, alike).mean(0, keepdim=True)
    assert error(x[:1], same) == pytest.approx(UNBIASED[1], rel=0.1)


@pytest.mark.parametrize(
    ("t", "expected", "wide"),
    [
        (qsgd(1), 70.2, 0.1),
        (qsgd(3), 23.0, 0.1),
        (qsgd(7), 9.32, 0.1),
        (qsgd(127), 0.0852, 0.1),
        (uniform(1), 11.7, 0.5),
        (uniform(2), 0.960, 0.5),
        (uniform(4), 0.0376, 0.5),
        (uniform(8), 0.00013, 0.5),
        (top_k(0.01), 0.919, 0.03),
        (top_k(0.05), 0.726, 0.03),
        (top_k(0.1), 0.564, 0.03),
    ],
    ids=lambda x: x.name if isinstance(x, tuple) else str(x),
)
def test_the_others_on_a_normal_vector(t, expected, wide):
    x = normal(10, 8192)
    assert error(x, through(t, x)) == pytest.approx(expected, rel=wide)


def test_magnitudes_do_not_matter():
    x = normal(4, 500)
    want = through(eden(2), x)
    for by in (2.0**-100, 2.0**90):
        torch.testing.assert_close(through(eden(2), x * by) / by, want, rtol=1e-4, atol=1e-5)
    least = torch.full((1, 64), 1e-45)
    assert bool(torch.isfinite(through(eden(1), least)).all())
