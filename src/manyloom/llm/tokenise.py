"""Texts -> rows of tokens: the federation that is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.data.arrays import I64, offsets
from manyloom.data.federation import Federation
from manyloom.data.store import Listed, Part, Shared
from manyloom.data.texts import Corpus, corpus_of, rows_of
from manyloom.llm.packing import Segment, labels_of, lay, packed, pieces
from manyloom.llm.prompts import Masked, Prompts, masked, prompts_of

BATCH = 1000  # rows tokenised at once
CUT = "the cut to length left none of its answer"


@dataclass(frozen=True)
class Counted:
    """What became of a client's training rows.

    rows to train on (packed ones where rows are packed); supervised labels in them; conversations dropped, and
    `reasons` of it; conversations shortened from the right, and `unstopped` turns whose end can't be learnt. `held` and
    `held_dropped` are rows held out and what was dropped of those.
    """

    client: int
    rows: int
    supervised: int
    dropped: int
    shortened: int
    reasons: Mapping[str, int] = field(default_factory=dict[str, int])
    unstopped: int = 0
    held: int = 0
    held_dropped: int = 0


class _Kept(NamedTuple):
    rows: list[list[Segment]]  # each row: one document, or several
    supervised: int
    shortened: int
    unstopped: int
    reasons: Counter[str]


def tokenised(
    federation: Federation,
    tokenizer: Any,
    *,
    length: int | None = None,
    pack: bool | None = None,
    template: str | None = None,
) -> tuple[Federation, list[Counted]]:
    """The federation of the same clients over rows of tokens, and what became of each client's texts.

    x [n, 3, T] int64 = (ids | positions, -1 where there is no token | labels); y [n, T] = the labels: position t is
    asked for token t + 1, -100 asks for none. T is the longest row, at most `length`.

    Args:
        federation: over texts (`manyloom.data.jsonl(...)`, `manyloom.data.text(...)`).
        tokenizer: a fast one of transformers.
        length: tokens of a row at most; what the source says by default.
        pack: several documents in one row; what the source says by default, else plain texts are and conversations
            are not.
        template: a chat template; the tokenizer's own by default, "" for none.

    Raises:
        BadInput: `nothing-supervised`, naming clients; `template-refused`; `template-missing`; `tokenizer-slow`.
    """
    corpus = corpus_of(federation.store)
    if corpus is None:
        raise bad(
            "model-input",
            "a language model reads texts, and these are none",
            got=f"source {federation.info.name}",
            rule="text sources: jsonl, text",
            mend='[data] source = "jsonl"',
        )
    if federation.origins is not None:
        raise ValueError("tokenise a federation before it is pooled: clients are packed apart")
    room = corpus.length if length is None else length
    asked = corpus.pack if pack is None else pack
    together = corpus.format == "text" if asked is None else asked
    prompts = prompts_of(tokenizer, template)
    everybody = np.arange(len(federation), dtype=np.int64)
    parts: tuple[Part, Part] = ("train", "test")
    owned = {p: rows_of(federation.store, everybody, p) for p in parts}
    found = _masked(prompts, corpus, np.unique(np.concatenate([owned[p][0] for p in parts])))
    kept: dict[str, list[_Kept]] = {
        p: [_kept([found[i] for i in rows[off[c] : off[c + 1]].tolist()], corpus, room, together) for c in everybody]
        for p, (rows, off) in owned.items()
    }
    _check_supervised(federation, kept["train"], prompts, room)
    rows = [row for p in parts for k in kept[p] for row in k.rows]
    width = max((sum(len(ids) for ids, _ in row) for row in rows), default=1)
    x = torch.empty(len(rows), 3, width, dtype=torch.int64)
    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    for i, row in enumerate(rows):
        lay(row, x[i], pad, together)
    sizes = {p: np.array([len(k.rows) for k in kept[p]], np.int64) for p in parts}
    train, test = Listed(*_span(sizes["train"], 0)), Listed(*_span(sizes["test"], int(sizes["train"].sum())))
    made = replace(
        federation,
        store=Shared(x, x[:, 2].contiguous(), train, test),
        sizes=sizes["train"],
        tests=sizes["test"],
        target="text",
        classes=None,
        labels=(),
        features=(3, width),
    )
    return made, [
        Counted(c, len(k.rows), k.supervised, k.reasons.total(), k.shortened, dict(k.reasons), k.unstopped, len(h.rows),
                h.reasons.total())
        for c, (k, h) in enumerate(zip(kept["train"], kept["test"], strict=True))
    ]  # fmt: skip


def _masked(prompts: Prompts, corpus: Corpus, rows: I64) -> dict[int, Masked]:
    """Each row once, in batches: one text at a time is several times slower."""
    found: dict[int, Masked] = {}
    for a in range(0, len(rows), BATCH):
        some: list[int] = rows[a : a + BATCH].tolist()
        found |= zip(some, masked(prompts, [corpus.rows[i] for i in some]), strict=True)
    return found


def _kept(found: Sequence[Masked], corpus: Corpus, room: int, together: bool) -> _Kept:
    """What is left of a client's rows in a part, as rows of one document or of several."""
    segments: list[Segment] = []
    reasons: Counter[str] = Counter()
    shortened = unstopped = 0
    for one in found:
        if one.dropped:
            reasons[one.dropped] += 1
            continue
        if corpus.format == "text":
            cut = [(ids, np.ones(len(ids), np.bool_)) for ids in pieces(one.ids, room)]
            reasons["it is too short to predict a token"] += not cut
            segments += cut
            continue
        ids, supervised = one.ids[:room], one.supervised[:room]
        if not supervised[1:].any():
            reasons[CUT if one.supervised[1:].any() else "none of its tokens is the assistant's"] += 1
            continue
        shortened += len(one.ids) > room
        unstopped += one.unstopped
        segments.append((ids, supervised))
    reasons = +reasons
    rows = [[s] for s in segments]
    if together:
        rows = [[segments[i] for i in row] for row in packed([len(ids) for ids, _ in segments], room)]
    supervised = sum(int((labels_of(*s) >= 0).sum()) for s in segments)
    return _Kept(rows, supervised, shortened, unstopped, reasons)


def _check_supervised(federation: Federation, kept: Sequence[_Kept], prompts: Prompts, room: int) -> None:
    """Refuse clients whose whole training data teach nothing."""
    wrong: list[Problem] = []
    for c in np.flatnonzero(federation.sizes > 0).tolist():
        if kept[c].supervised:
            continue
        why = "; ".join(f"{n} of them: {reason}" for reason, n in kept[c].reasons.most_common(3))
        cut = kept[c].reasons[CUT]
        wrong.append(
            Problem(
                "nothing-supervised",
                f"client {federation.keys[c]} has no token to learn from",
                f"{int(federation.sizes[c])} {federation.row_word[1]}, length = {room}, {prompts.name}; {why}",
                rule="loss is taken on the assistant's tokens only",
                mend=f"length = {2 * room} in [data]" if cut else "mend this client's data, or leave the client out",
            )
        )
    if wrong:
        raise BadInput(*wrong[:5])


def _span(sizes: I64, first: int) -> tuple[I64, I64]:
    off = offsets(sizes)
    return first + np.arange(int(off[-1]), dtype=np.int64), off
