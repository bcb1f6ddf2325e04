"""What a vertical run says of its parties, in words: who is who, what they share, how far labels could be read.

Terminal, report and card take their sentences from here, so that none claims more than another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyloom.core import text
from manyloom.track.facts import Leak, Run
from manyloom.track.folder import items, table

NEARLY_ALL = 0.95  # a mean AUC from which labels leak nearly fully
LITTLE = 0.8  # an AUC in one batch of twenty that is called little
DEFENCES = {"max-norm": "max-norm noise", "isotropic": "isotropic noise"}
PSI = {
    "both": ("which of its rows the others have, and how many rows they hold",
             "which of its rows the label party has, and how many rows that holds"),
    "label": ("which of its rows the others have, and how many rows they hold", "how many rows the label party holds"),
    "count": ("how many rows are in common, and how many the others hold", "how many rows the label party holds"),
}  # fmt: skip
SPLIT = ("the embeddings of each feature party, from which its columns can in part be worked out",
         "the gradients of its embeddings, which tell the labels nearly surely where nothing defends them",
         "sizes and times", "the defence; nothing is proved")  # fmt: skip


def label_party(run: Run) -> str:
    """The party with the labels: the last."""
    return run.people[max(run.people)].name if run.people else "the label party"


def feature_parties(run: Run) -> list[str]:
    """The parties that are asked, as they are numbered."""
    return [run.people[i].name for i in sorted(run.people)][:-1]


def taught(run: Run) -> bool:
    """Whether a teacher's labels are all that went between the parties, and each has a model of its own."""
    return run.algorithm == "distil"


def everybody(run: Run) -> list[str]:
    """All parties by name, the label party first."""
    return [label_party(run), *feature_parties(run)] if run.people else []


def shared(run: Run) -> int:
    """How many rows all parties have."""
    return int(text.finite((run.aligned or {}).get("common")) or 0)


def threats(run: Run) -> list[tuple[str, tuple[str, str, str, str]]]:
    """Step by step: what the label party, a feature party and a hub learn, and on what that rests."""
    told = table(run.planned, "threats")
    reveal = str((run.aligned or {}).get("reveal") or "both")
    psi = (
        *PSI.get(reveal, PSI["both"]),
        "sizes",
        "discrete logarithms on Curve25519; parties that keep to the protocol",
    )
    found = {"align": _four(told, "align") or psi}
    train = _four(told, "train") or (SPLIT if run.algorithm == "split-learning" else None)
    return list((found | ({"train": train} if train else {})).items())


def _four(told: Mapping[str, Any], step: str) -> tuple[str, str, str, str] | None:
    row = [str(c) for c in items(told, step)]
    return (row[0], row[1], row[2], row[3]) if len(row) == 4 else None


def listing(run: Run) -> str:
    """A party a row: its rows with an id, those in common, what it does."""
    found = table(run.aligned or {}, "parties")
    if not found:
        return ""
    common = text.count(shared(run))
    out = table(run.aligned or {}, "left_out")
    rows = [
        ["  " + text.printable(name)[:24], text.count(n), common, text.count(out.get(name, 0)),
         "  labels" if name == label_party(run) else ""]
        for name, n in found.items()
    ]  # fmt: skip
    return text.columns(["parties", run.row_word[1], "common", "no id", ""], rows, left=(0, 4))


# ---- the leak meter


def last_leaks(run: Run) -> list[Leak]:
    """What each party could read off its gradients in the last pass that was measured."""
    return list({leak.party: leak for leak in run.leaks}.values())


def worst_leak(run: Run, party: str | None = None) -> Leak | None:
    """The pass and party (or the pass of one) in which labels could be read best."""
    known = [leak for leak in run.leaks if leak.worst is not None and party in (None, leak.party)]
    return max(known, key=lambda leak: (leak.mean or 0.0, leak.worst or 0.0), default=None)


def defence(run: Run) -> str:
    """What was done to the gradients: "max-norm noise", or "nothing"."""
    names = dict.fromkeys(leak.defence for leak in run.leaks)
    return text.listed(DEFENCES.get(name, name) for name in names if name != "none") or "nothing"


def undefended(run: Run) -> bool:
    """Whether gradients went out as they were."""
    return any(leak.defence == "none" for leak in run.leaks)


def noisy(run: Run) -> bool:
    """Whether noise was added that no seed repeats."""
    return any(leak.defence != "none" for leak in run.leaks)


def leak_line(run: Run) -> str:
    """The leak in a line: "shop: AUC 0.652, 1 batch in 20 0.767 (max-norm noise; 0.5 is guessing)"."""
    found = worst_leak(run)
    if found is None:
        return ""
    how = DEFENCES.get(found.defence, found.defence) if found.defence != "none" else "undefended"
    value = f"AUC {text.number(found.mean)}, 1 batch in 20 {text.number(found.worst)}"
    end = "labels leak nearly fully" if nearly_all(found) else "0.5 is guessing"
    return f"{text.printable(found.party)}: {value} ({how}; {end})"


def nearly_all(leak: Leak) -> bool:
    """Whether gradients tell the labels as good as fully."""
    return (leak.mean or 0.0) >= NEARLY_ALL or (leak.worst or 0.0) >= 0.99


def leak_sentence(run: Run) -> str:
    """How far labels could be read, in a sentence for people."""
    found = worst_leak(run)
    if found is None:
        return ""
    value = f"AUC {text.number(found.mean)} in the worst pass (0.5 is guessing, 1 is certainty)"
    if found.defence == "none":
        fully = "nearly fully" if nearly_all(found) else f"with {value}"
        return f"Nothing defended the labels: {found.party} could read them {fully} off the gradients it was sent."
    how = DEFENCES.get(found.defence, found.defence)
    if nearly_all(found):
        return f"In spite of {how}, {found.party} could read the labels nearly fully off its gradients."
    return f"With {how}, {found.party} could guess a label from its gradients with {value}."


# ---- use


def use(run: Run) -> list[str]:
    """How to get predictions, in Markdown: of the card."""
    names = feature_parties(run)[:1] if taught(run) else everybody(run)
    given = " ".join(f"--party {text.slug(name)}={text.slug(name)}.csv" for name in names)
    files = ", ".join(f'"{name}": "{text.slug(name)}.csv"' for name in names)
    return [
        f"On the command line: `manyloom predict {run.id} {given}`. In Python:",
        "",
        "```python",
        "import manyloom",
        f'model = manyloom.load("{run.id}")',
        "# each party predicts alone, by its own columns"
        if taught(run)
        else "# rows meet by their ids; filling gaps and scaling are part of each party's part",
        f"model.predict({{{files}}})",
        "```",
    ]
