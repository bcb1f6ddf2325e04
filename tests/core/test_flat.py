"""A module is a vector: views without copies, tied weights, dtypes, frozen parts, named parts."""

import pytest
import torch
from torch import nn

from manyloom.core.errors import BadInput
from manyloom.core.flat import Layout, running_buffers


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.head(self.embed(x)) * self.scale


def test_round_trip_through_a_state_dict():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    layout = Layout.of(net)
    theta = layout.flatten(net)
    assert theta.shape == (layout.d,) == (3 * 4 + 4 + 4 * 2 + 2,)
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    other.load_state_dict(layout.state_dict(theta))
    x = torch.randn(7, 3)
    assert torch.equal(net(x), other(x))


def test_views_are_zero_copy_both_ways():
    net = nn.Linear(2, 2)
    layout = Layout.of(net)
    theta = layout.flatten(net)
    layout.bind(net, theta)
    theta.add_(1.0)
    assert torch.equal(net.weight.data, layout.views(theta)["weight"])
    net.bias.data.zero_()
    assert theta[-2:].tolist() == [0.0, 0.0]
    rows = torch.zeros(3, layout.d)
    layout.views(rows)["weight"][1] = 5.0
    assert rows.sum() == 20.0 and rows[1].sum() == 20.0


def test_tied_weights_are_one_entry_and_come_back_under_each_name():
    net = Tied()
    layout = Layout.of(net)
    assert layout.d == 15 + 1 and set(layout.names) == {"embed.weight", "scale"}
    state = layout.state_dict(layout.flatten(net))
    assert set(state) == {"embed.weight", "head.weight", "scale"}
    assert state["scale"].shape == ()
    Tied().load_state_dict(state)


def test_mixed_dtypes_share_the_wider_and_get_their_own_back():
    net = nn.ModuleDict({"a": nn.Linear(2, 2).half(), "b": nn.Linear(2, 2)})
    layout = Layout.of(net)
    assert layout.dtype == torch.float32
    state = layout.state_dict(layout.flatten(net))
    assert state["a.weight"].dtype == torch.float16 and state["b.weight"].dtype == torch.float32
    assert torch.equal(state["a.weight"], net["a"].weight)


def test_frozen_parameters_stay_out():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    assert Layout.of(net, ["0.*"]).names == ("1.weight", "1.bias")
    net[1].weight.requires_grad_(False)
    assert Layout.of(net, ["0.*"]).names == ("1.bias",)
    with pytest.raises(BadInput) as error:
        Layout.of(net, ["*"])
    assert error.value.code == "nothing-to-train"


def test_a_named_part_is_a_layout_and_an_index():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    layout = Layout.of(net)
    theta = layout.flatten(net)
    part, index = layout.part(["1.*"])
    assert part.d == 10 and torch.equal(part.views(theta[index])["1.bias"], net[1].bias)
    assert layout.mask(["1.*"]).sum() == 10
    with pytest.raises(BadInput) as error:
        layout.mask(["heads.*"])
    assert error.value.code == "unknown-part"


def test_running_statistics_are_known_and_integers_never_travel():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert set(running_buffers(net)) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    assert Layout.of_buffers(net).names == ("1.running_mean", "1.running_var")
    assert Layout.of_buffers(nn.Linear(2, 2)).d == 0
