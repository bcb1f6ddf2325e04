"""What a secure sum costs one client and the server, beside what its masks alone cost, and beside Flower's SecAgg+.

    OMP_NUM_THREADS=1 python -m benchmarks.secagg [--json] [--d 1000000] [--repeat 3] [--flower PYTHON]

Every case plays the real protocol in this process: each client holds a seeded vector of d reals, encodes it, and
answers all stages through the same handlers as in any run; `lost` clients are gone after they shared their keys (the
dear place to be lost at). The sum is asserted to be the exact integer sum. Times are CPU time of this process, of one
thread: of a client the median over those that answered every stage, of the server all between its asks; of `repeat`
plays the least of each, as of the floor, since other processes only ever add to it.

The floor is measured in the same run: AES-128-CTR over (masks) x 4 d bytes and as many additions of d uint32; a
client has k + 1 masks, the server takes off one for each client in the sum and one for each neighbour in the sum of
each lost client. Good is: client at most 60 ms and server at most 0.25 s at n = 30, k = 20, d = 1M, or on a slower
machine at most 3.5 times the floor.

PYTHON is the interpreter of an environment with flwr; `benchmarks/secagg_flower.py` says what is timed there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from manyloom.core.exchange import Ask, Lost, Reply, play
from manyloom.core.slots import Slots, size_bytes
from manyloom.privacy.source import Secret
from manyloom.secure import FULL, HANDLERS, IDEAL, Params, Policy, Setting, Site, encode, secure_sum, start, wait
from manyloom.secure.graph import degree, sound
from manyloom.secure.wire import VERBS

DIGEST, MODEL, RUN = b"d" * 32, b"m" * 32, "benchmark"
SMALL = 1000  # d of the cases in which the protocol, not the vector, is the cost
Row = dict[str, float | int | str | bool]


class Case(NamedTuple):
    """A secure sum: `degree` (k, t) in place of the computed one."""

    name: str
    n: int
    d: int
    lost: int
    mode: str = "active"
    degree: tuple[int, int] | None = None
    ideal: bool = False


def cases(d: int) -> list[Case]:
    """All that are measured."""
    return [
        Case("as published", 30, d, 3, degree=(20, 13)),
        Case("semi-honest", 30, d, 3, "semi", (22, 13)),
        Case("computed", 30, d, 3),
        Case("computed", 100, d // 4, 10),
        Case("computed", 100, SMALL, 10),
        Case("simulated", 100, SMALL, 10, ideal=True),
        Case("computed", 300, SMALL, 30),
        Case("simulated", 300, SMALL, 30, ideal=True),
    ]


def parameters(case: Case) -> Params:
    """gamma = delta_drop = 0.1, kappa 80 (semi 40): the defaults of a job."""
    kappa = 80 if case.mode == "active" else 40
    least = case.n - case.lost - 1
    return Params(case.mode, least, case.n, case.d, 1.0, 2**18, kappa=kappa)  # pyright: ignore[reportArgumentType]


def measure(case: Case) -> Row:
    """One secure sum, played here: times, bytes, whether the sum is exact."""
    p = parameters(case)
    identities = sorted((Ed25519PrivateKey.generate() for _ in range(case.n)),
                        key=lambda k: k.public_key().public_bytes_raw())  # fmt: skip
    roster = tuple(k.public_key().public_bytes_raw() for k in identities) if case.mode == "active" else None
    suite = IDEAL if case.ideal else FULL
    sites = [
        Site(i, MODEL, DIGEST, RUN, key if roster else None, roster, Policy(), suite)
        for i, key in enumerate(identities)
    ]
    gone = set(np.random.default_rng(1).permutation(case.n)[: case.lost].tolist())
    encoding, exact = list[float](), np.zeros(p.total, np.int64)
    memory = dict[int, Slots]()
    for i in range(case.n):
        x = np.random.default_rng(i).standard_normal(case.d).astype(np.float32)
        began = time.process_time()
        memory[i] = wait(start(), encode(x, p, Secret()).words, 1)
        encoding.append(time.process_time() - began)
        if i not in gone:
            exact += memory[i]["secure.waiting"][0].numpy()
    client = dict.fromkeys(range(case.n), 0.0)
    up = dict.fromkeys(range(case.n), 0)
    down = dict.fromkeys(range(case.n), 0)
    own = [time.process_time(), 0.0]  # of the server: since when, so far

    def answer(ask: Ask) -> list[Reply | Lost]:
        own[1] += time.process_time() - own[0]
        out: list[Reply | Lost] = []
        for i in ask.to.tolist():
            if i in gone and VERBS.index(ask.verb) >= 2:
                out.append(Lost(i, "simulated", "gone"))
                continue
            body = {**ask.body, **ask.each.get(i, {})}
            began = time.process_time()
            reply, memory[i] = HANDLERS[ask.verb].run(body, memory[i], sites[i])
            client[i] += time.process_time() - began
            up[i] += size_bytes(reply)
            down[i] += size_bytes(body)
            out.append(Reply(np.array([i]), reply))
        own[0] = time.process_time()
        return out

    setting = Setting(DIGEST, RUN, MODEL, roster, case.degree, suite)
    began = time.perf_counter()
    got = play(secure_sum(np.arange(case.n), p, setting, round=1), answer)
    whole = time.perf_counter() - began
    server = own[1] + time.process_time() - own[0]
    there = [i for i in range(case.n) if i not in gone]
    if got.total is None or not np.array_equal(got.total, exact):
        raise SystemExit(f"{case}: the sum is not the sum: {got.why}")
    kappa = p.kappa
    k, t = case.degree or degree(case.n, p.gamma, p.delta_drop, kappa, p.mode)[:2]
    assert p.mode != "plain" and sound(case.n, k, t, p.gamma, p.delta_drop, kappa, p.mode) is None
    away = k * case.lost * len(there) // (case.n - 1)  # neighbours in the sum of the lost, on average
    return {
        "case": case.name, "mode": case.mode + (", ideal" if case.ideal else ""), "n": case.n, "k": k, "t": t,
        "d": case.d, "lost": case.lost, "encode_ms": 1e3 * median(encoding),
        "client_ms": 1e3 * median(client[i] for i in there), "client_floor_ms": 1e3 * floor(case.d, k + 1),
        "server_s": server, "server_floor_s": floor(case.d, len(there) + away), "whole_s": whole,
        "up": median(up[i] for i in there), "down": median(down[i] for i in there),
        "up_over_4d": median(up[i] for i in there) / (4 * case.d),
    }  # fmt: skip


def least(rows: list[Row]) -> Row:
    """The least of each time."""
    return {name: min(float(r[name]) for r in rows) if name.endswith(("_ms", "_s")) else value
            for name, value in rows[0].items()}  # fmt: skip


def floor(d: int, masks: int) -> float:
    """CPU seconds of AES-128-CTR over `masks` times 4 d bytes and as many additions; the best of five, a mask."""
    zeros, out, total = bytes(4 * d), bytearray(4 * d + 16), np.zeros(d, np.uint32)
    words = np.frombuffer(out, dtype="<u4", count=d)

    def cipher() -> None:
        Cipher(AES(os.urandom(16)), CTR(bytes(16))).encryptor().update_into(zeros, out)

    def add() -> None:
        np.add(total, words, out=total)

    return masks * (best(cipher) + best(add))


def best(of: Callable[[], None], times: int = 5, repeat: int = 20) -> float:
    """CPU seconds of one call: the best of `times`, each over `repeat` calls."""
    found = list[float]()
    for _ in range(times):
        began = time.process_time()
        for _ in range(repeat):
            of()
        found.append((time.process_time() - began) / repeat)
    return min(found)


def flower(python: str, case: Case) -> Row:
    """The same sum by Flower's own SecAgg+, in its own interpreter."""
    k, t = case.degree or (0, 0)
    script = Path(__file__).with_name("secagg_flower.py")
    words = [python, str(script), *map(str, (case.n, k, t, case.d, case.lost))]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


