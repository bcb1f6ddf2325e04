"""One attempt of a round under protection: gathered, written down, noised, concluded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from manyloom.algorithms import guarded
from manyloom.algorithms.guarded import Gathered, Guard
from manyloom.algorithms.round import Round
from manyloom.core.errors import BadInput
from manyloom.core.exchange import Ids, Runtime, play
from manyloom.job import events as ev
from manyloom.job import promise
from manyloom.job.job import Job, digest
from manyloom.job.prepare import Prepared, width
from manyloom.job.protection import Protection
from manyloom.job.state import State
from manyloom.privacy import adaptive
from manyloom.privacy.account import Account
from manyloom.privacy.accountants import Spent
from manyloom.privacy.ledger import Entry
from manyloom.privacy.source import Secret
from manyloom.secure.channel import over
from manyloom.secure.transcript import hash_model


class Spend(NamedTuple):
    """What a protected run carries from round to round, beside its state."""

    job: Job
    made: Protection
    runtime: Runtime
    ready: Prepared
    account: Account | None

    def attempt(self, round: int) -> int:
        """The first attempt that nothing can have been released of."""
        return self.account.attempt(round) if self.account else 0

    def cohort(self, round: int, attempt: int) -> Ids | None:
        """Who is asked, drawn under the run's secret; None: the seed says."""
        if self.account is None:
            return None
        return self.job.eligible[self.account.draw(self.made.sampling, round, attempt)]

    def guard(self, record: dict[str, Any]) -> Guard:
        """What the round's sum is made by; the clip as it stands, one a turn."""
        layout = self.ready.layout
        if self.ready.turns:
            layout = self.ready.turns[int(record["turn"]) % len(self.ready.turns)].layout
        clip = record.get(_clip(self, record)) or (self.job.privacy.clip if self.job.privacy else None)
        return self.made.guard(width(self.job, layout, self.ready.buffers), clip)

    def refused(self, state: State, guard: Guard, round: int) -> str | None:
        """Why the budget allows no further round; None if it does."""
        if self.account is None or self.job.privacy is None:
            return None
        cost = self.account.refuses(
            self._entry(state, guard, round, self.attempt(round), Secret()), self.job.privacy.epsilon
        )
        return None if cost is None else cost.text()

    def _entry(self, state: State, guard: Guard, round: int, attempt: int, source: Secret, what: str = "") -> Entry:
        said = what or ("update, clip bit" if guard.params.control else "update")
        model = hash_model({"theta": state.server["theta"]}).hex()
        added = sum(e.delta_added for e in self.account.ledger.entries) if self.account else 0.0
        return self.made.entry(round, attempt, said, guard.params.bound, guard.params.scale, model, source.commitment,
                               added)  # fmt: skip

    def gather(
        self, state: State, guard: Guard, cohort: Ids, round: int, attempt: int, quorum: int, at: float = 0.0
    ) -> Gathered:
        """Ask the cohort over the job's channel."""
        job = self.job
        asked = guarded.gather(
            job.algorithm,
            state.server,
            guard,
            cohort,
            draws=job.draws,
            round=round,
            attempt=attempt,
            quorum=quorum,
            deadline_s=job.deadline_s,
            take=job.cohort_size if job.over_provision > 1 else None,
            at=at,
        )
        channel = self.ready.channel
        return play(over(asked, channel) if channel is not None else asked, self.runtime.ask)

    def released(
        self, state: State, guard: Guard, round: int, attempt: int, source: Secret, what: str = ""
    ) -> ev.Released | None:
        """Write down what is about to be released, before it is."""
        if self.account is None or self.job.privacy is None:
            return None
        entry = self._entry(state, guard, round, attempt, source, what)
        spent = self.account.record(entry)
        p = self.job.privacy
        return ev.Released(round, attempt, entry.what, spent, p.delta or 0.0, p.epsilon, self.made.z, entry.clip,
                           entry.sampling.text())  # fmt: skip

    def conclude(
        self, state: State, guard: Guard, got: Gathered, record: dict[str, Any], source: Secret, round: int
    ) -> tuple[Round, dict[str, Any]]:
        """Noise on the sum, then the server step; what the round tells of its protection."""
        job, p = self.job, self.job.privacy
        ints = guarded.noised(got.ints, guard, source) if p is not None else got.ints
        done, seen = guarded.conclude(
            job.algorithm,
            state.server,
            state.rule,
            guard,
            got,
            ints,
            self.made.population,
            job.draws.of(round, self.job.eligible[:1]),
        )
        told: dict[str, Any] = {"clip": seen.clip if p else None, "next_clip": None, "unclipped": seen.unclipped,
                                "cut": seen.cut,
                                "not_finite": sum(x.reason == "not-finite" for x in got.lost)}  # fmt: skip
        if p is not None and seen.unclipped is not None:
            record[_clip(self, record)] = told["next_clip"] = adaptive.next_clip(
                seen.clip, seen.unclipped, p.quantile, p.clip_lr
            )
        return done, told


def _clip(spend: Spend, record: dict[str, Any]) -> str:
    """The name of the adaptive clip in the run's record: parts that are trained in turn have one each."""
    turns = spend.ready.turns
    return f"clip/{record['turn'] % len(turns)}" if turns else "clip"


def spending(job: Job, runtime: Runtime, ready: Prepared, account: Account | None) -> Spend | None:
    """How a protected job goes through its rounds; None for a job without protection."""
    return None if job.protection is None else Spend(job, job.protection, runtime, ready, account)


def account_of(job: Job, folder: Any = None, mark: dict[str, Any] | None = None) -> Account | None:
    """The open account of a run of a private job: in its folder, or (a trial) in one that vanishes.

    The claim leaves out rounds and budget, which a run may be given more of.
    """
    if job.protection is None or job.privacy is None:
        return None
    bare = replace(job, rounds=1) if job.rounds != 1 else job
    try:
        tables = {t: {k: v for k, v in keys.items() if (t, k) not in (("job", "rounds"), ("privacy", "epsilon"))}
                  for t, keys in bare.tables.items()}  # fmt: skip
        name = digest(tables)
    except BadInput:  # a part has no name: what can be told of the job
        name = replace(bare, privacy=bare.privacy._replace(epsilon=None)).digest if bare.privacy else ""
    return Account(job.protection.claim(name), folder, mark)


def promised(job: Job, account: Account | None) -> dict[str, Any] | None:
    """The guarantee of what was spent, as JSON."""
    if account is None or job.protection is None:
        return None
    counts: dict[tuple[Any, ...], int] = {}
    for entry in account.ledger.entries:
        at = (entry.spent.z, entry.sampling)
        counts[at] = counts.get(at, 0) + 1
    spent = [Spent(z, 1.0, sampling, count) for (z, sampling), count in counts.items()]
    return promise.shown(job, job.protection, spent) if spent else None


__all__ = ["Spend", "account_of", "promised", "spending"]
