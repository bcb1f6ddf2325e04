"""Which provider, how many clients at once: a pure function of structure and sizes, never of a stopwatch.

On a busy machine the winner of a timing flips, and a flip changes last bits: one seed, two runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from manyloom.core.errors import bad

CACHE = 8 << 20  # bytes of theta rows that stay in the cache; a constant, not read from the machine
WORTH = 32  # clients at once from which vmap beats one at a time
PLANNED = 48 << 20  # bytes of one stretch's index, weights and shuffles (engine.plan.MOST)

Name = Literal["auto", "sequential", "vectorised"]


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Args:
        d: length of theta.
        batch: rows of a minibatch.
        cohort: clients of a round.
        convolution: the module has convolutions, which gain nothing from more clients at once on a CPU.
        state_rows: vectors [d] a client that the rule keeps beside theta and gradient.
        memory_rows: vectors [d] a client that the rule remembers, read and written.
        item: bytes of a parameter.
        row_bytes: bytes of one row of x and y.
        activation_bytes: bytes saved for the backward pass, a row.
        budget: bytes this process may take.
        device: as torch names it.
        refused: provider -> why the module can't run on it.
    """

    d: int
    batch: int
    cohort: int
    convolution: bool = False
    state_rows: int = 0
    memory_rows: int = 0
    item: int = 4
    row_bytes: int = 0
    activation_bytes: int = 0
    budget: int = 2 << 30
    device: str = "cpu"
    refused: Mapping[str, str] = field(default_factory=dict[str, str])


class Choice(NamedTuple):
    """The provider, K, and why each other provider was passed over."""

    provider: str
    group: int
    reasons: Mapping[str, str]


def per_client(f: Facts) -> int:
    """Bytes a client of a group takes: rows of theta, gradient, update, state and memory, and its batch.

    item d (3 + state + 2 memory) + B (x + y + 2 a).
    """
    rows = 3 + f.state_rows + 2 * f.memory_rows
    return f.item * f.d * rows + f.batch * (f.row_bytes + 2 * f.activation_bytes)


def base(f: Facts) -> int:
    """Bytes that do not grow with the group: the model, the sum in float64, one stretch's plan."""
    return f.d * (8 * 3 + f.item) + PLANNED


def largest(f: Facts) -> int:
    """K_mem: the largest group that the budget holds; `memory` if even one client does not fit."""
    one, fixed = per_client(f), base(f)
    if fixed + one > f.budget:
        raise bad("memory", "one client does not fit into the memory budget",
                  got=f"{show_bytes(fixed)} + {show_bytes(one)} a client, budget {show_bytes(f.budget)}",
                  rule=f"d = {f.d}, batches of {f.batch}, {show_bytes(f.activation_bytes)} saved a row",
                  mend=f'[runtime] memory = "{-(-(fixed + one) // (1 << 20))} MiB",\n'
                       'or a smaller batch_size')  # fmt: skip
    return (f.budget - fixed) // one


def choose(f: Facts, name: Name = "auto", provider: str | None = None, group: int | None = None) -> Choice:
    """Take vmap if it was proved and K >= 32, else autograd.

        K_cache = clamp(8 MiB / (item d (1 + state/2)), 1, 128)
        K = min(K_cache, K_mem, cohort), 1 for convolutions on a CPU

    Args:
        f: the facts.
        name: sequential: K = 1; vectorised: the first proved provider that takes K > 1.
        provider: by name, where its proof held.
        group: K by hand.

    >>> choose(Facts(d=7850, batch=10, cohort=100))[:2]
    ('vmap', 100)
    >>> choose(Facts(d=199_210, batch=10, cohort=50))[:2]
    ('autograd', 1)
    """
    fits = largest(f)
    cache = max(1, min(128, int(CACHE / (f.item * f.d * (1 + f.state_rows / 2)))))
    k = 1 if f.convolution and f.device == "cpu" and name != "vectorised" else cache
    k = min(group or max(k, 2 if name == "vectorised" or provider == "vmap" else 1), fits, max(1, f.cohort))
    reason = f.refused.get("vmap")
    if reason is None:
        if provider == "vmap" or (provider is None and name == "vectorised"):
            return Choice("vmap", k, {"autograd": f"{_asked(provider, name)} asks for groups"})
        if provider == "autograd" or name == "sequential":
            reason = f"{_asked(provider, name)} asks for one client at a time"
        elif k >= WORTH:
            return Choice("vmap", k, {"autograd": f"{k} clients at once are faster"})
        else:
            why = "convolutions" if f.convolution else f"K = {k}"
            reason = f"{why}: pays from {WORTH} clients at once"
    return Choice("autograd", 1, {"vmap": reason})


def _asked(provider: str | None, name: str) -> str:
    return f'provider = "{provider}"' if provider else f'name = "{name}"'


_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def bytes_of(text: str) -> int:
    """A size as one types it.

    >>> bytes_of("2 GiB"), bytes_of("500 MB"), bytes_of("1.5GiB")
    (2147483648, 500000000, 1610612736)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGkmg]?[iI]?[bB])\s*", text)
    if found is None:
        raise bad("wrong-type", "memory must be a size", got=f'memory = "{text}" in [runtime]',
                  rule="a number and B, kB, MB, GB, KiB, MiB or GiB", mend='memory = "2 GiB"')  # fmt: skip
    return int(float(found[1]) * _UNITS[found[2].upper()])


def show_bytes(n: int) -> str:
    """A size to read.

    >>> show_bytes(3 << 20), show_bytes(900)
    ('3.0 MiB', '900 B')
    """
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} B"
