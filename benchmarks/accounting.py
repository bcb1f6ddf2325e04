"""Epsilon and noise against the reference tables (privacy.md §6.1-6.3), and the seconds that an answer takes.

    OMP_NUM_THREADS=1 python benchmarks/accounting.py [--part epsilon] [--json]

One thread, CPU seconds of the process. Every row shows what was expected, what came out and their relative difference;
`first` is the first answer for that noise and sampling, `next` the median of answers for other numbers of rounds, as a
run asks for them one by one. Parts:

    epsilon    16 rows, PLD and RDP, and that PLD is never above RDP; PLD is also asked of dp-accounting (`--library`)
    noise      calibration, both accountants; the classic Gaussian and the exact one; rounds composed
    sampling   the same noise under three claims; a cut cohort
    speed      the first round and the next ones, plain and cut, and calibration
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

from manyloom.privacy.accountants import (
    Accountant,
    Adjacency,
    Sampling,
    Spent,
    epsilon,
    everyone,
    exact,
    fixed,
    poisson,
    safe_cap,
    truncated,
)
from manyloom.privacy.calibration import default_delta, noise_for

Row = dict[str, Any]

# z, q, T, delta, by RDP, by PLD
EPSILON = [
    (1.0, 0.01, 1000, 1e-5, 2.101367, 1.828244),
    (1.1, 256 / 60000, 14062, 1e-5, 2.596556, 2.381686),
    (1.1, 0.01, 6000, 1e-5, 4.246599, 3.899771),
    (0.8, 0.01, 1000, 1e-6, 4.293457, 3.706190),
    (1.0, 0.1, 100, 1e-5, 7.903850, 7.046603),
    (2.0, 0.1, 100, 1e-5, 2.580571, 2.337400),
    (0.5, 0.02, 50, 1e-5, 9.730294, 7.970705),
    (4.0, 0.25, 500, 1e-5, 7.211208, 6.678788),
    (5.0, 1.0, 100, 1e-5, 10.725510, 9.997256),
    (1.0, 1.0, 1, 1e-5, 4.728507, 4.377178),
    (10.0, 1.0, 1000, 1e-6, 20.551992, 19.423656),
    (1.0, 0.001, 2000, 1e-8, 1.265676, 0.362801),
    (0.6, 0.0001, 1500, 1e-6, 1.974933, 0.300977),
    (1.0, 5000 / 763430, 4096, 1e-6, 2.919787, 2.676422),
    (1.5, 100 / 3400, 1500, 1 / 3400, 3.331787, 2.972316),
    (0.3, 100 / 342477, 1500, 1 / 342477, 16.706127, 13.507395),
]
# target, delta, q, T, z by PLD, z by RDP
NOISE = [
    (2.0, 1e-5, 0.01, 1000, 0.959103, 1.022290),
    (8.0, 1e-6, 0.01, 2000, 0.674178, 0.701282),
    (1.0, 1e-5, 0.02, 500, 1.878554, 2.023140),
]
# target: true epsilon of the classic sigma, exact sigma; delta = 1e-5
GAUSSIAN = {
    0.1: (0.0607, 30.7496), 0.5: (0.3526, 7.0318), 1.0: (0.7510, 3.7306), 2.0: (1.6103, 1.9938),
    4.0: (3.5112, 1.0812), 8.0: (7.9144, 0.6002), 10.0: (10.394, 0.4999), 20.0: (25.44, 0.2900),
}  # fmt: skip
# rounds: zero-out, replace-one; each round the classic sigma of epsilon = 1
COMPOSED = {1: (0.7510, 1.61), 10: (2.69, 5.98), 50: (6.83, 16.1), 100: (10.4, 25.4), 1000: (48.4, 140.0)}
# z, cohort, N, T, delta, Poisson PLD zero-out, Poisson PLD replace-one, fixed RDP, fixed RDP with raw z
CLAIMS = [
    (1.0, 100, 10_000, 1000, 1e-5, 1.8282, 2.8434, 20.9871, 3.5761),
    (1.1, 100, 3400, 1500, 1 / 3400, 4.9728, 9.0663, 75.8963, 12.4042),
    (2.0, 100, 1000, 100, 1e-5, 2.3374, 4.3681, 14.0538, 5.3790),
    (4.0, 50, 500, 200, 1e-4, 1.1940, 2.5262, 7.1737, 2.9261),
]
CAPS = {120: 5.2972, 130: 3.6841, 140: 1.9712, 150: 1.8305, 160: 1.8283}


def timed(answer: Callable[..., float], *given: Any) -> tuple[float, float]:
    began = time.process_time()
    value = answer(*given)
    return value, time.process_time() - began


def row(part: str, name: str, expected: float | None, answer: Callable[..., float], *given: Any) -> Row:
    value, seconds = timed(answer, *given)
    off = value / expected - 1 if expected else None
    return {"part": part, "row": name, "expected": expected, "got": value, "off": off, "seconds": seconds}


def spent(z: float, sampling: Sampling, rounds: int, delta: float, by: Accountant, side: Adjacency) -> float:
    return epsilon([Spent(z, 1.0, sampling, rounds)], delta, by, side)


def library(z: float, q: float, rounds: int, delta: float) -> float:
    """The same row by dp-accounting's own PLD accountant."""
    import dp_accounting as dp  # pyright: ignore[reportMissingTypeStubs]
    from dp_accounting import pld  # pyright: ignore[reportMissingTypeStubs]

    found: Any = pld
    accountant = found.PLDAccountant()
    accountant.compose(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z)), rounds)
    return float(accountant.get_epsilon(delta))


