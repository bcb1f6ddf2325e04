"""Shares, graph, thresholds, masks, encoding: vectors, statistics and planted errors."""

from __future__ import annotations

import itertools
import math
import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.errors import BadInput
from manyloom.privacy.mechanisms import norm
from manyloom.privacy.source import Injected, Secret
from manyloom.secure import Control, Params, Policy, decode, encode, keys, masks, repeatable, shamir
from manyloom.secure.encoding import signed
from manyloom.secure.graph import corrupt, degree, hypergeometric, quorum_of_signers, ring, sound
from manyloom.secure.opening import rebuild
from tests.secure.playing import params

# ---- shares


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
@pytest.mark.parametrize("k,t", [(1, 1), (5, 1), (5, 3), (5, 5)])
def test_any_t_shares_give_the_secret_back(secret: bytes, k: int, t: int) -> None:
    points = list(enumerate(shamir.split(secret, k, t), 1))
    for part in itertools.combinations(points, t):
        assert shamir.secret_of(part) == secret
        assert shamir.secret_of(part[::-1]) == secret


def test_shares_of_a_known_polynomial() -> None:
    shares = shamir.split((7).to_bytes(32, "little"), 3, 3, below=_terms(2, 3))
    assert [int.from_bytes(s, "little") for s in shares] == [7 + 3 * x + 2 * x * x for x in (1, 2, 3)]
    big = shamir.split(b"\xff" * 32, 2, 2, below=_terms(200))  # beyond 2^256, a value 33 bytes hold
    assert int.from_bytes(big[0], "little") == 2**256 + 199 and len(big[0]) == 33


def _terms(*values: int):
    given = iter(values)
    return lambda n: next(given)


def test_fewer_shares_say_nothing() -> None:
    for secret in (bytes(32), b"\xff" * 32):
        low = np.array([shamir.split(secret, 3, 2)[0][0] for _ in range(4000)])
        counts = np.bincount(low >> 4, minlength=16)
        assert ((counts - 250) ** 2 / 250).sum() < 45  # chi-squared of 15 degrees, 1e-4


def test_a_wrong_share_is_found_and_named() -> None:
    secret = secrets.token_bytes(32)
    points = list(enumerate(shamir.split(secret, 7, 3), 1))
    for liar in (1, 5):
        bad = [(x, bytes(33)) if x == liar else (x, y) for x, y in points]
        opened = rebuild(bad, 3, lambda s: s == secret)
        assert opened is not None and opened.secret == secret and opened.liars == [liar]
    assert rebuild([(x, bytes(33)) if x < 3 else (x, y) for x, y in points[:3]], 3, lambda s: s == secret) is None
    with pytest.raises(ValueError, match="one place"):
        shamir.combine([points[0], points[0]])
    with pytest.raises(ValueError, match="can't share"):
        shamir.split(secret, 2, 3)


# ---- graph

TABLE = [  # n, gamma, delta_drop, collusion only at kappa 40 (k, t, x, a), active at kappa 80 (k, t, x, a, w)
    (30, ".10", ".10", (22, 4, 3, 19), (10, 7, 3, 7, 2)),
    (50, ".05", ".10", (20, 3, 2, 15), (14, 9, 2, 9, 2)),
    (50, ".20", ".20", (40, 11, 10, 30), (32, 22, 10, 22, 6)),
    (100, ".05", ".10", (20, 6, 5, 10), (26, 16, 5, 16, 3)),
    (100, ".10", ".10", (24, 11, 10, 14), (32, 22, 10, 22, 6)),
    (100, ".20", ".20", (40, 21, 20, 21), (62, 42, 20, 42, 11)),
    (100, ".33", ".10", (44, 32, 31, 34), (54, 44, 33, 44, 17)),
    (300, ".05", ".10", (28, 14, 13, 14), (52, 34, 15, 34, 8)),
    (300, ".10", ".20", (50, 24, 23, 24), (118, 75, 30, 75, 16)),
    (1000, "0", ".10", (18, 3, 0, 6), (36, 19, 0, 19, 1)),
    (1000, ".05", ".10", (36, 18, 17, 19), (96, 67, 35, 67, 19)),
    (1000, ".10", ".10", (46, 26, 25, 26), (124, 90, 54, 90, 28)),
    (1000, ".10", ".20", (66, 31, 30, 32), (234, 154, 71, 154, 37)),
    (1000, ".20", ".20", (98, 54, 53, 54), (360, 251, 139, 251, 71)),
    (10000, ".05", ".10", (42, 21, 20, 22), (126, 88, 46, 88, 25)),
    (10000, ".10", ".10", (54, 30, 29, 31), (164, 119, 70, 119, 37)),
    (10000, ".20", ".20", (120, 65, 64, 65), (632, 441, 243, 441, 125)),
]


