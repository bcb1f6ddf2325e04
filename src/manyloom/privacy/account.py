"""What one run spends: its ledger and the secret of its cohorts, side by side in a folder."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from manyloom.privacy import cohort
from manyloom.privacy.accountants import Sampling
from manyloom.privacy.ledger import Claim, Cost, Entry, Ledger

LEDGER, COHORTS = "ledger.jsonl", "cohort.key"


class Account:
    """The open account of a run: it tells who is asked, whether a release fits the budget, and writes it down.

    Args:
        claim: what all records have in common.
        folder: of the run; None for a trial, whose account lies in a folder that vanishes with it.
        mark: what the checkpoint says of the ledger, if the run goes on.
    """

    def __init__(self, claim: Claim, folder: Path | None = None, mark: dict[str, Any] | None = None) -> None:
        self._trial = TemporaryDirectory() if folder is None else None
        place = Path(self._trial.name) if self._trial is not None else folder
        assert place is not None
        self.ledger = Ledger.open(place / LEDGER, claim, mark)
        self._path = place / COHORTS
        self._key = cohort.secret(self._path)

    def draw(self, sampling: Sampling, round: int, attempt: int) -> npt.NDArray[np.int64]:
        """Who is asked, by their place in the population."""
        return cohort.draw(self._key, sampling, round, attempt)

    def attempt(self, round: int) -> int:
        """The number of the next attempt of a round: those that may have released are spent."""
        return self.ledger.attempt(round)

    def refuses(self, entry: Entry, budget: float | None) -> Cost | None:
        """Why a release would exceed the budget; None if it fits."""
        if budget is None or self.ledger.fits(entry, budget):
            return None
        return self.ledger.cost([entry], budget)

    def record(self, entry: Entry) -> float:
        """Write a release down, synced, before it leaves; epsilon spent with it."""
        self.ledger.record(entry)
        return self.ledger.spent()

    def mark(self) -> dict[str, Any]:
        """For the checkpoint."""
        return self.ledger.mark()

    def close(self, done: bool) -> None:
        """Erase the secret of the cohorts when the run is done."""
        if done or self._trial is not None:
            cohort.erase(self._path)
        if self._trial is not None:
            self._trial.cleanup()
            self._trial = None
