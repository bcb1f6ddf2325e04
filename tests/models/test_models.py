"""Models: sizes as published, the right outputs for any labels, starts within bounds, data that does not fit."""

import pytest
import torch
from torch import nn

from manyloom.core.errors import BadInput
from manyloom.core.signature import keys, summary
from manyloom.core.task import LOSSES
from manyloom.models import MODELS, cnn, linear, logistic, lstm, mlp, model


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("made", "features", "classes", "parameters"),
    [
        (logistic(), (13,), 2, 14),
        (logistic(), (28, 28), 10, 7850),
        (linear(), (5,), None, 6),
        (linear(), (5,), 3, 18),
        (mlp(hidden=[16]), (13,), 2, 241),
        (mlp(), (64,), 10, 4810),
        (mlp(hidden=[]), (4,), None, 5),
        (mlp(hidden=[64]), (1, 28, 28), 10, 50890),
        (cnn(), (1, 28, 28), 10, 1_663_370),
        (cnn(), (28, 28), 10, 1_663_370),
        (lstm(), (80,), 78, 819_390),
    ],
)
def test_sizes(made, features, classes, parameters):
    assert size(made.build(features, classes)) == parameters


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("classes", [None, 2, 5])
def test_outputs_fit_the_labels(name, classes):
    made = model(name)
    features = {"cnn": (3, 8, 8), "lstm": (6,)}.get(name, (7,))
    if (name == "lstm" and classes is None) or (name == "logistic" and classes is None):
        with pytest.raises(BadInput):
            made.build(features, classes)
        return
    x = torch.randint(0, 2, (4, *features)) if name == "lstm" else torch.randn(4, *features)
    loss = made.loss(classes)
    out = made.build(features, classes)(x)
    shape = (4, 6) if name == "lstm" else (4,)
    assert loss == ("mse" if classes is None else "cross-entropy" if classes > 2 or name == "lstm" else "binary")
    assert out.shape == (*shape, 1 if loss in ("mse", "binary") else classes)
    y = torch.zeros(shape) if classes is None else torch.zeros(shape, dtype=torch.int64)
    assert LOSSES[loss](out, y).shape == (4,)


def test_two_classes_by_two_logits_if_asked():
    assert logistic().build((3,), 2, "cross-entropy")(torch.zeros(1, 3)).shape == (1, 2)


def test_logistic_starts_at_zero_and_the_rest_within_one_over_the_root_of_the_fan_in():
    assert all((p == 0).all() for p in logistic().build((13,), 10).parameters())
    torch.manual_seed(0)
    for module in (mlp(hidden=[50]).build((64,), 10), cnn().build((1, 28, 28), 10), linear().build((64,), 3)):
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                bound = layer.weight[0].numel() ** -0.5
                assert 0.8 * bound < layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound


def test_a_seed_gives_the_same_start():
    made = mlp(hidden=[8])
    torch.manual_seed(3)
    a = made.build((4,), 3)
    torch.manual_seed(3)
    b = made.build((4,), 3)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))


def test_data_that_does_not_fit_is_told():
    for made, features in ((cnn(), (64,)), (cnn(), (1, 2, 2)), (lstm(), (1, 28, 28))):
        with pytest.raises(BadInput) as caught:
            made.build(features, 10)
        assert caught.value.code == "model-input" and caught.value.mend


def test_a_names_keys_and_mistakes():
    assert model("mlp", hidden=[3, 4]).table == {"hidden": [3, 4]}
    with pytest.raises(BadInput, match='did you mean "logistic"'):
        model("logistc")
    with pytest.raises(BadInput, match="hidden must be at least 1"):
        mlp(hidden=[0])
    for factory in MODELS.values():
        assert summary(factory) and all(k.meaning for k in keys(factory).values())


def test_a_function_of_ones_own_is_a_model(monkeypatch, tmp_path):
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "def net(features, classes, width=3):\n"
        "    return nn.Sequential(nn.Linear(features[0], width), nn.Linear(width, classes or 1))\n"
        "def none(features, classes):\n    return 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    made = model("own_nets:net", width=5)
    assert size(made.build((4,), 3)) == 4 * 5 + 5 + 5 * 3 + 3 and made.loss(2) == "cross-entropy"
    assert made.build((4,), None)(torch.zeros(2, 4)).shape == (2, 1) and made.loss(None) == "mse"
    with pytest.raises(BadInput, match=r"must return a torch.nn.Module"):
        model("own_nets:none").build((4,), 3)
    with pytest.raises(BadInput, match="can't import"):
        model("own_nets:gone")
