"""What protects a run, in words: its guarantees, its secure sum, and what of a run a published report leaves out.

Terminal, report, card and comparison take their sentences from here, so that none claims more than another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, NamedTuple, cast

from manyloom.core import text
from manyloom.track.facts import Run
from manyloom.track.verdict import record_word

FIELDS = (
    "epsilon",
    "delta",
    "unit",
    "adjacency",
    "mechanism",
    "sampling",
    "accountant",
    "against",
    "assumes",
    "uncovered",
)


class Claim(NamedTuple):
    """One epsilon with its adversary; `planned` where it is what all rounds will cost, not what was spent."""

    epsilon: float
    against: str
    sampling: str
    accountant: str
    assumes: tuple[str, ...]
    planned: bool


# ---- the guarantee


def lacking(run: Run) -> list[str]:
    """The fields that a claim lacks: a claim that is not whole is not printed."""
    found = run.privacy or {}
    return [name for name in FIELDS if found.get(name) is None]


def complete(run: Run) -> bool:
    """Whether the run has a guarantee with all its fields."""
    return run.privacy is not None and not lacking(run)


def amplified(run: Run) -> bool:
    """Whether the claim counts on nobody but the hub knowing who took part when."""
    found = run.privacy or {}
    return bool(found.get("amplified") or found.get("others"))


def claims(run: Run) -> list[Claim]:
    """The guarantees of a run, the one that the budget counts first; none where the claim is not whole.

    Until the run's end has told them the further ones are known only as planned.
    """
    if run.privacy is None or not complete(run):
        return []
    going = not run.settled or run.spent is None
    others = [cast("Mapping[str, Any]", o) for o in run.privacy.get("others") or () if o.get("epsilon") is not None]
    value = run.privacy["epsilon"] if run.spent is None else run.spent
    first = _claim({**run.privacy, "epsilon": value}, run.spent is None)
    return [first, *(_claim(o, going) for o in others)]


def _claim(found: Mapping[str, Any], planned: bool) -> Claim:
    against, sampling, accountant = (str(found.get(k) or "") for k in ("against", "sampling", "accountant"))
    assumes = tuple(map(str, found.get("assumes") or ()))
    return Claim(float(found["epsilon"]), against, sampling, accountant, assumes, planned)


def for_readers(run: Run, participation: bool) -> list[Claim]:
    """The guarantees in the order in which they hold for readers: one who sees who took part has no amplification."""
    found = claims(run)
    return found[::-1] if participation and len(found) > 1 else found


def chance(value: object) -> str:
    """A small probability as people say it.

    >>> chance(1e-5), chance(1.5136e-5)
    ('1 in 100 000', '1 in 66 067')
    """
    v = text.finite(value)
    return text.UNKNOWN if v is None or v <= 0 else f"1 in {text.count(math.floor(1 / v * (1 + 1e-9)))}"


def unit(run: Run) -> str:
    """What one guarantee is for, in the data's own words: "hospital", or "patient’s record"."""
    found = str((run.privacy or {}).get("unit") or "record")
    return run.client_word[0] if found == "client" else record_word(run) if found == "record" else found


def protected(run: Run) -> str:
    """The unit spelled out."""
    name = unit(run)
    if (run.privacy or {}).get("unit") == "client":
        return f"one {name}: all its {run.row_word[1]} together"
    return f"one {name}"


def odds(run: Run, claim: Claim) -> str:
    """What an epsilon means, for one who is no mathematician."""
    p = run.privacy or {}
    was = f"a given {unit(run)} was in the data"
    most = f"by at most a factor of {text.factor(claim.epsilon)} (e to the {text.epsilon(claim.epsilon)})"
    return f"can raise the odds that {was} {most}, save with a probability of {chance(p.get('delta'))}"


def noise(run: Run) -> str:
    """How strong the noise is beside what one unit can move."""
    p = run.privacy or {}
    z, clip = text.finite(p.get("noise_multiplier")), text.finite(p.get("clip"))
    if z is None:
        return ""
    first, last = (next((r.clip for r in rs if r.clip is not None), clip) for rs in (run.releases, run.releases[::-1]))
    start = f"standard deviation {number(z)} × clip: {number(z)} times as much as one {unit(run)} can move the sum"
    if p.get("adaptive"):
        ends = f"from {number(first)} to {number(last)}" if run.releases else f"{number(clip)} at the start"
        return f"{start}; the clip follows the updates, {ends}"
    return f"{start}; clip {number(clip)}"


def number(value: object) -> str:
    """A clip or a noise multiplier: three digits.

    >>> number(0.1), number(0.34567), number(None)
    ('0.1', '0.346', 'n/a')
    """
    v = text.finite(value)
    return text.UNKNOWN if v is None else f"{v:.3g}"


def left_out(run: Run) -> str:
    """Why a report of an amplified claim does not tell who took part."""
    found = claims(run)
    what = "Who took part when, lost replies, and bytes and seconds a round are left out"
    if len(found) < 2:
        return f"{what}: telling them would weaken the promised privacy."
    one, two = (text.epsilon(c.epsilon) for c in found[:2])
    return f"{what}: ε = {one} counts on nobody but the hub knowing them. Against those who do, only ε = {two} holds."


