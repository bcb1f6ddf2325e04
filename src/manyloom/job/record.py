"""What jobs of either kind share as data: tables with defaults filled in, their digest, what is watched."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

Tables = Mapping[str, Mapping[str, object]]
RATES = {"class": (("accuracy", "auc"), ("accuracy", "f1")), "number": (("rmse", "mae", "r2"),)}


def rates(target: str, classes: int | None) -> tuple[str, ...]:
    """The metrics that are measured where none are named.

    >>> rates("class", 2), rates("class", 10), rates("number", None)
    (('accuracy', 'auc'), ('accuracy', 'f1'), ('rmse', 'mae', 'r2'))
    """
    return RATES[target][0 if target == "number" or classes == 2 else 1]


def watched(metrics: Sequence[str]) -> str:
    """The first of auc, accuracy, rmse that is measured, or the loss.

    >>> watched(("accuracy", "auc")), watched(())
    ('auc', 'loss')
    """
    return next((m for m in ("auc", "accuracy", "rmse") if m in metrics), "loss")


def filled(tables: Tables) -> dict[str, dict[str, object]]:
    """Tables as a file has them: without keys that are not set, without empty tables."""
    told = {t: {k: plain(v) for k, v in table.items() if v is not None} for t, table in tables.items()}
    return {t: table for t, table in told.items() if table}


def digest(tables: Tables) -> str:
    """SHA-256 over the canonical JSON of the tables that decide the result."""
    kept = {
        t: {k: v for k, v in table.items() if k != "data_dir" and not (k == "base" and "base_digest" in table)}
        for t, table in tables.items()
        if t not in ("runtime", "card")
    }
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(b"mljob1|" + unicodedata.normalize("NFC", text).encode()).hexdigest()


def plain(value: object) -> object:
    """A value as TOML has it: lists, and Python's own numbers."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in cast("Sequence[object]", value)]
    return cast(Any, value).item() if isinstance(value, np.generic) else value
