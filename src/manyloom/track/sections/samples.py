"""Samples: what the model says to the job's prompts, before training and at the end; never a client's text."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track.record import Run
from manyloom.track.sections.parts import Data, Drawer

ID = "samples"
LONGEST = 2000  # characters
BEFORE = "Asked before training; it is asked again at the end."
CUT = "Asked before training alone: the run has not come to its end."


def title(run: Run) -> str:
    return "Samples"


def section(run: Run, draw: Drawer) -> Data | None:
    found = run.tuned.answers()
    if not found:
        return None
    done = any(b is not None for _, _, b in found)
    told = _sentence([a != b for _, a, b in found]) if done else BEFORE if run.status == "running" else CUT
    return {
        "sentence": f"{told} Decoded greedily; the prompts are the job’s, no text is a {run.client_word[0]}’s.",
        "rows": [{"prompt": _clean(p), "before": _clean(a), "after": _clean(b)} for p, a, b in found],
        "done": done,
    }


def _sentence(other: list[bool]) -> str:
    """How many answers changed."""
    n = len(other)
    whole = "the prompt" if n == 1 else f"all {n} prompts"
    if all(other):
        return f"To {whole} it says something else than before training."
    if not any(other):
        return f"To {whole} it says the same as before training."
    return f"To {sum(other)} of {n} prompts it says something else than before training."


def _clean(said: str | None) -> str | None:
    """A text with its line ends, without other control characters; a cut one says so."""
    if said is None:
        return None
    lines = [text.printable(line).rstrip() for line in said[:LONGEST].split("\n")]
    return "\n".join(lines).strip() + (" …" if len(said) > LONGEST else "")
