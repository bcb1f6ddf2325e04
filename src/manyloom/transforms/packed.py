"""What all compressors share: from a code of one vector to a transform of many clients' messages.

A code acts on named slots of a message, each a vector a client [K, n] of floats; the others (a number beside the
update, running statistics) pass as they are. A client's row is packed alone, so that its bytes depend on nothing but
itself, the seed, the round and its id; always on the CPU, so that they are the same for every device.

What the code makes of slot "u" is named "u.<code>.<part>"; the part "" keeps the name "u", for the next code to work
on. The length n travels as "u.<code>.n" (int32) unless it is known.

A row that is not finite is sent as one: every float of its packed form is nan, and the gate drops it by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyloom.core.parts import Transform
from manyloom.core.seeds import U64, Draw
from manyloom.core.slots import Slots
from manyloom.core.tensors import ints


@dataclass(frozen=True)
class Code:
    """Both halves of a compressor, for one vector."""

    name: str
    encode: Callable[[Tensor, float, U64], Slots]  # (x [n], float32 or float64; ||x||; key [1]) -> the parts
    decode: Callable[[Slots, int, U64], Tensor]  # (parts, n, key) -> xhat [n] float32
    size: Callable[[int], Slots]  # n -> the parts, without storage
    factor: Callable[[int], float]  # n -> ||xhat|| at most so many times ||x||
    shared: bool = False  # one key for all clients


def packed(code: Code, names: tuple[str, ...] = ("u",), d: int | None = None) -> Transform:
    """The transform of a code.

    Args:
        code: how one vector is packed.
        names: of the slots it acts on.
        d: their length, where it is known: it does not travel then, and the norm is bounded.
    """

    def slot(name: str, part: str) -> str:
        return f"{name}.{code.name}.{part}" if part else name

    def keys(name: str, k: int, draw: Draw) -> U64:
        purpose = f"{code.name}/{name}"
        return np.full(k, draw.shared(purpose), np.uint64) if code.shared else draw.keys(purpose)

    def told(like: Slots, name: str) -> Slots:
        """The parts of one slot by their names in the message, with the length."""
        length = {} if d is not None else {slot(name, "n"): torch.empty(1, dtype=torch.int32, device="meta")}
        return {slot(name, part): t for part, t in like.items()} | length

    def apply(message: Slots, memory: Slots, down: Slots, draw: Draw) -> tuple[Slots, Slots]:
        out = dict(message)
        for name in names:
            rows = out.pop(name)
            k, n = rows.shape
            if d is not None and n != d:
                raise ValueError(f'"{name}" has {n} numbers, declared {d}')
            key = keys(name, k, draw)
            made = [_encoded(code, rows[i], key[i : i + 1]) for i in range(k)]
            for part, like in code.size(n).items():
                own = [m[part] for m in made]
                out[slot(name, part)] = torch.stack(own) if own else torch.empty(0, *like.shape, dtype=like.dtype)
            if d is None:
                out[slot(name, "n")] = torch.full((k, 1), n, dtype=torch.int32)
        return out, memory

    def undo(message: Slots, draw: Draw) -> Slots:
        out = dict(message)
        for name in names:
            parts = {part: out.pop(slot(name, part)).cpu() for part in code.size(1)}
            n = _length(name, out.pop(slot(name, "n"))) if d is None else d
            _fits(name, parts, code.size(n))
            k = next(iter(parts.values())).shape[0]
            key = keys(name, k, draw)
            rows = [code.decode({p: t[i] for p, t in parts.items()}, n, key[i : i + 1]) for i in range(k)]
            out[name] = torch.stack(rows) if rows else torch.empty(0, n)
        return out

    def size(message: Slots) -> Slots:
        out = {n: t for n, t in message.items() if n not in names}
        for name in names:
            out |= told(code.size(message[name].shape[-1]), name)
        return out

    def bound(norm: float) -> float:
        return math.inf if d is None else norm * code.factor(d)

    return Transform(
        name=code.name,
        apply=apply,
        undo=undo,
        bound=bound,
        size=size,
    )


def norm(x: Tensor) -> float:
    """||x|| of one vector [n], summed in float64; squares of float64 numbers neither overflow nor vanish."""
    largest = float(x.abs().max()) if x.dtype == torch.float64 else 1.0
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    scaled = x if largest == 1.0 else x / largest
    return largest * float(torch.linalg.vector_norm(scaled, dtype=torch.float64))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def fitted(x: Tensor, xhat: Tensor) -> float:
    """S = <x, xhat> / <xhat, xhat>, the scale of least squares; 0 for xhat = 0.

    With it no compressor is farther from x than 0 is, ||x - S xhat|| <= ||x||, as error feedback needs (Karimireddy et
    al. 2019, arXiv:1901.09847).
    """
    a, b = x.double(), xhat.double()
    whole = float(torch.dot(b, b))
    return float(torch.dot(a, b)) / whole if whole > 0 else 0.0


def like(n: int, dtype: torch.dtype) -> Tensor:
    """A vector without storage."""
    return torch.empty(n, dtype=dtype, device="meta")


def _encoded(code: Code, row: Tensor, key: U64) -> Slots:
    x = row.cpu().to(row.dtype if row.dtype in (torch.float32, torch.float64) else torch.float32, copy=True)
    size = norm(x)
    if math.isfinite(size):
        return code.encode(x, size, key)
    parts = code.encode(torch.zeros_like(x), 0.0, key)
    return {p: torch.full_like(t, math.nan) if t.is_floating_point() else t for p, t in parts.items()}


def _length(name: str, told: Tensor) -> int:
    each = set(ints(told))
    if len(each) != 1 or min(each) < 1:
        raise ValueError(f'the rows of "{name}" say that they have {sorted(each)} numbers')
    return each.pop()


def _fits(name: str, parts: Slots, declared: Mapping[str, Tensor]) -> None:
    for part, t in declared.items():
        have = parts[part]
        if have.shape[1:] != t.shape or have.dtype != t.dtype:
            declares = f"declared {t.dtype} {list(t.shape)}"
            raise ValueError(f'"{part or name}" of "{name}" is {have.dtype} {list(have.shape[1:])}, {declares}')
