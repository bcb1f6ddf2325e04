"""What the label party makes of embeddings that come, or don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.errors import bad
from manyloom.core.exchange import Ask, Exchange, Lost, Reply
from manyloom.core.slots import size_bytes
from manyloom.models.split import Part
from manyloom.vertical.cut import decode, rows_at_once
from manyloom.vertical.settings import Cut

AT_ONCE = 65536  # rows that go through the top together


class Heard(NamedTuple):
    """Embeddings by party, who was lost, and the bytes that came."""

    z: dict[int, Tensor]
    lost: list[Lost]
    sent: int


class Spoken(NamedTuple):
    """What the joint model says of some rows; no rows if a party was lost and may not be made up for."""

    output: Tensor  # [n, C]
    lost: Sequence[Lost]
    sent_up: int
    sent_down: int


def heard(
    answers: Sequence[Reply | Lost], to: Sequence[int], phase: str, cut: Cut, n: int | None, d: int, dtype: torch.dtype
) -> Heard:
    """What came back of one ask; a loss says the phase it fell in, and an answer that is malformed is one.

    Args:
        answers: a reply or a loss a party.
        to: who was asked.
        phase: in words.
        cut: how numbers travel.
        n: rows that were asked for; None: none.
        d: numbers of an embedding.
        dtype: of the embeddings here.
    """
    z: dict[int, Tensor] = {}
    lost = [replace(a, text=f"{phase}: {a.text}") for a in answers if isinstance(a, Lost)]
    sent = 0
    for a in answers:
        if isinstance(a, Reply):
            k, sent = int(a.clients[0]), sent + a.sent
            try:
                z[k] = decode(a.body, "z", cut.bits, n, d, dtype) if n is not None else torch.empty(0)
            except ValueError as error:
                lost.append(Lost(k, "malformed", f"{phase}: {error}"))
    silent = sorted(set(to) - set(z) - {x.client for x in lost})
    return Heard(z, [*lost, *(Lost(k, "away", f"{phase}: no answer") for k in silent)], sent)


def forwards(
    side: Part,
    d: int,
    cut: Cut,
    theta: Tensor,
    x: Tensor,
    parties: Sequence[str],
    verb: str,
    *,
    round: int,
    where: str,
    deadline_s: float,
    places: Sequence[Tensor] | None = None,
) -> Exchange[Spoken]:
    """Outputs for rows of x, from embeddings that come in bodies of at most 8 MiB.

    A lost party's embedding is zero from then on if the job makes up for missing parties, else there is no output.
    """
    size, n, up, down = rows_at_once(cut.bits, d), len(x), 0, 0
    at = [torch.arange(n)] * len(parties) if places is None else places
    missing = [k for k in range(len(parties)) if len(at[k]) < n]
    if missing and cut.on_missing == "error":
        raise bad(
            "rows-missing",
            f"{parties[missing[0]]} does not have all rows",
            got=f"{n - len(at[missing[0]])} of {n} rows are missing",
            rule='[cut] on_missing = "error": all parties have every row',
            mend='leave these rows out, or train with on_missing = "impute"',
        )
    z = x.new_zeros(n, len(parties), d)
    lost: dict[int, Lost] = {}
    for i in range(max((-(-len(a) // size) for a in at), default=0)):
        to = [k for k in range(len(parties)) if k not in lost and i * size < len(at[k])]
        rows = {k: at[k][i * size : (i + 1) * size] for k in to}
        for m in sorted({len(r) for r in rows.values()}):  # parties that send as many rows are asked at once
            them = [k for k in to if len(rows[k]) == m]
            ask = Ask(np.array(them), verb, {"at": torch.tensor([round, i])}, round=round, deadline_s=deadline_s)
            down += size_bytes(ask.body) * len(them)
            got = heard((yield ask), them, where, cut, m, d, x.dtype)
            up += got.sent
            for k, t in got.z.items():
                z[rows[k], k] = t
            lost |= {a.client: a for a in got.lost}
            if lost and cut.on_missing == "error":
                return Spoken(x.new_zeros(0, 1), list(lost.values()), up, down)
    for k in lost:
        z[:, k] = 0
    with torch.no_grad():
        spans = [slice(i, i + AT_ONCE) for i in range(0, max(n, 1), AT_ONCE)]
        outputs = [side(theta, x[rows], z[rows].flatten(1)) for rows in spans]
    return Spoken(torch.cat(outputs), list(lost.values()), up, down)
