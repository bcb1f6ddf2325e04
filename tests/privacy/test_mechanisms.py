"""Integers and their noise: bounds that always hold, and where the bits come from."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from manyloom.core.errors import BadInput
from manyloom.privacy import adaptive, sampler
from manyloom.privacy.mechanisms import (
    choose_scale,
    clipped,
    decode,
    encode,
    fits,
    noised,
    norm,
    shrink,
    stochastic_round,
    within,
)
from manyloom.privacy.sampler import survival, table
from manyloom.privacy.source import Injected, Secret, counter


@pytest.mark.parametrize("sigma", [0.7, 4.0, 300.0])
def test_guide_search_and_far_tail_agree_with_exact_thresholds(sigma):
    """|X| = number of k with floor(F_k 2^63) > u, by plain counting; in the rare branch with 126 bits."""
    t = table(sigma)
    far = [int(math.ldexp(survival(sigma, k), 126)) for k in range(t.most)]
    thresholds = [f >> 63 for f in far]
    rng = np.random.default_rng(1)
    u = np.concatenate([rng.integers(2**31, 2**63, 2000), np.array([2**31, 2**40, 2**63 - 1])]).astype(np.uint64)
    got = sampler.magnitude(t, u, Injected(bytes))
    assert got.tolist() == [sum(x > int(v) for x in thresholds) for v in u]
    for first, second in [(0, 0), (0, 2**63 - 1), (5, 12345), (2**31 - 1, 77), (0, 1)]:
        bits = Injected(lambda n, v=second: (v << 1).to_bytes(n, "little"))
        answer = sampler.magnitude(t, np.array([first], np.uint64), bits)[0]
        assert answer == sum(f > (first << 63) + second for f in far)


def test_a_scale_that_no_table_serves_is_refused():
    for sigma in (0.0, -1.0, 2.0**20 + 1, math.nan):
        with pytest.raises(BadInput):
            table(sigma)


def test_no_seed_reaches_the_noise():
    draws = []
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        draws.append(noised(np.zeros(50, np.int64), 1000.0))
    assert (draws[0] != draws[1]).any()
    state = np.random.get_state()[1].copy()
    noised(np.zeros(5, np.int64), 10.0)
    assert (np.random.get_state()[1] == state).all()


def test_the_seam_for_tests_repeats_and_is_refused_in_production():
    bits = Injected(lambda n: counter(b"k" * 16)(bytes(n)))
    zero = np.zeros(100, np.int64)
    assert (noised(zero, 50.0, bits, testing=True) == noised(zero, 50.0, bits, testing=True)).all()
    with pytest.raises(BadInput) as told:
        noised(zero, 50.0, bits)
    assert told.value.code == "noise-not-secret"


def test_a_secret_stream_is_not_saved_and_goes_on():
    source = Secret()
    with pytest.raises(TypeError):
        pickle.dumps(source)
    assert source.draw(32) != source.draw(32) and len(source.commitment) == 64


def test_counter_mode_known_answer():
    """RFC 4493, section 4: AES-128 of the zero block under its key, which a zero IV begins with."""
    stream = counter(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"))
    assert stream(bytes(16)).hex() == "7df76b0c1ab899b33e42f047b91b546f"


any_update = hnp.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.integers(1, 40),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True),
)


@settings(deadline=None, max_examples=200)
@given(any_update, st.floats(1e-6, 1e3), st.sampled_from([8, 256, 2**18]), st.floats(0, 1))
def test_the_integer_norm_never_exceeds_the_scale(update, clip, scale, weight):
    for bits in (Secret(), Injected(bytes), Injected(lambda n: b"\xff" * n)):
        e = encode(update, clip, scale, bits, weight)
        assert int((e.q.astype(object) ** 2).sum()) <= scale**2
        assert e.finite == bool(np.isfinite(update).all()) and (e.finite or not e.q.any())
        assert not e.mended


@pytest.mark.parametrize("value", [5e-324, 1e-200, 1e20, 1e200, 1.7e308])
def test_extreme_norms(value):
    x = np.full(100, value)
    out, size = clipped(x, 1e-300 if value < 1e-100 else 1.0)
    assert np.isfinite(out).all() and norm(out) <= 1 + 1e-12
    assert size == pytest.approx(10 * value, rel=1e-12) or (size == math.inf and value > 1e308)
    assert out.any() and encode(x, 1.0, 2**10, Secret()).q.any() == (value > 1)


def test_float32_squares_do_not_overflow():
    """The naive sketch: norm^2 in float32 is inf, and the update becomes zero."""
    out, size = clipped(np.full(4, 1e20, np.float32), 1.0)
    assert size == pytest.approx(2e20) and out == pytest.approx(np.full(4, 0.5))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_non_finite_update_contributes_zero_and_is_told(poison):
    e = encode(np.array([1e9, poison, 0.0]), 1.0, 256, Secret())
    assert not e.finite and not e.q.any() and math.isnan(e.norm)


@settings(deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(-1e6, 1e6)))
def test_rounding_moves_a_coordinate_by_less_than_one(x):
    q = stochastic_round(x, Secret())
    assert (np.abs(q - x) < 1).all() and (q[x == np.floor(x)] == x[x == np.floor(x)]).all()


def test_the_norm_check_fails_what_float_error_let_through():
    assert within(np.array([3, 4]), 5) and not within(np.array([4, 4]), 5)
    assert not within(np.array([2**62, 2**62]), 2**18)  # the square would overflow


def test_clip_to_what_the_rounding_leaves_and_round_trip():
    d, scale = 50, 2**18
    x = np.ones(d)
    e = encode(x, 2.0, scale, Secret())
    assert e.norm == pytest.approx(math.sqrt(d))
    assert decode(e.q, 2.0, scale, 1.0) == pytest.approx(x * 2.0 * shrink(d, scale) / math.sqrt(d), abs=2 * 2.0 / scale)
    small = encode(x * 1e-2, 2.0, scale, Secret())
    assert decode(small.q, 2.0, scale, 1.0) == pytest.approx(x * 1e-2, abs=2.0 / scale)


def test_weight_comes_after_the_clip():
    full, half = (encode(np.full(4, 1e3), 1.0, 2**12, Injected(bytes), w).q for w in (1.0, 0.5))
    assert np.abs(full - 2 * half).max() <= 2
    for wrong in (1.5, -0.1, math.nan):
        with pytest.raises(BadInput):
            encode(np.ones(4), 1.0, 256, Secret(), wrong)


def test_scale():
    assert fits(8191, 2**31 // 8192 - 1) and not fits(8191, 2**31 // 8192)
    assert choose_scale(10, 0.1, 10) == 2**18
    assert choose_scale(10, 0.1, 10_000) < 2**18
    for d, z, n in [(10**6, 1.0, 1000), (1000, 30.0, 50), (10**6, 8.0, 100)]:
        scale = choose_scale(d, z, n)
        assert scale**2 > d and z * scale <= 2**20 and fits(scale, n)
    with pytest.raises(BadInput) as told:
        shrink(2**16, 2**8)
    assert told.value.code == "scale-too-small" and "512" in (told.value.mend or "")
    with pytest.raises(BadInput):
        choose_scale(10**9, 1000.0, 10)


def test_adaptive_split_costs_exactly_the_pair():
    for z, n in [(1.0, 100), (0.5, 20), (4.0, 100)]:
        b = adaptive.bit_noise(n)
        assert adaptive.split(z, b) ** -2 + (2 * b) ** -2 == pytest.approx(z**-2)
    with pytest.raises(BadInput) as told:
        adaptive.split(1.0, adaptive.bit_noise(10))
    assert told.value.code == "adaptive-cohort-too-small"


@pytest.mark.parametrize("start", [0.01, 0.9, 1.1, 50.0])
@pytest.mark.parametrize("quantile", [0.5, 0.8])
def test_adaptive_clip_converges_from_above_and_below(start, quantile):
    """With the sign or the fraction the wrong way round it runs to zero or infinity (seen elsewhere)."""
    norms = np.random.default_rng(0).lognormal(0.0, 0.5, 1000)
    clip = start
    for _ in range(150):
        bits = sum(adaptive.bit(float(v), clip) for v in norms)
        total = int(noised(np.array([bits]), 2 * adaptive.bit_noise(1000) * adaptive.BIT_SCALE)[0])
        clip = adaptive.next_clip(clip, adaptive.fraction(total, 1000), quantile)
    assert clip == pytest.approx(np.quantile(norms, quantile), rel=0.1)
