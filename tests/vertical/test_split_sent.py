"""What travels in split learning, how much, what it gives away; prediction; what is refused."""

import pytest
import torch

from manyloom.core.errors import BadInput, RunFailed
from manyloom.core.slots import size_bytes, to_bytes
from manyloom.models.split import SplitModel, bottom_part
from manyloom.vertical import split
from manyloom.vertical.passes import held_out
from manyloom.vertical.settings import Cut
from manyloom.vertical.steps import walk
from tests.vertical.splitting import HOW, IMPUTE, MODEL, PLAIN, Game, M, table


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("cut", [PLAIN, Cut(), *[Cut(bits=b) for b in (16, 8, 2)], IMPUTE], ids=str)
def test_predicted_bytes_are_the_bytes_sent(cut, k):
    game = Game(k, cut=cut, rounds=3)
    state, up, down = game.passes.start(), 0, 0
    for r in (1, 2, 3):
        game.players.said.clear()
        state = game.run(state, r)
        assert game.players.bytes() == (game.last.sent_up, game.last.sent_down)
        up, down = up + game.last.sent_up, down + game.last.sent_down
    (a_pass, judged) = game.passes.traffic(120, 30)
    assert a_pass == (round(up / 3), round(down / 3))
    game.players.said.clear()
    said = game.judge(state)
    assert game.players.bytes() == judged == (said.sent_up, said.sent_down)


def test_a_step_is_one_round_trip():
    game = Game(2)
    game.run(game.passes.start(), 1)
    verbs = [s.verb for s in game.players.said if s.party == 0]
    assert verbs == ["cut.forward", *["cut.step"] * 3, "cut.backward"] and game.last.steps == 4


@pytest.mark.parametrize("cut", [PLAIN, Cut(), Cut(bits=4)], ids=str)
def test_nothing_travels_but_embeddings_and_gradients(cut):
    game = Game(2, cut=cut)
    game.judge(game.run(game.passes.start(), 1))
    names = {n for s in game.players.said for body in (s.down, s.up or {}) for n in body}
    assert names <= {"at", "z", "z.range", "grad", "grad.range"}
    sent = b"".join(to_bytes(b) for s in game.players.said for b in (s.down, s.up or {}))
    for secret in (game.x, *game.xs):
        for row in secret[:40]:
            assert row[:2].numpy().tobytes() not in sent
    at = walk(M, 0.2, 3, 1)
    for form in (game.y[at], game.y[at].float(), game.y[at].to(torch.uint8), game.y):
        assert form[:16].numpy().tobytes() not in sent
    assert at[:4].numpy().tobytes() not in sent  # no indices either
    assert b"shop" not in sent and b"telco" not in sent
    z = next(s for s in game.players.said if s.verb == "cut.forward").up["z"]
    assert z.contiguous().view(torch.uint8).numpy().tobytes()[:16] in sent  # the search does find what is there


def test_a_chunk_is_at_most_8_mib(monkeypatch):
    monkeypatch.setattr("manyloom.vertical.cut.LARGEST_BODY", 4096 + 16 * 7)  # 7 rows of four numbers
    how = HOW._replace(batch_size=7)
    game = Game(2, how=how)
    state = game.run(game.passes.start(), 1)
    game.players.said.clear()
    said = game.judge(state)
    ups = [s.up["z"].shape[0] for s in game.players.said if s.party == 0]
    assert ups == [7, 7, 7, 7, 2] and game.passes.traffic(120, 30)[1] == game.players.bytes()
    monkeypatch.undo()
    assert torch.equal(said.output, game.judge(state).output)
    assert all(size_bytes(s.up) <= 8 << 20 for s in game.players.said)


def predicted(game, state, x, **how):
    return game.players.play(
        split.forward(
            game.model, game.cut, state["theta"], x, parties=game.names, classes=game.classes, **how
        )
    )  # fmt: skip


