#!/usr/bin/env python3
"""Writes docs/job.md and docs/algorithms.md from signatures and docstrings, so that they can't drift.

scripts/make_docs.py            write them
scripts/make_docs.py --check    fail if one is another than what would be written
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from manyloom.aggregate import ATTACKS, RULES  # noqa: E402
from manyloom.algorithms import RECIPES  # noqa: E402
from manyloom.algorithms.recipe import CARDS, Card  # noqa: E402
from manyloom.core.validate import show  # noqa: E402
from manyloom.job import later, reference  # noqa: E402
from manyloom.job.reference import Row  # noqa: E402
from manyloom.job.tables import TABLES, Table  # noqa: E402
from manyloom.job.vertical.tables import VERTICAL  # noqa: E402
from manyloom.llm.tuning import tuning  # noqa: E402
from manyloom.server import SERVERS  # noqa: E402
from manyloom.transforms import clip, eden, error_feedback, qsgd, random_k, top_k, uniform  # noqa: E402

TARGET = ROOT / "docs" / "job.md"
ALGORITHMS = ROOT / "docs" / "algorithms.md"
METHODS = """<!-- Made by scripts/make_docs.py from docstrings: change one and run it again. -->

# Algorithms, rules, messages, attacks

What each does, in its paper's symbols: theta [d] is the model, w a client's, u = w - theta its update, n_i its rows, m
clients a round, eta_l and eta_g the local and the server's step size. Which one to take: [README](../README.md). Keys
and defaults: [job.md](job.md); measured: [benchmarks.md](benchmarks.md).
"""
HEAD = """<!-- Made by scripts/make_docs.py from the signatures of the code: change a docstring and run it again. -->

# The job file

A job is a TOML file of flat tables. A key is the argument of the same name of a Python factory:
`ml.algorithms.fedprox(mu=0.1)` is `[algorithm] name = "fedprox"`, `mu = 0.1`.

```toml
{example}```

- Names and values are hyphenated (`heart-disease`), keys have underscores (`batch_size`).
- **int or share**: `10` is ten, `0.1` a tenth (rounded up), `1.0` all, `1` one.
- A default in *italics* follows from the rest of the job. The run's own `job.toml` has every default filled in.
- An unknown table or key is an error that names the nearest one. A given value that contradicts another is an error;
  nothing is overruled in silence.
- `[data] source`, `[partition] scheme`, `[model] name` and `[algorithm] name` also take `module:function`, of a module
  beside the job file, in a folder above it, or installed; further keys of the table are the function's arguments.
- On the command line: `manyloom run JOB.toml algorithm.lr=0.05 job.rounds=10`.
- The job's **digest** is taken over all tables, defaults filled in, but not `[runtime]`, `[card]` and `data_dir`.

