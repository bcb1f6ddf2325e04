"""What a model says of rows: classes with probabilities, or numbers; how right it is where labels are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from manyloom.core.errors import bad
from manyloom.core.metrics import METRICS, auc, decided, score
from manyloom.core.task import LOSSES
from manyloom.core.tensors import from_numpy
from manyloom.data.arrays import F64, I64

BATCH = 4096


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of rows.

    Args:
        prediction: the class decided for, or the number.
        p: probability of each class [n, C]; None where a number is predicted.
        read, needed: columns that were used, of how many.
        ignored: columns that the model does not know.
        filled: column -> missing values that were filled with the run's federated means.
        unseen: column -> values that no training row had (they count as none of the known ones).
        metrics: where the rows hold the label: over those that have one.
        labelled: rows with a label.
        counts: of them, rows of each class.
        rows: numbers of the rows in their file, from 1; None: all of them.
        ids: of a joint prediction: id columns of the rows.
        missing: of a joint prediction: party -> rows that it lacks, and that were made up for.
        left_out: rows without an id.
    """

    prediction: Sequence[Any]
    p: np.ndarray[Any, np.dtype[np.float64]] | None
    columns: Sequence[str] = ()
    ignored: Sequence[str] = ()
    filled: Mapping[str, int] = field(default_factory=dict[str, int])
    unseen: Mapping[str, int] = field(default_factory=dict[str, int])
    metrics: Mapping[str, float] | None = None
    labelled: int = 0
    counts: Sequence[int] = ()
    rows: Sequence[int] | None = None
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict[str, "Sequence[str]"])
    missing: Mapping[str, int] = field(default_factory=dict[str, int])
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.prediction)

    def __repr__(self) -> str:
        told = "".join(f", {k}={v:.3f}" for k, v in (self.metrics or {}).items())
        return f"Predictions({len(self)} rows{told})"

    def table(self) -> dict[str, list[Any]]:
        """The columns as they are written: row (from 1), ids, prediction, p_0 ... p_n; or row, ids, value."""
        out: dict[str, list[Any]] = {"row": list(range(1, len(self) + 1) if self.rows is None else self.rows)}
        out |= {name: list(column) for name, column in self.ids.items()}
        if self.p is None:
            return out | {"value": list(self.prediction)}
        out["prediction"] = list(self.prediction)
        return out | {f"p_{c}": self.p[:, c].tolist() for c in range(self.p.shape[1])}

    def frame(self) -> Any:
        """The columns as a pandas frame (pandas must be installed)."""
        import pandas as pd  # pyright: ignore[reportMissingTypeStubs, reportMissingImports, reportMissingModuleSource]

        return cast(Any, pd).DataFrame(self.table())


def tell(info: Mapping[str, Any], out: Tensor, y: I64 | F64 | None) -> Predictions:
    """Outputs in words.

    Args:
        info: the body of model.json.
        out: what the module put out, [n, ...].
        y: labels [n], -1 or NaN where a row has none; None without labels.
    """
    metrics, labelled = measure(info, out, y), int(known(y).sum()) if y is not None else 0
    if info["target"] == "number":
        value = out.double().reshape(len(out), -1).squeeze(-1)
        return Predictions(cast("list[float]", cast(Any, value).tolist()), None, metrics=metrics, labelled=labelled)
    if out.dim() > 2:
        raise bad("not-a-row", "this model predicts a class for each position, not for a row",
                  mend="use ml.load(run).module")  # fmt: skip
    names = list(info["labels"]) or [str(c) for c in range(max(2, out.shape[-1]))]
    codes = cast("list[int]", cast(Any, decided(out).reshape(len(out))).tolist())
    said = [names[c] if c < len(names) else str(c) for c in codes]
    counts: list[int] = [] if y is None else [int((y == c).sum()) for c in range(len(names))]
    return Predictions(said, probabilities(out).numpy(), metrics=metrics, labelled=labelled, counts=counts)


def measure(info: Mapping[str, Any], out: Tensor, y: I64 | F64 | None) -> dict[str, float] | None:
    """The job's loss and metrics over the rows that have a label; None if no row has one."""
    if y is None or not known(y).any():
        return None
    index = from_numpy(np.flatnonzero(known(y)))
    out, true = out[index], from_numpy(y)[index]
    true = true.long() if info["target"] == "class" else true.float()
    rows = torch.tensor(float(len(true)), dtype=torch.float64)
    found: dict[str, float] = {}
    if info["loss"] in LOSSES:
        found["loss"] = float(LOSSES[info["loss"]](out, true).double().mean())
    for m in cast("Sequence[str]", info["metrics"]):
        sums = METRICS[m].sums(out, true).sum(0)
        found[m] = auc(score(out), true == 1) if m == "auc" else float(METRICS[m].value(sums, rows))
    return found


def known(y: I64 | F64) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows have a label, [n]."""
    return y >= 0 if y.dtype.kind == "i" else ~np.isnan(y)


def outputs(module: nn.Module, x: Tensor) -> Tensor:
    """A module's output for all rows, [n, ...], a batch at a time."""
    module.eval()
    with torch.inference_mode():
        found = [module(part) for part in torch.split(x, BATCH)] if len(x) else [module(x)]
    return torch.cat(found)


def probabilities(out: Tensor) -> Tensor:
    """p [n, C] in float64: of one logit, or of one a class."""
    out = out.double()
    if out.dim() == 1 or out.shape[-1] == 1:
        p = out.reshape(-1).sigmoid()
        return torch.stack([1 - p, p], 1)
    return out.softmax(-1)
