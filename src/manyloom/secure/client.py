"""A client's half of a secure sum: five stages, each answered once; the update waits here and leaves masked.

What must outlive a restart (which attempt, which stage, whether shares were given) is plain memory and is kept before
a reply leaves. All else is secret memory: in RAM, in no checkpoint, and erased as soon as it is not needed. After a
restart a client can't go on with an attempt, and says so. Erasing is best effort: Python may have copied.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from manyloom.core.errors import ManyloomError, Problem
from manyloom.core.exchange import Handler
from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.secure import masks, wire
from manyloom.secure.params import KINDS, round_of
from manyloom.secure.stages import LIVE, STEPS, Abort, Site
from manyloom.secure.transcript import digest, hash_model

ABORTED = 9
LOG = "secure.log"  # int64 [1, 6]: round, attempt, next stage, whether shares were given, last part taken, parts taken
RUN = "secure.run"  # uint8 [1, 32]: H(job digest, run)
ASKED = "secure.asked"  # uint8 [1, 32]: H of the ask answered last
WAITING = "secure.waiting"  # int32 [1, d_total]: the encoded update
WAITING_ROUND = "secure.waiting_round"  # int64 [1]
ANSWER = "secure.answer."
START: dict[str, Tensor] = {
    LOG: torch.tensor([-1, -1, ABORTED, 0, -1, 0]),
    RUN: torch.zeros(32, dtype=torch.uint8),
    ASKED: torch.zeros(32, dtype=torch.uint8),
}
REPLIES: tuple[tuple[str, ...], ...] = (("advert",), ("sealed",), ("masked", "sign"), ("sign",), ("b", "s"))
SECRET = (WAITING, WAITING_ROUND, *LIVE, *sorted({ANSWER + name for names in REPLIES for name in names}))


class Refused(ManyloomError):
    """A client takes no further part. `memory` is all it still remembers: keep it before saying so."""

    def __init__(self, what: str, memory: Slots) -> None:
        super().__init__(Problem("refused", what))
        self.memory = memory


def wait(memory: Slots, words: masks.U32, round: int) -> Slots:
    """Memory in which a round's encoded update waits for its mask."""
    ints = from_numpy(words.view(np.int32).copy())[None]
    return memory | {WAITING: ints, WAITING_ROUND: torch.tensor([round])}


def start() -> Slots:
    """What a client never asked remembers, a row."""
    return {name: value[None].clone() for name, value in START.items()}


def _erase(memory: Slots, names: tuple[str, ...]) -> Slots:
    for name in names:
        if name in memory:
            memory[name].zero_()
    return {name: value for name, value in memory.items() if name not in names}


def forget(memory: Slots, *, waiting: bool = False) -> Slots:
    """Memory after an attempt that came to nothing (aborted, or past its deadline): its secrets are gone.

    Args:
        memory: a client's.
        waiting: also the update that waits; else another attempt of its round may still mask it.
    """
    gone = SECRET if waiting else tuple(n for n in SECRET if n not in (WAITING, WAITING_ROUND))
    left = _erase({**start(), **memory}, gone)
    log = left[LOG].clone()
    log[0, 2] = ABORTED
    return left | {LOG: log}


def _opens(site: Site, memory: Slots, round: int, attempt: int) -> Slots:
    """Memory for a new attempt, or why there is none."""
    run = wire.pack(digest("run", site.job_digest, site.run_id.encode()))[None]
    log = wire.integers(memory[LOG][0])
    if not torch.equal(memory[RUN], run):
        log = wire.integers(START[LOG])
    last, tried, _, released, part, parts = log
    if attempt not in (0, 1):
        raise Refused(f"attempt {attempt} of round {round}: there are two at most", memory)
    if (round, attempt) <= (last, tried) or round < 0:
        raise Refused(f"round {round}, attempt {attempt} is not after round {last}, attempt {tried}", memory)
    if round == last and released:
        raise Refused(f"shares of round {round} were given: no other attempt", memory)
    policy = site.policy
    trains = round % len(KINDS) == KINDS.index("train")  # the policy counts updates, not metrics
    if trains and part >= 0 and part != round and round_of(round) - round_of(part) < policy.separation:
        raise Refused(f"round {round_of(round)} is less than {policy.separation} after {round_of(part)}", memory)
    if trains and policy.participations is not None and part != round and parts >= policy.participations:
        raise Refused(f"this client took part {parts} times already", memory)
    fresh = forget(memory)
    return fresh | {LOG: torch.tensor([[round, attempt, 0, 0, part, parts]]), RUN: run}