def part_epsilon(beside: bool) -> list[Row]:
    rows: list[Row] = []
    for i, (z, q, rounds, delta, by_rdp, by_pld) in enumerate(EPSILON, 1):
        drawn = poisson(10**6, q)
        name = f"{i:2} z={z:g} q={q:.4g} T={rounds} delta={delta:.3g}"
        pld = row("epsilon", name + " PLD", by_pld, spent, z, drawn, rounds, delta, "pld", "add-or-remove")
        rdp = row("epsilon", name + " RDP", by_rdp, spent, z, drawn, rounds, delta, "rdp", "add-or-remove")
        pld["below_rdp"] = pld["got"] <= rdp["got"]
        if beside:
            value, seconds = timed(library, z, q, rounds, delta)
            pld |= {"library": value, "off_library": pld["got"] / value - 1, "library_seconds": seconds}
        rows += [pld, rdp]
    return rows


def part_noise() -> list[Row]:
    rows: list[Row] = []
    for target, delta, q, rounds, by_pld, by_rdp in NOISE:
        both: list[tuple[Accountant, float]] = [("pld", by_pld), ("rdp", by_rdp)]
        for by, z in both:
            drawn, up = poisson(10**5, q), math.ceil(z * 1e4) / 1e4
            name = f"z for eps={target:g} delta={delta:g} q={q:g} T={rounds} {by.upper()}"
            found = row("noise", name, up, noise_for, target, rounds, drawn, delta, by)
            found["reached"] = spent(found["got"], drawn, rounds, delta, by, "zero-out")
            rows.append(found)
    for target, (true, sigma) in GAUSSIAN.items():
        classic = math.sqrt(2 * math.log(1.25e5)) / target
        rows.append(row("noise", f"true eps of the classic sigma for {target:g}", true, exact, classic, 1e-5))
        found = row("noise", f"exact sigma for {target:g}", sigma, noise_for, target, 1, everyone(10), 1e-5, "pld")
        rows.append(found)
    for rounds, pair in COMPOSED.items():
        sides: list[tuple[Adjacency, float]] = [("zero-out", pair[0]), ("replace-one", pair[1])]
        for side, value in sides:
            z = math.sqrt(2 * math.log(1.25e5))
            name = f"classic eps=1, {rounds} rounds, {side}"
            rows.append(row("noise", name, value, spent, z, everyone(10), rounds, 1e-5, "pld", side))
    return rows


def part_sampling() -> list[Row]:
    rows: list[Row] = []
    for z, m, n, rounds, delta, plain, replaced, taken, raw in CLAIMS:
        drawn, cohort, name = poisson(n, m / n), fixed(n, m), f"z={z:g} {m}/{n} T={rounds} "
        claims: list[tuple[str, float, float, Sampling, Accountant, Adjacency]] = [
            ("Poisson, zero-out, PLD", plain, z, drawn, "pld", "zero-out"),
            ("Poisson, replace-one, PLD", replaced, z, drawn, "pld", "replace-one"),
            ("fixed, replace-one, RDP", taken, z, cohort, "rdp", "replace-one"),
            ("(wrong: raw z)", raw, 2 * z, cohort, "rdp", "replace-one"),
        ]
        for words, value, noise, sampling, by, side in claims:
            rows.append(row("sampling", name + words, value, spent, noise, sampling, rounds, delta, by, side))
    for cap, value in CAPS.items():
        cut = truncated(10_000, 0.01, cap)
        rows.append(row("sampling", f"cap {cap}", value, spent, 1.0, cut, 1000, 1e-5, "pld", "zero-out"))
    return rows


