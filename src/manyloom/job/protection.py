"""What protects a job's updates: `[privacy]` and `[secure]` with all that follows from the rest of the job."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from manyloom.algorithms.guarded import Guard
from manyloom.core.errors import bad
from manyloom.data.store import Shared
from manyloom.privacy import accountants, adaptive, calibration, mechanisms
from manyloom.privacy.accountants import Accountant, Adjacency, Sampling
from manyloom.privacy.ledger import Claim, Entry
from manyloom.privacy.settings import Privacy
from manyloom.secure import FULL, IDEAL, Control, Params, Policy, Setting, graph
from manyloom.secure.channel import Channel
from manyloom.secure.params import LIMIT
from manyloom.secure.settings import Secure

if TYPE_CHECKING:
    from manyloom.job.job import Job

DRAWS = 1e12  # a bound on d T: what the truncated tail of the noise takes of delta is counted for so many
LOSS = (0.0, 32.0)  # where a mean training loss lies that travels inside a secure sum
LEAST = 3  # clients of a secure sum


@dataclass(frozen=True)
class Protection:
    """What protects a job's updates.

    Args:
        privacy, secure: the tables, filled in.
        population: N.
        sampling: of cohorts, as executed.
        accountant, adjacency: of the claim.
        expected: clients of a round, qN or the fixed cohort: the denominator under a claim.
        n_min, n_max: the least and most clients of a sum.
        left: delta without what truncated noise and visible aborts take.
        uniform: all clients weigh alike.
    """

    privacy: Privacy | None
    secure: Secure | None
    population: int
    sampling: Sampling
    accountant: Accountant
    adjacency: Adjacency
    expected: float
    n_min: int
    n_max: int
    left: float
    uniform: bool

    @property
    def z(self) -> float:
        """The noise multiplier of a whole release."""
        return self.privacy.noise_multiplier or 0.0 if self.privacy else 0.0

    @property
    def z_update(self) -> float:
        """The noise multiplier of the update alone: under an adaptive clip the bit takes its part."""
        if self.privacy is None or not self.privacy.adaptive:
            return self.z
        return adaptive.split(self.z, adaptive.bit_noise(self.expected))

    def scale(self, d: int) -> int:
        """S for d parameters."""
        if self.secure is not None and self.secure.scale is not None:
            return self.secure.scale
        return mechanisms.choose_scale(d, self.z_update, self.n_max if self.secure else 1)

    def guard(self, d: int, clip: float | None) -> Guard:
        """What a round's sum of d numbers a client is made by; `clip` as it stands, under a claim.

        Raises `BadInput` where no integer scale has room.
        """
        p, s = self.privacy, self.secure
        scale = self.scale(d)
        control: tuple[Control, ...] = ()
        if p is None:
            assert s is not None
            cap = 1 if self.uniform else int(s.weight_cap or 1)
            top = cap if self.n_max * cap < LIMIT else 2 ** int(math.log2((LIMIT - 1) // self.n_max))
            fine = 2 ** min(16, int(math.log2((LIMIT - 1) // self.n_max)))
            control = (
                Control("weight", top, 0.0, float(cap)),
                Control("cut", 1, 0.0, 1.0),
                Control("loss", fine, *LOSS),
            )
        elif p.adaptive:
            noise = 2 * adaptive.bit_noise(self.expected)
            control = (Control("clip", adaptive.BIT_SCALE, -0.5, 0.5, noise),)
        params = Params(
            mode=s.mode if s else "plain",
            n_min=self.n_min,
            n_max=self.n_max,
            d=0,
            bound=float(clip if p is not None and clip is not None else s.range if s else 1.0),
            scale=scale,
            gamma=_decimal(s.gamma) if s else "0",
            delta_drop=_decimal(s.delta_drop) if s else "0",
            kappa=s.bits if s else 0,
            alpha=_decimal(s.alpha) if s else "0",
            z=self.z_update,
            noise="central" if p else "none",
            weights="one" if p else "plain",
            control=control,
        )
        return Guard(params.checked(), self.expected if p else None, self.z_update)

    @property
    def degree(self) -> tuple[int, int] | None:
        """k and t, where the job says them."""
        if self.secure is None or self.secure.neighbours is None or self.secure.threshold is None:
            return None
        return self.secure.neighbours, self.secure.threshold

    def channel(self, d: int, digest: str, session: str, roster: tuple[bytes, ...] | None) -> Channel | None:
        """The hub's half of the secure sums of a run; None without any."""
        if self.secure is None:
            return None
        suite = IDEAL if self.secure.fidelity == "ideal" else FULL
        setting = Setting(hashlib.sha256(digest.encode()).digest(), session, b"", roster, self.degree, suite)
        clip = self.privacy.clip if self.privacy else None
        return Channel(self.guard(d, clip).params, setting, LEAST)

    def claim(self, job: str) -> Claim:
        """What the ledger's records have in common."""
        assert self.privacy is not None and self.privacy.delta is not None
        return Claim(self.privacy.delta, self.accountant, self.adjacency, self.privacy.unit, job)

    def entry(
        self, round: int, attempt: int, what: str, clip: float, scale: int, model: str, noise: str, added: float = 0.0
    ) -> Entry:
        """The record of one release; `added` is what earlier ones took off delta, which is taken once."""
        assert self.privacy is not None and self.privacy.delta is not None
        added = max(0.0, self.privacy.delta - self.left - added)  # more where a run was given more rounds
        return Entry(round, attempt, what, self.z * clip, clip, self.sampling, scale, model, noise, added)


