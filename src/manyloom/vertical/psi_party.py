"""The feature party's half of a private set intersection: what it answers, in which order, and what it refuses.

All it keeps is tensors. Its scalar, its permuted order and the other's digests are secret: in RAM only, overwritten
when the alignment ends or is given up. A repeated ask gets the same bytes again; a late or foreign one is refused and
changes nothing; what no honest label party sends ends the alignment for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.core.exchange import Handler
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy, ints
from manyloom.vertical import psi_wire as wire
from manyloom.vertical.curve import U8, masking, scalar
from manyloom.vertical.party import Party
from manyloom.vertical.psi_wire import CHUNK, FLOOR, I64
from manyloom.vertical.settings import Align

# what is asked, in this order; each as often as there are chunks of the list named: "a" the label party's, "b" the own
STAGES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "both": (("ids.masked", "b"), ("ids.remask", "a"), ("ids.return", "b"), ("ids.confirm", "")),
    "label": (("ids.masked", "b"), ("ids.remask", "a")),
    "count": (("ids.masked", "b"), ("ids.remask", "a"), ("ids.shuffled", "a")),
}
STAGE_VERBS = ("ids.masked", "ids.remask", "ids.shuffled", "ids.return", "ids.confirm")
REPLIES: Mapping[str, tuple[str, ...]] = {
    "ids.open": ("n",),
    "ids.masked": ("points",),
    "ids.remask": ("digests",),
    "ids.shuffled": ("digests",),
    "ids.return": (),
    "ids.confirm": ("count", "digest"),
    "ids.keep": ("count",),
}
ANSWERS = sorted({n for names in REPLIES.values() for n in names})
KEPT: Mapping[str, Tensor] = {
    "rows": torch.zeros(0, dtype=torch.int64),  # of Party.x, in the agreed order
    "psi.counts": torch.zeros(1, dtype=torch.int64),  # queries that told how many are common
}
_OPEN, _OVER = -1, -2  # where one stands before the first stage, and when nothing more is to come
_WORKING = ("psi.scalar", "psi.order", "psi.theirs", "psi.own", "psi.match")
SECRET = ("xid", "psi.xid", "psi.at", "psi.asked", *_WORKING,
          *(f"psi.answer.{n}" for n in ANSWERS))  # fmt: skip


class Standing(NamedTuple):
    """Where an alignment stands, as `psi.at` holds it: which stage, which chunk of it, sizes, bytes of a digest."""

    stage: int
    k: int
    n_a: int
    n_b: int
    width: int

    def tensor(self) -> Tensor:
        return torch.tensor(self)


class Side(NamedTuple):
    """What a step has: settings, what is remembered, the party's rows, where it stands."""

    settings: Align
    memory: Slots
    party: Party
    at: Standing
    chunk: int
    floor: int
    threads: int

    @property
    def xid(self) -> bytes:
        return self.memory["xid"].numpy().tobytes()

    @property
    def chunks(self) -> list[slice]:
        """The parts of the list that this stage goes through."""
        of = STAGES[self.settings.reveal][self.at.stage][1]
        return wire.chunks({"a": self.at.n_a, "b": self.at.n_b, "": 0}[of], self.chunk)

    @property
    def part(self) -> slice:
        """The chunk that is asked for."""
        return self.chunks[self.at.k]

    @property
    def after(self) -> Standing:
        """Where it stands after this step."""
        if self.at.k + 1 < len(self.chunks):
            return self.at._replace(k=self.at.k + 1)
        more = self.at.stage + 1 < len(STAGES[self.settings.reveal])
        return self.at._replace(stage=self.at.stage + 1 if more else _OVER, k=0)


Step = Callable[[Side, Slots], tuple[Slots, Slots]]  # (side, body) -> (reply, what changes in memory)


def handlers(
    settings: Align, *, chunk: int = CHUNK, floor: int = FLOOR, threads: int | None = None
) -> dict[str, Handler]:
    """What a feature party answers in an alignment, verb -> handler; afterwards its memory has "rows".

    Needs "xid" uint8 [32] in memory, the exchange id of the opening.

    Args:
        settings: the job's `[align]`.
        chunk: ids of an ask, as at the label party.
        floor: with reveal = "count", the least ids of either side.
        threads: to work with; as many as torch has by default.
    """
    steps = {"ids.open": _open, "ids.masked": _masked, "ids.remask": _remask, "ids.shuffled": _shuffled,
             "ids.return": _return, "ids.confirm": _confirm, "ids.keep": _keep}  # fmt: skip

    def handler(verb: str, step: Step) -> Handler:
        def run(body: Slots, memory: Slots, data: Any) -> tuple[Slots, Slots]:
            side = Side(settings, memory, data, _standing(memory), chunk, floor, threads or torch.get_num_threads())
            return _answered(verb, step, side, body)

        return Handler(run, REPLIES[verb], dict(KEPT), SECRET)

    return {verb: handler(verb, step) for verb, step in steps.items()}