def test_prediction_on_other_rows():
    game = Game(2)
    state = game.run(game.passes.start(), 1, 2)
    at = held_out(M, 0.2, 3)[1]
    judged = game.judge(state)
    for memory in game.players.memory:  # other rows are aligned now
        memory["rows"] = at
    said = predicted(game, state, game.x[at])
    assert torch.allclose(said.output, judged.output, atol=1e-6) and not said.lost


def test_rows_that_a_party_does_not_have():
    game = Game(2, cut=IMPUTE)
    state = game.run(game.passes.start(), 1)
    game.players.memory[0]["rows"] = torch.arange(10)
    game.players.memory[1]["rows"] = torch.tensor([1, 3])
    places = [torch.arange(10), torch.tensor([1, 3])]
    some = predicted(game, state, game.x[:10], places=places).output
    game.players.memory[1]["rows"] = torch.arange(10)
    whole = predicted(game, state, game.x[:10]).output
    same = (some == whole).squeeze(1)
    assert torch.allclose(some[[1, 3]], whole[[1, 3]]) and not same[[0, 2, 4, 5, 6, 7, 8, 9]].all()
    strict = Game(2)
    with pytest.raises(BadInput, match="telco does not have all rows"):
        predicted(strict, strict.passes.start(), strict.x[:10], places=places)


def test_a_lost_party_in_prediction():
    game = Game(2, lose=lambda ask, party: "off" if party == 1 and ask.verb == "cut.predict" else None)
    said = predicted(game, game.passes.start(), game.x)
    assert not len(said.output) and [(x.client, x.text) for x in said.lost] == [(1, "cut.predict: off")]


def test_refusals():
    x, xs, y = table(1)
    with pytest.raises(BadInput, match="no aligned row is left") as none:
        split.passes(MODEL, HOW, PLAIN, seed=1, rounds=1, x=x[:0], y=y[:0], classes=2, parties=["a"])
    assert none.value.code == "nothing-aligned"
    with pytest.raises(BadInput, match="above 8 MiB"):
        split.passes(SplitModel(), HOW._replace(batch_size=200_000), PLAIN, seed=1, rounds=1, x=x, y=y, classes=2,
                     parties=["a"])  # fmt: skip
    with pytest.raises(BadInput, match="lr must be above 0"):
        split.passes(MODEL, HOW._replace(lr=-1.0), PLAIN, seed=1, rounds=1, x=x, y=y, classes=2, parties=["a"])
    with pytest.raises(BadInput, match="has no columns"):
        bottom_part(MODEL, 0)


def test_a_loss_that_is_no_number_stops():
    game = Game(1, classes=None, how=split.SplitLearning(lr=1e15, batch_size=32, optimiser="sgd"))
    with pytest.raises(RunFailed, match="no longer a number"):
        game.run(game.passes.start(), 1, 2)


def test_threats_say_which_defence():
    label, feature, hub, rests = split.threats(Cut())
    assert "embeddings" in label and "max-norm" in feature and hub == "sizes" and "proves nothing" in rests
    assert "nearly surely" in split.threats(PLAIN)[1] and split.threats(PLAIN)[3] == "none"


def test_the_meter_reads_what_is_sent():
    """Undefended, labels show nearly fully; with max-norm noise less, and the noise is new in every run."""
    plain, defended, again = (Game(1, cut=c, data=table(1, m=640)) for c in (PLAIN, Cut(), Cut()))
    states = [g.run(g.passes.start(), 1, 2) for g in (plain, defended, again)]
    (open_,), (closed,) = plain.last.leaks, defended.last.leaks
    assert open_.cosine_q95 > 0.95 and open_.batches == 16 and open_.party == 0
    assert closed.cosine_mean < open_.cosine_mean - 0.1 and closed.norm_mean < 0.65
    assert not torch.equal(states[1]["theta"], states[2]["theta"])
    assert not torch.equal(defended.players.memory[0]["theta"], again.players.memory[0]["theta"])


def test_no_meter_for_numbers():
    game = Game(1, classes=None)
    game.run(game.passes.start(), 1)
    assert game.last.leaks == []
