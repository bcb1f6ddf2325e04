"""The parties of a vertical job in one process: what each remembers, what may leave it, what is never written."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from manyloom.core.exchange import Ask, Handler, Lost, Reply
from manyloom.core.slots import Slots
from manyloom.runtime.parties import LocalParties, Site, answering, memory_of
from manyloom.vertical.party import Party
from tests.meeting import in_the_clear, meeting, parties, party, play

pytestmark = pytest.mark.usefixtures("in_the_clear")
__all__ = ["in_the_clear"]

X = torch.arange(6.0).reshape(3, 2)
SHOP = party("shop", [1, 2, 3], X)


def site(run, *, reply=("z",), memory: Mapping[str, torch.Tensor] | None = None, secret=(), number=0) -> Site:
    return Site(number, SHOP, {"ask": Handler(run, reply, memory or {}, secret)})


def asked(number=0, body: Slots | None = None, verb="ask", **more) -> Ask:
    return Ask(np.array([number]), verb, body or {}, **more)


def count(body: Slots, memory: Slots, data: Party) -> tuple[Slots, Slots]:
    return {"z": data.x + body["by"]}, {"n": memory["n"] + 1, "key": memory.get("key", torch.zeros(1)) + 2}


def counting() -> Site:
    return site(count, memory={"n": torch.zeros(1)}, secret=("key",))


BY = {"by": torch.ones(())}


def test_a_party_answers_from_its_own_rows_and_remembers():
    one = counting()
    first, second = one.answer(asked(body=BY, number=0)), one.answer(asked(body=BY))
    assert isinstance(first, Reply) and isinstance(second, Reply)
    assert torch.equal(first.body["z"], X + 1) and first.clients.tolist() == [0] and first.sent == 24
    assert one.memory["n"].item() == 2 and one.secret["key"].item() == 4 and "key" not in one.memory


def test_what_is_for_one_alone_stands_before_what_is_for_all():
    one, two = counting(), Site(1, SHOP, counting().handlers)
    ask = Ask(np.array([1, 0]), "ask", BY, each={1: {"by": torch.tensor(10.0)}}, number=7)
    found = answering([one, two])(ask)
    assert [a.clients.tolist() for a in found] == [[1], [0]] and [a.asked for a in found] == [7, 7]
    assert torch.equal(found[0].body["z"], X + 10) and torch.equal(found[1].body["z"], X + 1)


def test_a_handler_that_fails_is_a_loss_with_its_traceback_and_keeps_nothing():
    def broken(body, memory, data):
        raise ValueError("no such row")

    one = site(broken, memory={"n": torch.zeros(1)})
    lost = one.answer(asked())
    assert isinstance(lost, Lost) and lost.reason == "error" and lost.text == "ValueError: no such row"
    assert lost.traceback is not None and "in broken" in lost.traceback and one.memory["n"].item() == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_stay_and_are_counted(bad):
    def diverged(body, memory, data):
        return {"z": torch.tensor([[1.0, bad], [bad, 2.0]])}, {"n": memory["n"] + 1}

    one = site(diverged, memory={"n": torch.zeros(1)})
    lost = one.answer(asked())
    assert (
        isinstance(lost, Lost) and lost.reason == "not-finite" and lost.text == '2 of 4 numbers in "z" are not finite'
    )
    assert one.memory["n"].item() == 0


def test_only_declared_names_leave():
    one = site(lambda body, memory, data: ({"z": data.x, "raw": data.x}, {}))
    lost = one.answer(asked())
    assert isinstance(lost, Lost) and lost.reason == "malformed" and lost.text == "undeclared raw"


def test_only_declared_names_are_kept():
    one = site(lambda body, memory, data: ({}, {"stray": data.x}))
    lost = one.answer(asked())
    assert isinstance(lost, Lost) and "stray" in lost.text and "stray" not in one.memory


def test_whole_numbers_and_bytes_leave_as_they_are():
    body = {"z": torch.tensor([0, 255], dtype=torch.uint8)}
    one = site(lambda b, memory, data: (body, {}))
    found = one.answer(asked())
    assert isinstance(found, Reply) and found.body["z"].dtype == torch.uint8 and found.sent == 2


def test_a_verb_nobody_answers_is_refused():
    lost = counting().answer(asked(verb="columns"))
    assert isinstance(lost, Lost) and lost.reason == "refused" and lost.text == 'shop answers no "columns"'


def test_an_answer_after_the_deadline_is_lost():
    lost = counting().answer(asked(body=BY, deadline_s=0.0))
    assert isinstance(lost, Lost) and lost.reason == "deadline"


def test_a_name_that_is_secret_for_one_verb_is_secret_for_all():
    one = Site(0, SHOP, {
        "a": Handler(lambda b, m, d: ({}, {"key": torch.ones(1)}), (), {"key": torch.zeros(1)}),
        "b": Handler(lambda b, m, d: ({}, {}), (), secret=("key",)),
    })  # fmt: skip
    one.answer(asked(verb="a"))
    assert "key" in one.secret and "key" not in one.memory


# ---- all parties of a job


def test_a_snapshot_has_every_party_and_no_secret():
    runtime = LocalParties()
    play(meeting(), runtime)
    kept = runtime.snapshot()
    hidden = {n for s in runtime.sites for n in s.hidden}
    assert {"0/w", "0/rows", "1/w", "1/rows"} <= set(kept) and {"xid", "secret.g"} <= hidden
    assert not [n for n in kept if n.partition("/")[2] in hidden]
    assert torch.equal(memory_of(kept, 1)["w"], kept["1/w"])


def test_closing_forgets_what_was_secret():
    runtime = LocalParties()
    play(meeting(), runtime)
    assert all("xid" in s.secret for s in runtime.sites)
    runtime.close()
    assert all(not s.secret for s in runtime.sites)


def test_restoring_gives_back_what_was_remembered_and_no_more():
    runtime = LocalParties()
    job = meeting()
    states = [e.state for e in play(job, runtime) if e.type == "round_done"]
    assert runtime.sites[0].memory["asked"].item() == 3
    runtime.restore(states[0].clients)
    assert runtime.sites[0].memory["asked"].item() == 1
    assert torch.equal(runtime.sites[0].memory["w"], states[0].clients["0/w"])
    runtime.sites[0].memory["w"] += 1  # what a party does to its own is not in the checkpoint
    assert not torch.equal(runtime.sites[0].memory["w"], states[0].clients["0/w"])
    runtime.restore({})
    assert runtime.sites[0].memory["asked"].item() == 0


def test_each_opening_makes_new_keys():
    job, pins = meeting(), []
    for _ in range(2):
        runtime = LocalParties()
        runtime.open(job)
        pins.append(dict(runtime.pins))
    assert set(pins[0]) == {"bank", "shop", "phone"}
    assert all(pins[0][name] != pins[1][name] for name in pins[0])


def test_many_parties_answer_in_the_order_asked():
    runtime = LocalParties()
    job = meeting(federation=parties(k=3))
    runtime.open(job)
    found = runtime.ask(Ask(np.array([2, 0, 1]), "rows.sums", {"held": torch.zeros(1, dtype=torch.bool)}))
    assert [a.clients.tolist() if isinstance(a, Reply) else [a.client] for a in found] == [[2], [0], [1]]
