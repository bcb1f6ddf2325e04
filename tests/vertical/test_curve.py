"""Ids as points: on the curve, in the prime-order subgroup, and nothing of the id left in them."""

from __future__ import annotations

import hashlib
import os
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.vertical import curve
from manyloom.vertical.curve import DUMMY, REAL, A, P, check, digests, hashed, jacobi, masking, multiply, rows, tries

ORDER = 2**252 + 27742317777372353535851937790883648493
XID = bytes(range(32))
SMALL_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
]


def euler(u):
    """The symbol again, by Euler's criterion."""
    t = pow(u * (u * u + A * u + 1), (P - 1) // 2, P)
    return -1 if t == P - 1 else t


def times(k, u):
    """k u by a Montgomery ladder without clamping (RFC 7748); None at infinity."""
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in bin(k)[2:]:
        if bit == "1":
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        e = a * a - b * b
        x2, z2, x3, z3 = (
            a * a * b * b % P,
            e * (a * a + (A - 2) // 4 * e) % P,
            (d * a + c * b) ** 2 % P,
            u * (d * a - c * b) ** 2 % P,
        )
        if bit == "1":
            x2, z2, x3, z3 = x3, z3, x2, z2
    return None if z2 == 0 else x2 * pow(z2, -1, P) % P


def table(*us):
    return np.frombuffer(b"".join(u.to_bytes(32, "little") for u in us), np.uint8).reshape(len(us), 32)


def point(key, exchange=XID, prefix=REAL):
    return hashed(key, tries(prefix, exchange))


def masked(secret, keys, of=10**6, threads=1):
    with masking(secret, XID, threads) as masks:
        return masks.ids(keys, of=of)()


@given(st.integers(-(2**260), 2**260))
def test_the_symbol_is_eulers(a):
    t = pow(a, (P - 1) // 2, P)
    assert jacobi(a, P) == curve.symbol(a % P, P) == (-1 if t == P - 1 else t)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_symbol_is_one_also_for_composites(a, k):
    n = 2 * k + 1
    expected, rest, f = 1, n, 3
    while rest > 1:
        if f * f > rest:
            f = rest
        while rest % f == 0:
            s = pow(a, (f - 1) // 2, f)
            expected *= -1 if s == f - 1 and f > 2 and s != 1 else s
            rest //= f
        f += 2
    assert jacobi(a, n) == expected


def test_vectors_of_rfc_7748():
    for scalar, u, out in [
        ("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
         "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
         "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
        ("4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
         "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
         "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"),
    ]:  # fmt: skip
        assert multiply(bytes.fromhex(scalar), [bytes.fromhex(u)]).hex() == out
    k = u = bytes([9] + [0] * 31)
    for i in range(1000):
        k, u = multiply(k, [u]), k
        if i == 0:
            assert k.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert k.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@given(st.binary(max_size=40), st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_an_id_is_hashed_as_it_is_written_down(key, exchange):
    for c in range(256):
        u = int.from_bytes(hashlib.sha256(b"manyloom/psi/v1" + exchange + bytes([c]) + key).digest(), "little")
        u &= 2**255 - 1
        if u < P and euler(u) == 1:
            break
    assert (
        hashed(key, tries(REAL, exchange)) == hashed(key, tries(REAL, exchange), always=64) == u.to_bytes(32, "little")
    )
    out = hashlib.sha256(b"manyloom/psi/out/v1" + exchange + u.to_bytes(32, "little")).digest()
    assert digests(u.to_bytes(32, "little") * 2, exchange, 13) == out[:13] * 2


def test_other_exchanges_and_made_up_ids_are_other_points():
    assert len({point(b"a"), point(b"b"), point(b"a", bytes(32)), point(b"a", prefix=DUMMY)}) == 4


def test_two_tries_on_average():
    many = [int.from_bytes(h.digest(), "little") for h in tries(REAL, XID)]
    share = Fraction(sum(curve.on_curve(u % 2**255) for u in many), 256)
    assert 0.35 < share < 0.65


def test_a_short_list_takes_as_many_tries_for_every_id(monkeypatch):
    seen = []
    real = curve.on_curve
    monkeypatch.setattr(curve, "on_curve", lambda u: seen.append(u) or real(u))
    masked(bytes(32), [b"a", b"b", None], of=4095)
    assert len(seen) == 3 * 64
    seen.clear()
    masked(bytes(32), [b"a", b"b", None], of=4096)
    assert len(seen) < 64


@pytest.mark.parametrize("u", [*SMALL_ORDER, P, P + 1, 2**255 - 1, 2**255 + 9, 2**256 - 1, 2])
def test_points_that_no_honest_party_sends_are_refused(u):
    with masking(os.urandom(32), XID, 1) as masks, pytest.raises(ValueError):
        masks.points(table(9, u), 12)()


def test_points_that_are_fine_are_not_refused():
    check(table(9, *(int.from_bytes(point(bytes([i])), "little") for i in range(20))))
    check(np.zeros((0, 32), np.uint8))
    with pytest.raises(ValueError, match="twice"):
        check(table(9, 16, 9))
    assert curve.on_curve(16)


def test_a_random_hash_is_on_the_twist_half_of_the_time():
    twist = [u for u in range(2, 400) if euler(u) == -1]
    assert 150 < len(twist) < 250
    for u in twist[:20]:
        with pytest.raises(ValueError, match="not on the curve"):
            check(table(u))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(max_size=9))
@settings(max_examples=25, deadline=None)
def test_masks_commute(a, b, key):
    u = point(key)
    assert multiply(a, [multiply(b, [u])]) == multiply(b, [multiply(a, [u])])


def test_masked_points_and_made_up_ones_lie_in_the_prime_order_subgroup():
    out = [int.from_bytes(u, "little") for u in rows(masked(os.urandom(32), [b"a", b"b", None, None, None]))]
    assert all(euler(u) == 1 and times(ORDER, u) is None for u in out)
    bare = [int.from_bytes(point(bytes([i])), "little") for i in range(16)]  # what a plain random point would show
    assert sum(times(ORDER, u) is not None for u in bare) > 5
    assert all(times(8 * ORDER, u) is None for u in bare)


def test_the_ladder_of_this_test_is_x25519():
    secret = os.urandom(32)
    k = int.from_bytes(secret, "little") & ~7 & (2**255 - 1) | 2**254
    assert times(k, 9).to_bytes(32, "little") == multiply(secret, [(9).to_bytes(32, "little")])


def test_made_up_ids_are_never_twice_the_same():
    assert len(set(rows(masked(bytes(32), [None] * 50)))) == 50


@pytest.mark.parametrize("n", [0, 1, 7])
def test_threads_change_nothing(n, monkeypatch):
    monkeypatch.setattr(curve, "SLICE", 3)
    keys, secret = [bytes([i]) for i in range(n)], os.urandom(32)
    one, two = masked(secret, keys, threads=1), masked(secret, keys, threads=3)
    assert one.shape == two.shape == (n, 32) and (one == two).all()
    with masking(secret, XID, 3) as masks:
        again = masks.points(one, 12)()
    assert again.tobytes() == digests(multiply(secret, rows(one)), XID, 12)


def test_no_masked_point_of_ten_thousand_is_on_the_twist():
    keys = [str(i).encode() for i in range(10_000)]
    out = masked(os.urandom(32), keys)
    assert all(curve.on_curve(int.from_bytes(u, "little")) for u in rows(out))
    bare = [hashlib.sha256(k).digest() for k in keys]  # the planted error: a bare hash as u
    left = multiply(os.urandom(32), [u[:31] + bytes([u[31] & 0x7F]) for u in bare])
    on = sum(curve.on_curve(int.from_bytes(left[i : i + 32], "little")) for i in range(0, len(left), 32))
    assert 4_500 < on < 5_500
