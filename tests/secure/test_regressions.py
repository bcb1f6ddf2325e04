"""What goes wrong in other secure sums: each is a test here.

`test_12` to `test_28` are the items of section 10.2 of the privacy specification; those of section 11 are in
`test_sketch.py`.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.core.slots import Slots
from manyloom.privacy.source import Secret
from manyloom.secure import FULL, HANDLERS, IDEAL, Control, Policy, Refused, decode, encode, keys, masks, shamir, wait
from manyloom.secure.client import REPLIES
from manyloom.secure.encoding import signed
from manyloom.secure.graph import degree, ring, sound
from manyloom.secure.opening import unmask
from manyloom.secure.shamir import SHARE
from manyloom.secure.wire import VERBS, numbers, pack, rows
from tests.secure.playing import World, params
from tests.secure.watching import Watch, complexity, outside, own_masks, played, repeats


def stream(seed: bytes, d: int = 64) -> np.ndarray:
    x = np.zeros(d, np.uint32)
    masks.apply(x, [(seed, 1)])
    return x


def folded(seed: bytes) -> bytes:
    """The planted error: a seed folded to 32 bits."""
    words = np.frombuffer(seed, "<u4")
    return int(np.bitwise_xor.reduce(words)).to_bytes(16, "little")


# ---- section 10.2


def test_12_every_bit_of_a_seed_counts() -> None:
    """XOR-folded to 32 bits, a seed with two bits flipped in the same place of two words gives the same mask."""
    seed = os.urandom(16)

    def flipped(*bits: int) -> bytes:
        return (int.from_bytes(seed, "little") ^ sum(1 << b for b in bits)).to_bytes(16, "little")

    many = [seed, *(flipped(b) for b in range(128)), *(flipped(b, b + 32) for b in range(96))]
    assert len({stream(s).tobytes() for s in many}) == len(many)
    assert len({stream(folded(s)).tobytes() for s in many}) < len(many)


def test_12_seeds_are_derived_whole_and_masks_reach_every_number() -> None:
    shared = [os.urandom(32) for _ in range(4000)]
    bits = np.unpackbits(np.frombuffer(b"".join(keys.mask_seed(s, b"t" * 32, 1, 2) for s in shared), np.uint8))
    ones = bits.reshape(-1, 128).mean(0)
    assert abs(ones - 0.5).max() < 6 * 0.5 / 4000**0.5  # of base64 text, four bits would always be 0
    words = stream(os.urandom(16), 2**20)
    assert words.max() > 2**32 - 2**16 and words.min() < 2**16


def test_12_sums_of_masks_follow_no_short_recurrence() -> None:
    """Low bits of a sum of masks: half as long as the bits, as for random ones; a linear generator's stay short."""
    n = 4000
    total = sum((stream(os.urandom(16), n) & 1 for _ in range(5)), np.zeros(n, np.uint32)) & 1
    assert abs(complexity(int("".join(map(str, total[::-1])), 2), n) - n // 2) < 20
    state, bits = 1, 0
    for i in range(n):  # the planted error: a shift register of 127 bits
        bits |= (state & 1) << i
        state = state >> 1 | ((state ^ state >> 1) & 1) << 126
    assert complexity(bits, n) == 127


def test_13_eleven_hundred_clients_do_not_overflow_silently() -> None:
    """At 22 bits for [-8, 8] and full weights a sum over 1100 wraps (-101.24 for 7.9); here it is refused, or right."""
    weight = (Control("weight", 2**10, 0, 1),)
    wide = params(1100, 1, bound=8.0, scale=2**22 // 16, weights="plain", control=weight)
    with pytest.raises(BadInput, match="1100 clients") as error:
        wide.checked()
    assert error.value.code == "overflow"
    fits = replace(wide, scale=2**17).checked()
    for p, right in ((fits, True), (wide, False)):
        word = encode(np.array([7.9]), p, Secret()).words
        got = decode(signed((word.astype(np.uint64) * 1100).astype(np.uint32)), p)
        mean = got.vector[0] / got.control["weight"]
        assert (abs(mean - 7.9) < 1e-4) == right


@pytest.mark.parametrize("mode", ["active", "semi"])
@pytest.mark.parametrize("stage", [0, 1])
def test_14_a_client_lost_early_does_not_stop_the_round(stage: int, mode: str) -> None:
    world = World(6, params(6, mode=mode), lost={(0, stage): {2}})
    got = world.run(attempts=1)
    assert got.clients.tolist() == [0, 1, 3, 4, 5] and got.attempt == 0
    assert got.total is not None and np.array_equal(got.total, world.plain(got.clients))


@pytest.mark.parametrize("mode", ["active", "semi"])
def test_15_nobody_gives_both_shares_of_one_client(mode: str) -> None:
    """Whatever set of survivors a client is told, it gives one kind for each; and it is asked once."""
    p = params(5, mode=mode)
    for u2 in ([0, 1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3, 3, 4], [0, 1, 2, 3, 4, 4], [0, 4, 1, 2, 3], [1, 2, 3, 4]):
        watch = Watch()
        world = World(5, p, suite=watch.suite())
        stage, told = (3 if mode == "active" else 4), numbers(u2)
        world.meddle = lambda ask, i, b, told=told, stage=stage: (
            b | {"u2": told} if i == 0 and VERBS.index(ask.verb) == stage else b
        )
        world.run(attempts=1)
        found = [b for s, i, b in world.replies if (s, i) == (4, 0)]
        assert bool(found) == (u2 == [0, 1, 2, 3, 4] or (u2 == [0, 1, 2, 3] and mode == "semi"))
        assert bool(found) or 0 in world.refused or mode == "active"
        parts = [watch.secrets["share"][8 * v : 8 * v + 8 : 4] for v in range(5)]  # client 0 is everybody's first
        for body in found:
            assert rows(body["b"][0], SHARE) == [parts[v][0] for v in range(1, 5) if v in u2]
            assert rows(body["s"][0], SHARE) == [parts[v][1] for v in range(1, 5) if v not in u2]


def test_15_a_second_request_with_the_victim_dead_is_refused() -> None:
    world = World(5, params(5, mode="semi", kappa=40))
    last: list[Slots] = []
    world.meddle = lambda ask, i, b: last.append(b) or b if (i, ask.verb) == (0, VERBS[4]) else b
    assert world.run(attempts=1).total is not None
    for u2 in ([0, 1, 2, 3], [0, 1, 2, 4], [0]):
        with pytest.raises(Refused):
            HANDLERS[VERBS[4]].run(last[0] | {"u2": numbers(u2)}, world.memory[0], world.sites[0])


def test_16_keys_are_signed_and_the_graph_is_nobodys_choice() -> None:
    """A server that puts in its own key is refused by all; the graph is a function of the transcript alone."""
    own = keys.advertise(3, b"s" * 32, None)[0]

    def swapped(ask: object, i: int, body: Slots) -> Slots:
        if "adverts" not in body or i == 3:
            return body
        adverts = body["adverts"].clone()
        mine = pack(own.to_bytes())
        adverts[3, 4:68] = mine[4:68]
        return body | {"adverts": adverts}

    world = World(5, params(5), meddle=swapped)  # pyright: ignore[reportArgumentType]
    assert world.run(attempts=1).total is None
    assert all("client 3 is not signed" in world.refused[i] for i in (0, 1, 2, 4))
    random.seed(1)
    one = ring(b"t" * 32, range(40), 6)
    random.seed(2)
    assert one == ring(b"t" * 32, range(40), 6)


def test_17_no_weight_and_no_metric_beside_the_masked_vector() -> None:
    """The slots that leave are these, of a length that depends on nobody's numbers; the weight itself is masked."""
    control = (Control("weight", 2**16, 0, 1), Control("loss", 2**16, 0, 9))
    p = params(5, 4, weights="plain", bound=1.0, scale=2**16, control=control)
    seen = []
    for weight, suite in ((0.25, FULL), (1.0, FULL), (0.25, IDEAL)):
        world = World(5, p, suite=suite)
        word = encode(np.zeros(4), p, Secret(), weight=weight, control={"loss": 3.0}).words
        world.memory = [wait(m, word, 1) for m in world.memory]
        got = world.run(attempts=1)
        assert got.total is not None and decode(got.total, p).control["weight"] == 5 * weight
        for stage, _, body in world.replies:
            assert set(body) == set(REPLIES[stage])
        seen.append(sorted((s, n, tuple(t.shape)) for s, _, b in world.replies for n, t in b.items()))
        bare = [int(body["masked"][0, 1]) == int(weight * 2**16) for stage, _, body in world.replies if stage == 2]
        assert all(bare) == any(bare) == (suite is IDEAL)
    assert seen[0] == seen[1] == seen[2]


def test_18_four_bytes_a_number() -> None:
    world = World(5, params(5, 100_000))
    got = world.run(attempts=1)
    assert got.total is not None and 4 * 5 * 100_000 <= got.sent_up <= 1.01 * 4 * 5 * 100_000
    assert all(b["masked"].dtype == torch.int32 for s, _, b in world.replies if s == 2)


def test_19_a_share_is_as_long_as_its_secret_and_quick() -> None:
    """n = 101, t = 61: 33 bytes a share; elsewhere 326 bytes, 1.96 s to split and 3.54 s a dropped client."""
    began = time.process_time()
    parts = shamir.split(bytes(range(32)), 101, 61)
    split = time.process_time() - began
    points = list(enumerate(parts, 1))[40:]
    began = time.process_time()
    assert shamir.secret_of(points) == bytes(range(32))
    assert {len(x) for x in parts} == {SHARE} == {33}
    assert split < 0.2 and time.process_time() - began < 0.2


def test_20_no_threshold_of_two_no_small_cohort_and_nothing_from_another_model_or_round() -> None:
    assert "threshold 2" in (sound(20, 19, 2, "0.05", "0.1", 40, "semi") or "")
    assert degree(20, "0", "0", 40, "semi").t == 3
    assert Policy().refuses(params(5, n_min=2), rostered=True) and not Policy().refuses(params(5), rostered=True)
    world = World(5, params(5))
    world.sites[1] = replace(world.sites[1], model=b"n" * 32)
    assert 1 not in world.run(attempts=1).clients.tolist()
    again = World(5, params(5))
    first: list[Slots] = []
    again.meddle = lambda ask, i, b: first.append(b) or b
    assert again.run(attempts=1).total is not None
    with pytest.raises(Refused):  # an old round, replayed
        HANDLERS[VERBS[0]].run(first[0] | {"at": numbers([0, 0])}, again.memory[0], again.sites[0])


def test_21_shares_travel_sealed_and_a_mask_is_no_scalar() -> None:
    watch = Watch()
    world = World(5, params(5, 1000), suite=watch.suite())
    found = outside(world)
    assert not any(x in found[f"stage {s}"] for x in watch.secrets["share"] for s in range(4))
    for row in own_masks(world):
        assert len(np.unique(row)) > 990
    # a server with fewer than t shares of each opens nothing
    total, nothing = np.zeros(1001, np.uint32), dict[int, dict[int, bytes]]()
    around = ring(b"t" * 32, range(5), 4)
    why, _ = unmask(total, FULL, b"t" * 32, b"s" * 32, 3, around, {}, range(5), range(5), nothing, nothing)
    assert why == "0 shares of client 0, 3 are needed" and not total.any()


def test_22_one_loss_does_not_stop_the_round() -> None:
    for stage in range(5):
        world = World(6, params(6), lost={(0, stage): {3}})
        got = world.run(attempts=1)
        assert got.total is not None and np.array_equal(got.total, world.plain(got.clients))


def test_23_sums_are_exact_to_the_last_bit() -> None:
    """Integers that a float mask of 1e7 would round."""
    world = World(3, params(3, 3000, scale=2**18, delta_drop="0"))
    got = world.run(attempts=1)
    assert got.total is not None and got.total.dtype == np.int64 and np.array_equal(got.total, world.plain(got.clients))
    draw = np.random.default_rng(0)
    mask = draw.uniform(-1e7, 1e7, 3000).astype(np.float32)
    x = draw.uniform(-1, 1, 3000).astype(np.float32)
    assert not np.array_equal((x + mask) - mask, x)  # the planted error


def test_24_sums_reach_the_whole_range() -> None:
    p = params(30, 2, bound=100.0, scale=2**16)
    for x in ([99.0, 0.0], [-70.0, -70.0]):
        words = sum((encode(np.array(x), p, Secret()).words.astype(np.uint64) for _ in range(30)), np.uint64(0))
        np.testing.assert_allclose(
            decode(signed(np.asarray(words).astype(np.uint32)), p).vector, 30 * np.array(x), rtol=1e-3
        )


def test_25_no_key_is_shared_by_all() -> None:
    """Each pair has its own; a third client opens nothing of theirs."""
    watch = Watch()
    world = World(5, params(5), suite=watch.suite())
    assert world.run(attempts=1).total is not None
    by: dict[bytes, set[frozenset[int]]] = {}
    for shared, u, v, _ in watch.channels:
        by.setdefault(shared, set()).add(frozenset((u, v)))
    assert len(by) == 10 and all(len(pairs) == 1 for pairs in by.values())
    shared, u, v, tid = watch.channels[0]
    sealed = keys.seal(shared, tid, u, v, bytes(66))
    assert sum(keys.unseal(s, tid, u, v, sealed) is not None for s in by) == 1


def test_27_seeding_every_generator_changes_nothing() -> None:
    runs = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        runs.append(played())
    (one, a), (two, b) = runs
    assert not repeats(np.concatenate([own_masks(one), own_masks(two)]))
    for kind in ("key", "self", "share", "seed", "shared"):
        assert not set(a.secrets[kind]) & set(b.secrets[kind])


def test_28_a_channel_key_seals_one_message() -> None:
    """The nonce is zero, so no key may come twice: not in both directions, not in another attempt or round."""
    watch = Watch()
    world = World(5, params(5), lost={(0, 3): {0, 1, 2, 3, 4}}, suite=watch.suite())
    assert world.run().attempt == 1
    world.lost, world.round = {}, 5
    world.memory = [wait(m, q, 5) for m, q in zip(world.memory, world.q)]
    assert world.run().total is not None
    derived = [keys._derive(s, tid, b"chan" + bytes([u, v]), 32) for s, u, v, tid in watch.channels]  # pyright: ignore[reportPrivateUsage]
    assert len(derived) == 3 * 20 == len(set(derived))
    sealed = [keys.seal(s, tid, u, v, bytes(66)) for s, u, v, tid in watch.channels]
    assert len({x[:66] for x in sealed}) == 60  # the key streams themselves
    planted = [keys.seal(s, tid, min(u, v), max(u, v), bytes(66)) for s, u, v, tid in watch.channels]
    assert len({x[:66] for x in planted}) == 30
