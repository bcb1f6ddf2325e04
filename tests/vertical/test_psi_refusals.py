"""Private set intersection when something goes wrong: lost, late, repeated, foreign, crafted."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from manyloom.core.errors import RunFailed
from manyloom.core.exchange import Lost, Reply, play
from manyloom.vertical import curve, psi
from manyloom.vertical.settings import Align
from tests.vertical.test_psi import BOTH, CHUNK, align, fewer_tries, numbers, picked, players

__all__ = ["fewer_tries"]
MINE, THEIRS = numbers(range(40)), numbers(range(20, 60))
MODES = [BOTH, Align("label"), Align("count")]


def exchange(xid, how=BOTH):
    return psi.align(MINE, 0, xid=xid, settings=how, chunk=CHUNK, floor=0, threads=1)


def asks(how):
    return len(align(MINE, THEIRS, how)[1].said)


def working(memory):
    """What is secret and still there."""
    return {n for n, t in memory.items() if n.startswith("psi.") and n not in LEFT and t.numel() and t.any()}


LEFT = {"psi.xid", "psi.at", "psi.asked", "psi.counts", "psi.answer.count", "psi.answer.digest", "psi.answer.digests",
        "psi.answer.n", "psi.answer.points"}  # fmt: skip


@pytest.mark.parametrize("how", MODES)
def test_a_party_lost_at_any_ask_ends_it_and_says_where(how):
    total = asks(how)
    for at in range(total):
        there, xid = players([THEIRS], how)
        there.lose = lambda ask, party, at=at, there=there: "the cable was cut" if len(there.said) == at else None
        with pytest.raises(RunFailed, match="feature party 0: it was lost") as error:
            there.play(exchange(xid, how))
        verb = there.said[at].verb
        assert verb in str(error.value) and "cable" in str(error.value) and len(there.said) == at + 1
        assert not len(there.memory[0].get("rows", []))
        fresh = os.urandom(32)  # and with a new opening it goes through
        there.memory[0]["xid"] = torch.tensor(list(fresh), dtype=torch.uint8)
        there.lose = lambda ask, party: None
        assert there.play(exchange(fresh, how)).common == 20
    assert total > 6


@pytest.mark.parametrize("how", MODES)
def test_a_repeated_ask_gets_the_same_bytes_and_a_late_one_harms_nothing(how):
    there, xid = players([THEIRS], how)
    earlier = []

    def answer(ask):
        first, again = there.one(ask, 0), there.one(ask, 0)
        assert isinstance(first, Reply) and isinstance(again, Reply)
        assert first.body.keys() == again.body.keys()
        assert all(torch.equal(first.body[n], again.body[n]) for n in first.body)
        before = {n: t.clone() for n, t in there.memory[0].items()}
        for late in earlier:
            refused = there.one(late, 0)
            assert isinstance(refused, Lost) and "refused" in refused.text
        assert all(torch.equal(before[n], there.memory[0][n]) for n in before)
        earlier.append(ask)
        return [first]

    found = play(exchange(xid, how), answer)
    assert found.common == 20
    if how is BOTH:
        assert picked(THEIRS, there.memory[0]["rows"]) == picked(MINE, found.rows)


def test_a_foreign_ask_is_refused_and_harms_nothing():
    there, xid = players([THEIRS])
    other, _ = players([THEIRS])
    foreign = psi.align(numbers(range(5)), 0, xid=xid, settings=BOTH, chunk=CHUNK)
    first = next(foreign)

    def answer(ask):
        reply = there.answer(ask)
        assert isinstance(there.one(first, 0), Lost)  # another conversation of the same exchange
        for verb in ("ids.masked", "ids.remask", "ids.return", "ids.shuffled"):
            assert isinstance(there.one(replace(ask, verb=verb, body={"k": torch.tensor([7, 9])}), 0), Lost)
        return reply

    assert play(exchange(xid), answer).common == 20


def test_without_an_opening_nothing_is_answered():
    there, xid = players([THEIRS])
    there.memory[0].pop("xid")
    with pytest.raises(RunFailed, match="no exchange was opened"):
        there.play(exchange(xid))


def test_an_exchange_is_aligned_once():
    there, xid = players([THEIRS])
    there.play(exchange(xid))
    with pytest.raises(RunFailed, match="alignment of this exchange is over"):
        there.play(exchange(xid))


@pytest.mark.parametrize("how", MODES)
def test_nothing_secret_is_left_and_nothing_secret_is_checkpointed(how):
    found, there = align(MINE, THEIRS, how)
    assert working(there.memory[0]) == set()
    assert set(there.checkpoint()[0]) <= {"rows", "psi.counts"}


def test_sides_that_want_different_things_find_out():
    there, xid = players([THEIRS], Align("label"))
    with pytest.raises(RunFailed, match="another reveal"):
        there.play(exchange(xid))


TWIST = (2).to_bytes(32, "little")
CRAFTED = {
    "twist": TWIST,
    "zero": bytes(32),
    "order 4": (1).to_bytes(32, "little"),
    "order 8": (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(32, "little"),
    "p": curve.P.to_bytes(32, "little"),
    "p + 9": (curve.P + 9).to_bytes(32, "little"),
    "bit 255": (2**255 + 9).to_bytes(32, "little"),
}


def with_row(table, row):
    table = table.clone()
    table[1] = torch.tensor(list(row), dtype=torch.uint8)
    return table


@pytest.mark.parametrize("row", [*CRAFTED.values(), None], ids=[*CRAFTED, "twice"])
@pytest.mark.parametrize("way, verb", [("up", "ids.masked"), ("down", "ids.remask")])
def test_crafted_points_end_it_and_the_scalar_is_gone(way, verb, row):
    there, xid = players([THEIRS])

    def craft(ask, party, body):
        if ask.verb == verb and int(ask.body["k"][0]) == 1:
            points = body["points"]
            body["points"] = with_row(points, points[0].tolist() if row is None else row)
        return body

    setattr(there, f"on_way_{way}", craft)
    with pytest.raises(RunFailed, match=f"{verb}, chunk 2 of 3") as error:
        there.play(exchange(xid))
    assert "a point" in str(error.value)
    if way == "down":
        assert "given up" in error.value.got
        assert working(there.memory[0]) == set()
        there.on_way_down = lambda ask, party, body: body
        with pytest.raises(RunFailed, match=r"given\s+up"):
            there.play(exchange(xid))


def test_a_point_twice_in_two_chunks_is_found():
    there, xid = players([THEIRS])
    first = {}

    def craft(ask, party, body):
        if "points" in body:
            first.setdefault("row", body["points"][0].tolist())
            if int(ask.body["k"][0]) == 2:
                body["points"] = with_row(body["points"], first["row"])
        return body

    there.on_way_down = craft
    with pytest.raises(RunFailed, match="ids.remask, chunk 3 of 3"):
        there.play(exchange(xid))
    assert "twice" in there.said[-1].why and working(there.memory[0]) == set()
    first.clear()
    there, xid = players([THEIRS], on_way_up=craft)
    with pytest.raises(RunFailed, match="twice"):
        there.play(exchange(xid))


def spoilt(t):
    """The same slot as no honest party sends it: cut, of another type, of another shape, other values."""
    changed = t.clone()
    changed.view(-1)[0] ^= 5
    return [t[:-1] if t.ndim else t.reshape(1), t.double(), torch.cat([t, t]) if t.ndim else t - 10**6, changed]


@pytest.mark.parametrize("how", MODES)
@pytest.mark.parametrize("way", ["up", "down"])
def test_any_slot_spoilt_at_any_ask_never_gives_a_wrong_answer(how, way):
    """Each slot of each ask and reply, four ways: it fails, or a masked value became another unseen."""
    mine, theirs = numbers(range(12)), numbers(range(4, 16))
    honest = align(mine, theirs, how, chunk=8)[1].said
    truth, unseen = set(mine) & set(theirs), 0
    for at, said in enumerate(honest):
        for name, kind in ((n, k) for n, t in getattr(said, way).items() if t.numel() for k in range(4)):
            there, xid = players([theirs], how, chunk=8)

            def craft(ask, party, body, there=there, at=at, name=name, kind=kind):
                return body | {name: spoilt(body[name])[kind]} if len(there.said) == at else body

            setattr(there, f"on_way_{way}", craft)
            try:
                found = there.play(psi.align(mine, 0, xid=xid, settings=how, chunk=8, floor=0, threads=1))
            except RunFailed as error:
                assert "feature party 0" in str(error)
                late = (said.verb, way) == ("ids.confirm", "up")  # the party has done its part by then
                assert late or not len(there.memory[0].get("rows", []))
                continue
            unseen += 1
            assert kind == 3 and name in ("points", "digests"), (said.verb, name, kind)
            assert found.rows is None or set(picked(mine, found.rows)) <= truth
            if how is BOTH:
                assert picked(theirs, there.memory[0]["rows"]) == picked(mine, found.rows)
    assert unseen <= 12


def test_a_digest_that_does_not_match_ends_it_on_both_sides():
    there, xid = players([THEIRS])

    def craft(ask, party, body):
        if ask.verb == "ids.return":
            body["digests"][:] = 0 if int(ask.body["k"][0]) else body["digests"]
            body["digests"][:, 0] = torch.arange(len(body["digests"]))
        return body

    there.on_way_down = craft
    with pytest.raises(RunFailed, match="do not find the same common ids"):
        there.play(exchange(xid))
    assert not len(there.memory[0].get("rows", [])) and working(there.memory[0]) == set()


def test_an_id_that_was_made_up_is_never_common():
    """A label party that knows digests of its own sends them for places where they do not belong."""
    there, xid = players([THEIRS[:2]], Align(dummies=40))
    own = []

    def keep(ask, party, body):
        own.extend(body["digests"]) if ask.verb == "ids.remask" else None
        return body

    def craft(ask, party, body):
        if ask.verb == "ids.return":
            body["digests"] = torch.stack([own.pop() for _ in body["digests"]])
        return body

    there.on_way_up, there.on_way_down = keep, craft
    with pytest.raises(RunFailed, match="ids.return"):
        there.play(exchange(xid, Align(dummies=40)))
    assert "made up" in there.said[-1].why


def test_every_ask_has_the_deadline():
    there, xid = players([THEIRS], lose=lambda ask, party: None if ask.deadline_s == 7.5 else "no deadline")
    long = psi.aligned_all(MINE, 1, xid=xid, settings=BOTH, deadline_s=7.5, chunk=CHUNK)
    assert there.play(long).common == 20


def test_a_party_with_an_id_twice_says_so_without_naming_it():
    there, xid = players([[*THEIRS, THEIRS[0]]])
    with pytest.raises(RunFailed, match="twice") as error:
        there.play(exchange(xid))
    assert THEIRS[0][4:].decode() not in error.value.got


def test_kept_rows_are_told_once_and_fit():
    theirs = [numbers(range(30)), numbers(range(20, 60))]
    there, xid = players(theirs)

    def craft(ask, party, body):
        return body | {"bits": body["bits"] | 0x80} if ask.verb == "ids.keep" and party == 0 else body

    there.on_way_down = craft
    with pytest.raises(RunFailed, match="ids.keep"):
        there.play(psi.aligned_all(numbers(range(60)), 2, xid=xid, settings=BOTH, chunk=CHUNK))
