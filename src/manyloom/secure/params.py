"""What all who take part in a secure sum must agree on, to the byte, and what a client refuses to agree to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple, cast

from manyloom.core.errors import Problem, bad
from manyloom.secure.graph import corrupt

LIMIT = 2**31  # a sum of int32 must stay below
LIMBS = 6  # an exact number travels as so many parts of 16 bits
LIMB = 2**16
KINDS = ("statistics", "train", "evaluate", "scores")  # what may be summed in a round, in this order


def number_of(round: int, verb: str) -> int:
    """The number of a sum within a run: it grows from sum to sum, so that no client answers twice.

    >>> number_of(0, "statistics"), number_of(3, "train"), round_of(13)
    (0, 13, 3)
    """
    return len(KINDS) * round + KINDS.index(verb)


def round_of(number: int) -> int:
    """The round that a sum belongs to."""
    return number // len(KINDS)


class Control(NamedTuple):
    """A number that travels inside the sum: clipped to [lo, hi], an integer of [-scale, scale].

    "weight" is the one that counts from 0: an integer of [0, scale] for [0, hi].
    """

    name: str
    scale: int
    lo: float
    hi: float
    z: float = 0.0


@dataclass(frozen=True)
class Params:
    """The parameters of one sum of integers; decimals (gamma, delta_drop, alpha) are texts, so that floors are exact.

    Args:
        mode: "active" needs a roster; "semi" trusts the server to follow the protocol; "plain" hides nothing: the
            integers travel as they are (a private sum whose server is trusted with each update).
        n_min, n_max: the least and most clients of a sum.
        gamma: which share of clients may collude with the server.
        delta_drop: which share may be lost.
        kappa: statistical security, bits.
        alpha: which share of the asked must be in the sum.
        scale: S, integers to a C.
        z: noise multiplier of the sum; 0 without.
        noise: "none", or "central": the server adds it to the sum.
        weights: "one", "capped" (in [0, 1], after the clip), "plain" (also inside the sum, for a weighted mean), or
            "exact": no update but a few real numbers, each in six parts of 16 bits, summed without rounding.
        control: further numbers of each client inside the sum.
        d: coordinates of the vector; 0 in an ask, where a client fills in its own.
        bound: C. The L2 clip; with "plain" weights the bound R of a coordinate.
        deadlines: of the five stages, in seconds.
    """

    mode: Literal["plain", "active", "semi"]
    n_min: int
    n_max: int
    d: int
    bound: float
    scale: int
    gamma: str = "0.1"
    delta_drop: str = "0.1"
    kappa: int = 80
    alpha: str = "0.6666666667"
    z: float = 0.0
    noise: Literal["none", "central"] = "none"
    weights: Literal["one", "capped", "plain", "exact"] = "one"
    control: tuple[Control, ...] = ()
    deadlines: tuple[int, int, int, int, int] = (30, 30, 60, 30, 60)

    @property
    def total(self) -> int:
        """d_total: one for the count, the control numbers, the vector."""
        return 1 + len(self.control) + self.d * (LIMBS if self.weights == "exact" else 1)

    def floor_of(self, n: int) -> int:
        """max(n_min, ceil(alpha n)): the least |U2| of n asked."""
        return max(self.n_min, math.ceil(Fraction(self.alpha) * n))

    @property
    def clipped(self) -> bool:
        """Whether the vector is bounded by its norm, not by its coordinates."""
        return self.weights in ("one", "capped")

    def shrink(self) -> float:
        """C'/C = 1 - sqrt(d)/S: room for rounding inside the bound of the norm."""
        return 1 - math.sqrt(self.d) / self.scale if self.clipped else 1.0

    def to_bytes(self) -> bytes:
        """Canonical JSON, as hashed and sent."""
        job = {
            "v": 1, "mode": self.mode, "ring": 32, "n_min": self.n_min, "n_max": self.n_max, "gamma": self.gamma,
            "delta_drop": self.delta_drop, "kappa": self.kappa, "alpha": self.alpha, "S": self.scale,
            "z": float(self.z).hex(), "noise": self.noise, "sigma_local": (0.0).hex(), "weights": self.weights,
            "control": [[c.name, c.scale, *(float(x).hex() for x in c[2:])] for c in self.control],
            "deadlines": list(self.deadlines), "aead": "chacha20poly1305",
        }  # fmt: skip
        both = {"job": job, "round": {"d": self.d, "C": float(self.bound).hex()}}
        return json.dumps(both, sort_keys=True, separators=(",", ":")).encode("ascii")

    def digest(self) -> bytes:
        """H(params)."""
        return hashlib.sha256(self.to_bytes()).digest()

    @staticmethod
    def from_bytes(raw: bytes) -> Params:
        """The parameters of `to_bytes`; ValueError for anything that is not exactly such bytes."""
        try:
            both = cast("Mapping[str, Mapping[str, Any]]", json.loads(raw))
            job, round = both["job"], both["round"]
            params = Params(
                mode=job["mode"], n_min=job["n_min"], n_max=job["n_max"], gamma=job["gamma"],
                delta_drop=job["delta_drop"], kappa=job["kappa"], alpha=job["alpha"], scale=job["S"],
                z=float.fromhex(job["z"]), noise=job["noise"], weights=job["weights"],
                control=tuple(
                    Control(name, scale, *(float.fromhex(x) for x in rest)) for name, scale, *rest in job["control"]
                ),
                deadlines=cast("tuple[int, int, int, int, int]", tuple(job["deadlines"])),
                d=round["d"], bound=float.fromhex(round["C"]),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"these are no parameters of a secure sum: {error}") from error
        if params.to_bytes() != raw:
            raise ValueError("these parameters are not in their canonical form")
        return params

    def problem(self) -> Problem | None:
        """Why these can't be: a sum that could overflow, rounding that leaves no room, too few honest."""
        if self.mode not in ("plain", "active", "semi") or self.noise not in ("none", "central"):
            return Problem("not-yet", f'mode "{self.mode}" with noise "{self.noise}" is not in this version')
        if (
            not (1 if self.mode == "plain" else 2) <= self.n_min <= self.n_max
            or self.d < 0
            or self.scale < 1
            or not 0 < self.bound < math.inf
        ):
            return Problem("out-of-range", "a secure sum needs 2 <= n_min <= n_max, a scale and a bound",
                           got=f"n_min = {self.n_min}, n_max = {self.n_max}, scale = {self.scale}")  # fmt: skip
        size = self.scale if self.clipped else LIMB if self.weights == "exact" else math.ceil(self.bound * self.scale)
        for name, each in [("the vector", size + 1), *((c.name, c.scale) for c in self.control)]:
            if self.mode != "plain" and self.n_max * each >= LIMIT:  # a plain sum is made in 64 bits
                return Problem("overflow", f"the sum of {name} over {self.n_max} clients could leave 32 bits",
                               got=f"{self.n_max} x {each}", rule="n_max times the largest integer is below 2^31",
                               mend="lower scale")  # fmt: skip
        if any(not c.lo < c.hi or c.scale < 1 or (c.name == "weight" and c.lo != 0) for c in self.control):
            return Problem("out-of-range", "a control number needs lo < hi and a scale; a weight starts at 0")
        if self.weights == "plain" and not any(c.name == "weight" for c in self.control):
            return Problem("missing", "a weighted mean needs its weight inside the sum")
        if self.noise != "none" and (not self.clipped or any(c.name == "weight" for c in self.control)):
            return Problem("weights-under-noise", "a private sum has a fixed denominator: no weight travels in it",
                           mend='set weights = "one" or "capped"')  # fmt: skip
        if self.shrink() <= 0:
            return Problem("out-of-range", "rounding would be larger than the clip", got=f"scale = {self.scale}",
                           rule=f"scale is above sqrt(d) = {math.sqrt(self.d):.0f}", mend="raise scale")  # fmt: skip
        return None

    def checked(self) -> Params:
        """These, or BadInput."""
        wrong = self.problem()
        if wrong:
            raise bad(wrong.code, wrong.what, got=wrong.got, rule=wrong.rule, mend=wrong.mend)
        return self


