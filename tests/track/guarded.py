"""Event streams of private and secure runs, made from the open ones: what such runs tell, and what they don't."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from . import streams

READERS = "whoever sees only the released models and the metrics in the ledger"
WATCHERS = "whoever also knows which clients took part in which round"
SUM = {"mode": "active", "fidelity": "full", "clients": 4, "least": 3, "neighbours": 3, "threshold": 3, "gamma": "0.1",
       "delta_drop": "0.1", "kappa": 80, "scale": 2**18, "range": 8.0, "overhead_up": 1049}  # fmt: skip
TOML = {
    "heart": streams.TOML + "\n[secure]\n",
    "mnist": streams.TOML.replace("heart-disease", "mnist").replace("heart", "mnist") + "\n[privacy]\nepsilon = 8.0\n",
    "writers": streams.TOML.replace("heart", "writers") + "\n[privacy]\nepsilon = 8.0\nadaptive = true\n\n[secure]\n",
    "open": streams.TOML + "\n[privacy]\nnoise_multiplier = 1.0\n",
}
TOML["stop"] = TOML["mnist"]


def spent(r: int, rounds: int, whole: float) -> float:
    """Epsilon after r of so many rounds: not an accountant's, but as round."""
    return whole * (0.12 + 0.88 * math.sqrt(r / rounds))


def guarantee(
    *, rounds: int, of: int, whole: float, budget: float | None, secure: bool, adaptive: bool = False,
    sampling: str = "Poisson, q = 0.1, of 1000 clients", amplified: bool = True, population: int = 1000,
) -> dict[str, Any]:  # fmt: skip
    """What `planned.privacy` and `run_done.privacy` are, for `rounds` of `of` rounds."""
    z, clip = (1.04412, 0.1) if adaptive else (0.71275, 0.5)
    hub = "the exact sum of a round" if secure else "each client's clipped update"
    mechanism = f"Gaussian, rounded, on the sum of integer updates (clip {clip:g}, noise multiplier {z:g})"
    main = {
        "epsilon": spent(rounds, of, whole), "delta": population**-1.1, "unit": "client", "adjacency": "zero-out",
        "mechanism": mechanism + ("; clip follows the 0.5 quantile, its bit noised too" if adaptive else ""),
        "sampling": sampling, "accountant": "PLD (dp-accounting, pld-1e-4)", "against": READERS,
        "assumes": [
            "nobody but the server learns which clients take part in which round",
            f"the hub sees {hub}, adds the noise as said and keeps both to itself",
            f"each client clips as said; {population} clients, a number that is public",
            "whether a round fails, is tried again or runs late does not depend on one client's data",
        ],
        "uncovered": [
            "metrics on held-out images, over all clients together, after each evaluation",
            "sizes of the clients, who took part when, bytes and seconds: the operator's to keep",
            "what was learned from earlier runs when clip, lr and the like were chosen",
        ],
    }  # fmt: skip
    if secure:
        main["assumes"].append("of every cohort at most a share of 0.1 works together with the hub (active mode)")
    other = {**main, "epsilon": 4.2 * main["epsilon"], "sampling": f"{rounds} releases without amplification",
             "accountant": "exact Gaussian composition", "against": WATCHERS,
             "assumes": main["assumes"][1:]}  # fmt: skip
    more = {"budget": budget, "noise_multiplier": z, "clip": clip, "adaptive": adaptive}
    if not amplified:
        return {**other, "sampling": f"all {population} clients every round, no amplification", "others": [], **more}
    return {**main, "others": [other], **more}


def run(kind: str = "heart", *, until: int | None = None, release: bool = False) -> Iterator[dict[str, Any]]:
    """A stream: "heart" secure alone, "mnist" private, "writers" private, secure and adaptive, "stop" at the budget,
    "open" private without a budget where everybody takes part; cut after a round; `release` of client metrics."""
    made = {"heart": _heart, "mnist": _mnist, "writers": _writers, "open": _open, "stop": _stop}[kind]()
    for seq, event in enumerate(made, 1):
        if until is not None and (event.get("round", 0) > until or event["type"] == "run_done"):
            break
        yield {**(event if release else _kept(event)), "seq": seq}


def _kept(e: dict[str, Any]) -> dict[str, Any]:
    """An event without what does not leave a client."""
    if e["type"] == "client_done":
        return {**e, "samples": None, "steps": None, "loss": None}
    if e["type"] == "evaluated":
        return {**e, "clients": {}, "spread": {}, "positives": None}
    return e


def _heart() -> Iterator[dict[str, Any]]:
    for e in streams.run(lost=[(12, 2)]):
        if e["type"] == "planned":
            e |= {"bytes_up_round": 4 * (56 + 1049), "bytes_down_round": 4 * (56 + 1180), "secure": SUM}
        if e["type"] == "round_done":
            e["phases"] = {"train": 0.03, "secure_sum": 0.06, "send": 0.004, "wait": e["phases"]["wait"]}
            e |= {"secure": {"up": 1049 * e["back"], "down": 1180 * e["back"]}, "loss_train": 0.41,
                  "guard": {"clip": None, "next_clip": None, "unclipped": None, "cut": int(e["round"] == 3),
                            "not_finite": 0}}  # fmt: skip
        yield e


