"""FedBuff by hand: the hub's conversation is played with clients whose updates and times are numbers."""

import heapq

import numpy as np
import pytest
import torch

from manyloom import algorithms as A
from manyloom.algorithms.buffered import Open, version
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.core.seeds import Draws

EVERYBODY = np.arange(4, dtype=np.int64)
NAMES = "dcba"  # equal times go by name: the last client first


class Hand:
    """Clients whose update is u_i = i + 1 + theta received, each so many seconds after it is asked."""

    def __init__(self, seconds=(1.0, 1.0, 1.0, 1.0), broken=()):
        self.seconds, self.broken = seconds, broken
        self.open: list[tuple[float, str, int, Ask]] = []
        self.known: set[int] = set()
        self.asked: list[tuple[int, int, float]] = []

    def __call__(self, ask: Ask):
        for c in ask.to.tolist():
            if ask.number not in self.known:
                self.known.add(ask.number)
                self.asked.append((ask.number, c, float(ask.body["theta"][0])))
                heapq.heappush(self.open, (ask.at + self.seconds[c], NAMES[c], c, ask))
        found = []
        while self.open and self.open[0][0] <= ask.at + ask.deadline_s and len(found) < (ask.take or 0):
            at, _, c, due = heapq.heappop(self.open)
            if c in self.broken:
                found.append(Lost(c, "error", "broken", None, due.number, at))
                continue
            body = {"u": (c + 1 + due.body["theta"])[None].float()}
            body |= {n: torch.ones(1) for n in ("samples", "steps", "loss")}
            found.append(Reply(np.array([c]), body, due.number, sent=4, at=at))
        return found


def made(algorithm, hand, *, rounds, flying, opened=None, theta=0.0, spare=0, first=1):
    server, rule = algorithm.server.init(torch.tensor([theta])), algorithm.aggregate.init(1)
    out, opened = [], opened or Open()
    for t in range(first, first + rounds):
        talk = version(algorithm, server, rule, opened, eligible=EVERYBODY, flying=flying, spare=spare, absent=False,
                       draws=Draws(0, np.arange(4, dtype=np.uint64)), round=t, deadline_s=100.0)  # fmt: skip
        answer = None
        while True:
            try:
                answer = hand(talk.send(answer))
            except StopIteration as end:
                got = end.value
                break
        server, rule, opened = got.trained.server, got.trained.rule, got.open
        out.append(got)
    return out


def value(got) -> float:
    return float(got.trained.server["theta"][0])


def test_all_fresh_is_their_mean_in_order_of_name():
    [got] = made(A.fedbuff(buffer=4), Hand(), rounds=1, flying=4)
    assert value(got) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert got.staleness == (0, 0, 0, 0) and got.trained.back.tolist() == [3, 2, 1, 0]
    assert got.open.asks == () and got.trained.at == 1.0


def test_the_age_counts_and_the_sum_is_divided_by_k():
    """Client 3 takes 2.5 s, the others 1: it comes in version 3, sent in version 1, with u = 4 of the old theta."""
    hand = Hand((1.0, 1.0, 1.0, 2.5))
    got = made(A.fedbuff(buffer=3), hand, rounds=3, flying=4)
    assert [g.staleness for g in got[:2]] == [(0, 0, 0)] * 2
    one = (1 + 2 + 3) / 3
    two = one + (1 + 2 + 3 + 3 * one) / 3
    assert [value(g) for g in got[:2]] == pytest.approx([one, two])
    third = dict(zip(got[2].trained.back.tolist(), got[2].staleness))
    assert third[3] == 2 and sorted(third.values()) == [0, 0, 2]
    fresh = sum(c + 1 + two for c in third if c != 3)
    assert value(got[2]) == pytest.approx(two + (fresh + 4 / 3**0.5) / 3)  # not / (2 + 1 / sqrt 3), nor u + theta now
    assert got[2].trained.at == 3.0 and got[2].trained.back.tolist()[0] == 3  # 2.5 s is before 3 s


def test_a_version_takes_k_and_leaves_the_rest_open():
    [got] = made(A.fedbuff(buffer=2), Hand(), rounds=1, flying=4)
    assert got.trained.back.tolist() == [3, 2] and value(got) == pytest.approx((4 + 3) / 2)
    assert sorted(a.client for a in got.open.asks) == [0, 1] and set(got.open.bodies) == {1}


def test_nobody_is_asked_who_is_at_work():
    hand = Hand((1.0, 1.5, 2.0, 7.0))
    made(A.fedbuff(buffer=1), hand, rounds=9, flying=3)
    at_work: dict[int, int] = {}
    assert len(hand.asked) > 8 and [n for n, _, _ in hand.asked] == list(range(len(hand.asked)))
    for _, _, client, _ in hand.open:
        at_work[client] = at_work.get(client, 0) + 1
    assert all(n == 1 for n in at_work.values())


def test_what_is_open_survives_its_tensors_and_asks_the_same_again():
    algorithm = A.fedbuff(buffer=2)
    speeds = (1.0, 1.7, 2.9, 4.3)
    whole = made(algorithm, Hand(speeds), rounds=6, flying=3)
    for k in range(1, 6):
        before = whole[k - 1]
        again = Open.of(before.open.slots())
        assert again.asks == before.open.asks and again.made == before.open.made and again.now == before.open.now
        rest = made(algorithm, Hand(speeds), rounds=6 - k, flying=3, opened=again, theta=value(before), first=k + 1)
        assert [value(g) for g in rest] == [value(g) for g in whole[k:]]
        assert [g.trained.back.tolist() for g in rest] == [g.trained.back.tolist() for g in whole[k:]]


def test_what_is_too_old_is_dropped_counted_and_asked_anew():
    hand = Hand((1.0, 1.0, 1.0, 3.5))
    got = made(A.fedbuff(buffer=1, max_staleness=2), hand, rounds=12, flying=4)
    stale = [x for g in got for x in g.trained.lost]
    assert stale and {(x.client, x.reason) for x in stale} == {(3, "stale")}
    assert all(max(g.staleness) <= 2 and g.trained.enough for g in got)
    assert max(max(g.staleness) for g in made(A.fedbuff(buffer=1), Hand(hand.seconds), rounds=12, flying=4)) > 2


def test_too_many_lost_give_the_version_up():
    [got] = made(A.fedbuff(buffer=3), Hand(broken=(2, 3)), rounds=1, flying=4, spare=1)
    assert not got.trained.enough and value(got) == 0.0 and "2 clients were lost" in got.trained.why
    [got] = made(A.fedbuff(buffer=2), Hand(broken=(3,)), rounds=1, flying=4, spare=1)
    assert got.trained.enough and value(got) == pytest.approx((3 + 2) / 2)
