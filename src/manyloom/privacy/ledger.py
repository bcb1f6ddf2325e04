"""What was spent: one record a release, on disk before the reply that could reveal it (privacy.md §2.5).

A file of JSON lines: first the claim, then one record a release, in order. Nothing is ever rewritten. A record without
its round in the checkpoint is a half-finished release: it counts as spent, and the round is then another attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from manyloom.core.errors import bad
from manyloom.privacy.accountants import GRIDS, Accountant, Adjacency, Sampling, Spent, check, epsilon


@dataclass(frozen=True)
class Claim:
    """What all records of a ledger have in common; a resumed run that says otherwise is refused."""

    delta: float
    accountant: Accountant
    adjacency: Adjacency
    unit: str
    job: str  # the job's digest

    @property
    def grid(self) -> str:
        return GRIDS[self.accountant]


@dataclass(frozen=True)
class Entry:
    """One release: what was noised and how, as executed."""

    round: int
    attempt: int
    what: str  # "update", "update, clip bit", "metrics", ...
    sigma: float
    clip: float
    sampling: Sampling
    scale: int
    model: str  # digest of the model that was sent
    noise: str  # commitment of the noise key; never the key
    delta_added: float = 0.0

    @property
    def spent(self) -> Spent:
        return Spent(self.sigma, self.clip, self.sampling)


class Cost(NamedTuple):
    """What was spent, and what would be after the next release."""

    spent: float
    after: float
    budget: float | None

    @property
    def fits(self) -> bool:
        return self.budget is None or self.after <= self.budget

    def text(self) -> str:
        """Why a run stops here, and how to go on.

        >>> print(Cost(7.9, 8.1, 8.0).text())
        privacy budget reached: epsilon 7.9000 of 8 spent, the next round would make it 8.1000; to go on, start a run
        with a larger privacy.epsilon, or with more noise or fewer rounds
        """
        if self.budget is None:
            return f"epsilon {self.spent:.4f} spent, the next round makes it {self.after:.4f}; no budget"
        if self.fits:
            return f"epsilon {self.spent:.4f} of {self.budget:g} spent, the next round makes it {self.after:.4f}"
        return (
            f"privacy budget reached: epsilon {self.spent:.4f} of {self.budget:g} spent, the next round would make it "
            f"{self.after:.4f}; to go on, start a run with a larger privacy.epsilon, or with more noise or fewer rounds"
        )


class Ledger:
    """The open ledger of a run. `open` makes it or reads it; `cost` looks ahead; `record` writes and syncs.

    >>> import tempfile
    >>> from manyloom.privacy.accountants import everyone
    >>> folder = tempfile.TemporaryDirectory()
    >>> claim = Claim(1e-5, "pld", "zero-out", "client", "job")
    >>> ledger = Ledger.open(Path(folder.name) / "ledger.jsonl", claim)
    >>> entry = Entry(1, 0, "update", 5.0, 1.0, everyone(100), 1024, "model", "noise")
    >>> ledger.cost([entry] * 100, budget=8.0).fits
    False
    >>> ledger.record(entry)
    >>> round(ledger.spent(), 4), ledger.attempt(1), ledger.attempt(2)
    (0.7255, 1, 0)
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, claim: Claim, entries: list[Entry], lines: list[str]) -> None:
        self.path = path
        self.claim = claim
        self._entries = entries
        self._lines = lines
        self._room: tuple[tuple[object, ...], int] | None = None  # so many records fit, if the next are like this

    @classmethod
    def open(cls, path: Path, claim: Claim, mark: dict[str, Any] | None = None) -> Ledger:
        """Make the file, or read it: its claim must be this one, and it must begin as the checkpoint's `mark` says.

        A last line without its end was never synced, so nothing of it was released: it is cut off.
        Raises `BadInput` where claim, mark or a line do not fit.
        """
        head = json.dumps({"ledger": 1, "grid": claim.grid, **asdict(claim)}, sort_keys=True)
        text = path.read_bytes() if path.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if not whole:
            if mark is not None:
                raise _broken(path, "the checkpoint counts on it, and it holds nothing")
            if text:  # the run ended while the very first line was written
                path.write_bytes(b"")
            _append(path, head, at=0)
            return cls(path, claim, [], [head])
        if len(whole) < len(text):
            with path.open("r+b") as f:
                f.truncate(len(whole))
                os.fsync(f.fileno())
        lines = whole.decode().splitlines()
        if lines[0] != head:
            raise bad(
                "ledger-mismatch",
                "the privacy ledger of this run was written under another claim",
                got=lines[0],
                rule=f"delta, accountant, adjacency, unit and job stay as they were; now {head}",
                mend="resume the job as it was, or start another run",
            )
        try:
            entries = [_read(line) for line in lines[1:]]
        except (ValueError, TypeError, KeyError) as e:
            raise _broken(path, f"a record can't be read ({e})") from e
        for entry in entries:
            check(entry.sampling, claim.accountant, claim.adjacency)
        ledger = cls(path, claim, entries, lines)
        if mark is not None and ledger.mark(int(mark["records"])) != mark:
            raise _broken(path, "it does not begin as the checkpoint says")
        return ledger

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    def mark(self, records: int | None = None) -> dict[str, Any]:
        """For the checkpoint: how many records there are, and the SHA-256 of the lines up to there."""
        n = len(self._entries) if records is None else records
        text = "".join(line + "\n" for line in self._lines[: n + 1])
        return {"records": min(n, len(self._entries)), "digest": hashlib.sha256(text.encode()).hexdigest()}

    def spent(self) -> float:
        """Epsilon of everything recorded, at the claim's delta less what was added to it."""
        return self._epsilon([])

    def cost(self, following: Sequence[Entry], budget: float | None) -> Cost:
        """What was spent, and what it would be with these releases; asks nobody, writes nothing."""
        return Cost(self.spent(), self._epsilon(following), budget)

    def fits(self, entry: Entry, budget: float) -> bool:
        """`cost([entry], budget).fits`, asking the accountant seldom: what allows many equal releases allows one.

        The PLD accountant takes half a second an answer, a small round less.
        """
        equal = (entry.spent.z, entry.sampling, entry.delta_added, budget)
        if self._room is not None and self._room[0] == equal and len(self._entries) < self._room[1]:
            return True
        for ahead in (64, 8, 1):  # what is taken off delta is taken once
            if self._epsilon([entry, *[replace(entry, delta_added=0.0)] * (ahead - 1)]) <= budget:
                self._room = (equal, len(self._entries) + ahead)
                return True
        return False

    def attempt(self, round: int) -> int:
        """How many attempts of a round may have released: the number of the next one."""
        return max((e.attempt + 1 for e in self._entries if e.round == round), default=0)

    def record(self, entry: Entry) -> None:
        """Write a release and sync it to disk. Call it before the reply that could reveal the release leaves.

        Raises `BadInput` where the sampling has no valid accountant here, or the attempt was recorded before.
        """
        check(entry.sampling, self.claim.accountant, self.claim.adjacency)
        if any((e.round, e.attempt, e.what) == (entry.round, entry.attempt, entry.what) for e in self._entries):
            raise bad(
                "ledger-repeats",
                "this release is in the ledger already",
                got=f"round {entry.round}, attempt {entry.attempt}, {entry.what}",
                rule="one record a release; a retry is another attempt",
            )
        line = json.dumps(asdict(entry), sort_keys=True, allow_nan=False)
        _append(self.path, line, at=sum(len(x.encode()) + 1 for x in self._lines))
        self._lines.append(line)
        if self._room is not None and self._room[0][:3] != (entry.spent.z, entry.sampling, entry.delta_added):
            self._room = None
        self._entries.append(entry)

    def _epsilon(self, following: Sequence[Entry]) -> float:
        entries = [*self._entries, *following]
        left = self.claim.delta - sum(e.delta_added for e in entries)
        return epsilon([e.spent for e in entries], left, self.claim.accountant, self.claim.adjacency)


def _append(path: Path, line: str, at: int) -> None:
    """One line, synced; nobody else may have written in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("ab") as f:
        if f.tell() != at:
            raise _broken(path, "somebody else wrote to it while the run was open")
        f.write(line.encode() + b"\n")
        f.flush()
        os.fsync(f.fileno())
    if new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read(line: str) -> Entry:
    raw = cast("dict[str, Any]", json.loads(line))
    raw["sampling"] = Sampling(**raw["sampling"])
    return Entry(**raw)


def _broken(path: Path, why: str) -> Exception:
    return bad(
        "ledger-broken",
        f"the privacy ledger can't be trusted: {why}",
        where=path.name,
        rule="without its ledger a run has no epsilon",
        mend="put the file back as it was, or start another run",
    )