@dataclass(frozen=True)
class Policy:
    """A client's own floor: below it, it takes no part, whatever a server says."""

    mode: Literal["active", "semi"] | None = None  # None: active for a client with a roster
    n_min: int = 3
    honest: int = 2
    n_max: int = 10_000
    gamma: str = "0.05"
    kappa: int | None = None  # None: 80 active, 40 semi
    alpha: str = "0.5"
    scale: tuple[int, int] = (2**8, 2**20)
    shrink: float = 0.5
    bound: float = 1e3
    separation: int = 1
    participations: int | None = None

    def refuses(self, p: Params, rostered: bool) -> str | None:
        """The first thing these parameters fall short of, or None."""
        wrong = p.problem()
        if wrong:
            return wrong.what
        kappa = self.kappa if self.kappa is not None else (80 if p.mode == "active" else 40)
        strict = self.mode == "active" or (self.mode is None and rostered)
        checks = (
            (p.mode == "active" or (p.mode == "semi" and not strict), f'mode "{p.mode}"'),
            (p.n_min >= self.n_min, f"n_min = {p.n_min}"),
            (p.n_max <= self.n_max, f"n_max = {p.n_max}"),
            (Fraction(p.gamma) >= Fraction(self.gamma), f"gamma = {p.gamma}"),
            (p.n_min - corrupt(p.gamma, p.n_max) >= self.honest, f"n_min = {p.n_min} with gamma = {p.gamma}"),
            (p.kappa >= kappa, f"kappa = {p.kappa}"),
            (Fraction(p.alpha) >= Fraction(self.alpha), f"alpha = {p.alpha}"),
            (self.scale[0] <= p.scale <= self.scale[1], f"scale = {p.scale}"),
            (p.shrink() >= self.shrink, f"clip shrunk to {p.shrink():.2f}"),
            (p.bound <= self.bound, f"bound = {p.bound}"),
        )
        return next((f"{what} is below this client's own policy" for ok, what in checks if not ok), None)
