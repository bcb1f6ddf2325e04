"""How numbers, names and events are written: one formatter for each kind, used by all that people read.

Terminal, report, card and `print(event)` take their words from here, so a figure never has two spellings.
Nothing here imports more than the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from manyloom.core import tuning
from manyloom.core.layout import bar as bar
from manyloom.core.layout import columns as columns
from manyloom.core.layout import field as field
from manyloom.core.layout import sparkline as sparkline
from manyloom.core.names import cut as cut
from manyloom.core.names import printable as printable
from manyloom.core.names import slug as slug
from manyloom.core.numbers import UNKNOWN as UNKNOWN
from manyloom.core.numbers import about as about
from manyloom.core.numbers import beside as beside
from manyloom.core.numbers import clock as clock
from manyloom.core.numbers import count as count
from manyloom.core.numbers import digest as digest
from manyloom.core.numbers import epsilon as epsilon
from manyloom.core.numbers import factor as factor
from manyloom.core.numbers import finite as finite
from manyloom.core.numbers import number as number
from manyloom.core.numbers import percent as percent
from manyloom.core.numbers import seconds as seconds
from manyloom.core.numbers import short as short
from manyloom.core.numbers import signed as signed
from manyloom.core.numbers import size as size

Event = Mapping[str, Any]
"""One event of a run, as `events.jsonl` holds it."""

_LABELS = {"auc": "AUC", "f1": "F1", "rmse": "RMSE", "mae": "MAE", "r2": "R²", "token_accuracy": "token accuracy"}
_ALGORITHMS = {
    "fedavg": "FedAvg",
    "fedprox": "FedProx",
    "scaffold": "SCAFFOLD",
    "fedavgm": "FedAvgM",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "fedadagrad": "FedAdagrad",
    "split-learning": "split learning",
}
LOWER_IS_BETTER = frozenset({"loss", "rmse", "mae", "mse", "perplexity"})
"""Metrics of which less is better."""


# ---- words


def plural(n: float, words: Sequence[str]) -> str:
    """A count with its word; `words` is (singular, plural).

    >>> plural(1, ("hospital", "hospitals")), plural(4812, ("row", "rows"))
    ('1 hospital', '4 812 rows')
    """
    return f"{count(n)} {words[0] if n == 1 else words[1]}"


def listed(items: Iterable[str], word: str = "and", most: int = 6) -> str:
    """Names in a sentence.

    >>> listed(["a", "b", "c"]), listed("abcdefgh", most=3)
    ('a, b and c', 'a, b, c and 5 more')
    """
    names = list(items)
    if len(names) > most:
        return f"{', '.join(names[:most])} {word} {len(names) - most} more"
    return f" {word} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def metric(name: str) -> str:
    """A metric's name in a sentence.

    >>> metric("auc"), metric("accuracy"), metric("r2")
    ('AUC', 'accuracy', 'R²')
    """
    return _LABELS.get(name, name)


def algorithm(name: object) -> str:
    """An algorithm's name as its paper writes it.

    >>> algorithm("fedavg"), algorithm("my_module:mine")
    ('FedAvg', 'my_module:mine')
    """
    return _ALGORITHMS.get(str(name), str(name))


def delta(value: object) -> str:
    """Delta to three digits, never rounded down.

    >>> delta(1e-5), delta(1.5136e-5), delta(None)
    ('1e-05', '1.52e-05', 'n/a')
    """
    v = finite(value)
    if v is None or v <= 0:
        return UNKNOWN
    said = f"{v:.3g}"
    return said if float(said) >= v * (1 - 1e-9) else f"{v + 10.0 ** (math.floor(math.log10(v)) - 2):.3g}"


def metrics_line(metrics: Mapping[str, object], watch: str | None = None, most: int = 3) -> str:
    """Metrics in a sentence, the watched one first.

    >>> metrics_line({"loss": 0.413, "accuracy": 0.83, "auc": 0.8891}, "auc")
    'AUC 0.889, accuracy 0.830, loss 0.413'
    """
    return ", ".join(f"{metric(k)} {number(metrics[k])}" for k in ordered(metrics, watch)[:most])


def ordered(metrics: Iterable[str], watch: str | None = None) -> list[str]:
    """Metric names as they are shown: the watched one, the others, loss last.

    >>> ordered(["loss", "accuracy", "auc"], "auc")
    ['auc', 'accuracy', 'loss']
    """
    return sorted(metrics, key=lambda name: (name != watch, name == "loss"))


# ---- events


def plain_line(event: Event) -> str | None:
    """One event as plain mode prints it, or None for those it passes over.

    The first word is fixed, the rest is `key value` pairs, so that `grep ^round` and `awk` work. What an
    event does not carry itself (how many rounds there are, a client's name) may stand in it under `rounds`,
    `metrics`, `asked`, `epsilon`, `leak` and `name`; otherwise it is left out.

    >>> plain_line({"type": "round_done", "round": 12, "rounds": 30, "metrics": {"loss": 0.412, "auc": 0.871},
    ...             "asked": 10, "back": 10, "seconds": 0.11, "bytes_up": 4560})
    'round    12/30 loss 0.412 auc 0.871 clients 10/10 up 4.6kB 0.11s'
    """
    write = _LINES.get(str(event.get("type")))
    return None if write is None else write(event)


def event_line(event: Event) -> str:
    """One event as a line, whatever its type: what `print(event)` shows.

    >>> event_line({"type": "phase", "round": 1, "phase": "train"})
    'phase    1 train'
    """
    line = plain_line(event)
    if line is not None:
        return line
    kind = str(event.get("type", "event"))
    if kind in ("released", "leak"):
        return _released(event) if kind == "released" else _leak(event)
    if kind in tuning.LINES:
        return tuning.LINES[kind](event)
    word, rest = _WORDS.get(kind, (kind[:8], ()))
    told = [_shown(event[k]) for k in rest if event.get(k) is not None]
    return " ".join([word.ljust(8), *([_at(event)] if "round" in event else []), *told]).rstrip()


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value).items()
        return " ".join(f"{k} {number(v)}" for k, v in pairs if finite(v) is not None)
    if isinstance(value, (list, tuple)):
        return f"{len(cast('Sequence[object]', value))} clients"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def _at(event: Event) -> str:
    done, of = event.get("round"), event.get("rounds")
    return f"{done}/{of}" if of else str(done)


def _who(event: Event) -> str:
    name = event.get("name")
    return slug(name) if isinstance(name, str) else str(event.get("client", "?"))


def _pairs(pairs: Mapping[str, object]) -> list[str]:
    return [f"{k}={v}" for k, v in pairs.items() if v is not None]


def population(started: Event) -> int:
    """How many clients a run has, of its `run_started`."""
    summary: Mapping[str, Any] = started.get("population") or {}
    return len(started.get("clients") or ()) or int(summary.get("clients", 0))


def _run_started(e: Event) -> str:
    names = [str(e[k]) for k in ("run", "algorithm") if e.get(k)]
    told = _pairs({"clients": population(e), **{k: e.get(k) for k in ("rounds", "seed", "runtime")}})
    return " ".join(["run     ", *names, *told])


def _planned(e: Event) -> str:
    privacy: Mapping[str, object] = e.get("privacy") or {}
    took = finite(e.get("seconds_estimate"))
    told = [] if took is None else [f"seconds={took:.2g}" if took < 10 else f"seconds={took:.0f}"]
    told += _pairs({"bytes_up_round": e.get("bytes_up_round")})
    told += [f"epsilon={v:.3f}" for v in [finite(privacy.get("epsilon"))] if v is not None]
    told += [f"budget={v:.3f}" for v in [finite(privacy.get("budget"))] if v is not None]
    secure: Mapping[str, object] = e.get("secure") or {}
    told += [f"secure={secure.get('mode')}"] if secure else []
    lines = [" ".join(["plan    ", *told[n:]]).rstrip() for n in (0, took is not None)]
    return lines[0] if len(lines[0]) <= 80 else lines[1]


def _aligned(e: Event) -> str:
    """What the parties have in common; in figures that `awk` reads."""
    sizes: Mapping[str, Any] = e.get("parties") or {}
    told = [f"{slug(name)}={n}" for name, n in sizes.items()]
    told += _pairs({"common": e.get("common")})
    moved = (e.get("bytes_up") or 0) + (e.get("bytes_down") or 0)
    told += [f"moved {size(moved).replace(' ', '')}"] if moved else []
    told += [seconds(e["seconds"], 2).replace(" ", "")] if finite(e.get("seconds")) is not None else []
    return " ".join(["aligned ", *told])


def _leak(e: Event) -> str:
    """How well labels can be read off a party's gradients: AUCs, the mean and the worst batch of twenty."""
    told = [f"{kind} {number(e.get(f'{kind}_mean'))}/{number(e.get(f'{kind}_q95'))}" for kind in ("norm", "cosine")]
    return " ".join(["leak    ", _at(e), slug(str(e.get("party"))), *told, str(e.get("defence"))])


def _round_done(e: Event) -> str:
    metrics: Mapping[str, object] = e.get("metrics") or {}
    names = [*(["loss"] if "loss" in metrics else []), *ordered((m for m in metrics if m != "loss"), e.get("watch"))]
    shown = [f"{k} {number(metrics[k]).replace(' ', '')}" for k in names[:3]]
    told: list[str] = []
    back, asked = e.get("back"), e.get("asked")
    if isinstance(back, int):
        told.append(f"clients {back}/{asked if isinstance(asked, int) else back + int(e.get('lost') or 0)}")
    if e.get("epsilon") is not None:
        told.append(f"eps {epsilon(e['epsilon'])}")
    if e.get("leak") is not None:
        told.append(f"leak {number(e['leak'])}")
    if e.get("bytes_up") is not None:
        channel: Mapping[str, Any] = e.get("secure") or {}
        told.append("up " + size(e["bytes_up"] + (channel.get("up") or 0)).replace(" ", ""))
    if e.get("seconds") is not None:
        told.append(seconds(e["seconds"], 2).replace(" ", ""))
    lines = [" ".join(["round   ", _at(e), *shown[:n], *told]) for n in (3, 2)]
    return next((line for line in lines if len(line) <= 80), lines[-1])


def _released(e: Event) -> str:
    """A record of the ledger: what was released, and what is spent with it."""
    told = ["+".join(slug(w) for w in str(e.get("what") or "update").split(","))]
    told += [f"attempt {e['attempt']}"] if e.get("attempt") else []
    if e.get("epsilon") is not None:
        of = f"/{epsilon(e['budget'])}" if e.get("budget") is not None else ""
        told.append(f"eps {epsilon(e['epsilon'])}{of}")
    told += [f"delta {delta(e['delta'])}"] if e.get("delta") is not None else []
    keys = (("noise", "noise_multiplier"), ("clip", "clip"))
    told += [f"{name} {v:.4g}" for name, key in keys if (v := finite(e.get(key))) is not None]
    return " ".join(["released", _at(e), *told])


def _why(e: Event) -> str:
    return printable(str(e.get("text") or e.get("reason")))


def _note(e: Event) -> str:
    return f"{'warning' if e.get('level') == 'warning' else 'note':8} {printable(str(e.get('text', '')))}"


def _rejected(e: Event) -> str:
    return f"rejected {_at(e)} {e.get('metric')} {number(e.get('before'))} to {number(e.get('after'))}"


def _run_done(e: Event) -> str:
    final: Mapping[str, object] = e.get("final") or {}
    told = _pairs({"rounds": e.get("rounds")})
    told += [f"{k}={number(v).replace(' ', '')}" for k, v in final.items() if finite(v) is not None]
    told += [f"seconds={e['seconds']:.1f}"] if finite(e.get("seconds")) is not None else []
    told += [f"reason={slug(str(e['reason']))}"] if e.get("reason") else []
    return " ".join([str(e.get("status", "done")).ljust(8), *told]).rstrip()


_LINES: dict[str, Callable[[Event], str]] = {
    "run_started": _run_started,
    "planned": _planned,
    "aligned": _aligned,
    "adapter": tuning.adapter,
    "statistics": lambda e: f"stats    columns={e.get('columns')} bytes_up={e.get('bytes_up')}",
    "round_done": _round_done,
    "client_lost": lambda e: f"lost     {_at(e)} {_who(e)}: {_why(e)}",
    "client_filtered": lambda e: f"filtered {_at(e)} {_who(e)}: {e.get('rule')}",
    "client_skipped": lambda e: f"skipped  {_who(e)}: {_why(e)}",
    "round_failed": lambda e: f"failed   {_at(e)} attempt {e.get('attempt', 0)}: {_why(e)}",
    "round_rejected": _rejected,
    "resumed": lambda e: f"resumed  from round {e.get('from_round')}",
    "note": _note,
    "run_done": _run_done,
}
_WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "round_started": ("start", ("cohort",)),
    "phase": ("phase", ("phase",)),
    "client_done": ("client", ("client", "samples", "seconds")),
    "evaluated": ("judged", ("split", "metrics")),
    "saved": ("saved", ("path",)),
    "baseline": ("baseline", ("kind", "metrics")),
    "missing": ("missing", ()),
    "cohort": ("cohort", ()),
}
