"""The run of a vertical job: what it tells, how it goes on, what a lost party does, what its plan foretells."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.core.exchange import Reply
from manyloom.core.slots import size_bytes
from manyloom.job.vertical.plan import plan
from manyloom.job.vertical.prepare import in_the_clear as in_the_clear_too
from manyloom.job.vertical.prepare import prepare, shared
from manyloom.job.vertical.tell import measured
from manyloom.runtime.parties import LocalParties
from manyloom.vertical import psi
from manyloom.vertical.passes import held_out
from tests.meeting import Losing, Rows, in_the_clear, meeting, parties, party, play
from tests.toys import history, of

pytestmark = pytest.mark.usefixtures("in_the_clear")
__all__ = ["in_the_clear"]
PREPARE = "manyloom.job.vertical.prepare"


def last(events):
    """The state a run ended with."""
    return events[-1].state


def same(a, b) -> bool:
    """Two states: every bit of the driver's and the parties', and the record."""
    kept = ("server", "clients", "preprocess")
    slots = [(getattr(a, k), getattr(b, k)) for k in kept]
    return a.round == b.round and a.record == b.record and all(
        set(x) == set(y) and all(torch.equal(x[n], y[n]) for n in x) for x, y in slots)  # fmt: skip


def told(events) -> list[dict]:
    """What must repeat of a run, leaks too."""
    return history(events) + [e.to_json() for e in of(events, "leak")]


# ---- the story


def test_the_events_of_a_run_in_their_order():
    kinds = [e.type for e in play(meeting(rounds=1))]
    assert kinds == [
        "run_started", "phase", "aligned", "planned", "phase", "evaluated",
        "round_started", "phase", "client_done", "client_done", "leak", "leak", "phase", "evaluated", "round_done",
        "run_done",
    ]  # fmt: skip


def test_what_the_first_events_say():
    job = meeting()
    events = play(job)
    started, found = events[0], of(events, "aligned")[0]
    assert [c["name"] for c in started.clients] == ["shop", "phone", "bank"]
    assert started.population["kind"] == "vertical" and started.client_word == ("party", "parties")
    assert started.model == {"name": "rows", "parameters": 10, "parts": {"shop": 3, "phone": 3, "bank": 4}}
    m = len(shared(job))
    assert found.common == m and found.train + found.test == m and found.test == m // 4
    assert found.parties == {"shop": 53, "phone": 53, "bank": 53} and set(found.left_out.values()) == {0}
    assert found.bytes_up > 0 and found.bytes_down > 0 and found.reveal == "both"
    assert list(of(events, "planned")[0].threats) == ["align", "train"]
    leak = of(events, "leak")[0]
    assert (leak.round, leak.party, leak.defence, leak.norm_mean) == (1, "shop", "max-norm", 0.9)


@pytest.mark.parametrize("matched", ["psi", "in the clear"])
def test_all_parties_hold_the_same_people_in_the_same_order(monkeypatch, matched):
    if matched == "psi":
        monkeypatch.setattr(f"{PREPARE}.psi", psi)
    job, runtime = meeting(federation=parties(n=30)), LocalParties()
    state = last(play(job, runtime))
    mine = [job.parties.label.keys[i] for i in state.preprocess["rows"]]
    assert set(mine) == shared(job)
    for i, feature in enumerate(job.parties.features):
        assert [feature.keys[r] for r in state.clients[f"{i}/rows"]] == mine
    if matched == "psi":  # an estimate matches in the clear, in the same order
        assert torch.equal(in_the_clear_too(job, state).preprocess["rows"], state.preprocess["rows"])


def test_equal_to_gradient_descent_on_the_joined_columns():
    job = meeting(rounds=4)
    events = play(job)
    state = last(events)
    x = torch.cat([p.x[state.clients[f"{i}/rows"]] for i, p in enumerate(job.parties.features)], 1)
    label = job.parties.label
    rows = state.preprocess["rows"]
    x, y = torch.cat([x, label.x[rows]], 1), label.y[rows].float()
    train, test = held_out(len(y), job.test, job.seed)
    w, b = torch.zeros(9, requires_grad=True), torch.zeros((), requires_grad=True)
    for _ in range(4):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(x[train] @ w + b, y[train])
        dw, db = torch.autograd.grad(loss, [w, b])
        w, b = (w - 0.5 * dw).detach().requires_grad_(), (b - 0.5 * db).detach().requires_grad_()
    joint = torch.cat([state.clients["0/w"], state.clients["1/w"], state.server["w"]])
    assert torch.allclose(joint, w.detach(), atol=1e-6)
    z = (x[test] @ w + b).detach()
    assert of(events, "evaluated")[-1].metrics["auc"] == measured(["auc"], z[:, None], y[test].long())["auc"]


def test_a_label_party_without_columns_and_three_others():
    found = parties(k=3)
    bare = party("bank", [], torch.zeros(0, 0))
    bare = replace(bare, keys=found.label.keys, x=torch.zeros(len(found.label.keys), 0), y=found.label.y)
    events = play(meeting(federation=SimpleNamespace(**{**vars(found), "label": bare})))
    assert events[-1].status == "done" and last(events).server["w"].shape == (0,)
    assert of(events, "evaluated")[-1].metrics["loss"] < of(events, "evaluated")[0].metrics["loss"]


def test_neither_the_order_of_rows_nor_that_of_parties_matters():
    found = parties()
    turned = []
    for p in (*found.features, found.label):
        order = torch.randperm(len(p.keys), generator=torch.Generator().manual_seed(len(p.name)))
        y = None if p.y is None else p.y[order]
        turned.append(replace(p, keys=[p.keys[i] for i in order], x=p.x[order], y=y))
    other = SimpleNamespace(**{**vars(found), "features": (turned[1], turned[0]), "label": turned[2]})
    a, b = last(play(meeting(federation=found))), last(play(meeting(federation=other)))
    assert torch.allclose(a.clients["0/w"], b.clients["1/w"], atol=1e-6)
    assert torch.allclose(a.server["w"], b.server["w"], atol=1e-6)
    assert not torch.equal(a.preprocess["rows"], b.preprocess["rows"])


def test_nothing_held_out_is_nothing_judged():
    events = play(meeting(test=0.0))
    assert not of(events, "evaluated") and events[-1].status == "done" and events[-1].final == {}


# ---- when it ends


def test_a_stop_between_passes_and_on_from_there():
    job = meeting(rounds=4)
    whole = play(job)
    asked: list[int] = []
    some = play(job, stop=lambda: len(asked.append(0) or asked) == 2)
    assert some[-1].status == "interrupted" and last(some).round == 2
    rest = play(job, state=last(some))
    assert rest[0].type == "resumed" and same(last(rest), last(whole))
    assert in_order(told(some) + told(rest)) == in_order(told(whole))


def in_order(found: list[dict]) -> list[str]:
    return sorted(str(sorted(e.items())) for e in found)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_resumed_from_any_pass_bit_for_bit(at):
    job = meeting(rounds=4)
    whole = play(job)
    state = [e.state for e in of(whole, "round_done")][at - 1]
    runtime = Losing()
    rest = play(job, runtime, state=state)
    assert same(last(rest), last(whole))
    verbs = {ask.verb for ask, _ in runtime.heard}
    assert "open.hello" in verbs and not of(rest, "aligned") and not [v for v in verbs if v.startswith("ids.")]
    later = [e for e in told(whole) if e["round"] > at]
    assert told(rest) == later


def test_a_target_and_patience_end_it():
    assert play(meeting(rounds=20, watch="loss", stop_at=0.62))[-1].status == "stopped"
    done = play(meeting(rounds=40, watch="accuracy", patience=2))[-1]
    assert done.status == "stopped" and "no better accuracy in 2 evaluations" in done.reason
    again = play(meeting(rounds=40, watch="accuracy", patience=2), state=done.state)
    assert [e.type for e in again] == ["resumed", "run_done"] and again[-1].status == "stopped"


def test_evaluated_every_second_pass_and_after_the_last():
    events = play(meeting(rounds=5, eval_every=2))
    assert [e.round for e in of(events, "evaluated")] == [2, 4, 5]
    assert [bool(e.metrics) for e in of(events, "round_done")] == [False, True, False, True, True]


# ---- a lost party


def asks(job) -> list[tuple[str, int, int]]:
    """Every ask of a whole run: verb, which of that verb, a party it goes to."""
    runtime = Losing()
    play(job, runtime)
    seen: Counter[str] = Counter()
    found = []
    for ask, _ in runtime.heard:
        seen[ask.verb] += 1
        found.append((ask.verb, seen[ask.verb], int(ask.to[-1])))
    return found


@pytest.mark.parametrize("matched", [pytest.param("psi", marks=pytest.mark.slow), "in the clear"])
def test_a_party_lost_at_any_ask_ends_the_run_and_it_goes_on_as_if_nothing_had_been(monkeypatch, matched):
    if matched == "psi":
        monkeypatch.setattr(f"{PREPARE}.psi", psi)
    job = meeting(rounds=2, federation=parties(n=30))
    whole = play(job)
    every = asks(job)
    assert len({verb for verb, _, _ in every}) >= 5
    for verb, nth, number in every:
        counted = [(v, n) for v, n, to in every if v == verb and to == number].index((verb, nth)) + 1
        runtime = Losing(verb, counted if verb.startswith("ids.") else nth, number)
        failed = play(job, runtime)
        name = job.parties.features[number].name
        done = failed[-1]
        assert done.type == "run_done" and done.status == "failed", (verb, nth)
        assert done.error["code"] == "party-lost" and name in done.error["what"], (verb, nth)
        assert "the line is dead" in done.error["got"] and "manyloom resume" in done.error["mend"]
        phase = {"open": "opening", "ids": "alignment"}.get(verb.split(".")[0], "pass")
        assert phase in done.error["what"], (verb, nth, done.error["what"])
        assert [e.client for e in of(failed, "client_lost")] == [number]
        assert of(failed, "round_failed")[0].reason == done.error["what"]
        assert runtime.sites[0].memory["asked"].item() == done.state.round  # nothing of the failed pass is left
        rest = play(job, state=done.state if done.state.round else None)
        assert same(last(rest), last(whole)), (verb, nth)


def test_the_words_of_a_lost_party():
    job = meeting(rounds=3)
    error = play(job, Losing("rows.step", 2), run="bank-a3f1")[-1].error
    assert error["what"] == "shop was lost in pass 2"
    assert error["got"] == "shop: the line is dead" and "pass 1 is saved" in error["rule"]
    assert error["mend"].splitlines()[-1] == "manyloom resume bank-a3f1"
    error = play(job, Losing("rows.sums", 1, number=1))[-1].error
    assert error["what"] == "phone was lost in the evaluation before pass 1" and "no pass was done" in error["rule"]


def test_a_handler_that_fails_is_told_with_its_traceback():
    job, runtime = meeting(), LocalParties()
    prepare(job, runtime)

    def broken(body, memory, data):
        raise ValueError("a row went away")

    def opened(job, session=""):
        LocalParties.open(runtime, job)
        site = runtime.sites[1]
        site.handlers = {**site.handlers, "rows.step": site.handlers["rows.step"]._replace(run=broken)}

    runtime.open = opened  # type: ignore[method-assign]
    events = play(job, runtime)
    [lost] = of(events, "client_lost")
    assert lost.name == "phone" and lost.text == "ValueError: a row went away" and "in broken" in lost.detail
    assert events[-1].error["what"] == "phone was lost in pass 1"


def test_an_embedding_that_is_no_number_is_held_back_and_named():
    found = parties()
    x = found.features[0].x.clone()
    x[:] = 3e38
    other = SimpleNamespace(**{**vars(found), "features": (replace(found.features[0], x=x), found.features[1])})
    events = play(meeting(federation=other, rounds=5))
    [lost] = of(events, "client_lost")
    assert lost.name == "shop" and lost.reason == "not-finite" and 'numbers in "z"' in lost.text
    assert events[-1].status == "failed"


def test_where_a_party_is_made_up_for_the_pass_goes_on_without_it():
    events = play(meeting(Rows(go_on=True), rounds=3), Losing("rows.sums", 4))
    done = of(events, "round_done")
    assert events[-1].status == "done" and [(e.back, e.lost) for e in done] == [(2, 0), (1, 1), (2, 0)]
    assert [(e.name, e.round) for e in of(events, "client_lost")] == [("shop", 2)]
    judged = play(meeting(Rows(go_on=True), rounds=3), Losing("rows.sums", 3))
    assert judged[-1].status == "done" and [e.lost for e in of(judged, "round_done")] == [0, 0, 0]
    assert [(e.name, e.round) for e in of(judged, "client_lost")] == [("shop", 1)]


# ---- bytes, and what the plan foretells


def sent(runtime: Losing, *verbs: str) -> tuple[int, int]:
    """Bytes up and down of some verbs, counted from what was heard."""
    heard = [(ask, answers) for ask, answers in runtime.heard if ask.verb.startswith(verbs)]
    up = sum(size_bytes(a.body) for _, answers in heard for a in answers if isinstance(a, Reply))
    each = sum(size_bytes(b) for ask, _ in heard for b in ask.each.values())
    return up, sum(size_bytes(ask.body) * len(ask.to) for ask, _ in heard) + each


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("every", [1, 2])
def test_the_plan_predicts_every_byte(monkeypatch, k, every):
    if k == 2:
        monkeypatch.setattr(f"{PREPARE}.psi", psi)
    job = meeting(federation=parties(k=k), rounds=3, eval_every=every)
    p, runtime = plan(job, LocalParties()), Losing()
    events = play(job, runtime)
    done, judged, aligned = of(events, "round_done"), of(events, "evaluated"), of(events, "aligned")
    b = p.bytes
    assert (b["up"], b["down"]) == (sum(e.bytes_up for e in done), sum(e.bytes_down for e in done))
    assert (b["up_round"], b["down_round"]) == (done[0].bytes_up, done[0].bytes_down)
    judged_sum = (sum(e.bytes_up for e in judged), sum(e.bytes_down for e in judged))
    assert (b["evaluate_up"], b["evaluate_down"]) == judged_sum
    assert (b["align_up"], b["align_down"]) == (aligned[0].bytes_up, aligned[0].bytes_down) == sent(
        runtime, "open.", "ids.")  # fmt: skip
    rest = sent(runtime, "rows.")
    assert rest == (b["up"] + b["evaluate_up"], b["down"] + b["evaluate_down"])


def test_the_plan_in_words():
    job = meeting()
    p = plan(job, LocalParties(), tried=1)
    said = str(p)
    assert max(map(len, said.splitlines())) <= 80 and "counted in the clear" in said
    assert "bank" in said and "shop" in said and "label party learns: each row's sum" in said
    assert p.to_json()["vertical"]["threats"]["train"]["feature party"] == "the error of each row, hence the labels"
    assert p.seconds_estimate is not None and p.rows["common"] == len(shared(job))
    assert "no defence" in str(plan(meeting(cut=job.cut._replace(defence="none")), LocalParties()))


def test_parties_that_share_nobody_are_refused_before_a_run():
    far = parties()
    alone = party("shop", [5000 + i for i in range(53)], far.features[0].x)
    job = meeting(federation=SimpleNamespace(**{**vars(far), "features": (alone, far.features[1])}))
    with pytest.raises(BadInput) as error:
        prepare(job, LocalParties())
    assert error.value.code == "no-common-rows" and "share no row" in error.value.what


def test_other_rows_than_the_run_began_with_are_refused():
    found = parties()
    job = meeting(federation=found)
    state = of(play(job), "round_done")[0].state
    moved = replace(found.features[1], keys=[*found.features[1].keys[1:], found.features[1].keys[0]])
    other = meeting(federation=SimpleNamespace(**{**vars(found), "features": (found.features[0], moved)}))
    with pytest.raises(BadInput) as error:
        prepare(other, LocalParties(), state)
    assert error.value.code == "data-changed" and "phone" in error.value.what and "shop" not in error.value.what
    prepare(job, LocalParties(), state)


def test_another_machine_is_told_not_refused():
    state = of(play(meeting()), "round_done")[0].state
    ready = prepare(meeting(), LocalParties(), replace(state, execution={**state.execution, "torch": "1.0"}))
    assert list(ready.execution["changed"]) == ["torch"]