def _answered(verb: str, step: Step, side: Side, body: Slots) -> tuple[Slots, Slots]:
    """The answer, or the same again; what is refused without harm, and what ends the alignment."""
    memory = side.memory
    if "xid" not in memory or tuple(memory["xid"].shape) != (32,):
        raise _refused(verb, "no exchange was opened")
    known = "psi.xid" in memory and torch.equal(memory["psi.xid"], memory["xid"])
    asked = wire.fingerprint(verb, body)
    if known and memory["psi.asked"].numpy().tobytes() == asked:
        return {n: memory[f"psi.answer.{n}"] for n in REPLIES[verb]}, {}
    expected, why = _expected(side, known)
    if verb not in expected:
        raise _refused(verb, why)
    try:
        if verb in STAGE_VERBS and verb != "ids.confirm":
            _in_turn(side, body)
    except ValueError as why:
        raise _refused(verb, str(why)) from None
    try:
        reply, changes = step(side, body)
    except ValueError as why:
        _give_up(memory)
        raise _refused(verb, f"{why}; the alignment is given up") from None
    changes = {"psi.at": side.after.tensor()} | changes if verb in STAGE_VERBS else changes
    if verb in STAGE_VERBS and side.after.stage == _OVER:
        for name in _WORKING:
            memory[name].zero_()
        changes |= {name: memory[name][:0].clone() for name in _WORKING}
    answer = {f"psi.answer.{n}": reply.get(n, torch.zeros(0)) for n in ANSWERS}
    return reply, changes | answer | {"psi.asked": wire.tensor(np.frombuffer(asked, np.uint8))}


def _standing(memory: Slots) -> Standing:
    return Standing(*ints(memory["psi.at"])) if "psi.at" in memory else Standing(_OPEN, 0, 0, 0, 0)


def _expected(side: Side, known: bool) -> tuple[tuple[str, ...], str]:
    """Which verbs may come now, and what to say to others."""
    if not known:
        return ("ids.open",), "this exchange has no alignment yet"
    if side.at.stage == _OVER:
        due = side.settings.reveal == "both" and side.at.k == 0
        return ("ids.keep",) if due else (), "the alignment of this exchange is over: another needs a new opening"
    if side.at.stage == _OPEN:
        return (), "the alignment of this exchange was given up: another needs a new opening"
    verb = STAGES[side.settings.reveal][side.at.stage][0]
    return (verb,), f"{verb} {side.at.k + 1} is due"


def _in_turn(side: Side, body: Slots) -> None:
    k, of = wire.place_of(body)
    if (k, of) != (side.at.k, len(side.chunks)):
        raise ValueError(f"chunk {k + 1} of {of} was asked for, {side.at.k + 1} of {len(side.chunks)} is due")


def _refused(verb: str, why: str) -> RuntimeError:
    return RuntimeError(f"{verb} is refused: {why}")


def _give_up(memory: Slots) -> None:
    """Overwrite all that is secret; what follows is refused."""
    for name in (*_WORKING, "psi.asked"):
        if name in memory:
            memory[name].zero_()
    if "psi.at" in memory:
        memory["psi.at"].copy_(Standing(_OPEN, 0, 0, 0, 0).tensor())


