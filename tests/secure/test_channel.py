"""A conversation over a secure channel gets what a plain one would have given it; failures, retries, bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from manyloom.core.errors import RunFailed
from manyloom.core.exchange import Ask, Exchange, Fold, Lost, Reply, play
from manyloom.core.slots import Slots, size_bytes
from manyloom.runtime.sites import Sites
from manyloom.secure import FULL, IDEAL, Params, Setting, wire
from manyloom.secure.channel import DIMS, PARAMS, SUM, Channel, over
from manyloom.secure.costs import costs
from manyloom.secure.encoding import most
from manyloom.secure.graph import degree
from manyloom.secure.params import Control, number_of
from manyloom.secure.settings import Secure
from manyloom.secure.transcript import digest

EVERYONE = np.arange(6)


def exact(*names: str, clients=EVERYONE, verb="evaluate", round=1) -> Exchange[list[Reply | Lost]]:
    """A conversation of one ask."""
    return (yield Ask(clients, verb, {"theta": torch.ones(3)}, round=round, fold=Fold(names)))


@dataclass
class House:
    """Clients that keep rows [n, ...] by slot, and the hub's channel to them; `meddle` changes answers."""

    rows: Slots
    n: int = 6
    table: dict[str, object] = field(default_factory=dict)
    meddle: Callable[[Ask, list[Reply | Lost]], list[Reply | Lost] | None] | None = None
    heard: list[tuple[Ask, list[Reply | Lost]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = {"gamma": 0.05, "alpha": 0.5, **self.table}
        secure = Secure(**self.table)
        self.sites = Sites(secure, "job", "run", np.arange(self.n))
        shares = {"gamma": repr(secure.gamma), "delta_drop": repr(secure.delta_drop), "alpha": repr(secure.alpha)}
        own = {"kappa": secure.bits, "weights": "plain", "control": (Control("weight", 1, 0.0, 1.0),)}
        p = Params(secure.mode, 3, self.n, 0, 8.0, 2**16, **shares, **own)
        suite = IDEAL if secure.fidelity == "ideal" else FULL
        setting = Setting(hashlib.sha256(b"job").digest(), "run", b"", self.sites.roster, None, suite)
        self.channel = Channel(p, setting, 3)

    def ask(self, ask: Ask) -> list[Reply | Lost]:
        if ask.verb in wire.VERBS:
            found = self.sites.answer(ask)
        else:
            found = [self.sites.hold(ask, ask.to, {n: t[torch.as_tensor(ask.to)] for n, t in self.rows.items()})]
        changed = self.meddle(ask, found) if self.meddle else None
        found = found if changed is None else changed
        self.heard.append((ask, found))
        return found

    def play(self, exchange):
        return play(over(exchange, self.channel), self.ask)


def came(answers) -> Reply:
    [reply] = [a for a in answers if isinstance(a, Reply)]
    return reply


def gone(answers) -> dict[int, tuple[str, str]]:
    return {a.client: (a.reason, a.text) for a in answers if isinstance(a, Lost)}


BOTH = pytest.mark.parametrize("fidelity", ["full", "ideal"])


@BOTH
@pytest.mark.parametrize("mode", ["active", "semi"])
def test_named_sums_come_back_with_their_names_and_shapes(fidelity, mode):
    draw = np.random.default_rng(0)
    rows = {"a": torch.from_numpy(draw.normal(size=(6, 2, 3)) * 1e6), "b": torch.from_numpy(draw.normal(size=6)),
            "c": torch.from_numpy(draw.integers(0, 9, (6, 4)).astype(np.float64))}  # fmt: skip
    house = House(rows, table={"fidelity": fidelity, "mode": mode})
    reply = came(house.play(exact("a", "b", "c")))
    assert reply.clients.tolist() == list(range(6)) and set(reply.body) == {"a", "b", "c"}
    for name, t in rows.items():
        assert reply.body[name].shape == (1, *t.shape[1:]) and reply.body[name].dtype == torch.float64
        torch.testing.assert_close(reply.body[name][0], t.sum(0), rtol=0, atol=7 * 2.0**-33 + 1e-9)
    assert torch.equal(reply.body["c"][0], rows["c"].sum(0))  # whole numbers exactly


def test_what_is_no_number_spoils_its_own_coordinate_alone():
    rows = {"a": torch.ones(6, 3, dtype=torch.float64)}
    for bad in (float("nan"), float("inf"), 4 * most(6)):
        rows["a"][2, 1] = bad
        found = came(House(rows, table={"fidelity": "ideal"}).play(exact("a"))).body["a"][0]
        assert torch.equal(found[[0, 2]], torch.tensor([6.0, 6.0], dtype=torch.float64)) and torch.isnan(found[1])


def test_the_conversation_is_not_told_of_the_channel():
    """The same generator over a plain fold and over the channel: the same numbers to 2^-32, one reply a question."""

    def twice() -> Exchange[tuple[Tensor, Tensor]]:
        one = yield Ask(EVERYONE, "evaluate", round=2, fold=Fold(("a",)))
        two = yield Ask(EVERYONE[:4], "scores", round=2, fold=Fold(("a",)))
        return one[0].body["a"], two[0].body["a"]

    rows = {"a": torch.randn(6, 5, dtype=torch.float64)}

    def plain(ask: Ask):
        return [Reply(ask.to, {"a": rows["a"][torch.as_tensor(ask.to)].sum(0)[None]})]

    for hidden, open_ in zip(House(rows).play(twice()), play(twice(), plain)):
        torch.testing.assert_close(hidden, open_, rtol=0, atol=1e-8)


def test_an_ask_with_parameters_of_its_own_gets_the_integer_sum():
    house = House({SUM: torch.randint(-99, 99, (6, 12), dtype=torch.int32)})
    house.rows[SUM][:, 0] = 1

    def own() -> Exchange[list[Reply | Lost]]:
        body = {PARAMS: wire.pack(house.channel.params.to_bytes())}
        return (yield Ask(EVERYONE, "train", body, round=1, fold=Fold((SUM,))))

    reply = came(house.play(own()))
    assert torch.equal(reply.body[SUM], house.rows[SUM].sum(0, dtype=torch.int64)[None])


@pytest.mark.parametrize(("verb", "fold"), [("evaluate", None), ("vocabulary", Fold(("a",))), ("prepare", None)])
def test_what_can_not_be_summed_is_not_asked(verb, fold):
    house = House({"a": torch.ones(6, 1)})

    def clear() -> Exchange[object]:
        return (yield Ask(EVERYONE, verb, fold=fold))

    with pytest.raises(RunFailed) as error:
        house.play(clear())
    assert error.value.code == "in-the-clear" and "only sums leave" in error.value.rule and not house.heard


def test_a_client_whose_answer_has_another_shape_is_lost():
    def longer(ask: Ask, found):
        if ask.verb != "evaluate":
            return None
        dims = found[0].body[DIMS + "a"].clone()
        dims[4] = 7
        return [replace(found[0], body={DIMS + "a": dims})]

    house = House({"a": torch.ones(6, 3, dtype=torch.float64)}, meddle=longer, table={"fidelity": "ideal"})
    answers = house.play(exact("a"))
    assert came(answers).clients.tolist() == [0, 1, 2, 3, 5] and came(answers).body["a"].tolist() == [[5.0] * 3]
    assert gone(answers) == {4: ("malformed", "its answer has another shape")}
    assert 4 not in next(ask for ask, _ in house.heard if ask.verb == wire.VERBS[0]).to


def silent(stage: int, clients=EVERYONE, attempts=(0, 1), own=False):
    def meddle(ask: Ask, found):
        if ask.verb != wire.VERBS[stage] or ask.attempt not in attempts:
            return None
        late = [Lost(int(c), "deadline", "late") for c in ask.to if c in clients]
        return [a for a in found if isinstance(a, Lost) or a.clients[0] not in clients] + late

    return meddle


@BOTH
def test_one_lost_on_the_way_is_left_out_and_named(fidelity):
    rows = {"a": torch.arange(6, dtype=torch.float64)[:, None]}
    house = House(rows, meddle=silent(2, clients=[5]), table={"fidelity": fidelity})
    answers = house.play(exact("a"))
    assert came(answers).body["a"].item() == 10.0 and gone(answers) == {5: ("deadline", "late")}


def test_metrics_are_tried_again_while_nothing_was_opened():
    rows = {"a": torch.ones(6, 1, dtype=torch.float64)}
    house = House(rows, meddle=silent(2, clients=[0, 1, 2, 3], attempts=(0,)))
    answers = house.play(exact("a"))
    assert came(answers).body["a"].item() == 6.0
    assert [ask.attempt for ask, _ in house.heard if ask.verb == wire.VERBS[0]] == [0, 1]


@pytest.mark.parametrize(("stage", "tries", "reason"), [(2, 2, "no-sum"), (4, 1, "opened")])
def test_a_sum_that_fails_loses_everybody_and_says_why(stage, tries, reason):
    house = House({"a": torch.ones(6, 1)}, meddle=silent(stage, clients=[0, 1, 2, 3]))
    answers = house.play(exact("a"))
    assert not len(came(answers).clients) and came(answers).body == {}
    assert len([1 for ask, _ in house.heard if ask.verb == wire.VERBS[0]]) == tries
    told = gone(answers)
    assert set(told) == set(range(6)) and {told[4][0], told[5][0]} == {reason} and "no sum" in told[5][1]


@pytest.mark.parametrize("stage", [3, 4])
def test_that_shares_were_asked_for_is_told_even_where_everybody_is_lost(stage):
    house = House({"a": torch.ones(6, 1)}, meddle=silent(stage))
    told = gone(house.play(exact("a")))
    assert set(told) == set(range(6)) and ("opened" in {r for r, _ in told.values()}) == (stage == 4)


def test_nobody_answers_nothing_is_summed():
    house = House({"a": torch.ones(6, 1)}, meddle=lambda ask, found: [Lost(int(c), "error", "x") for c in ask.to])
    assert set(gone(house.play(exact("a")))) == set(range(6)) and len(house.heard) == 1


@pytest.mark.parametrize("n", [3, 20, 40])
def test_the_least_of_a_sum_of_metrics_is_its_share_of_the_asked(n):
    """So that what those who collude can seat leaves two others, which a client insists on."""
    table = {"fidelity": "ideal", "gamma": 0.1, "alpha": 2 / 3, "delta_drop": 0.0 if n == 3 else 0.1}
    house = House({"a": torch.ones(n, 1, dtype=torch.float64)}, n=n, table=table)
    assert house.channel.exact(n).n_min == {3: 3, 20: 14, 40: 27}[n]
    assert came(house.play(exact("a", clients=np.arange(n)))).body["a"].item() == n


@BOTH
@pytest.mark.parametrize("mode", ["active", "semi"])
def test_bytes_are_those_of_every_message_and_as_foretold(fidelity, mode):
    house = House({"a": torch.randn(6, 9, dtype=torch.float64)}, table={"fidelity": fidelity, "mode": mode})
    reply = came(house.play(exact("a")))
    stages = [(ask, answers) for ask, answers in house.heard if ask.verb in wire.VERBS]
    up = sum(size_bytes(a.body) for _, answers in stages for a in answers if isinstance(a, Reply))
    down = sum(len(ask.to) * size_bytes(ask.body) + sum(map(size_bytes, ask.each.values())) for ask, _ in stages)
    assert reply.channel == (up, down)
    p = replace(house.channel.exact(6), d=9)
    k = degree(6, p.gamma, p.delta_drop, p.kappa, p.mode).k
    assert tuple(6 * x for x in costs(p, 6, k, "run")) == (up, down)
    assert reply.sent == 6 * 8  # that its row holds nine numbers is all a client says by itself


def test_sums_of_one_run_are_numbered_so_that_each_is_answered_once():
    numbers = [number_of(r, v) for r in (0, 1) for v in ("statistics", "train", "evaluate", "scores")]
    assert numbers == list(range(8)) and digest("x") != digest("y")
    house = House({"a": torch.ones(6, 1, dtype=torch.float64)})
    house.play(exact("a", round=2))
    again = gone(house.play(exact("a", round=2)))  # the same sum a second time: refused by every client
    assert set(again) == set(range(6)) and {reason for reason, _ in again.values()} == {"refused"}, again
    assert gone(house.play(exact("a", round=1))) and not gone(house.play(exact("a", round=3)))