def _answer(stage: int, body: Slots, memory: Slots, site: Site) -> tuple[Slots, Slots]:
    """One stage: once, in order, for this transcript; the same ask again gets the same bytes."""
    memory = {**start(), **memory}
    try:
        round, attempt = wire.integers(body["at"])
        asked = wire.pack(digest("ask", stage, hash_model(dict(sorted(body.items())))))[None]
    except (KeyError, ValueError, TypeError) as error:
        raise Refused(f"an ask without a round: {error}", memory) from error
    log = wire.integers(memory[LOG][0])
    if log[:2] == [round, attempt] and torch.equal(memory[ASKED], asked):
        kept = {n: memory[ANSWER + n].clone() for n in REPLIES[stage] if ANSWER + n in memory}
        if kept and log[2] != ABORTED:
            return kept, memory
        raise Refused("this attempt ended here, or this client restarted: it can't go on", memory)
    if stage == 0:
        memory = _opens(site, memory, round, attempt)
    elif log[:2] != [round, attempt] or log[2] != stage:
        raise Refused(f"stage {stage} of round {round}, attempt {attempt} is not what comes next", memory)
    elif "secure.keys" not in memory:
        raise Refused("this client restarted: it can't go on with this attempt", memory)
    elif not torch.equal(body.get("session", torch.zeros(0)), memory["secure.tid" if stage > 1 else "secure.sid"][0]):
        raise Refused("an ask of another session", memory)
    try:
        if stage == 2 and wire.integers(memory.get(WAITING_ROUND, torch.tensor([-1]))) != [round]:
            raise Abort("no update waits for this round")
        reply, live, then = STEPS[stage](site, body, memory | {"secure.at": torch.tensor([[round, attempt]])})
    except Abort as why:
        raise Refused(str(why), forget(memory)) from why
    except (KeyError, ValueError, IndexError, TypeError, RuntimeError, OverflowError) as error:
        raise Refused(f"a malformed ask: {type(error).__name__}: {error}", forget(memory)) from error
    after = memory[LOG].clone()
    after[0, 2] = then
    if stage == 2 and round % len(KINDS) == KINDS.index("train"):
        after[0, 5] += int(after[0, 4] != round)
        after[0, 4] = round
    old = (*LIVE, *(n for n in memory if n.startswith(ANSWER)))
    if stage == 4:
        after[0, 3] = 1
        old = SECRET
    kept = {n: v for n, v in memory.items() if n not in old}
    _erase(memory, tuple(n for n in old if n in memory and live.get(n) is not memory[n]))
    answer = {ANSWER + n: v.clone() for n, v in reply.items()}
    return reply, kept | live | answer | {LOG: after, ASKED: asked}


def _handler(stage: int) -> Handler:
    def run(body: Slots, memory: Slots, site: Site) -> tuple[Slots, Slots]:
        return _answer(stage, body, memory, site)

    return Handler(run, REPLIES[stage], memory=START, secret=SECRET)


HANDLERS: dict[str, Handler] = {verb: _handler(stage) for stage, verb in enumerate(wire.VERBS)}

__all__ = ["ASKED", "HANDLERS", "LOG", "RUN", "SECRET", "START", "WAITING", "Refused", "Site",
           "start", "wait"]  # fmt: skip
