"""Masks hide, are never used twice, and leak nowhere: each check also with an error planted that it must find."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from manyloom.secure import FULL, IDEAL, masks, wait
from manyloom.secure.suite import Suite
from tests.secure.playing import World, params
from tests.secure.watching import Watch, leaks, outside, own_masks, repeats

Mask = Callable[[masks.U32, Iterable[tuple[bytes, int]]], None]
ALIKE = 1e-6  # a false alarm of a test that draws afresh each time


def chi_squared(words: np.ndarray) -> float:
    """Of the bytes, 255 degrees."""
    counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).ravel(), minlength=256)
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


LIMIT = 255 + 6 * (2 * 255) ** 0.5  # P < 1e-7


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov-Smirnov statistic of two samples, over its limit at `ALIKE`."""
    both = np.sort(np.concatenate([a, b]))
    f, g = (np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b))
    limit = np.sqrt(np.log(2 / ALIKE) / 2 * (1 / len(a) + 1 / len(b)))
    return float(np.abs(f - g).max() / limit)


# ---- planted errors: each still cancels between two clients, so a sum comes out right


def short(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """The naive sketch: 1000 words, again and again."""
    for seed, sign in seeds:
        one = np.zeros(1000, np.uint32)
        masks.apply(one, [(seed, sign)])
        total += np.resize(one, len(total))


def prefix(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """1000 words, and nothing behind."""
    masks.apply(total[:1000], seeds)


def scalar(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """One number for every coordinate."""
    for seed, sign in seeds:
        one = np.zeros(1, np.uint32)
        masks.apply(one, [(seed, sign)])
        total += one


def small(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """A normal draw of deviation 1000, rounded."""
    for seed, sign in seeds:
        draw = np.random.default_rng(int.from_bytes(seed, "little")).normal(0, 1000, len(total))
        total += (sign * np.rint(draw).astype(np.int64)).astype(np.uint32)


def alike(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
    """The same masks for every pair and attempt."""
    masks.apply(total, [(bytes(16), sign) for _, sign in seeds])


PLANTED = [short, prefix, scalar, small]


def masked(suite: Suite, value: int, d: int = 30_000) -> np.ndarray:
    """What three clients send whose every integer is `value`: [3, d_total]."""
    world = World(3, params(3, d, delta_drop="0"), suite=suite)
    for i in range(3):
        world.memory[i]["secure.waiting"][:] = value
        world.memory[i]["secure.waiting"][:, 0] = 1
    got = world.run(attempts=1)
    assert got.total is not None and got.total.tolist() == [3] + d * [3 * value]
    return np.stack([body["masked"][0].numpy().view(np.uint32) for stage, _, body in world.replies if stage == 2])


def test_what_is_sent_is_uniform_whatever_is_in_it() -> None:
    for value in (0, 50, -1):
        assert all(chi_squared(row) < LIMIT for row in masked(FULL, value))


@pytest.mark.parametrize("mask", PLANTED)
def test_a_worse_mask_does_not_look_uniform(mask: Mask) -> None:
    assert max(chi_squared(row) for row in masked(FULL._replace(mask=mask), 50)) > LIMIT


@pytest.mark.parametrize("only", ["self", "pairwise"])
def test_one_kind_of_mask_alone_is_uniform(only: str) -> None:
    def part(total: masks.U32, seeds: Iterable[tuple[bytes, int]]) -> None:
        used = list(seeds)
        masks.apply(total, used[:1] if only == "self" else used[1:])

    world = World(3, params(3, 30_000, delta_drop="0"), suite=FULL._replace(mask=part))
    for i in range(3):
        world.memory[i]["secure.waiting"][:] = 7
    world.run(attempts=1)  # no sum: a server takes off what it expects
    for stage, _, body in world.replies:
        assert stage != 2 or chi_squared(body["masked"].numpy()) < LIMIT


def test_what_is_sent_does_not_depend_on_what_is_in_it() -> None:
    """Two-sample Kolmogorov-Smirnov, zeros against large numbers."""
    one, two = masked(FULL, 0), masked(FULL, 1000)
    assert max(distance(a[1:], b[1:]) for a in one for b in two) < 1
    one, two = (masked(FULL._replace(mask=small), value) for value in (0, 10_000))
    assert min(distance(a[1:], b[1:]) for a in one for b in two) > 1


def test_no_two_masks_are_alike_in_any_part() -> None:
    """Of all clients, two attempts of a round, and the next round: no eight words come twice."""
    assert not repeats(_all_masks(FULL))
    for mask in (short, scalar, alike):
        assert repeats(_all_masks(FULL._replace(mask=mask)))


def _all_masks(suite: Suite) -> np.ndarray:
    world = World(4, params(4, 4000, delta_drop="0"), suite=suite)
    for round, lost in ((1, {(0, 3): {0, 1, 2, 3}}), (5, {})):
        world.lost, world.round = lost, round
        world.memory = [wait(m, q, round) for m, q in zip(world.memory, world.q)]
        assert world.run().total is not None
    rows = own_masks(world)
    assert len(rows) == 12
    return rows


def test_no_secret_in_what_leaves_or_in_plain_memory() -> None:
    """Keys, self-mask seeds, agreed secrets, shares, mask seeds and masks, byte for byte.

    Shares alone are seen, at the last stage, where they are asked for.
    """
    watch = Watch()
    world = World(5, params(5, 40), lost={(0, 2): {4}}, suite=watch.suite())
    found = outside(world)
    counts = {kind: len(set(all)) for kind, all in watch.secrets.items()}
    assert counts == {"key": 10, "self": 5, "share": 40, "shared": 20, "seed": 14, "mask": 28}  # added and taken off
    assert leaks(watch, found) == {("share", "stage 4")}


def test_the_search_finds_a_planted_leak() -> None:
    watch = Watch()
    suite = watch.suite()._replace(  # shares travel open
        seal=lambda shared, tid, u, v, plain: plain + bytes(16), unseal=lambda shared, tid, u, v, sealed: sealed[:66]
    )
    found = leaks(watch, outside(World(5, params(5, 40), suite=suite)))
    assert found == {("share", "stage 4"), ("share", "stage 1"), ("share", "asks")}
    watch = Watch()
    suite = watch.suite()._replace(  # a signature that gives a seed away
        sign=lambda identity, message: watch.secrets["self"][0] * 2, verify=lambda *_: True
    )
    assert ("self", "stage 2") in leaks(watch, outside(World(5, params(5, 40), suite=suite)))


def test_ideal_masks_nothing_and_the_statistics_see_it() -> None:
    assert min(chi_squared(row) for row in masked(IDEAL, 50)) > 1000 * LIMIT
