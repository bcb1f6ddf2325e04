"""Models: plain modules, and records of how to build them for data of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from manyloom.core.errors import bad
from manyloom.core.places import load
from manyloom.core.validate import nearest
from manyloom.models.cnn import cnn as cnn
from manyloom.models.lstm import CharLSTM as CharLSTM
from manyloom.models.lstm import lstm as lstm
from manyloom.models.model import Model as Model
from manyloom.models.plain import linear as linear
from manyloom.models.plain import logistic as logistic
from manyloom.models.plain import mlp as mlp

MODELS: Mapping[str, Callable[..., Model]] = MappingProxyType(
    {"logistic": logistic, "linear": linear, "mlp": mlp, "cnn": cnn, "lstm": lstm}
)


def model(name: str, **keys: object) -> Model:
    """The model of a `[model]` table: a name of this room, or `module:function`.

    A function is called as function(features, classes, **keys): the shape of one row, the number of classes
    (None where a number is predicted), the table's further keys; it returns an `nn.Module`. Its default loss
    is "cross-entropy", or "mse" for a number.
    """
    if name in MODELS:
        return MODELS[name](**keys)
    if ":" in name:
        function = load(name, "name", "[model]")
        return Model(
            name,
            lambda features, _, classes: _built(name, function(features, classes, **keys)),
            keys,
            one_logit=False,
        )
    near = nearest(name, MODELS)
    raise bad(
        "unknown-name",
        f'there is no model "{name}"',
        got=f'name = "{name}" in [model]',
        mend=(f'did you mean "{near}"? ' if near else "") + "All names: " + ", ".join(MODELS),
    )


def _built(name: str, module: object) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise bad("wrong-type", f"{name} must return a torch.nn.Module", got=type(module).__name__)
    return module
