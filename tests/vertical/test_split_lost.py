"""Going on after a stop, parties that are lost in each phase, asks that come twice or late."""

import math

import pytest
import torch

from manyloom.core.slots import to_bytes
from manyloom.models.split import (
    bottom_part,
    label_part,
)
from manyloom.vertical import split
from manyloom.vertical.passes import held_out
from manyloom.vertical.settings import Cut
from tests.vertical.splitting import HOW, IMPUTE, MODEL, OPTIMISERS, PLAIN, Game, M


@pytest.mark.parametrize(
    ("name", "cut"),
    [("adam", PLAIN), ("sgd", PLAIN._replace(bits=4)), ("adamw", PLAIN._replace(dropout=0.4))],
    ids=["adam", "sgd, 4 bits", "adamw, dropout"],
)
def test_going_on_is_bit_identical(name, cut):
    how = OPTIMISERS[name][0]
    whole = Game(2, cut=cut, how=how)
    end = whole.run(whole.passes.start(), 1, 2, 3)
    first = Game(2, cut=cut, how=how)
    half = {n: t.clone() for n, t in first.run(first.passes.start(), 1).items()}
    kept = [m | {"rows": torch.arange(M)} for m in first.players.checkpoint()]
    again = Game(2, cut=cut, how=how, memory=kept)
    went_on = again.run(half, 2, 3)
    assert to_bytes(end) == to_bytes(went_on)
    assert [to_bytes(m) for m in whole.players.memory] == [to_bytes(m) for m in again.players.memory]


def lose_at(verb, count):
    """Loses party 1 at the so-many-th ask of a verb."""
    seen = []

    def lose(ask, party):
        if ask.verb == verb and party == 1:
            seen.append(ask)
            return "the line is dead" if len(seen) == count else None
        return None

    return lose


@pytest.mark.parametrize("answered", [False, True], ids=["before it heard", "after it answered"])
@pytest.mark.parametrize(("verb", "count"), [("cut.forward", 1), ("cut.step", 2), ("cut.backward", 1)])
def test_a_party_lost_in_a_pass(verb, count, answered):
    """The pass comes to nothing and says where; done again, with or without a restart, it is the pass it would be."""
    whole = Game(2)
    end = whole.run(whole.passes.start(), 1, 2)
    game = Game(2)
    start = game.run(game.passes.start(), 1)
    before = {n: t.clone() for n, t in start.items()}
    kept = game.players.checkpoint()
    lose = lose_at(verb, count)
    if not answered:
        game.players.lose = lose
    play = game.players.answer

    def answer(ask):
        said = play(ask)
        why = lose(ask, 1) if answered and 1 in ask.to.tolist() else None
        return [split.Lost(1, "away", why) if why and r.clients[0] == 1 else r for r in said]

    game.players.answer = answer
    failed = game.players.play(game.passes.one(start, 2))
    assert not failed.enough and [x.client for x in failed.lost] == [1]
    assert verb in failed.lost[0].text and "pass 2" in failed.lost[0].text and "the line is dead" in failed.lost[0].text
    assert failed.state.keys() == before.keys() and all(torch.equal(failed.state[n], before[n]) for n in before)
    game.players.lose, game.players.answer = (lambda ask, party: None), play
    assert to_bytes(game.run(failed.state, 2)) == to_bytes(end)  # nothing was restored: parties go back by themselves
    restarted = Game(2, memory=[m | {"rows": torch.arange(M)} for m in kept])
    assert to_bytes(restarted.run(before, 2)) == to_bytes(end)
    assert [to_bytes(m) for m in game.players.memory] == [to_bytes(m) for m in whole.players.memory]


def test_a_repeated_ask_counts_once_and_a_late_one_not_at_all():
    whole, game = Game(2), Game(2)
    play = game.players.answer
    heard = []

    def twice(ask):
        heard.append(ask)
        first, second = play(ask), play(ask)
        assert [to_bytes(r.body) for r in first] == [to_bytes(r.body) for r in second]
        if len(heard) == 3:
            old = play(heard[1])
            assert all(isinstance(r, split.Lost) and "step 3 of pass 1 waits" in r.text for r in old)
        return first

    game.players.answer = twice
    assert to_bytes(game.run(game.passes.start(), 1)) == to_bytes(whole.run(whole.passes.start(), 1))


@pytest.mark.parametrize("spoil", ["shape", "nan", "missing"])
def test_an_answer_that_does_not_fit_is_a_loss(spoil):
    def change(ask, party, body):
        if ask.verb != "cut.step" or party != 1:
            return body
        z = body["z"]
        return {"shape": {"z": z[:1]}, "nan": {"z": z * math.nan}, "missing": {}}[spoil]

    game = Game(2, on_way_up=change)
    game.run(game.passes.start(), 1)
    assert not game.last.enough and game.last.lost[0].reason == "malformed" and '"z"' in game.last.lost[0].text


def test_a_gradient_that_is_no_number_is_refused():
    def change(ask, party, body):
        return body | ({"grad": body["grad"] * math.inf} if "grad" in body else {})

    game = Game(1, on_way_down=change)
    game.run(game.passes.start(), 1)
    assert not game.last.enough and '"grad" holds numbers that are not finite' in game.last.lost[0].text


def test_a_lost_party_in_a_judgement():
    strict, kind = Game(2), Game(2, cut=IMPUTE)
    for game in (strict, kind):
        state = game.run(game.passes.start(), 1)
        game.players.lose = lambda ask, party: "off" if party == 1 else None
        game.judged = game.judge(state)
    assert not len(strict.judged.output) and not len(strict.judged.y) and math.isnan(strict.judged.loss)
    assert [(x.client, "cut.judge" in x.text) for x in strict.judged.lost] == [(1, True)]
    at = held_out(M, 0.2, kind.seed)[1]
    kind.players.lose = lambda ask, party: None
    z = [kind.players.memory[0]["theta"], None]
    shop = bottom_part(MODEL, 3)(z[0], kind.xs[0][at])
    side = label_part(MODEL, 5, 2, 1)(state["theta"], kind.x[at], torch.cat([shop, torch.zeros(len(at), 4)], 1))
    assert torch.allclose(kind.judged.output, side, atol=1e-6)
    assert len(kind.judged.lost) == 1 and len(kind.judged.y) == len(at)


def test_training_goes_on_without_a_party_only_where_it_was_trained_for():
    game = Game(3, cut=IMPUTE, lose=lambda ask, party: "off" if party == 1 else None)
    game.run(game.passes.start(), 1)
    assert game.last.enough and [x.client for x in game.last.lost] == [1] and game.last.rows == 120
    alone = Game(1, cut=IMPUTE, lose=lambda ask, party: "off")
    alone.run(alone.passes.start(), 1)
    assert not alone.last.enough


def test_party_dropout_is_drawn_from_the_seed():
    cut = Cut(defence="none", dropout=0.5)
    asked = []
    for seed in (3, 3, 4):
        game = Game(2, cut=cut, how=HOW._replace(batch_size=8), seed=seed)
        game.run(game.passes.start(), 1)
        asked.append([tuple(s.down["at"].tolist()) for s in game.players.said if s.party == 0])
    assert asked[0] == asked[1] != asked[2]
    assert 3 < len(asked[0]) < 13  # of 15 steps
    assert Cut(on_missing="impute").dropped == 0.25 and Cut().dropped == 0
