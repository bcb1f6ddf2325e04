"""Privacy: what is promised, or that nothing is; who sees what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyloom.core import text
from manyloom.track.record import Run
from manyloom.track.sections.parts import Data, Drawer, capital
from manyloom.track.verdict import record_word

ID = "privacy"
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


def title(run: Run) -> str:
    return "Privacy"


def section(run: Run, draw: Drawer) -> Data | None:
    if run.role == "sweep":
        return None
    if run.privacy is None:
        return _none(run)
    return _promised(run, run.privacy)


def _none(run: Run) -> Data:
    one = run.client_word[0]
    if run.role == "central":
        said = ["All records lay in one place. This is a baseline to compare with; only a simulation can do that."]
        return {"none": True, "heading": "Everything was pooled", "text": said, "facts": [], "seen": []}
    if run.role == "local":
        said = [
            f"Each {one} trained alone and sent nothing but its metrics. Its own model is not bounded by a guarantee."
        ]
        return {"none": False, "heading": "Nothing was shared", "text": said, "facts": [], "seen": []}
    saw = "only sums of updates" if run.secure else f"each {one}’s update"
    said = [
        f"No {record_word(run)} left its {one}. But the hub saw {saw} in the clear, and an update can give "
        f"away much of the {run.row_word[1]} it was made from; so can the finished model.",
        "This run has no [privacy] table: nothing bounds what can be learned about one of them.",
    ]
    return {"none": True, "heading": "No privacy guarantee", "text": said, "facts": [], "seen": seen(run)}


def _promised(run: Run, found: Mapping[str, Any]) -> Data:
    missing = [name for name in FIELDS if found.get(name) is None]
    if missing:
        said = [f"The run carries a privacy claim that lacks {text.listed(missing, most=12)}. A claim that is not "
                "complete is not printed."]  # fmt: skip
        return {"none": True, "heading": "No complete guarantee", "text": said, "facts": [], "seen": seen(run)}
    spent = next((r.epsilon for r in reversed(run.rounds) if r.epsilon is not None), found["epsilon"])
    heading = f"ε = {text.epsilon(spent)} at δ = {found['delta']:g}, for one {found['unit']}"
    said = [f"Whoever sees all that was released can raise the odds that a given {found['unit']} was in the data by at "
            f"most a factor of {text.factor(float(spent))}, save with probability {found['delta']:g}."]  # fmt: skip
    facts = [(capital(name), _shown(found[name])) for name in FIELDS[3:]]
    return {"none": False, "heading": heading, "text": said, "facts": facts, "seen": seen(run)}


def _shown(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def seen(run: Run) -> list[tuple[str, str, str, str]]:
    """Who sees what: party, sees, does not see, relies on."""
    one, many = run.client_word
    rows = run.row_word[1]
    hub = "sums of updates" if run.secure else "each update"
    rest = "a single update; records" if run.secure else "records"
    trust = "secure sum" if run.secure else "nobody: it has to be trusted"
    sums = ", column sums and counts" if run.statistics else ""
    parties = [("Hub", f"{hub}{sums}, sizes, who took part, metrics", rest, trust)]
    if run.size > 1:
        parties.append(
            (f"Another {one}", "the model after each round", f"records and updates of other {many}", "the hub")
        )
    parties.append(("Reader of the model", "final weights, this report", "everything else",
                    "nothing bounds what weights give away" if run.privacy is None else "ε"))  # fmt: skip
    parties.append((f"The {one} itself", f"its own {rows} and updates", "–", "its own care"))
    return parties