The tables: {tables}. Those of a [vertical job](#vertical-jobs): {vertical}.
"""
PARTIES = """## Vertical jobs

With `kind = "vertical"` in `[job]` the parties know other columns of the same people: one has the label, the others
have features. A round is a pass over the rows that all of them share. `[parties]`, `[align]` and `[cut]` are added,
and `[data]`, `[model]`, `[algorithm]` and `[runtime]` take other keys than above.

```toml
{example}```
"""
EXAMPLE = """\
[job]
kind = "vertical"
rounds = 8

[parties]
bank = "bank.csv"
shop = "shop.csv"

[data]
source = "csv"
label = "y"
ids = ["id"]
id_types = ["int"]

[model]
name = "split-mlp"
"""
TITLES = {
    "job": "who learns, how long",
    "data": "where the rows come from",
    "partition": "how rows are dealt to clients",
    "model": "what is trained",
    "algorithm": "how clients learn",
    "server": "what the server does with the mean",
    "uplink": "what happens to an update on its way up",
    "downlink": "what happens to the model on its way down",
    "lora": "adapters of a language model",
    "aggregate": "how updates become one",
    "validation": "rows of the hub's own, by which a round is judged",
    "attack": "clients that lie, in a simulation",
    "privacy": "what is promised of one client; its presence switches it on",
    "secure": "sums that the hub can't take apart; its presence switches it on",
    "simulate": "faults, in a simulation",
    "runtime": "where and how it runs; not in the digest",
    "card": "what only a person knows; not in the digest",
    "parties": "who has which file",
    "align": "how rows are matched",
    "cut": "what happens to what crosses the cut",
}


def main(arguments: list[str]) -> int:
    stale = 0
    for target, lines in ((TARGET, page()), (ALGORITHMS, methods())):
        text = "\n".join(lines) + "\n"
        name = target.relative_to(ROOT)
        if "--check" not in arguments:
            target.write_text(text, "utf-8")
            print(f"wrote    {name}")
        elif not target.is_file() or target.read_text("utf-8") != text:
            print(f"error: {name} is stale\n  mend   scripts/make_docs.py", file=sys.stderr)
            stale = 1
    return stale


def methods() -> Iterator[str]:
    """The page of algorithms: what each does, as its own docstrings say it."""
    yield METHODS
    parts = (clip, top_k, random_k, error_feedback, qsgd, eden, uniform)
    yield from _about("Algorithms", "`[algorithm] name`", {n: [f, *_behind(f)] for n, f in RECIPES.items()}, CARDS)
    yield from _about("Server steps", "`[server] name`: what the hub does with the mean", _each(SERVERS))
    yield from _about("Rules", "`[aggregate] rule`: against clients that lie", _each(RULES))
    messages = _each({f.__name__: f for f in parts})
    yield from _about("Messages", "keys of `[uplink]` and `[downlink]`, in this order", messages)
    yield from _about("Attacks", "`[attack] name`, in a simulation", _each(ATTACKS))
    yield from _about("Adapters", "`[lora] combine`", {"combine": [tuning]})


def _each(found: Mapping[str, Callable[..., object]]) -> dict[str, list[Callable[..., object]]]:
    return {name: [f] for name, f in found.items()}


def _behind(recipe: Callable[..., object]) -> list[Callable[..., object]]:
    """The client's half and the server's own step of a recipe: where its formula stands."""
    rooms = ("manyloom.work.", "manyloom.server.")
    plain = ("manyloom.work.local", "manyloom.server.sgd")
    known = vars(sys.modules[recipe.__module__]).values()
    return [f for f in known if inspect.isfunction(f) and f.__module__.startswith(rooms) and f.__module__ not in plain]


def _about(
    title: str, where: str, found: Mapping[str, list[Callable[..., object]]], cards: Mapping[str, Card] | None = None
) -> Iterator[str]:
    yield from (f"## {title}", "", f"{where}.", "")
    for name, functions in found.items():
        yield from (f"### {name}", "")
        if cards is not None:
            card = cards[name]
            keeps = "" if card.state == "no" else f" Keeps state at the {card.state}."
            yield from (f"For: {card.use}.{keeps} {card.paper}.", "")
        for f in functions:
            yield from _words(inspect.cleandoc(f.__doc__ or ""))


def _words(text: str) -> Iterator[str]:
    """A docstring without arguments, errors and examples; indented formulas as code."""
    for part in text.split("\n\n"):
        if part.startswith((">>>", "Args:", "Raises:", "Returns:")):
            continue
        code = all(line.startswith("    ") for line in part.splitlines())
        yield from (["```text", textwrap.dedent(part), "```"] if code else [part.replace("*", "\\*")])
        yield ""


def page() -> Iterator[str]:
    example = (ROOT / "src/manyloom/jobs/heart.toml").read_text("utf-8")
    named = ", ".join(f"[`[{t}]`](#{anchor(t)})" for t in TABLES)
    theirs = [t for t in VERTICAL.tables.values() if t.name != "card"]
    parties = ", ".join(f"[`[{t.name}]`](#{anchor(t.name, t.name in TABLES)})" for t in theirs)
    yield HEAD.format(example=example, tables=named, vertical=parties)
    for table in TABLES.values():
        yield from section(table)
    yield PARTIES.format(example=EXAMPLE)
    for table in theirs:
        yield from section(table, table.name in TABLES)
    yield "## Not in this version"
    yield ""
    yield "These are part of the file's format and refused by name, never ignored: "
    yield ", ".join(f"`[{t}]`" for t in later.TABLES) + "; and" if later.TABLES else ""
    yield ""
    for (table, key), values in later.VALUES.items():
        yield f"- `[{table}] {key}`: " + ", ".join(f"`{show(v)}`" for v in values)
    for table, keys in later.KEYS.items():
        yield f"- `[{table}]`: " + ", ".join(f"`{k}`" for k in keys)


def title(table: str, again: bool = False) -> str:
    """A table's heading; `again`: of a vertical job, where another of this name stands above."""
    return f"[{table}] of a vertical job" if again else f"[{table}] {TITLES[table]}"


def anchor(table: str, again: bool = False) -> str:
    """The anchor that Markdown readers make of a table's heading."""
    return title(table, again).translate(str.maketrans(" ", "-", "[],;'"))


def section(table: Table, again: bool = False) -> Iterator[str]:
    yield f"## {title(table.name, again)}"
    yield ""
    if table.free is not None:
        yield "| key | type | default | rule | meaning |"
        yield "|---|---|---|---|---|"
        yield ("| NAME | text | none | two at least | a party's file, CSV or Parquet, relative to the job file; "
               "whose file has `label` is the label party |")  # fmt: skip
        yield ""
        return
    yield from grid(reference.rows(table))
    for name in table.names:
        yield f"### {name}"
        yield ""
        yield reference.told(table, name)
        yield ""
        if own := reference.rows(table, name):
            yield from grid(own)
        if table.name == "algorithm" and not again and CARDS[name].server != "sgd":
            yield f"Server step by default: `{CARDS[name].server}`."
            yield ""
        if table.name == "algorithm" and not again and (other := reference.deviations(name)):
            yield "Other defaults than above: " + ", ".join(f"`{k} = {show(v)}`" for k, v in other.items()) + "."
            yield ""


def grid(found: list[Row]) -> Iterator[str]:
    yield "| key | type | default | rule | meaning |"
    yield "|---|---|---|---|---|"
    for row in found:
        default = row.default if row.default in ("required", "none") else f"`{row.default}`"
        if row.default in reference.FOLLOWS.values():
            default = f"*{row.default}*"
        cells = (f"`{row.key}`", row.type, default, row.rule, row.meaning)
        yield "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
    yield ""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