def protection_of(job: Job) -> Protection | None:
    """The protection of a job, or None.

    Raises `BadInput` for a claim or a secure sum that can't be: see `privacy.calibration`, `secure.params`.
    """
    if job.privacy is None and job.secure is None:
        return None
    n = len(job.eligible)
    poisson = job.sampling == "poisson"
    expected = job.rate * n if poisson else float(job.cohort_size)
    n_max = job.cohort_size if not poisson else n
    if poisson:
        sampling = accountants.poisson(n, job.rate)
        if job.secure is not None:
            n_max = accountants.safe_cap(n, job.rate)
            sampling = accountants.truncated(n, job.rate, n_max)
    else:
        sampling = accountants.fixed(n, job.cohort_size)
    n_min = max(LEAST, job.quorum_of(math.ceil(expected))) if job.secure is not None else 1
    secure = _secure(job, n_min, n_max) if job.secure is not None else None
    accountant = (job.privacy.accountant if job.privacy else None) or accountants.default_accountant(sampling)
    adjacency = accountants.default_adjacency(sampling)
    uniform = job.algorithm.weights == "uniform"
    privacy, left = (None, 0.0)
    if job.privacy is not None:
        privacy, left = _privacy(job, job.privacy, sampling, accountant, adjacency, n, n_min)
    made = Protection(privacy, secure, n, sampling, accountant, adjacency, expected, n_min, n_max, left, uniform)
    _ = made.z_update  # refuses an adaptive clip of too few
    if secure is not None:
        params = made.guard(1, privacy.clip if privacy else None).params
        floor = Policy().refuses(params, rostered=secure.mode == "active")
        if floor is not None:
            raise bad("secure-below-floor", "every client would refuse this secure sum", got=floor,
                      rule="a client has a floor of its own: docs/privacy.md", mend=_relax(floor))  # fmt: skip
    return made


def _privacy(
    job: Job, p: Privacy, sampling: Sampling, accountant: Accountant, adjacency: Adjacency, n: int, n_min: int
) -> tuple[Privacy, float]:
    """[privacy] with delta and noise filled in, and what is left of delta."""
    accountants.check(sampling, accountant, adjacency)
    delta = p.delta if p.delta is not None else calibration.default_delta(n)
    calibration.check_delta(delta, n)
    if p.epsilon is None and p.noise_multiplier is None:
        raise bad("missing-key", "[privacy] needs epsilon or noise_multiplier", got="neither",
                  rule="one of them; the other follows from rounds; with both, epsilon is the budget",
                  mend="add epsilon = 8.0 to [privacy]")  # fmt: skip
    left = calibration.left_of_delta(delta, p.epsilon if p.epsilon is not None else 20.0, DRAWS)
    if job.secure is not None and sampling.kind in ("poisson", "truncated-poisson"):
        left -= aborts(job.rounds, n, job.rate * (1 - job.secure.delta_drop), n_min)
        if left < delta / 2:
            raise bad("delta-spent-on-aborts", "rounds would fall below their least too often, for all to see",
                      got=f"of delta = {delta:g} {max(0.0, left):.3g} is left",
                      rule="that a round has too few clients tells who is there: its chance is taken off delta",
                      mend="lower [job] quorum, raise cohort, or raise delta")  # fmt: skip
    z = p.noise_multiplier
    if z is None:
        assert p.epsilon is not None
        z = calibration.noise_for(p.epsilon, job.rounds, sampling, left, accountant, adjacency)
    return p._replace(delta=delta, noise_multiplier=z, accountant=accountant), left


