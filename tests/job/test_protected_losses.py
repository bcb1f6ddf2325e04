"""Secure rounds that lose clients: at the masked stage, below the least, after shares were opened; and resume."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from manyloom import algorithms as A
from manyloom.core.exchange import Ask, Lost, Reply
from manyloom.job.job import Simulate
from manyloom.job.loop import loop, start
from manyloom.job.prepare import prepare
from manyloom.runtime.local import Local
from manyloom.secure import wire
from manyloom.secure.client import LOG
from manyloom.secure.params import number_of
from tests.toys import Listening, classes, history, of, play, secured, theta

MASKED, UNMASK = wire.VERBS[2], wire.VERBS[4]
SIX = {"sizes": (30, 15, 20, 10, 25, 16), "test": 0.0}


def without(client: int, runtime: Local):
    """Answers of a runtime where one client is lost before it trains."""

    def before(ask: Ask):
        if ask.verb != "train" or client not in ask.to:
            return None
        others = replace(ask, to=ask.to[ask.to != client])
        return [*Local.ask(runtime, others), Lost(client, "error", "never came")]

    return before


@pytest.mark.parametrize("fidelity", ["full", "ideal"])
@pytest.mark.parametrize("recipe", ["fedavg", "scaffold"])
def test_lost_at_the_masked_stage_is_as_if_lost_before_training(recipe, fidelity):
    """The others' masks are taken out: the model is that of a round without the client, bit for bit."""
    algorithm = A.RECIPES[recipe](lr=0.1, batch_size=5)
    base = secured(algorithm, table={"fidelity": fidelity}, rounds=1)
    late = play(replace(base, simulate=Simulate(drop=["1:2"])))
    runtime = Listening()
    runtime.before = without(2, runtime)
    early = play(base, runtime)
    assert [(e.client, e.reason) for e in of(late, "client_lost")] == [(2, "simulated")]
    assert of(late, "round_done")[0].back == of(early, "round_done")[0].back == 4
    assert torch.equal(late[-1].state.server["theta"], early[-1].state.server["theta"])
    assert not torch.equal(late[-1].state.server["theta"], theta(base))  # it does make a difference


def test_the_lost_client_had_trained_and_shared_its_keys():
    runtime = Listening()
    play(secured(rounds=1, eval_every=9, simulate=Simulate(drop=["1:2"])), runtime)
    asked = {
        ask.verb: ask.to.tolist()
        for ask, _ in runtime.heard
        if ask.verb == "train" or ask.round == number_of(1, "train")
    }
    assert all(2 in asked[v] for v in ("train", wire.VERBS[0], wire.VERBS[1], MASKED))
    assert all(2 not in asked[v] for v in (wire.VERBS[3], UNMASK))
    opened = [len(r.body["s"][0]) for ask, a in runtime.of(UNMASK) for r in a if ask.round == number_of(1, "train")]
    assert opened == [1, 1, 1, 1]  # a share of its mask key from each of the others


def test_drawn_losses_hit_training_alone_and_follow_the_seed():
    j = secured(federation=classes(sizes=(12,) * 20, test=0.3), rounds=4, simulate=Simulate(dropout=0.06), quorum=0.5)
    one, two = play(j), play(j)
    lost = [(e.round, e.client) for e in of(one, "client_lost")]
    assert 1 <= len(lost) <= 10 and history(one) == history(two)
    assert all(e.metrics for e in of(one, "evaluated"))  # sums of metrics lose nobody by [simulate]


def test_below_the_least_another_cohort_is_tried_then_the_run_fails_and_can_go_on():
    fed = classes(**SIX)
    faults = Simulate(drop=[f"2:{c}" for c in range(6)])
    j = secured(federation=fed, cohort=4, quorum=4, seed=3, rounds=3, simulate=faults)
    events = play(j)
    tried = [(e.attempt, tuple(e.cohort)) for e in of(events, "round_started") if e.round == 2]
    assert [a for a, _ in tried] == [0, 1] and tried[0][1] != tried[1][1]
    assert ["masked inputs came" in e.reason or "replies" in e.reason for e in of(events, "round_failed")] == [True] * 2
    last = events[-1]
    assert last.status == "failed" and last.state.round == 1 and last.error["code"] in ("quorum", "no-sum")
    assert "lost by [simulate]" in last.error["got"] and "resume" in last.error["mend"]
    mended = replace(j, simulate=Simulate())
    rest, whole = play(mended, state=last.state), play(mended)
    assert rest[-1].status == "done" and torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])


def test_a_failed_round_may_be_skipped():
    faults = Simulate(drop=[f"2:{c}" for c in range(5)])
    events = play(secured(rounds=3, failed_round="skip", simulate=faults))
    states = [e.state.server["theta"] for e in of(events, "round_done")]
    assert events[-1].status == "done" and torch.equal(states[0], states[1]) and not torch.equal(states[1], states[2])


