"""Samples: what the model says to the job's prompts, before training and at the end; never a client's text."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track.record import Run
from manyloom.track.sections.parts import Data, Drawer

ID = "samples"
LONGEST = 2000  # characters


def title(run: Run) -> str:
    return "Samples"


def section(run: Run, draw: Drawer) -> Data | None:
    found = run.tuned.answers()
    if not found:
        return None
    same = sum(a == b for _, a, b in found)
    done = any(b is not None for _, _, b in found)
    if not done:
        said = "Before training; what it says afterwards is asked at the end."
    elif same == len(found):
        said = "To each prompt it says the same as before training."
    else:
        said = f"To {text.count(len(found) - same)} of {text.plural(len(found), ('prompt', 'prompts'))} it says something else "
        said += "than before training."
    return {
        "sentence": f"{said} Greedy; the prompts are the job’s, no text is a {run.client_word[0]}’s.",
        "rows": [{"prompt": _clean(p), "before": _clean(a), "after": _clean(b)} for p, a, b in found],
        "done": done,
    }


def _clean(said: str | None) -> str | None:
    """A text with its line ends, without other control characters; a cut one says so."""
    if said is None:
        return None
    lines = [text.printable(line).rstrip() for line in said[:LONGEST].split("\n")]
    return "\n".join(lines).strip() + (" …" if len(said) > LONGEST else "")
