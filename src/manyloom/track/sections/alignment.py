"""Parties and alignment: rows of each, those in common, what the match moved, and what each party learned from it."""

from __future__ import annotations

from collections.abc import Mapping

from manyloom.core import text
from manyloom.track import parties
from manyloom.track.folder import table
from manyloom.track.record import Run
from manyloom.track.sections.parts import Data, Drawer, capital, place

ID = "alignment"
REVEAL = {"both": "both sides: each party knows which of its rows are in common", "label": "the label party alone",
          "count": "only how many rows are in common"}  # fmt: skip
STEPS = {"align": "Alignment", "train": "Training"}


def title(run: Run) -> str:
    return "Parties and alignment"


def section(run: Run, draw: Drawer) -> Data | None:
    if not run.vertical:
        return None
    found = run.aligned
    if found is None:
        return {"sentence": "The parties have not met yet.", "shares": None, "facts": [], "learned": []}
    return {
        "sentence": _sentence(run, found),
        "shares": _shares(run, found),
        "facts": _facts(run, found),
        "learned": [(STEPS.get(step, step), *row) for step, row in parties.threats(run)],
    }


def _sentence(run: Run, found: Mapping[str, object]) -> str:
    train, test = (int(text.finite(found.get(k)) or 0) for k in ("train", "test"))
    names = text.listed(parties.feature_parties(run))
    said = f"{capital(parties.label_party(run))} has the labels and drives; {names} "
    said += f"{'answers' if len(run.people) == 2 else 'answer'}. "
    common = text.plural(parties.shared(run), run.row_word)
    said += f"They have {common} in common: {text.count(train)} to train on, {text.count(test)} held out."
    return said


def _shares(run: Run, found: Mapping[str, object]) -> Data:
    sizes, common = _sizes(found, "parties"), parties.shared(run)
    gone = _sizes(found, "left_out")
    at = place(0, (max([*sizes.values(), common, 1])) / 0.78)
    rows: list[Data] = []
    for name, n in sizes.items():
        rest = max(0, n - common)
        out = f"{text.count(gone[name])} without an id" if gone.get(name) else ""
        parts = [
            {"at": 0.0, "wide": at(common), "mid": at(common / 2), "n": text.count(common), "pale": False,
             "shown": at(common) > 10},
            {"at": at(common), "wide": at(rest), "mid": at(common + rest / 2), "n": text.count(rest), "pale": True,
             "shown": at(rest) > 10},
        ]  # fmt: skip
        share = text.percent(common / n) if n else text.UNKNOWN
        tip = "; ".join([name, f"{text.count(n)} ids", f"{text.count(common)} in common", *([out] if out else [])])
        rows.append({"name": name, "parts": parts, "end": at(n), "note": share, "tip": tip})
    smallest = min(sizes.values(), default=0)
    share = text.percent(common / smallest) if smallest else text.UNKNOWN
    heading = f"{text.plural(common, run.row_word)} in common: {share} of the smallest party’s"
    if sizes and all(n == common for n in sizes.values()):
        heading = f"All {text.plural(common, run.row_word)} are in common"
    table_ = [[name, text.count(n), text.count(common), text.count(max(0, n - common)), text.count(gone.get(name, 0))]
              for name, n in sizes.items()]  # fmt: skip
    return {
        "heading": heading,
        "label": heading,
        "subtitle": f"{capital(run.row_word[1])} with an id, by party; ids met only as points on a curve that neither "
        "side can trace back.",
        "names": ["in common", "only there"],
        "rows": rows,
        "numbers": {"title": "Numbers", "head": ["Party", "with an id", "in common", "only there", "without an id"],
                    "rows": table_},
    }  # fmt: skip


def _facts(run: Run, found: Mapping[str, object]) -> list[tuple[str, str]]:
    up, down = (text.finite(found.get(f"bytes_{way}")) or 0 for way in ("up", "down"))
    reveal = str(found.get("reveal") or "")
    told = [
        ("Learned by", REVEAL.get(reveal, reveal)),
        ("Moved", f"{text.size(up)} to the label party, {text.size(down)} from it, in {text.seconds(found['seconds'])}"
         if found.get("seconds") is not None else f"{text.size(up)} to the label party, {text.size(down)} from it"),
        ("Agreed order", f"digest {text.digest(found['order'])}: the same at every party and on every run"
         if found.get("order") else ""),
    ]  # fmt: skip
    return [(k, v) for k, v in told if v]


def _sizes(found: Mapping[str, object], key: str) -> dict[str, int]:
    return {str(k): int(text.finite(v) or 0) for k, v in table(found, key).items()}
