"""The quantised cut: unbiased, nothing clamped, bytes as stated."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.slots import size_bytes
from manyloom.transforms.bits import uniforms
from manyloom.vertical import cut

F32 = torch.float32


def draw(i: int) -> np.ndarray:
    return cut.key(3, 1, i, "shop", "up")


def there_and_back(x: torch.Tensor, bits: int, i: int = 0, scale: float = 1.0) -> torch.Tensor:
    return cut.decode(cut.encode(x, "z", bits, draw(i), scale), "z", bits, *x.shape, x.dtype, scale)


@pytest.mark.parametrize(("bits", "row"), [(32, 64), (16, 32), (8, 20), (4, 12), (2, 8)])
def test_bytes_a_row(bits, row):
    x = torch.randn(7, 16)
    body = cut.encode(x, "z", bits, draw(0))
    assert size_bytes(body) == 7 * row == size_bytes(cut.like("z", bits, 7, 16))
    assert set(body) <= set(cut.names("z"))


def drift(bits: int, decoded) -> float:
    """The largest |mean - x| over the coordinates, in steps of the grid; chance alone stays below 0.025 times 5."""
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(bits)).double()
    step = (x.amax(1) - x.amin(1)) / (2**bits - 1)
    seen = torch.stack([decoded(x, i) for i in range(400)])
    return float(((seen.mean(0) - x).abs() / step[:, None]).max())


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_unbiased(bits):
    assert drift(bits, lambda x, i: there_and_back(x, bits, i)) < 0.125


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("fault", ["nearest level", "range too small"])
def test_the_test_of_bias_can_fail(bits, fault):
    """Two faults one could make: rounding to the nearest, and a range inside of which not all numbers lie."""

    def wrong(x, i):
        top = 2**bits - 1
        lo, hi = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
        sc = (hi - lo) / top * (0.9 if fault == "range too small" else 1.0)
        u = 0.5 if fault == "nearest level" else uniforms(draw(i), x.numel()).view_as(x)
        return ((x - lo) / sc + u).floor().clamp(0, top) * sc + lo

    assert drift(bits, wrong) > 0.125


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False), min_size=3, max_size=3),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([8, 4, 2]),
)
def test_no_code_is_cut_off(rows, bits):
    x = torch.tensor(rows, dtype=torch.float64)
    top = 2**bits - 1
    lo, sc = (t.double() for t in cut.ranges(x, top))
    assert (lo <= x.amin(1)).all() and (lo + top * sc >= x.amax(1)).all()
    error = (there_and_back(x, bits) - x).abs()
    assert (error <= sc[:, None] * (1 + 1e-9) + 1e-300).all()


def test_constant_rows_are_exact_where_bfloat16_is():
    x = torch.tensor([[0.0, 0.0], [-1.5, -1.5]])
    body = cut.encode(x, "z", 4, draw(0))
    assert torch.equal(there_and_back(x, 4), x)
    assert body["z"].tolist() == [0, 0] and body["z.range"][:, 1].tolist() == [0.0, 0.0]


def test_the_next_bfloat16():
    x = torch.tensor([1.0, -1.0, 0.0, -0.0, 3.0e38], dtype=torch.bfloat16)
    up = cut.above(x)
    assert (up > x).all()
    half_way = (x[:2].double() + up[:2].double()) / 2
    assert set(half_way.bfloat16().tolist()) <= set(x[:2].tolist()) | set(up[:2].tolist())  # nothing lies between


def test_half_precision_keeps_small_gradients():
    g = torch.full((256, 4), 3e-8)
    assert torch.allclose(there_and_back(g, 16, scale=256), g, rtol=1e-2)
    assert not torch.allclose(there_and_back(g, 16, scale=1), g, rtol=1e-2)
    assert torch.isfinite(there_and_back(torch.full((1, 4), 1e9), 16)).all()


def test_rounding_repeats_and_differs():
    x = torch.randn(5, 16)
    first = cut.encode(x, "z", 2, cut.key(1, 1, 0, "shop", "up"))["z"]
    assert torch.equal(first, cut.encode(x, "z", 2, cut.key(1, 1, 0, "shop", "up"))["z"])
    others = [(2, 1, 0, "shop", "up"), (1, 2, 0, "shop", "up"), (1, 1, 1, "shop", "up"), (1, 1, 0, "bank", "up"),
              (1, 1, 0, "shop", "down")]  # fmt: skip
    assert not any(torch.equal(first, cut.encode(x, "z", 2, cut.key(*k))["z"]) for k in others)


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
def test_what_does_not_fit_is_refused_by_name(bits):
    body = cut.encode(torch.randn(3, 4), "z", bits, draw(0))
    for name in body:
        rest = {n: t for n, t in body.items() if n != name}
        for wrong in (rest, rest | {name: body[name].to(torch.int32)}, rest | {name: body[name][:1]}):
            with pytest.raises(ValueError, match=f'"{name}"'):
                cut.decode(wrong, "z", bits, 3, 4, F32)


@pytest.mark.parametrize("bits", [32, 16, 8])
def test_numbers_that_are_none_are_refused(bits):
    x = torch.randn(3, 4)
    x[1, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        cut.decode(cut.encode(x, "z", bits, draw(0)), "z", bits, 3, 4, F32)


@pytest.mark.parametrize("bits", [32, 16, 8, 4, 2])
def test_a_body_is_at_most_8_mib(bits):
    for d in (1, 3, 16, 257):
        assert size_bytes(cut.like("z", bits, cut.rows_at_once(bits, d), d)) <= 8 << 20
