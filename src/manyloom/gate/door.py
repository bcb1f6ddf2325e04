"""The two standing checks on every reply: only named tensors of the declared schema, only finite numbers.

A site's own policy is a third check and joins here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from manyloom.core.exchange import Ids, Lost
from manyloom.core.slots import Slots
from manyloom.core.text import count


class Slot(NamedTuple):
    """What one named tensor must be: the shape of a client's row (None: any), whole numbers or floats."""

    shape: tuple[int, ...] | None = None
    whole: bool = False


def leave(clients: Ids, body: Slots, schema: Mapping[str, Slot]) -> tuple[torch.Tensor, list[Lost]]:
    """Which rows of a reply may leave, [k] booleans, and who is held back and why.

    Args:
        clients: whose rows these are [k].
        body: named tensors [k, ...], a row a client.
        schema: what was declared for this verb.

    >>> import numpy as np
    >>> ok, lost = leave(np.array([3, 5]), {"u": torch.tensor([[1.0], [float("nan")]])}, {"u": Slot((1,))})
    >>> ok.tolist(), lost[0].text
    ([True, False], '1 of 1 numbers in "u" is not finite')
    """
    k = len(clients)
    wrong = _malformed(body, schema, k)
    if wrong:
        return torch.zeros(k, dtype=torch.bool), [Lost(int(c), "malformed", wrong) for c in clients]
    ok = torch.ones(k, dtype=torch.bool)
    text: dict[int, str] = {}
    for name, rows in body.items():
        if not rows.is_floating_point() or not k:
            continue
        flat = rows.reshape(k, -1)
        # a sum is finite unless a number is not, or it overflows: the exact look only then
        suspects = (~torch.isfinite(flat.sum(1))).nonzero().flatten()
        for row in (int(i) for i in suspects):
            bad = int((~torch.isfinite(flat[row])).sum())
            if bad:
                ok[row] = False
                verb = "is" if bad == 1 else "are"
                text.setdefault(row, f'{count(bad)} of {count(flat.shape[1])} numbers in "{name}" {verb} not finite')
    return ok, [Lost(int(clients[row]), "not-finite", why) for row, why in sorted(text.items())]


def _malformed(body: Slots, schema: Mapping[str, Slot], k: int) -> str | None:
    if set(body) != set(schema):
        extra, short = sorted(set(body) - set(schema)), sorted(set(schema) - set(body))
        return "; ".join(
            [f"undeclared {', '.join(extra)}"] * bool(extra) + [f"missing {', '.join(short)}"] * bool(short)
        )
    for name, slot in schema.items():
        rows = body[name]
        if rows.shape[0] != k or (slot.shape is not None and tuple(rows.shape[1:]) != slot.shape):
            return f'"{name}" has the shape {list(rows.shape[1:])}, declared {list(slot.shape or ())}'
        if slot.whole and rows.is_floating_point():
            return f'"{name}" must hold whole numbers'
    return None
