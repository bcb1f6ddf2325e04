"""What a first sketch of masks gets wrong: a test for each item of section 11 of the privacy specification."""

from __future__ import annotations

import random

import numpy as np
import torch

from manyloom.core.exchange import play
from manyloom.privacy.source import Secret
from manyloom.secure import Control, decode, encode, secure_sum, wait
from tests.secure.playing import World, params
from tests.secure.watching import Watch, own_masks, played, repeats


def test_3_a_mask_is_as_long_as_the_update_and_no_layer_repeats_it() -> None:
    d = 70_000  # longer than a chunk of the cipher
    world = World(3, params(3, d, delta_drop="0"))
    assert world.run(attempts=1).total is not None
    rows = own_masks(world)
    assert rows.shape == (3, d + 1) and not repeats(rows)
    for row in rows:  # two layers of one length: what they differ by is not what their masks hide
        assert (row[1:1001] != row[1001:2001]).mean() > 0.99
    assert repeats(np.resize(rows[:, :1000], (3, d)))  # the planted error


def test_4_a_constant_does_not_show() -> None:
    """A constant 50 under N(0, 1) is 50.0, 49.5, 52.1: here neighbours in the message are far apart, mean and all."""
    world = World(3, params(3, 20_000, delta_drop="0"))
    for i in range(3):
        world.memory[i]["secure.waiting"][:] = 50
        world.memory[i]["secure.waiting"][:, 0] = 1
    got = world.run(attempts=1)
    assert got.total is not None and got.total[1:].tolist() == [150] * 20_000  # and cancels exactly
    sent = [b["masked"][0, 1:].numpy().astype(np.float64) for s, _, b in world.replies if s == 2]
    for y in sent:
        assert abs(y.mean()) < 6 * 2**32 / (12 * 20_000) ** 0.5 and abs(y.std() / (2**32 / 12**0.5) - 1) < 0.05
    assert abs((50 + np.random.default_rng(0).normal(size=20_000)).std() / (2**32 / 12**0.5) - 1) > 0.05


def test_5_weights_are_inside_the_sum() -> None:
    """Weights 10, 20, 30: the weighted mean comes out; masks put on before the weights would not cancel."""
    p = params(
        3, 6, weights="plain", bound=4.0, scale=2**20, control=(Control("weight", 2**20, 0, 30),), delta_drop="0"
    )
    x = np.random.default_rng(0).normal(size=(3, 6))
    world = World(3, p.checked())
    share = np.array([10, 20, 30]) / 30
    world.memory = [
        wait(m, encode(v, p, Secret(), weight=w).words, 1) for m, v, w in zip(world.memory, x, share.tolist())
    ]
    got = world.run(attempts=1)
    assert got.total is not None
    summed = decode(got.total, p)
    np.testing.assert_allclose(summed.control["weight"], 60, rtol=1e-5)
    np.testing.assert_allclose(summed.vector / (summed.control["weight"] / 30), share @ x / 2, atol=1e-4)


def test_6_no_global_generator_is_touched() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore
    played()
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # pyright: ignore
    assert before == after
    random.random()
    assert random.getstate() != before[0]


def test_7_masks_are_made_by_pairs_and_new_in_every_round() -> None:
    """Each pairwise seed is known to two clients; what is sent in two rounds differs by more than the updates do."""
    watch = Watch()
    world = World(4, params(4, 300, delta_drop="0"), suite=watch.suite())
    assert world.run(attempts=1).total is not None
    clients = watch.seeds[:4]  # of the four masked inputs; then the server, which takes off self masks alone
    known: dict[bytes, int] = {}
    for used in clients:
        for seed, _ in used:
            known[seed] = known.get(seed, 0) + 1
    assert sorted(known.values()) == [1] * 4 + [2] * 6 and len(watch.seeds) == 5
    assert {seed for seed, _ in watch.seeds[4]} == {used[0][0] for used in clients}
    world.round = 5
    world.memory = [wait(m, q, 5) for m, q in zip(world.memory, world.q)]
    got = play(secure_sum(np.arange(4), world.p, world.setting, round=5), world.answer)
    assert got.total is not None
    first, second = own_masks(world)[:4], own_masks(world)[4:]
    assert ((first - second) != 0).mean() > 0.99 and not repeats(np.concatenate([first, second]))