def _open(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """Sizes: n_A and the reveal mode come, n_B goes back, made up ids included."""
    n_a, reveal = wire.count_of(body, "n"), side.settings.reveal
    said = int(wire.bytes_of(body, "reveal", 1)[0])
    if n_a < 0:
        raise ValueError('"n" is below zero')
    if said != wire.REVEALS.index(reveal):
        raise ValueError(f'the label party wants another reveal than "{reveal}", which was agreed')
    wire.distinct(side.party.keys)
    own = len(side.party.keys)
    if reveal == "count" and min(n_a, own) < side.floor:
        raise ValueError(f"how many ids are common is told from {side.floor} ids a side on")
    n_b = wire.padded(own, side.settings.dummies)
    at = Standing(0, 0, n_a, n_b, wire.width(n_a, n_b))
    changes = {
        "psi.xid": side.memory["xid"].clone(), "psi.at": at.tensor(),
        "psi.scalar": wire.tensor(np.frombuffer(scalar(), np.uint8)),
        "psi.order": from_numpy(wire.permutation(n_b)),
        "psi.theirs": torch.zeros(0, at.width, dtype=torch.uint8),
        "psi.own": torch.zeros(0, at.width, dtype=torch.uint8),
        "psi.match": torch.zeros(0, dtype=torch.int64),
    }  # fmt: skip
    if reveal == "count":
        changes["psi.counts"] = side.memory.get("psi.counts", KEPT["psi.counts"]) + 1
    return {"n": torch.tensor(n_b)}, changes


def _masked(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """H(y_j)^b for a chunk of the permuted list; places beyond the own ids are made up."""
    order, keys = ints(side.memory["psi.order"][side.part]), side.party.keys
    chunk = [keys[j] if j < len(keys) else None for j in order]
    with masking(_scalar(side), side.xid, side.threads) as masks:
        return {"points": wire.tensor(masks.ids(chunk, of=side.at.n_b)())}, {}


def _remask(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """digest(H(x_i)^(ab)) in the order they came; they are kept as a set. With "count" nothing is told yet."""
    points = wire.bytes_of(body, "points", side.part.stop - side.part.start, 32)
    with masking(_scalar(side), side.xid, side.threads) as masks:
        made = masks.points(points, side.at.width)()
    theirs = np.concatenate([_table(side, "psi.theirs"), made])
    count = side.settings.reveal == "count"
    if side.after.stage != side.at.stage:
        wire.digest_set(theirs)
        theirs = theirs[wire.permutation(len(theirs))] if count else theirs
    reply = made[:0] if count else made
    return {"digests": wire.tensor(reply)}, {"psi.theirs": wire.tensor(theirs)}


def _shuffled(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """The label party's digests in an order that it does not know."""
    return {"digests": side.memory["psi.theirs"][side.part].clone()}, {}


def _return(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """digest(H(y_j)^(ba)) come back in the order in which the points were sent: which of the own ids are common."""
    part = side.part
    own = wire.bytes_of(body, "digests", part.stop - part.start, side.at.width)
    hit = wire.digest_set(_table(side, "psi.theirs")).find(own) >= 0
    rows: I64 = side.memory["psi.order"][part].numpy()[hit]
    if (rows >= len(side.party.keys)).any():
        raise ValueError("an id that was made up is said to be common")
    return {}, {
        "psi.match": torch.cat([side.memory["psi.match"], from_numpy(rows)]),
        "psi.own": torch.cat([side.memory["psi.own"], wire.tensor(own[hit])]),
    }


def _confirm(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """Both sides have the same common ids in the same order, or nobody has."""
    common, digest = wire.count_of(body, "count"), wire.bytes_of(body, "digest", 32).tobytes()
    rows: I64 = side.memory["psi.match"].numpy()
    own = _table(side, "psi.own")
    wire.digest_set(own)
    order = wire.agreed_order([side.party.keys[i] for i in ints(side.memory["psi.match"])])
    sealed = wire.sealed(own[order])
    if (common, digest) != (len(rows), sealed):
        raise ValueError("the two sides do not find the same common ids")
    reply = {"count": torch.tensor(len(rows)), "digest": wire.tensor(np.frombuffer(sealed, np.uint8))}
    return reply, {"rows": from_numpy(rows[order])}


def _keep(side: Side, body: Slots) -> tuple[Slots, Slots]:
    """Of the common rows those that all parties have: one bit a row, in the agreed order."""
    rows = side.memory["rows"]
    if wire.count_of(body, "n") != len(rows):
        raise ValueError(f"{len(rows)} rows are common")
    kept = rows[wire.flags_of(body, "bits", len(rows))]
    over = side.at._replace(stage=_OVER, k=1)
    return {"count": torch.tensor(len(kept))}, {"rows": kept, "psi.at": over.tensor()}


def _scalar(side: Side) -> bytes:
    return side.memory["psi.scalar"].numpy().tobytes()


def _table(side: Side, name: str) -> U8:
    return side.memory[name].numpy()
