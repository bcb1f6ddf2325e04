"""Error feedback."""

from __future__ import annotations

import torch

from manyloom.core.parts import Transform
from manyloom.core.seeds import Draw
from manyloom.core.slots import Slots


def error_feedback(compressor: Transform, names: tuple[str, ...] = ("u",)) -> Transform:
    """p = u + e, c = C(p), e <- p - decode(c): what was lost is sent later (Karimireddy et al. 2019, arXiv:1901.09847).

    C must take p nearer: give it its biased form, for an unbiased one of high variance makes e grow without end. The
    error of slot "u" is memory "u.error" [d]; nothing bounds it, so nothing bounds the message. A row that is not
    finite leaves it as it was.

    Args:
        compressor: C, both halves.
        names: the slots whose error is kept.
    """
    own = {name: f"{name}.error" for name in names}

    def apply(message: Slots, memory: Slots, down: Slots, draw: Draw) -> tuple[Slots, Slots]:
        whole = message | {n: message[n].to(memory[e].device) + memory[e] for n, e in own.items()}
        sent, kept = compressor.apply(whole, memory, down, draw) if compressor.apply else (whole, memory)
        back = compressor.undo(sent, draw)
        for n, e in own.items():
            left = whole[n] - back[n]
            fine = torch.isfinite(left).all(1, keepdim=True)
            kept = kept | {e: torch.where(fine, left, memory[e]).to(memory[e].dtype)}
        return sent, kept

    return compressor._replace(
        name=f"error_feedback({compressor.name})",
        apply=apply,
        bound=Transform().bound,  # none
        memory=dict(compressor.memory) | dict.fromkeys(own.values(), "d"),
    )
