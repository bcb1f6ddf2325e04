"""What a run came to, for Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import nn

from manyloom.core.errors import bad
from manyloom.core.text import number, seconds, size
from manyloom.track.folder import Folder


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Args:
        run_id: its name in the run store.
        status: done, stopped, interrupted or failed.
        model: the trained module, in evaluation mode; raw rows go through `load(run).predict`.
        history: a dict a round, as `run --json` has it.
        final: metrics of the last evaluation.
        guarantee: the privacy guarantee; None: no protection.
        clients: rounds taken part in and samples.
        lost: who, when, why.
        bytes_up, bytes_down: of training.
        seconds: in all.
        folder: of the run.
        error: why it failed.
    """

    run_id: str
    status: str
    model: nn.Module = field(repr=False)
    history: list[dict[str, Any]] = field(repr=False)
    final: Mapping[str, float]
    clients: list[dict[str, Any]] = field(repr=False)
    lost: list[dict[str, Any]] = field(repr=False)
    bytes_up: int
    bytes_down: int
    seconds: float
    folder: Path = field(repr=False)
    guarantee: Any = None
    error: Mapping[str, Any] | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={number(v)}" for k, v in list(self.final.items())[:2])
        told = [
            self.status,
            f"{len(self.history)} rounds",
            *([shown] if shown else []),
            size(self.bytes_up + self.bytes_down),
            seconds(self.seconds),
        ]
        return f"Result({self.run_id}: {', '.join(told)})"[:119]

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report; where it lies."""
        from manyloom.track.report import write

        return write(Folder(self.folder), Path(path) if path else None)

    def card(self, path: str | Path | None = None) -> Path:
        """Write the model card; where it lies."""
        from manyloom.track.card import write

        return write(Folder(self.folder), Path(path) if path else None)

    def frame(self) -> Any:
        """The history as a pandas data frame (pandas is not a dependency of Manyloom)."""
        try:
            import pandas  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]
        except ImportError as error:
            raise bad(
                "extra-missing", "this needs pandas, which is not installed", mend="pip install pandas"
            ) from error
        return cast(Any, pandas).DataFrame(self.history)
