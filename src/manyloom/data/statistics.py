"""Federated statistics: the first conversation of a run over tables. Clients answer with sums, not with rows.

Of each number column: count, sum and sum of squares over the training rows that have a value, added up in
float64; mean = sum / count, sd^2 = squares / count - mean^2, equal to those of the pooled rows. Of each
categorical column: its values, which travel in the clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from manyloom.core.errors import Problem, RunFailed
from manyloom.core.exchange import Ask, Exchange, Fold, Handler, Ids, Lost, Reply
from manyloom.core.slots import Slots, pack_json, unpack_json
from manyloom.core.tensors import from_numpy
from manyloom.data.federation import Client, Federation
from manyloom.data.preprocess import Preprocess
from manyloom.data.table import TableSchema

SUMS = ("count", "sum", "square")


def statistics(
    schema: TableSchema,
    clients: Ids,
    names: Sequence[str] | None = None,
    *,
    standardise: bool = True,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
) -> Exchange[Preprocess]:
    """Ask clients for what preprocessing needs; nothing is asked that the schema or `vocabulary` says already.

    Args:
        schema: the columns of every client's table.
        clients: who is asked.
        names: of all clients, by number, for the notes.
        standardise: ask for sums; without it numbers pass unchanged.
        vocabulary: values of categorical columns, declared; columns that it lacks are asked for.
    """
    words = dict(vocabulary or {})
    open_columns = [c for c in schema.categories if c not in words]
    if open_columns:
        replies = yield Ask(clients, "vocabulary")
        found: dict[str, set[str]] = {c: set() for c in open_columns}
        for reply in _came(replies, "vocabulary"):
            for column, values in cast("dict[str, list[str]]", unpack_json(reply.body["values"])).items():
                found.get(column, set()).update(values)
        words |= {c: sorted(values) for c, values in found.items()}
    vocabularies = tuple(tuple(words[c]) for c in schema.categories)
    width = len(schema.numbers)
    if not standardise or not width:
        return Preprocess(schema, np.zeros(width), np.ones(width), vocabularies, fill=standardise)
    replies = yield Ask(clients, "statistics", fold=Fold(SUMS))
    total = {slot: np.zeros(width) for slot in SUMS}
    notes: list[str] = []
    for reply in _came(replies, "statistics"):
        for slot in SUMS:
            total[slot] += reply.body[slot].double().reshape(-1, width).sum(0).numpy()
        if "absent" not in reply.body:  # of a secure sum only the sum is there
            continue
        gone = cast("list[list[int]]", reply.body["absent"].reshape(-1, width).tolist())  # pyright: ignore[reportUnknownMemberType]
        for client, absent in zip(reply.clients.tolist(), gone):
            name = names[client] if names is not None else f"client {client}"
            notes += [f"{name} has no value of {c}" for c, is_absent in zip(schema.numbers, absent) if is_absent]
    count = np.maximum(total["count"], 1)
    mean = total["sum"] / count
    variance = total["square"] / count - mean**2
    # what is left of a constant column is rounding error: scale it by 1, not by that
    sd = np.sqrt(np.where(variance > 1e-12 * mean**2, variance, 1.0))
    return Preprocess(schema, mean, np.where(sd > 0, sd, 1.0), vocabularies, notes=tuple(notes))


def of(federation: Federation, clients: Ids | None = None) -> Exchange[Preprocess]:
    """`statistics` of a federation's tables, over all clients that have rows, as its source asks for them."""
    if federation.schema is None:
        raise ValueError("this federation holds tensors: there is nothing to prepare")
    asked = np.flatnonzero(federation.sizes > 0) if clients is None else clients
    return statistics(
        federation.schema,
        asked,
        federation.names,
        standardise=federation.standardise,
        vocabulary=federation.vocabulary,
    )


def _came(replies: Sequence[object], verb: str) -> list[Reply]:
    came = [r for r in replies if isinstance(r, Reply) and len(r.clients)]
    why = [a.text for a in replies if isinstance(a, Lost)][:3]
    if not came:
        raise RunFailed(
            Problem(
                "quorum",
                f"no client answered the ask for {verb}",
                got=f"0 of {len(replies)} replies; {'; '.join(dict.fromkeys(why)) or 'no reason given'}",
                rule="preprocessing needs at least one",
                mend="see the reasons in the run's events",
            )
        )
    return came


def _sums(body: Slots, memory: Slots, data: Client) -> tuple[Slots, Slots]:
    """count, sum, square float64 [1, a] over present values; absent uint8 [1, a]: 1 where there is none."""
    if data.table is None:
        raise ValueError("this client holds no table")
    x = data.table.numbers
    here = ~np.isnan(x)
    x = np.where(here, x, 0.0)
    count = here.sum(axis=0).astype(np.float64)
    reply = {"count": count, "sum": x.sum(axis=0), "square": (x * x).sum(axis=0)}
    slots = {k: from_numpy(v[None, :]) for k, v in reply.items()}
    return slots | {"absent": from_numpy((count == 0).astype(np.uint8)[None, :])}, memory


def _values(body: Slots, memory: Slots, data: Client) -> tuple[Slots, Slots]:
    """The values of each categorical column, sorted, as JSON in a uint8 tensor: texts in the clear."""
    if data.table is None:
        raise ValueError("this client holds no table")
    table = data.table
    found: dict[str, list[str]] = {}
    for b, name in enumerate(table.schema.categories):
        codes: list[int] = np.unique(table.codes[:, b]).tolist()
        found[name] = sorted(table.values[b][c] for c in codes if c >= 0)
    return {"values": pack_json(found)}, memory


HANDLERS: Mapping[str, Handler] = {
    "vocabulary": Handler(_values, ("values",)),
    "statistics": Handler(_sums, (*SUMS, "absent")),
}
