"""Private set intersection: the right ids, in one order, at every party; nothing else told; a cheat ends it."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from manyloom.core.errors import BadInput, RunFailed
from manyloom.core.slots import size_bytes
from manyloom.vertical import curve, psi
from manyloom.vertical import psi_wire as wire
from manyloom.vertical.ids import canonical
from manyloom.vertical.party import Party
from manyloom.vertical.settings import Align
from tests.vertical.playing import Players

BOTH = Align()
CHUNK = 16


@pytest.fixture(autouse=True)
def fewer_tries(monkeypatch):
    monkeypatch.setattr(curve, "ALWAYS", 4)  # of short lists, so that tests are fast: test_curve has the rule


def party(keys, name="host"):
    return Party(name, keys, torch.zeros(len(keys), 0))


def players(theirs, how=BOTH, xid=None, chunk=CHUNK, floor=0, threads=1, **hooks):
    xid = xid or os.urandom(32)
    opened = [{"xid": torch.tensor(list(xid), dtype=torch.uint8)} for _ in theirs]
    made = psi.handlers(how, chunk=chunk, floor=floor, threads=threads)
    return Players(made, [party(k, f"host {i}") for i, k in enumerate(theirs)], opened, **hooks), xid


def align(mine, theirs, how=BOTH, chunk=CHUNK, floor=0, threads=1, **hooks):
    there, xid = players([theirs], how, chunk=chunk, floor=floor, threads=threads, **hooks)
    return there.play(psi.align(mine, 0, xid=xid, settings=how, chunk=chunk, floor=floor, threads=threads)), there


def align_all(mine, theirs, how=BOTH, chunk=CHUNK):
    there, xid = players(theirs, how, chunk=chunk)
    return there.play(psi.aligned_all(mine, len(theirs), xid=xid, settings=how, chunk=chunk, threads=1)), there


def picked(keys, rows):
    return [keys[int(i)] for i in rows]


def numbers(*spans):
    return canonical([[i for span in spans for i in span]], ["int"]).keys


keys_of = st.lists(st.binary(max_size=3), unique=True, max_size=12)


@given(keys_of, keys_of, st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_it_is_the_intersection_of_sets_in_the_agreed_order(mine, theirs, chunk):
    found, there = align(mine, theirs, chunk=chunk)
    expected = sorted(set(mine) & set(theirs), key=lambda k: hashlib.sha256(b"manyloom/psi/order/v1" + k).digest())
    assert picked(mine, found.rows) == expected
    assert picked(theirs, there.memory[0]["rows"]) == expected
    assert found.common == len(expected) and found.sizes == (len(mine), len(theirs))


words = st.text(st.characters(exclude_categories=("Cs", "Cn", "Cc")), min_size=1, max_size=3)


@given(st.lists(words, max_size=10), st.lists(words, max_size=10), st.randoms())
@settings(max_examples=25, deadline=None)
def test_text_in_any_normal_form_and_with_duplicates(mine, theirs, draw):
    theirs = theirs + draw.sample(mine, len(mine) // 2) + draw.sample(mine, len(mine) // 3)
    form = [draw.choice(["NFC", "NFD", "NFKC"]) for _ in theirs]
    a = canonical([mine], ["text"], duplicates="first")
    b = canonical([[unicodedata.normalize(f, t) for f, t in zip(form, theirs)]], ["text"], duplicates="first")
    found, there = align(a.keys, b.keys)
    one = {unicodedata.normalize("NFKC", t).strip() for t in mine} & {
        unicodedata.normalize("NFKC", t).strip() for t in theirs
    }
    assert found.common == len(one - {""})
    assert len(there.memory[0]["rows"]) == found.common


@pytest.mark.parametrize(
    "mine, theirs, common",
    [([], [], 0), ([], [5], 0), ([5], [], 0), ([5], [5], 1), ([5], [6], 0), (range(40), range(40), 40),
     (range(40), range(40, 80), 0), (range(100), range(95, 195), 5), (range(3), range(70), 3)],
)  # fmt: skip
def test_empty_one_all_none_and_five_percent(mine, theirs, common):
    found, there = align(numbers(mine), numbers(theirs))
    assert found.common == len(found.rows) == len(there.memory[0]["rows"]) == common


def test_numbers_and_text_and_several_columns():
    a = canonical([["ab", "a", "x"], ["c", "bc", "1"]], ["text", "text"]).keys
    b = canonical([["a", "abc", "x"], ["bc", "", "1"]], ["text", "text"])
    found, _ = align(a, b.keys)
    assert sorted(found.rows.tolist()) == [1, 2] and b.left_out == 1
    ints, texts = canonical([[1, 2.0, 30]], ["int"]).keys, canonical([["01", "+2", "-30"]], ["int"]).keys
    assert align(ints, texts)[0].common == 2


def test_twenty_runs_find_the_same_rows_in_the_same_order():
    mine, theirs = numbers(range(24)), numbers(range(8, 32))
    seen, digests = set(), set()
    for run in range(20):
        a, b = mine[:], theirs[:]
        random.Random(run).shuffle(a)
        random.Random(-run).shuffle(b)
        found, there = align(a, b)
        assert picked(a, found.rows) == picked(b, there.memory[0]["rows"])
        seen.add(tuple(picked(a, found.rows)))
        digests.add(found.digest)
    assert len(seen) == 1 and len(digests) == 20  # what is compared differs with every mask


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_find_the_same(threads, monkeypatch):
    monkeypatch.setattr(curve, "SLICE", 5)
    found, there = align(numbers(range(60)), numbers(range(30, 90)), threads=threads)
    assert found.common == len(there.memory[0]["rows"]) == 30


def test_only_the_label_party_learns_with_label():
    found, there = align(numbers(range(60)), numbers(range(30, 90)), Align("label"))
    assert found.common == len(found.rows) == 30
    assert not len(there.memory[0].get("rows", [])) and {s.verb for s in there.said} == {
        "ids.open", "ids.masked", "ids.remask"
    }  # fmt: skip


def test_only_a_number_is_told_with_count():
    mine, theirs = numbers(range(60)), numbers(range(30, 90))
    found, there = align(mine, theirs, Align("count"))
    assert (found.common, found.rows, found.told, found.few) == (30, None, "30", False)
    early = [s.up["digests"] for s in there.said if s.verb == "ids.remask"]
    assert all(len(d) == 0 for d in early)  # nothing until all has been sent
    assert there.checkpoint()[0]["psi.counts"].item() == 1
    few, _ = align(mine, numbers(range(51, 90)), Align("count"))
    assert (few.common, few.few, few.told) == (0, True, "below 10")
    assert align(mine, numbers(range(50, 90)), Align("count"))[0].told == "10"


def test_a_count_comes_back_in_another_order():
    """The label party must not tell from the order which of its ids are common."""
    mine, xid = numbers(range(64)), os.urandom(32)
    there, _ = players([mine], Align("count"), xid=xid)
    exchange = psi.align(mine, 0, xid=xid, settings=Align("count"), chunk=CHUNK, floor=0)
    ask, scalar = next(exchange), b""
    with contextlib.suppress(StopIteration):
        while True:
            reply = there.answer(ask)
            scalar = there.memory[0]["psi.scalar"].numpy().tobytes() or scalar
            ask = exchange.send(reply)
    sent = there.said
    theirs = np.concatenate([s.up["digests"].numpy() for s in sent if s.verb == "ids.shuffled"])
    points = np.concatenate([s.down["points"].numpy() for s in sent if s.verb == "ids.remask"])
    straight = curve.digests(curve.multiply(scalar, curve.rows(points)), xid, 12)  # as they would come unshuffled
    assert theirs.tobytes() != straight and sorted(curve.rows(theirs)) == sorted(
        straight[i : i + 12] for i in range(0, 768, 12)
    )


def test_a_count_over_few_ids_is_refused_on_either_side():
    enough, few = numbers(range(1000)), numbers(range(999))
    with pytest.raises(BadInput, match="1000"):
        align(few, enough, Align("count"), floor=1000)
    with pytest.raises(RunFailed, match="from 1000 ids"):
        align(enough, few, Align("count"), floor=1000)
    there, xid = players([enough], Align("count"), floor=1000)  # a label party that does not keep to it
    with pytest.raises(RunFailed, match="refused"):
        there.play(psi.align(few, 0, xid=xid, settings=Align("count"), floor=0))


def test_made_up_ids_round_a_size_up_and_are_never_common():
    mine, theirs = numbers(range(60)), numbers(range(30, 77))
    for dummies, size in [(50, 50), (47, 47), (100, 100)]:
        found, there = align(mine, theirs, Align(dummies=dummies))
        assert found.sizes == (60, size) and found.common == 30
        assert picked(theirs, there.memory[0]["rows"]) == picked(mine, found.rows)


def test_several_parties_end_with_one_order():
    mine = numbers(range(100))
    theirs = [numbers(range(20, 130)), numbers(range(0, 90))[::-1], numbers(range(10, 80), range(200, 250))]
    found, there = align_all(mine, theirs)
    expected = picked(mine, found.rows)
    assert sorted(expected) == sorted(numbers(range(20, 80))) and found.common == 60
    assert [picked(k, m["rows"]) for k, m in zip(theirs, there.memory)] == [expected] * 3
    assert [p.common for p in found.pairs] == [80, 90, 70] and found.sizes == (100, 110, 90, 120)
    one, _ = align_all(mine, [theirs[2], theirs[0], theirs[1]])
    assert picked(mine, one.rows) == expected  # in whatever order parties are asked


def test_several_parties_and_one_that_shares_nothing():
    found, there = align_all(numbers(range(30)), [numbers(range(30)), numbers(range(50, 60)), []])
    assert found.common == 0 and [len(m["rows"]) for m in there.memory] == [0, 0, 0]
    label, there = align_all(numbers(range(30)), [numbers(range(20)), numbers(range(5, 60))], Align("label"))
    assert label.common == 15 and not any(len(m.get("rows", [])) for m in there.memory)
    with pytest.raises(BadInput):
        align_all(numbers(range(30)), [[], []], Align("count"))


@pytest.mark.parametrize("reveal", ["both", "label", "count"])
@pytest.mark.parametrize("sizes", [(0, 0), (1, 40), (33, 16), (48, 0)])
@pytest.mark.parametrize("dummies", [0, 10])
def test_bytes_are_predicted_exactly(reveal, sizes, dummies):
    how = Align(reveal, dummies=dummies)
    mine, theirs = numbers(range(sizes[0])), numbers(range(sizes[1]))
    found, there = align(mine, theirs, how)
    assert (found.sent_up, found.sent_down) == there.bytes()
    assert there.bytes() == wire.traffic(len(mine), found.sizes[1], reveal, chunk=CHUNK)
    assert there.bytes() == psi.traffic(len(mine), [len(theirs)], [found.common], found.common, how, chunk=CHUNK)


def test_bytes_of_several_parties_are_predicted_exactly():
    mine, theirs = numbers(range(50)), [numbers(range(20, 60)), numbers(range(33))]
    for how in (BOTH, Align("label"), Align(dummies=7)):
        found, there = align_all(mine, theirs, how)
        common = [p.common for p in found.pairs]
        assert there.bytes() == (found.sent_up, found.sent_down)
        assert there.bytes() == psi.traffic(50, [len(k) for k in theirs], common, found.common, how, chunk=CHUNK)


def test_eighty_eight_bytes_a_pair_of_ids_and_no_body_above_eight_mebibytes():
    up, down = wire.traffic(10**6, 10**6)
    assert 88 * 10**6 < up + down < 88 * 10**6 + 2000
    widest = max(32, wire.width(2**30, 2**30))
    assert wire.CHUNK * widest + 16 <= 2**23
    assert max(c.stop - c.start for c in wire.chunks(10**6, wire.CHUNK)) <= wire.CHUNK


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_false_matches_are_rarer_than_two_to_the_minus_forty(a, b):
    t = wire.width(a, b)
    assert a * b * 2**40 <= 2 ** (8 * t) and (t == 12 or a * b * 2**40 > 2 ** (8 * t - 8))


@given(st.integers(0, 10_000), st.integers(1, 700))
def test_chunks_are_equal_but_for_one(n, size):
    parts = wire.chunks(n, size)
    lengths = [p.stop - p.start for p in parts]
    assert sum(lengths) == n and max(lengths) <= size and max(lengths) - min(lengths) <= 1
    assert parts[0].start == 0 and all(a.stop == b.start for a, b in zip(parts, parts[1:]))


def test_bodies_are_small_and_a_party_keeps_no_points():
    n, kept = 600, []
    mine, theirs = numbers(range(n)), numbers(range(n))

    def weigh(ask, party, body):
        kept.append(size_bytes(there.memory[party]))
        return body

    there, xid = players([theirs], chunk=64, on_way_up=weigh)
    there.play(psi.align(mine, 0, xid=xid, settings=BOTH, chunk=64, threads=1))
    assert max(size_bytes(s.down) for s in there.said) <= 64 * 32 + 16
    assert max(size_bytes(s.up) for s in there.said) <= 64 * 32
    assert max(kept) <= n * (12 + 8 + 8 + 12) + 64 * 32 + 300  # digests, order, matches, and the last answer


@pytest.mark.parametrize("how", [BOTH, Align("label"), Align("count"), Align(dummies=300)])
def test_no_id_and_no_unmasked_digest_travels(how):
    names = [f"customer-{i:04}" for i in range(200)]
    mine, theirs = canonical([names[:120]], ["text"]).keys, canonical([names[80:]], ["text"]).keys
    found, there = align(mine, theirs, how)
    said, xid = there.transcript(), there.memory[0]["xid"].numpy().tobytes()
    assert len(said) > 250 * 32
    planted = b"|".join([said, mine[3]])
    forms = [forms_of(k, xid) for k in {*mine, *theirs}]
    assert any(f in planted for fs in forms for f in fs)
    assert not any(f in said for fs in forms for f in fs)
    assert xid not in said


def forms_of(key, xid):
    """All that would give an id away: itself, its hashes, its point, the digest of its point unmasked."""
    u = curve.hashed(key, curve.tries(curve.REAL, xid))
    hashes = [hashlib.sha256(p + k).digest() for p in (b"", b"manyloom/psi/order/v1") for k in (key, key[4:])]
    return [key[4:], u, curve.digests(u, xid, 12), *(h[:12] for h in hashes)]


def test_masked_points_look_like_noise():
    found, there = align(numbers(range(400)), numbers(range(400)))
    for verb, slot, side in [
        ("ids.masked", "points", "up"),
        ("ids.remask", "points", "down"),
        ("ids.remask", "digests", "up"),
    ]:
        table = np.concatenate([getattr(s, side)[slot].numpy() for s in there.said if s.verb == verb])
        bits = np.unpackbits(table[:, :31], axis=1).mean(0)
        assert np.abs(bits - 0.5).max() < 6 * 0.5 / np.sqrt(len(table))
        counts = np.bincount(table[:, :31].ravel(), minlength=256)
        expected = counts.sum() / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * np.sqrt(2 * 255)


def test_lists_are_permuted_from_run_to_run():
    mine = numbers(range(30))
    torch.manual_seed(0)
    np.random.seed(0)
    a = wire.permutation(200)
    torch.manual_seed(0)
    np.random.seed(0)
    b = wire.permutation(200)
    assert (a != b).any() and sorted(a) == sorted(b) == list(range(200))
    orders = {tuple(players_order(mine)) for _ in range(4)}
    assert len(orders) == 4


def players_order(keys):
    there, xid = players([keys])
    exchange = psi.align(keys, 0, xid=xid, settings=BOTH, chunk=CHUNK)
    there.answer(next(exchange))
    return there.memory[0]["psi.order"].tolist()


def test_real_ids_match_exactly():
    folder = Path(os.environ.get("MANYLOOM_DATA", "")) / "finance" / "fate_vertical"
    if not os.environ.get("MANYLOOM_DATA") or not folder.is_dir():
        pytest.skip("MANYLOOM_DATA names no data directory with finance/fate_vertical")
    sides = []
    for side in ("guest", "host"):
        with open(folder / f"breast_hetero_{side}.csv", newline="") as file:
            sides.append([row["id"] for row in csv.DictReader(file)])
    mine = canonical([[int(i) for i in sides[0]]], ["int"])  # numbers here, text there
    theirs = canonical([sides[1]], ["int"])
    found, there = align(mine.keys, theirs.keys, chunk=200)
    assert found.common == 569 and found.sizes == (569, 569)
    assert picked(sides[0], found.rows) == picked(sides[1], there.memory[0]["rows"])