def part_speed() -> list[Row]:
    # other noise than above, so that nothing is remembered
    small, short, long = default_delta(50), range(1, 41), range(1, 1001, 50)
    runs: list[tuple[str, float, Sampling, range, float, Accountant, Adjacency]] = [
        ("q .5 of 50", 2.0641, poisson(50, 0.5), short, small, "pld", "zero-out"),
        ("q .5 of 50, safe cap", 2.0641, truncated(50, 0.5, safe_cap(50, 0.5)), short, small, "pld", "zero-out"),
        ("q .01 of 10^4", 1.0001, poisson(10_000, 0.01), long, 1e-5, "pld", "zero-out"),
        ("q .01 of 10^4, cap 150", 1.0001, truncated(10_000, 0.01, 150), long, 1e-5, "pld", "zero-out"),
        ("q .01 of 10^4, replace-one", 1.0001, poisson(10_000, 0.01), long, 1e-5, "pld", "replace-one"),
        ("q .01 of 10^4, RDP", 1.0001, poisson(10_000, 0.01), long, 1e-5, "rdp", "zero-out"),
        ("100 of 10^4, RDP", 1.0001, fixed(10_000, 100), long, 1e-5, "rdp", "replace-one"),
        ("everyone, 50", 8.0001, everyone(50), short, small, "pld", "zero-out"),
    ]  # fmt: skip
    rows: list[Row] = []
    for name, z, sampling, rounds, delta, by, side in runs:
        answers = [timed(spent, z, sampling, k, delta, by, side) for k in rounds]
        later = [s for _, s in answers[1:]]
        rows.append({"part": "speed", "row": f"epsilon, {name}, rounds {rounds[0]}-{rounds[-1]}", "expected": None,
                     "got": answers[-1][0], "off": None, "seconds": answers[0][1],
                     "next": statistics.median(later), "worst": max(later)})  # fmt: skip
    wanted: list[tuple[str, float, int, Sampling, float, Accountant]] = [
        ("q .5 of 50, 40 rounds", 8.0, 40, poisson(50, 0.5), default_delta(50), "pld"),
        ("q .5 of 50, safe cap, 40 rounds", 8.0, 40, truncated(50, 0.5, safe_cap(50, 0.5)), default_delta(50), "pld"),
        ("q .01 of 10^4, cap 150, 1000 rounds", 2.0, 1000, truncated(10_000, 0.01, 150), 1e-5, "pld"),
        ("10 of 100, 20 rounds", 8.0, 20, fixed(100, 10), 1e-3, "rdp"),
    ]
    for name, target, count, sampling, delta, by in wanted:
        rows.append(row("speed", f"noise, {name}", None, noise_for, target, count, sampling, delta, by))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["epsilon", "noise", "sampling", "speed"], action="append")
    parser.add_argument("--library", action="store_true", help="ask dp-accounting's PLD accountant too (a minute)")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    spent(9.0, poisson(10, 0.5), 1, 1e-2, "pld", "zero-out")  # imports are not what is measured
    spent(9.0, poisson(10, 0.5), 1, 1e-2, "rdp", "zero-out")
    parts: dict[str, Callable[[], list[Row]]] = {
        "epsilon": lambda: part_epsilon(asked.library), "noise": part_noise, "sampling": part_sampling,
        "speed": part_speed,
    }  # fmt: skip
    rows = [r for name in asked.part or parts for r in parts[name]()]
    if asked.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'':56} {'expected':>10} {'got':>10} {'off':>9} {'seconds':>8}")
    for r in rows:
        wanted = f"{r['expected']:10.6g}" if r["expected"] is not None else f"{'':10}"
        off = f"{r['off']:+9.1e}" if r["off"] is not None else f"{'':9}"
        more = ""
        if "below_rdp" in r:
            more += "" if r["below_rdp"] else "  ABOVE RDP"
        if "library" in r:
            more += f"  dp-accounting {r['off_library']:+.1e} in {r['library_seconds']:.2f} s"
        if "reached" in r:
            more += f"  reaches {r['reached']:.6f}"
        if "next" in r:
            more += f"  next {r['next']:.3f}, worst {r['worst']:.3f}"
        print(f"{r['row']:56} {wanted} {r['got']:10.6f} {off} {r['seconds']:8.3f}{more}")


if __name__ == "__main__":
    main()