MNIST = {"client_word": ["client", "clients"], "row_word": ["image", "images"], "watch": "accuracy",
         "metrics": ["accuracy"], "model": {"name": "cnn", "parameters": 26_010},
         "classes": [str(k) for k in range(10)],
         "source": {"name": "mnist", "title": "MNIST", "licence": "CC BY-SA 3.0"}}  # fmt: skip


def _private(
    name: str, rounds: int, of: int, whole: float, budget: float | None, *, secure: bool = False,
    adaptive: bool = False, end: tuple[str, str | None] = ("done", None), amplified: bool = True,
    names: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:  # fmt: skip
    sampling = "Poisson, q = 0.1, of 1000 clients" + (", at most 148" if secure else "")
    terms = {"of": of, "whole": whole, "budget": budget, "secure": secure, "adaptive": adaptive, "sampling": sampling,
             "amplified": amplified, "population": len(names) or 1000}  # fmt: skip
    clip = 0.1 if adaptive else 0.5
    crowd = {"clients": None, "population": {"clients": 1000, "train": 60_000, "test": 10_000,
                                             "sizes": [8, 41, 57, 74, 190]}}  # fmt: skip
    for e in streams.run(names or ["x"], rounds, planned=of, lost=(), baselines=False, name=name, end=end[0],
                         reason=end[1], **MNIST):  # fmt: skip
        r = e.get("round", 0)
        if e["type"] == "run_started" and not names:
            e |= crowd
        if e["type"] in ("statistics", "missing") or e.get("code") == "column-empty":
            continue
        back = 100 + round(17 * streams.bend(r, 2)) if not names else len(names)
        if e["type"] == "planned":
            e |= {"privacy": guarantee(rounds=of, **terms), "bytes_up_round": 100 * 104_040,
                  "bytes_down_round": 100 * 104_040,
                  "secure": SUM | {"clients": 148, "least": 60, "neighbours": 62, "threshold": 34, "range": None}
                  if secure else None}  # fmt: skip
        if e["type"] == "round_started" and not names:
            e |= {"cohort": sorted({(37 * i + 11 * r) % 1000 for i in range(back)}), "asked": back}
        if e["type"] == "evaluated":
            metrics = {"loss": 2.3 * math.exp(-r / 14) + 0.21, "accuracy": 0.1 + 0.86 * (1 - math.exp(-r / 9))}
            e |= {"metrics": metrics, "rows": 10_000}
        if e["type"] == "round_done":
            z = 1.04412 if adaptive else 0.71275
            yield {"v": 1, "seq": 0, "t": e["t"], "type": "released", "round": r, "attempt": 0, "budget": budget,
                   "what": "update, clip bit" if adaptive else "update", "epsilon": spent(r, of, whole),
                   "delta": 1000**-1.1, "noise_multiplier": z, "clip": clip, "sampling": sampling}  # fmt: skip
            share = 0.5 + 0.3 * math.exp(-r / 6) + 0.02 * streams.bend(r, 8) if adaptive else None
            after = clip * math.exp(-0.2 * (share - 0.5) * 4) if share is not None else None
            e |= {"back": back - (r % 9 == 4), "lost": int(r % 9 == 4), "loss_train": None, "bytes_up": back * 104_040,
                  "bytes_down": back * 104_040, "secure": {"up": back * 5210, "down": back * 6114} if secure else None,
                  "guard": {"clip": clip, "next_clip": after, "unclipped": share, "cut": 0,
                            "not_finite": 0}}  # fmt: skip
            clip = after or clip
        if e["type"] == "run_done":
            final = {"loss": 2.3 * math.exp(-rounds / 14) + 0.21, "accuracy": 0.1 + 0.86 * (1 - math.exp(-rounds / 9))}
            e |= {"final": final, "privacy": guarantee(rounds=rounds, **terms)}
        yield e


def _mnist() -> Iterator[dict[str, Any]]:
    return _private("mnist", 100, 100, 7.9863, 8.0)


def _writers() -> Iterator[dict[str, Any]]:
    return _private("writers", 60, 60, 7.9921, 8.0, secure=True, adaptive=True)


def _open() -> Iterator[dict[str, Any]]:
    return _private("open", 20, 20, 3.3, None, amplified=False, names=streams.HOSPITALS)


def _stop() -> Iterator[dict[str, Any]]:
    reason = "privacy budget reached: epsilon 7.9000 of 8 spent, the next round would make it 8.1000; to go on, raise "
    return _private("mnist", 71, 100, 9.162, 8.0, end=("stopped", f"{reason}epsilon in [privacy], or add noise"))