@pytest.mark.parametrize("n,gamma,drop,semi,active", TABLE)
def test_degrees_and_thresholds(n: int, gamma: str, drop: str, semi: tuple[int, ...], active: tuple[int, ...]) -> None:
    assert degree(n, gamma, drop, 40, "semi", small=0)[:4] == semi
    assert tuple(degree(n, gamma, drop, 80, "active", small=0)) == active


def test_active_at_forty_bits() -> None:
    for gamma, drop, want in ((".05", ".10", (78, 52, 24, 52, 13)), (".10", ".10", (100, 70, 37, 70, 20)),
                              (".20", ".20", (310, 212, 110, 212, 57))):  # fmt: skip
        assert tuple(degree(1000, gamma, drop, 40, "active")) == want


def test_small_cohorts_all_know_all() -> None:
    assert degree(4, ".1", ".1", 80, "active")[:2] == (3, 2)
    assert degree(50, ".05", ".1", 80, "active").k == 49


def test_what_no_graph_survives_is_refused() -> None:
    with pytest.raises(BadInput, match="secure sum over 100") as error:
        degree(100, "0.45", "0.45", 80, "active")
    assert "delta_drop" in (error.value.mend or "")
    assert sound(100, 32, 21, "0.1", "0.1", 80, "active") and sound(100, 31, 22, "0.1", "0.1", 80, "active")
    assert sound(100, 32, 22, "0.1", "0.1", 80, "active") is None


def test_more_security_takes_no_fewer_neighbours() -> None:
    found = [degree(1000, "0.1", "0.1", kappa, "active")[:2] for kappa in (20, 40, 60, 80)]
    assert found == sorted(found) and [t for _, t in found] == sorted(t for _, t in found)


def test_exact_decimals_and_distributions() -> None:
    assert corrupt("0.29", 100) == 29
    np.testing.assert_allclose(hypergeometric(50, 7, 20).sum(), 1, rtol=1e-12)
    exact = math.comb(7, 3) * math.comb(43, 17) / math.comb(50, 20)
    np.testing.assert_allclose(hypergeometric(50, 7, 20)[3], exact, rtol=1e-12)


