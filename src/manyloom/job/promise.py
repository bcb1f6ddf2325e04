"""What a protected job promises: guarantees derived from job and ledger, with all that they assume and leave out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manyloom.job.job import Job
from manyloom.job.protection import Protection
from manyloom.privacy import guarantee
from manyloom.privacy.accountants import Spent
from manyloom.privacy.guarantee import Facts, Guarantee


def guarantees(job: Job, made: Protection, spent: Sequence[Spent]) -> tuple[Guarantee, ...]:
    """The guarantees of these releases, the one that the budget counts first."""
    p = made.privacy
    assert p is not None and p.delta is not None
    words = [f"Gaussian, rounded, on the sum of integer updates (clip {p.clip:g}, noise multiplier {made.z:g})"]
    if p.adaptive:
        words.append(f"clip follows the {p.quantile:g} quantile, its bit noised too")
    facts = Facts(
        spent=tuple(spent),
        population=made.population,
        delta=p.delta,
        left=made.left,
        unit=p.unit,
        accountant=made.accountant,
        adjacency=made.adjacency,
        mechanism="; ".join(words),
        secret_noise=True,
        secret_cohort=True,
        assumes=_assumes(job, made),
        uncovered=_uncovered(job, made),
    )
    return guarantee.derive(facts)


def _assumes(job: Job, made: Protection) -> tuple[str, ...]:
    one, many = job.federation.client_word
    hub = "the exact sum of a round" if made.secure else f"each {one}'s clipped update"
    lines = [
        f"the hub sees {hub}, adds the noise as said and keeps both to itself",
        f"each {one} clips as said; {made.population} {many}, a number that is public",
        "whether a round fails, is tried again or runs late does not depend on one "
        f"{one}'s data" + (", beyond what was taken off delta" if made.secure else ""),
    ]
    if made.secure:
        s = made.secure
        lines.append(f"of every cohort at most a share of {s.gamma:g} works together with the hub ({s.mode} mode)")
    return tuple(lines)


def _uncovered(job: Job, made: Protection) -> tuple[str, ...]:
    one, many = job.federation.client_word
    out: list[str] = []
    if (job.federation.tests > 0).any():
        whose = f"of each {one}" if job.client_metrics == "release" else f"over all {many} together"
        out.append(f"metrics on held-out {job.federation.row_word[1]}, {whose}, after each evaluation")
    if job.federation.schema is not None and job.federation.standardise:
        out.append("means and scales of the columns, asked for once")
    if job.federation.schema is not None and job.federation.schema.categories:
        out.append("which values the text columns have")
    out.append(
        f"sizes of the {many} and how their labels are spread, who took part when, bytes and seconds: "
        "the operator's to keep"
    )
    out.append("what was learned from earlier runs when clip, lr and the like were chosen")
    return tuple(out)


def shown(job: Job, made: Protection, spent: Sequence[Spent]) -> dict[str, Any] | None:
    """The value of `privacy` in JSON: the guarantee, with budget, noise, clip and the further guarantees."""
    found = guarantee.shown(guarantees(job, made, spent))
    p = made.privacy
    if found is None or p is None:
        return None
    return found | {"budget": p.epsilon, "noise_multiplier": made.z, "clip": p.clip, "adaptive": p.adaptive}


def planned(job: Job, made: Protection) -> dict[str, Any] | None:
    """`shown` of all rounds that are planned."""
    if made.privacy is None:
        return None
    return shown(job, made, guarantee.planned(made.sampling, made.z, made.privacy.clip, job.rounds))


def told(made: Protection, d: int) -> dict[str, Any] | None:
    """The value of `secure` in the plan."""
    s = made.secure
    if s is None:
        return None
    params = made.guard(d, made.privacy.clip if made.privacy else None).params
    return {
        "mode": s.mode, "fidelity": s.fidelity, "clients": made.n_max, "least": made.n_min,
        "neighbours": s.neighbours, "threshold": s.threshold, "gamma": repr(s.gamma),
        "delta_drop": repr(s.delta_drop), "kappa": s.bits, "scale": params.scale,
        "range": None if made.privacy else s.range,
    }  # fmt: skip