HEADS = {
    "case": "case", "mode": "mode", "n": "n", "k": "k", "t": "t", "d": "d", "lost": "lost", "encode_ms": "encode, ms",
    "client_ms": "client, ms", "client_floor_ms": "its floor, ms", "server_s": "server, s",
    "server_floor_s": "its floor, s", "whole_s": "all here, s", "up": "bytes up", "up_over_4d": "of 4 d",
    "down": "bytes down",
}  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(HEADS.values()) + " |", "|---|---|" + "---:|" * (len(HEADS) - 2)]
    return "\n".join(lines + ["| " + " | ".join(cell(r.get(h, "")) for h in HEADS) + " |" for r in rows])


def cell(value: float | int | str | bool) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"
    return str(value)


def accepted(row: Row, other: Row | None) -> list[tuple[str, float, bool]]:
    """(level, value, reached) of the first case."""
    client, server = float(row["client_ms"]), float(row["server_s"])
    c, s = client / float(row["client_floor_ms"]), server / float(row["server_floor_s"])
    found = [
        (f"client at most 60 ms, or 3.5 times the floor (it is {c:.1f} times)", client, client <= 60 or c <= 3.5),
        (f"server at most 0.25 s, or 3.5 times the floor (it is {s:.1f} times)", server, server <= 0.25 or s <= 3.5),
        ("bytes up at most 1.01 times 4 d", float(row["up_over_4d"]), float(row["up_over_4d"]) <= 1.01),
    ]
    if other:
        ratios = (float(other["client_ms"]) / client, float(other["server_s"]) / server,
                  float(other["up"]) / float(row["up"]))  # fmt: skip
        found += [
            ("Flower's client over this one, at least 5", ratios[0], ratios[0] >= 5),
            ("Flower's server over this one, at least 20", ratios[1], ratios[1] >= 20),
            ("Flower's bytes up over these, at least 1.95", ratios[2], ratios[2] >= 1.95),
        ]
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--d", type=int, default=1_000_000)
    options.add_argument("--flower", help="interpreter of an environment that has flwr")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--first", action="store_true", help="only the first case")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    chosen = cases(given.d)
    rows = [least([measure(case) for _ in range(given.repeat)]) for case in (chosen[:1] if given.first else chosen)]
    other = least([flower(given.flower, chosen[0]) for _ in range(given.repeat)]) if given.flower else None
    levels = accepted(rows[0], other)
    shown = rows + ([other] if other else [])
    if given.json:
        print(json.dumps({"rows": shown, "levels": [{"level": w, "value": v, "reached": r} for w, v, r in levels]}))
    else:
        print(table(shown) + "\n")
        for what, value, reached in levels:
            print(f"- {what}: {value:.3g}, {'reached' if reached else 'NOT reached'}")
    return 0 if all(reached for *_, reached in levels) else 1


if __name__ == "__main__":
    raise SystemExit(main())