def test_two_quorums_share_an_honest_signer() -> None:
    for n in range(3, 60):
        for c in range(n // 2):
            assert 2 * quorum_of_signers(n, c) - n > c


def test_the_ring_is_regular_symmetric_and_new_each_time() -> None:
    uids = list(range(5, 65))
    one, two = ring(b"a" * 32, uids, 10), ring(b"b" * 32, uids, 10)
    assert one != two and one == ring(b"a" * 32, uids[::-1], 10)
    for around in (one, two):
        assert all(len(v) == 10 and u not in v and all(u in around[w] for w in v) for u, v in around.items())
    near = sum(6 in ring(bytes([i % 256, i // 256]) + bytes(30), uids, 10)[5] for i in range(2000))
    assert abs(near / 2000 - 10 / 59) < 0.034  # four standard deviations


# ---- masks


def _chi(words: np.ndarray) -> float:
    counts = np.bincount(words.view(np.uint8), minlength=256)
    expected = counts.sum() / 256
    return float(((counts - expected) ** 2 / expected).sum())


def test_masked_constants_look_uniform_and_a_planted_error_does_not() -> None:
    limit = 255 + 5 * math.sqrt(2 * 255)
    for sign in (1, -1):
        x = np.full(200_001, 50, np.uint32)
        masks.apply(x, [(secrets.token_bytes(16), sign)])
        assert _chi(x) < limit
    short = np.full(200_001, 50, np.uint32)
    masks.apply(short[:1000], [(secrets.token_bytes(16), 1)])  # the sketch's mask: 1000 long
    assert _chi(short) > 10 * limit
    floats = np.full(200_001, 50.0) + np.random.default_rng(0).normal(size=200_001)  # and its normal one
    assert _chi(floats.astype(np.uint32)) > 10 * limit
    folded = np.full(200_001, 50, np.uint32) + np.random.default_rng(1).integers(0, 2**28, 200_001, dtype=np.uint32)
    assert _chi(folded) > 10 * limit


def test_masks_are_the_published_cipher_cancel_and_do_not_depend_on_the_chunk() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    x = np.zeros(3, np.uint32)
    masks.apply(x, [(key, 1)])
    assert x.astype("<u4").tobytes().hex() == "7df76b0c1ab899b33e42f047"  # AES-128 of a zero block
    a, b = secrets.token_bytes(16), secrets.token_bytes(16)
    long = np.arange(2**16 + 77, dtype=np.uint32)
    y = long.copy()
    masks.apply(y, [(a, 1), (b, -1)])
    part = long[:2000].copy()
    masks.apply(part, [(a, 1), (b, -1)])
    assert np.array_equal(y[:2000], part) and not np.array_equal(y, long)
    masks.apply(y, [(b, 1), (a, -1)])
    assert np.array_equal(y, long)


# ---- keys


def test_published_vectors() -> None:
    """RFC 7748, 6.1."""
    a = b"a" * 32
    b = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert keys.public(b).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert keys.agree(a, keys.public(b)) == keys.agree(b, keys.public(a))
    for small in (bytes(32), b"\x01" + bytes(31)):
        with pytest.raises(ValueError):
            keys.agree(b, small)


def test_published_vectors_of_signatures_and_derivation() -> None:
    """RFC 8032, 7.1, test 1; RFC 5869, A.1."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public = key.public_key().public_bytes_raw()
    assert public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert keys.verify(public, key.sign(b""), b"") and not keys.verify(public, key.sign(b""), b"x")
    okm = keys._derive(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)  # pyright: ignore[reportPrivateUsage]
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_channels_are_directed_and_bound() -> None:
    shared, tid = b"s" * 32, b"t" * 32
    sealed = keys.seal(shared, tid, 1, 2, bytes(66))
    assert len(sealed) == keys.SEALED and keys.unseal(shared, tid, 1, 2, sealed) == bytes(66)
    flipped = bytes([sealed[0] ^ 1]) + sealed[1:]
    for u, v, t, c in ((2, 1, tid, sealed), (1, 3, tid, sealed), (1, 2, b"u" * 32, sealed), (1, 2, tid, flipped)):
        assert keys.unseal(shared, t, u, v, c) is None
    assert keys.mask_seed(shared, tid, 1, 2) == keys.mask_seed(shared, tid, 2, 1)


# ---- encoding


def test_rounding_is_right_on_average_and_round_trips() -> None:
    p = params(3, 4, scale=2**10)
    x = np.array([0.25, -0.125, 0.3001, 0.0])
    got = np.mean([decode(signed(encode(x, p, Secret()).words), p).vector for _ in range(5000)], 0)
    np.testing.assert_allclose(got, x, atol=4 * 0.5 / 2**10 / math.sqrt(5000))
    one, two = (encode(x, p, repeatable(1, 2, 3)).words for _ in range(2))
    assert np.array_equal(one, two) and one[0] == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=64), min_size=1, max_size=30), st.floats(0, 1), st.integers(0, 2**31))
def test_no_integer_norm_above_the_scale(values: list[float], weight: float, seed: int) -> None:
    p = params(3, len(values), scale=2**8, weights="capped", bound=1e-3)
    x = np.array(values)
    got = encode(x, p, Injected(np.random.default_rng(seed).bytes), weight=weight)
    q = signed(got.words)[1:]
    assert int(q @ q) <= p.scale**2 and got.finite == bool(np.isfinite(x).all())
    if not got.finite:
        assert not q.any()
    assert norm(x) >= 0 or math.isnan(norm(x))


def test_weights_and_metrics_travel_inside() -> None:
    control = (Control("weight", 2**20, 0, 1), Control("loss", 2**16, -1, 9))
    p = params(3, 2, bound=8.0, scale=2**20, weights="plain", control=control).checked()
    draws = Injected(bytes)
    each = [(1.0, 3.0, [1.0, -2.0]), (0.5, 20.0, [4.0, 4.0]), (0.25, -1.0, [100.0, 0.0])]
    total = sum(signed(encode(np.array(x), p, draws, weight=w, control={"loss": m}).words) for w, m, x in each)
    got = decode(total, p)  # pyright: ignore[reportArgumentType]
    assert got.count == 3 and got.control["weight"] == 1.75
    np.testing.assert_allclose(got.control["loss"], 3 + 9 - 1, atol=1e-3)
    np.testing.assert_allclose(got.vector, [1 + 2 + 0.25 * 8, -2 + 2], atol=1e-5)
    nothing = signed(encode(np.array([np.nan, 1.0]), p, draws, weight=1.0, control={"loss": 3.0}).words)
    assert nothing.tolist() == [1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="beyond"):
        decode(np.array([1, 2**21, 0, 0, 0]), p)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-1e12, 1e12), min_size=3, max_size=3), min_size=1, max_size=9))
def test_an_exact_sum_is_the_sum(rows: list[list[float]]) -> None:
    p = params(len(rows), 3, weights="exact", scale=2**16).checked()
    total = sum(signed(encode(np.array(r), p, Secret()).words) for r in rows)
    np.testing.assert_allclose(decode(total, p).vector, np.sum(rows, 0), rtol=1e-12, atol=len(rows) * 2.0**-32)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_number_that_is_none_makes_the_total_none_in_its_place_alone(bad: float) -> None:
    p = params(3, 2, weights="exact", scale=2**16)
    rows = [[1.0, 2.0], [bad, 3.0], [4.0, -5.0]]
    got = decode(sum(signed(encode(np.array(r), p, Secret()).words) for r in rows), p)  # pyright: ignore[reportArgumentType]
    assert math.isnan(got.vector[0]) and got.vector[1] == 0.0


def test_overflow_is_impossible_by_construction() -> None:
    top = (2**31 - 1) // (2**18 + 1)
    params(top, 1, scale=2**18).checked()
    for p in (
        params(top + 1, 1, scale=2**18),
        params(40, 1, scale=2**10, control=(Control("m", 2**26, 0, 1),)),
        params(2, 1, n_max=2049, scale=2**20, bound=1.0, weights="plain", control=(Control("weight", 1, 0, 1),)),
    ):
        with pytest.raises(BadInput) as error:
            p.checked()
        assert error.value.code == "overflow"
    p = params(top, 1, scale=2**18)
    for sign in (1, -1):
        word = encode(np.array([sign * 1e30]), p, Injected(lambda n: b"\xff" * n)).words
        total = (word.astype(np.uint64) * top).astype(np.uint32)
        assert signed(total)[1] == top * signed(word)[1] and abs(signed(word)[1]) <= 2**18
    with pytest.raises(BadInput, match="fixed denominator"):
        params(3, 2, noise="central", z=1.0, weights="plain", control=(Control("weight", 1, 0, 1),)).checked()
    with pytest.raises(BadInput, match="rounding"):
        params(3, 2**20, scale=2**10).checked()


def test_parameters_are_one_text_and_a_policy_has_a_floor() -> None:
    p = params(30, 4, n_min=20, control=(Control("loss", 4, 0.5, 9),))
    assert Params.from_bytes(p.to_bytes()) == p
    for raw in (b"{}", p.to_bytes() + b" ", b"\xff"):
        with pytest.raises(ValueError):
            Params.from_bytes(raw)
    assert Policy().refuses(p, rostered=True) is None
    for change in ({"mode": "semi"}, {"n_min": 2}, {"gamma": "0.04"}, {"gamma": "0.7"}, {"kappa": 79},
                   {"alpha": "0.4"}, {"scale": 2**7}, {"scale": 2**21}, {"bound": 1e4}, {"n_max": 10001},
                   {"d": 2**19}):  # fmt: skip
        assert Policy().refuses(params(30, **({"d": 4, "n_min": 20} | change)), rostered=True), change
    assert Policy().refuses(params(30, 4, n_min=20, mode="semi", kappa=40), rostered=False) is None