def told(run: Run) -> list[str]:
    """The guarantees of a run in lines, with who they hold against and what they don't cover."""
    found, p = claims(run), run.privacy or {}
    if not found:
        return [f"none: the claim lacks {text.listed(lacking(run), most=12)}"]
    if run.spent is None:
        return [f"nothing was released; as planned epsilon {text.epsilon(found[0].epsilon)}"]
    budget = text.finite(p.get("budget"))
    of = f" of {budget:g}" if budget is not None else ""
    lines = [f"epsilon {text.epsilon(found[0].epsilon)}{of} at delta {text.delta(p['delta'])} for one {p['unit']},"]
    lines[0] += f" against {found[0].against}"
    for c in found[1:]:
        ahead = " when all rounds are done" if c.planned else ""
        lines.append(f"epsilon {text.epsilon(c.epsilon)}{ahead} against {c.against}")
    if run.secure:
        lines.append(f"the coordinator saw {sums(run)}")
    return [*lines, f"not covered: {'; '.join(map(str, p['uncovered'])) or 'nothing'}"]


# ---- the secure sum


def least(run: Run) -> int:
    """The fewest clients of a sum."""
    return int(text.finite(run.sums.get("least")) or 0)


def sums(run: Run, integer: bool = False) -> str:
    """What a hub sees of a secure sum: "only sums over at least 3 hospitals"."""
    kind = "integer sums" if integer else "only sums"
    return f"{kind} over at least {text.plural(least(run), run.client_word)}" if least(run) else kind


def saw(run: Run) -> str:
    """What the hub saw of updates, in a sentence."""
    return sums(run) if run.secure else f"each {run.client_word[0]}'s update"


def channel(run: Run) -> list[tuple[str, str]]:
    """Name and value of each term of the secure sum."""
    s, (one, many) = run.sums, run.client_word
    if not s:
        return []
    n, few = int(text.finite(s.get("clients")) or 0), least(run)
    active = s.get("mode") == "active"
    kind = "active: holds also against a hub that deviates" if active else \
        "semi-honest only: holds if the hub follows the protocol"  # fmt: skip
    told = [("Channel", f"secure sum, {kind}; {s.get('kappa')} bits")]
    if s.get("fidelity") == "ideal":
        told[0] = ("Channel", f"{told[0][1]}. Simulated: the same integers and bytes, the masks left out")
    told.append(("A sum", f"is over {few} to {n} {many}; with fewer replies a round is given up"))
    told.append(("Masks", f"each {one} shares them with {s.get('neighbours')} others; {s.get('threshold')} shares open "
                          "what one left behind that was lost"))  # fmt: skip
    told.append(("Collusion", f"holds while at most {_share(s.get('gamma'), n, run)} work together with the hub"))
    told.append(("Losses", f"planned for {_share(s.get('delta_drop'), n, run)} lost in a round"))
    scale = text.finite(s.get("scale"))
    if scale:
        reach = text.finite(s.get("range"))
        cut = f"; beyond ±{reach:g} a number is cut" if reach is not None and run.privacy is None else ""
        told.append(("Numbers", f"whole numbers, {text.count(scale)} to a unit{cut}"))
    return told


def _share(share: object, n: int, run: Run) -> str:
    """A share of a cohort, and how many that are: products of decimals, exact."""
    try:
        found = Fraction(str(share))
    except ValueError:
        return "an unknown share"
    many = math.floor(found * n)
    count = f"none of {n}" if not many else f"{many} of {n}"
    return f"a share of {share} of a round ({count} {run.client_word[1]})"


def limits(run: Run) -> list[str]:
    """What a secure sum alone does not do."""
    one, many = run.client_word
    each = run.last is not None and run.last.clients
    told = [
        "nothing bounds what a sum gives away: there is no ε, neither for the sums nor for the finished model",
        f"sums over changing groups can leak: two rounds that differ in one {one} give away its part",
        f"a number that only one {one} moves stands in the sum as it is",
        f"metrics {f'of each {one}' if each else f'over all {many} together'} are exact, and nothing covers them",
    ]
    if run.sums.get("mode") == "active":
        told.append(f"the hub can make a round fail, and no one checks what a {one} that lies puts in")
    else:
        told.append("a hub that deviates from the protocol can open a single update (keys are trusted on first use)")
    return told


# ---- results of single clients


def kept(run: Run) -> str:
    """That results of single clients stayed where they are; empty where they are told."""
    judged = run.last
    if (
        judged is None
        or judged.clients
        or judged.edges
        or judged.split == "own"
        or run.size < 2
        or run.role is not None
    ):
        return ""
    if not (run.secure or run.privacy is not None):
        return ""
    one, many = run.client_word
    return f'Results of a single {one} stayed at the {many}: [job] client_metrics is not "release".'
