"""Split learning is one network in one place, whoever has which columns and in which order."""

import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.core.task import LOSSES
from manyloom.models.split import (
    LabelSide,
    SplitModel,
    bottom_part,
    first_bottom,
    first_label_side,
    label_part,
    split_mlp,
)
from manyloom.vertical import split
from manyloom.vertical.passes import held_out
from manyloom.vertical.settings import Cut
from manyloom.vertical.steps import batch, steps_of, walk
from tests.vertical.splitting import HOW, MODEL, NAMES, OPTIMISERS, PLAIN, Game, M, table


class Joint(torch.nn.Module):
    """The same network in one place."""

    def __init__(self, game: Game) -> None:
        super().__init__()
        k, f, out = len(game.names), game.x.shape[1], game.model.outputs(game.classes)
        theta = first_label_side(game.model, f, seed=game.seed, parties=game.names, outputs=out)
        self.side = LabelSide(game.model, f, k, out)
        label_part(game.model, f, k, out).layout.load(self.side, theta)
        self.bottoms = torch.nn.ModuleList()
        for n, x in zip(game.names, game.xs):
            own = game.model.bottom_of(x.shape[1])
            bottom_part(game.model, x.shape[1]).layout.load(
                own, first_bottom(game.model, x.shape[1], seed=game.seed, party=n)
            )
            self.bottoms.append(own)
        self.to(game.x.dtype)

    def forward(self, x, xs):
        return self.side(x, torch.cat([f(t) for f, t in zip(self.bottoms, xs)], 1))


def centralised(game: Game, optimiser, rounds: int) -> tuple[Joint, float]:
    net = Joint(game)
    opt = optimiser(net.parameters())
    loss_of = LOSSES[game.model.loss_of(game.classes)]
    total = 0.0
    for r in range(1, rounds + 1):
        order, total = walk(len(game.y), 0.2, game.seed, r), 0.0
        for s in range(steps_of(len(order), game.how.batch_size)):
            at = batch(order, game.how.batch_size, s)
            opt.zero_grad()
            loss = loss_of(net(game.x[at], [t[at] for t in game.xs]), game.y[at]).mean()
            loss.backward()
            opt.step()
            total += float(loss.detach()) * len(at) / len(order)
    return net, total


def parts_of(game: Game, state) -> dict[str, torch.Tensor]:
    side = label_part(game.model, game.x.shape[1], len(game.names), game.model.outputs(game.classes)).layout
    assert game.passes.parts(state).keys() == set(side.names)
    found = {f"side.{n}": t for n, t in side.views(state["theta"]).items()}
    for k, x in enumerate(game.xs):
        layout = bottom_part(game.model, x.shape[1]).layout
        assert split.part(game.model, x.shape[1], game.players.memory[k]).keys() == set(layout.names)
        found |= {f"bottoms.{k}.{n}": t for n, t in layout.views(game.players.memory[k]["theta"]).items()}
    return found


SHAPES = {"one": (1, 5, 2), "three": (3, 5, 2), "no columns": (1, 0, 2), "classes": (3, 5, 4), "number": (2, 5, None)}
MIX = [(s, "adam") for s in SHAPES] + [("three", "adamw"), ("three", "sgd")]


@pytest.mark.parametrize(("shape", "name"), MIX)
def test_equal_to_autograd_of_the_joint_network(shape, name):
    (k, features, classes), (how, optimiser) = SHAPES[shape], OPTIMISERS[name]
    game = Game(k, how=how, features=features, classes=classes, dtype=torch.float64)
    state = game.run(game.passes.start(), 1, 2, 3)
    net, loss = centralised(game, optimiser, 3)
    own = parts_of(game, state)
    assert own.keys() == net.state_dict().keys()
    for n, t in net.state_dict().items():
        assert torch.allclose(own[n], t, rtol=1e-12, atol=1e-12), n
    assert game.last.loss == pytest.approx(loss, rel=1e-12)
    judged, at = game.judge(state), held_out(M, 0.2, game.seed)[1]
    want = net(game.x[at], [t[at] for t in game.xs])
    assert torch.allclose(judged.output, want, rtol=1e-11, atol=1e-11) and torch.equal(judged.y, game.y[at])
    assert judged.loss == pytest.approx(float(LOSSES[game.model.loss_of(classes)](want, judged.y).mean().detach()))


def test_equal_in_float32_to_float_tolerance():
    game = Game(3)
    state = game.run(game.passes.start(), 1, 2, 3)
    net, _ = centralised(game, OPTIMISERS["adam"][1], 3)
    for n, t in net.state_dict().items():
        assert torch.allclose(parts_of(game, state)[n], t, rtol=1e-3, atol=1e-4), n


