"""Nothing overflows at the most clients agreed; thresholds and graph are what the arithmetic says, exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from manyloom.core.errors import BadInput
from manyloom.privacy.source import Injected, Secret
from manyloom.secure import Control, Params, decode, encode
from manyloom.secure.encoding import signed
from manyloom.secure.graph import (
    _order,  # pyright: ignore[reportPrivateUsage]
    answering,
    corrupt,
    corrupt_neighbours,
    degree,
    least_threshold,
    lost,
    neighbours,
    quorum_of_signers,
    ring,
    sound,
    window,
)
from manyloom.secure.params import LIMB, LIMIT
from tests.secure.playing import params

HIGH = Injected(lambda n: b"\xff" * n)  # draws that round down; zeros round up
LOW = Injected(bytes)


def total(word: np.ndarray, n: int) -> np.ndarray:
    """The sum of n such messages in the ring."""
    return signed((word.astype(np.uint64) * n).astype(np.uint32))


# ---- overflow


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("draw", [HIGH, LOW])
@pytest.mark.parametrize("weights,scale,bound", [("one", 2**18, 1.0), ("plain", 2**12, 8.0)])
def test_all_clients_at_the_end_of_the_range(sign: int, draw: Injected, weights: str, scale: int, bound: float) -> None:
    """At n_max, every coordinate, the weight, a metric and the clip bit at S or -S: the sum in the ring is the sum."""
    control = (Control("weight", 2**16, 0, 1),) * (weights == "plain") + (Control("loss", 2**16, -3, 5),
               Control("clip", 2**10, -0.5, 0.5))  # fmt: skip
    size = scale if weights == "one" else math.ceil(bound * scale)
    n = (LIMIT - 1) // max(size + 1, 2**16)
    p = params(n, 1, scale=scale, bound=bound, weights=weights, control=control).checked()
    word = encode(np.array([sign * 1e9]), p, draw, control={"loss": sign * 1e9}).words
    each, summed = signed(word), total(word, n)
    assert np.array_equal(summed, n * each) and abs(each[-1]) >= 0.99 * size and abs(each[-3]) == 2**16
    got = decode(summed, p)
    assert math.isclose(got.control["loss"], n * (5 if sign > 0 else -3))
    assert math.isclose(got.vector[0], n * sign * bound, rel_tol=0.01) and got.count == n
    one_more = params(n + 1, 1, scale=scale, bound=bound, weights=weights, control=control)
    with pytest.raises(BadInput) as error:
        one_more.checked()
    assert error.value.code == "overflow"


def test_the_ring_does_wrap_beyond_the_rule() -> None:
    """The planted error: twice the clients that the rule allows, and the sum is another."""
    p = params((LIMIT - 1) // (2**18 + 1), 1, scale=2**18)
    word = encode(np.array([1e9]), p, LOW).words
    assert not np.array_equal(total(word, 2 * p.n_max + 2), (2 * p.n_max + 2) * signed(word))


def test_exact_sums_at_the_most_clients() -> None:
    n = (LIMIT - 1) // (LIMB + 1)
    p = params(n, 1, weights="exact", scale=LIMB).checked()
    for x in (-(2.0**-32), 2.0**20 / 3, -1e6):
        word = encode(np.array([x]), p, Secret()).words
        np.testing.assert_allclose(decode(total(word, n), p).vector, [n * x], rtol=1e-9, atol=n * 2.0**-32)
    with pytest.raises(BadInput, match="32 bits"):
        params(n + 1, 1, weights="exact", scale=LIMB).checked()


@pytest.mark.parametrize("name,scale,lo", [("weight", 2**26, 0.0), ("loss", 2**26, -1.0), ("clip", 2**26, -0.5)])
def test_each_control_number_has_its_own_rule(name: str, scale: int, lo: float) -> None:
    most = (LIMIT - 1) // scale
    base = params(most, 1, scale=2**8, control=(Control(name, scale, lo, 1.0),))
    assert base.problem() is None
    wrong = params(most + 1, 1, scale=2**8, control=(Control(name, scale, lo, 1.0),)).problem()
    assert wrong is not None and wrong.code == "overflow" and name in wrong.what


# ---- thresholds


def test_products_are_exact_decimals() -> None:
    """In floats, floor(0.29 x 100) is 28: the planted error, which shows for some n."""
    for gamma in ("0.29", "0.1", "0.05", "0.33", "0.57"):
        cents = round(float(gamma) * 100)
        assert all(corrupt(gamma, n) == cents * n // 100 for n in range(2000))
        assert all(lost(gamma, n) == -(-cents * n // 100) for n in range(2000))
    assert any(math.floor(0.29 * n) != corrupt("0.29", n) for n in range(2000)) and math.floor(0.29 * 100) == 28
    assert corrupt("0.29", 100) == 29 and Params.floor_of(params(100, alpha="0.29", n_min=3), 100) == 29
    assert any(math.ceil(0.07 * n) != lost("0.07", n) for n in range(2000))


def test_more_security_or_more_corrupt_never_lowers_a_bound() -> None:
    kappas = (10, 20, 40, 60, 80, 100)
    for n, k in ((60, 20), (100, 32), (300, 76), (1000, 124)):
        for gamma in ("0.05", "0.1", "0.2"):
            c = corrupt(gamma, n)
            for bound in (corrupt_neighbours, window):
                found = [bound(n, c, k, kappa) for kappa in kappas]
                assert found == sorted(found) and (n < 1000 or found[0] < found[-1])
            for mode in ("active", "semi"):
                found = [least_threshold(n, k, gamma, kappa, mode)[0] for kappa in kappas]
                assert found == sorted(found)
        for kappa in (40, 80):
            found = [least_threshold(n, k, g, kappa, "active")[0] for g in ("0", "0.05", "0.1", "0.2")]
            assert found == sorted(found) and found[0] < found[-1]
        fewer = [answering(n, lost(drop, n), k) for drop in ("0", "0.05", "0.1", "0.3")]
        assert fewer == sorted(fewer, reverse=True) and fewer[0] == k


def test_the_computed_degree_is_the_least_that_is_sound() -> None:
    for n, gamma, drop, kappa, mode in ((100, "0.1", "0.1", 80, "active"), (100, "0.1", "0.1", 40, "semi")):
        got = degree(n, gamma, drop, kappa, mode)
        assert sound(n, got.k, got.t, gamma, drop, kappa, mode) is None
        assert sound(n, got.k, got.t - 1, gamma, drop, kappa, mode) is not None
        for k in range(4, got.k, 2):
            t = least_threshold(n, k, gamma, kappa, mode)[0]
            dead = t > answering(n, lost(drop, n), k) or sound(n, k, t, gamma, drop, kappa, mode) is not None
            assert dead, k


def test_no_two_quorums_without_an_honest_signer_in_both() -> None:
    """q3 of n, twice: they share more than all c corrupt; with one signer less they need not."""
    for n in range(3, 200):
        for c in range(0, n // 2):
            q = quorum_of_signers(n, c)
            assert 2 * q - n > c and 2 * (q - 1) - n <= c


def test_tails_against_exact_fractions() -> None:
    for n, c, k, kappa in ((60, 6, 20, 40), (100, 10, 32, 20), (40, 12, 10, 10)):
        tail = [Fraction(0)] * (k + 2)
        for i in range(k, -1, -1):
            ways = math.comb(c, i) * math.comb(n - 1 - c, k - i) if k - i <= n - 1 - c else 0
            tail[i] = tail[i + 1] + Fraction(ways, math.comb(n - 1, k))
        assert corrupt_neighbours(n, c, k, kappa) == next(
            x for x in range(k + 1) if n * tail[x + 1] < Fraction(1, 2**kappa)
        )


# ---- graph


def _place_of(order_of: Callable[[bytes], Sequence[int]], uid: int, times: int, n: int) -> float:
    """Chi-squared of the places of one client, n - 1 degrees."""
    places = np.bincount([list(order_of(i.to_bytes(32, "big"))).index(uid) for i in range(times)], minlength=n)
    return float(((places - times / n) ** 2 / (times / n)).sum())


def test_places_in_the_ring_are_uniform() -> None:
    n, times = 20, 4000
    limit = (n - 1) + 6 * math.sqrt(2 * (n - 1))
    uids = tuple(range(n))
    for uid in (0, 7, 19):
        assert _place_of(lambda tid: _order(tid, uids), uid, times, n) < limit

    def swapped(tid: bytes) -> list[int]:  # the planted error: a lazy shuffle
        order = list(uids)
        a, b = tid[-1] % n, tid[-2] % n
        order[a], order[b] = order[b], order[a]
        return order

    assert _place_of(swapped, 7, times, n) > limit


def test_every_client_computes_the_same_ring() -> None:
    uids = [3, 5, 8, 13, 21, 34, 55, 89, 144, 233]
    for k in (4, 6, 9):
        around = ring(b"t" * 32, uids, k)
        assert all(neighbours(b"t" * 32, uids, k, u) == around[u] for u in uids)
        assert all(len(v) == k and u not in v and v == sorted(v) for u, v in around.items())
        assert all(u in around[v] for u in uids for v in around[u])
    assert ring(b"t" * 32, uids, 4) != ring(b"u" * 32, uids, 4)
    with pytest.raises(ValueError):
        neighbours(b"t" * 32, uids, 4, 4)


def test_neighbours_are_any_two_equally_often() -> None:
    n, k, times = 24, 6, 2000
    counts = np.zeros((n, n))
    for i in range(times):
        for u, near in ring(i.to_bytes(32, "big"), range(n), k).items():
            counts[u, near] += 1
    pairs = counts[np.triu_indices(n, 1)]
    mean = times * k / (n - 1)
    assert abs(pairs - mean).max() < 6 * math.sqrt(mean) and math.isclose(pairs.mean(), mean)