def aborts(rounds: int, n: int, q: float, n_min: int) -> float:
    """T P[Bin(N-1, q (1 - delta_drop)) < n_min]: how often a round is seen to come to nothing."""
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs]

    return rounds * float(stats.binom.cdf(n_min - 1, n - 1, q))  # pyright: ignore


def _secure(job: Job, n_min: int, n_max: int) -> Secure:
    """[secure] with degree, threshold and weight cap filled in."""
    assert job.secure is not None
    s = job.secure
    if n_max < LEAST or n_min > n_max:
        raise bad("secure-too-few", f"a secure sum needs at least {LEAST} clients a round", got=f"{n_max} a round",
                  rule="the sum of one is no secret, of two each knows the other's",
                  mend="raise cohort, or leave [secure] out")  # fmt: skip
    gamma, drop = _decimal(s.gamma), _decimal(s.delta_drop)
    k, t = s.neighbours, s.threshold
    if k is None and t is None:
        k, t, *_ = graph.degree(n_max, gamma, drop, s.bits, s.mode)
    elif k is None:
        k = graph.degree(n_max, gamma, drop, s.bits, s.mode).k
    elif t is None:
        t = graph.least_threshold(n_max, k, gamma, s.bits, s.mode)[0]
    assert k is not None and t is not None
    wrong = graph.sound(n_max, k, t, gamma, drop, s.bits, s.mode)
    if wrong is not None:
        raise bad("secure-unsound", wrong, got=f"neighbours = {k}, threshold = {t}, {n_max} clients",
                  rule="so that those who collude open nothing (privacy specification, 3.5)",
                  mend="leave neighbours and threshold out: they are computed")  # fmt: skip
    cap = s.weight_cap
    if job.privacy is None and job.algorithm.weights == "samples":
        cap = cap if cap is not None else _largest(job)
        if cap is None:
            raise bad("weight-cap-missing", "how much a client can weigh is not known", got="rows that count by a size",
                      rule="a weight travels inside the sum as a share of the largest: beyond it all weigh alike",
                      mend="set weight_cap in [secure] to the most that one client's rows count")  # fmt: skip
    scale = s.scale
    if scale is None and job.privacy is None:  # under a claim it follows from the number of parameters
        room = [2**b for b in range(8, 19) if n_max * (math.ceil(s.range * 2**b) + 1) < LIMIT]
        if not room:
            raise bad("overflow", "no integer scale fits", got=f"range = {s.range:g}, {n_max} clients",
                      rule="clients x range x scale stays below 2^31", mend="lower range")  # fmt: skip
        scale = room[-1]
    return s._replace(neighbours=k, threshold=t, kappa=s.bits, weight_cap=cap, scale=scale)


def _largest(job: Job) -> int | None:
    """The most that one client's rows count; None where rows count by a size and do not lie in memory."""
    fed, size = job.federation, job.task.size
    if size is None:
        return int(fed.sizes.max(initial=1))
    if not isinstance(fed.store, Shared):
        return None
    each = (size(fed.slab([i]).gather()[1]).sum() for i in job.eligible.tolist())
    return int(max(each, default=1))


def _decimal(x: float) -> str:
    return repr(float(x))


def _relax(floor: str) -> str:
    if "n_min" in floor:
        return "raise [job] quorum or cohort, or lower gamma"
    if "scale" in floor or "clip" in floor:
        return "set scale between 2^8 and 2^20, well above the square root of the number of parameters"
    return "change it in [secure]"