def test_the_comparison_can_fail():
    how = OPTIMISERS["adam"][0]._replace(clip_grad=0.01)
    game = Game(1, how=how, dtype=torch.float64)
    state = game.run(game.passes.start(), 1)
    net, _ = centralised(game, OPTIMISERS["adam"][1], 1)
    assert not torch.allclose(parts_of(game, state)["side.top.1.weight"], net.side.top[1].weight, rtol=1e-12)


def test_fewer_bits_learn_the_same_thing():
    how, data, loss = HOW._replace(lr=0.03, batch_size=40), table(2, m=300), {}
    for bits in (32, 16, 8, 4, 2):
        game = Game(2, cut=PLAIN._replace(bits=bits), how=how, data=data)
        loss[bits] = game.judge(game.run(game.passes.start(), *range(1, 6))).loss
    assert max(loss.values()) < 0.45  # from 0.69: they did learn
    assert abs(loss[16] - loss[32]) < 0.02 and abs(loss[8] - loss[32]) < 0.05


def test_half_precision_gradients_have_the_right_size():
    """SGD, for Adam would not see a factor."""
    how = split.SplitLearning(lr=0.1, batch_size=32, optimiser="sgd")
    half, whole = (Game(1, how=how, cut=PLAIN._replace(bits=b)) for b in (16, 32))
    for game in (half, whole):
        game.run(game.passes.start(), 1)
    before = first_bottom(MODEL, 3, seed=3, party="shop")
    moved, other = (g.players.memory[0]["theta"] - before for g in (half, whole))
    assert 0 < (moved - other).norm() < 0.02 * other.norm()


def test_order_of_parties_changes_nothing_but_rounding():
    data = table(3, dtype=torch.float64)
    cut = Cut(bits=4, defence="none", dropout=0.3)
    there = Game(3, data=data, cut=cut)
    turned = (2, 0, 1)
    back = Game(3, data=(data[0], [data[1][i] for i in turned], data[2]), names=[NAMES[i] for i in turned], cut=cut)
    one, two = there.run(there.passes.start(), 1, 2), back.run(back.passes.start(), 1, 2)
    for i, k in enumerate(turned):
        mine, other = back.players.memory[i]["theta"], there.players.memory[k]["theta"]
        assert torch.allclose(mine, other, rtol=1e-6, atol=1e-9)
    assert torch.allclose(there.judge(one).output, back.judge(two).output, rtol=1e-6, atol=1e-9)


def test_order_of_local_rows_changes_nothing():
    data = table(1)
    mixed = torch.randperm(M, generator=torch.Generator().manual_seed(1))
    there = Game(1, data=data)
    where = torch.empty(M, dtype=torch.long)
    where[mixed] = torch.arange(M)
    back = Game(1, data=(data[0], [data[1][0][mixed]], data[2]), memory=[{"rows": where}])
    one, two = there.run(there.passes.start(), 1, 2), back.run(back.passes.start(), 1, 2)
    assert torch.equal(one["theta"], two["theta"])


def test_initial_weights_follow_from_seed_and_name():
    a = first_bottom(MODEL, 3, seed=3, party="shop")
    assert torch.equal(a, first_bottom(MODEL, 3, seed=3, party="shop"))
    assert not torch.equal(a, first_bottom(MODEL, 3, seed=4, party="shop"))
    assert not torch.equal(a, first_bottom(MODEL, 3, seed=3, party="telco"))
    before = torch.get_rng_state()
    Game(2).passes.start()
    assert torch.equal(before, torch.get_rng_state())


def test_the_reference_network():
    model = SplitModel()

    def kinds(net):
        return [str(m).removeprefix("Linear").split(", bias")[0].replace("_features", "") for m in net]

    assert kinds(model.bottom_of(13)) == ["(in=13, out=32", "ReLU()", "(in=32, out=16"]
    assert kinds(model.top_of(2, 1)) == ["ReLU()", "(in=32, out=32", "ReLU()", "(in=32, out=1"]
    assert (model.loss_of(2), model.loss_of(3), model.loss_of(None)) == ("binary", "cross-entropy", "mse")
    assert (model.outputs(2), model.outputs(3), model.outputs(None)) == (1, 3, 1)
    with pytest.raises(BadInput, match="cut must be at least 1"):
        split_mlp(cut=0)
    assert split_mlp(bottom=[4], top=[]).table == {"name": "split-mlp", "bottom": [4], "cut": 16, "top": []}