def test_after_shares_were_opened_there_is_no_other_attempt():
    def silent(ask: Ask):
        return [Lost(c, "deadline", "no answer in time") for c in ask.to.tolist()] if ask.verb == UNMASK else None

    events = play(secured(rounds=2, eval_every=9), Listening(before=silent))
    assert [(e.round, e.attempt) for e in of(events, "round_started")] == [(1, 0)]
    [failed] = of(events, "round_failed")
    assert "no sum" in failed.reason and events[-1].status == "failed" and "resume" in events[-1].error["mend"]

    def mute(ask: Ask):  # the same loss a stage earlier: nothing was opened, another attempt is made
        return [Lost(c, "deadline", "no answer in time") for c in ask.to.tolist()] if ask.verb == MASKED else None

    events = play(secured(rounds=2, eval_every=9), Listening(before=mute))
    assert [(e.round, e.attempt) for e in of(events, "round_started")] == [(1, 0), (1, 1)]


def test_a_liar_is_named_and_the_sum_stands():
    def lie(ask: Ask, answers):
        if ask.verb != UNMASK:
            return None
        out = []
        for r in answers:
            if isinstance(r, Reply) and r.clients[0] == 3:
                wrong = r.body["b"].clone()
                wrong[..., 0] ^= 1
                r = replace(r, body={**r.body, "b": wrong})
            out.append(r)
        return out

    fed = classes(sizes=(12,) * 9, test=0.0)
    j = secured(federation=fed, table={"fidelity": "full"}, rounds=1)
    events = play(j, Listening(after=lie))
    assert [e.text for e in of(events, "note")] == ["client 3 sent a wrong share"]
    assert torch.equal(events[-1].state.server["theta"], theta(j))


def test_too_few_judges_are_told_and_do_not_end_the_run():
    def silent(ask: Ask):
        gone = ask.verb == wire.VERBS[0] and ask.round in (number_of(0, "evaluate"), number_of(1, "evaluate"))
        return [Lost(c, "deadline", "no answer in time") for c in ask.to.tolist()] if gone else None

    events = play(secured(rounds=1), Listening(before=silent))
    assert events[-1].status == "done" and events[-1].final == {}
    notes = of(events, "note")
    assert [n.code for n in notes] == ["no-metrics"] * 2 and "no answer in time" in notes[0].text


# ---- going on


@pytest.mark.parametrize("recipe", ["fedavg", "scaffold", "fedadam"])
@pytest.mark.parametrize("at", [1, 2, 3])
def test_going_on_from_any_state_is_bit_identical(recipe, at):
    j = secured(A.RECIPES[recipe](lr=0.1, batch_size=5), cohort=4, rounds=4, simulate=Simulate(drop=["3:1"]))
    whole = play(j)
    state = of(whole, "round_done")[at - 1].state
    rest = play(j, state=state)
    assert torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])
    assert history(rest) == [e for e in history(whole) if e["round"] > at]


@pytest.mark.parametrize("verb", ["train", wire.VERBS[1], MASKED, UNMASK, "evaluate"])
def test_ended_between_ask_and_reply_a_run_goes_on_bit_identically(verb):
    """The process goes while round 2 is on; what waited in its memory is gone, the last checkpoint is round 1's."""
    j = secured(table={"fidelity": "full"}, rounds=3)

    def dies(ask: Ask):
        at = ask.round // 4 if ask.verb in wire.VERBS else ask.round
        if ask.verb == verb and at == 2:
            raise KeyboardInterrupt
        return None

    runtime, seen = Listening(before=dies), []
    ready = prepare(j, runtime)
    with pytest.raises(KeyboardInterrupt):
        seen.extend(loop_until(j, runtime, ready, seen))
    state = of(seen, "round_done")[-1].state
    assert state.round == 1
    rest, whole = play(j, state=state), play(j)
    assert torch.equal(rest[-1].state.server["theta"], whole[-1].state.server["theta"])
    assert history(rest) == [e for e in history(whole) if e["round"] > 1]


def loop_until(j, runtime, ready, seen):
    for event in loop(j, runtime, ready, start(j, ready)):
        seen.append(event)
    return []


def test_what_clients_answered_is_in_the_state_and_is_never_answered_again():
    j = secured(rounds=2, table={"fidelity": "full"})
    runtime = Listening()
    ready = prepare(j, runtime)
    events = list(loop(j, runtime, ready, start(j, ready)))
    state = events[-1].state
    log = state.clients["log/" + LOG]
    assert (
        log.shape == (5, 6) and (log[:, 0] >= 9).all() and not any("keys" in n or "waiting" in n for n in state.clients)
    )
    first = next(ask for ask, _ in runtime.of(wire.VERBS[0]) if ask.round == number_of(2, "train"))
    for memory, answers in (({}, True), (state.clients, False)):
        again = Local()
        prepare(j, again, session=ready.session)
        again.restore(memory)
        told = again.ask(first)
        assert {isinstance(x, Reply) for x in told} == {answers}
        assert answers or all("is not after round" in x.text for x in told)
    assert torch.equal(again.snapshot()["log/" + LOG], log)
