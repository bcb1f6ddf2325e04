"""What the job file's specification has and this version doesn't: told by name, never ignored.

Remove an entry when its part exists; a test finds those that were forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from manyloom.core.errors import Problem
from manyloom.core.validate import show

# table -> what a run without it is
TABLES: Mapping[str, str] = {}
# table -> key -> the value that means what this version does anyway (None: there is none)
KEYS: Mapping[str, Mapping[str, object]] = {
    "runtime": {"workers": None, "policies": None},
}  # fmt: skip
# table, key -> values
VALUES: Mapping[tuple[str, str], Sequence[str]] = {
    ("runtime", "name"): ("ray", "flower"),
    ("runtime", "provider"): ("chain", "graph"),
}  # fmt: skip
# what to type where a required key is missing
EXAMPLES: Mapping[tuple[str, str], str] = {
    ("job", "rounds"): "add rounds = 20 to [job]",
    ("data", "source"): 'add source = "heart-disease" to [data]; all names: manyloom data',
    ("model", "name"): 'add name = "logistic" to [model]',
    ("partition", "scheme"): 'add [partition] with scheme = "dirichlet" and clients = 10',
    ("partition", "clients"): "add clients = 10 to [partition]",
    ("attack", "name"): 'add name = "ipm" to [attack]; all names: docs/job.md',
    ("attack", "clients"): "add clients = 0.2 to [attack]: a fifth of all lie",
    ("data", "path"): 'add path = "rows.csv" to [data]: a file, a folder or a glob',
    ("privacy", "clip"): "add clip = 1.0 to [privacy]: the L2 bound of an update",
    ("data", "ids"): 'add ids = ["id"] to [data]: the columns that say whose row it is',
    ("data", "id_types"): 'add id_types = ["int"] to [data]: what each id column is',
    ("data", "label"): 'add label = "outcome" to [data]: the column to predict',
}


def table(name: str) -> Problem:
    """A table of a later version."""
    return Problem("not-yet", f"[{name}] is not in this version", f"[{name}]",
                   mend=f"leave [{name}] out; {TABLES[name]}")  # fmt: skip


def neutral(table: str, key: str, value: object) -> bool:
    """Whether a later key has the value that means what happens anyway."""
    same = KEYS.get(table, {}).get(key)
    return same is not None and type(value) in (type(same), int) and value == same


def key(table: str, key: str, value: object) -> Problem | None:
    """A key of a later version."""
    if key not in KEYS.get(table, {}) or neutral(table, key, value):
        return None
    return Problem("not-yet", f"{key} in [{table}] is not in this version", f"{key} = {show(value)}",
                   mend=f"leave {key} out")  # fmt: skip


def value(table: str, key: str, value: object) -> Problem | None:
    """A value of a later version."""
    if not isinstance(value, str) or value not in VALUES.get((table, key), ()):
        return None
    return Problem("not-yet", f'{key} = "{value}" is not in this version', f"{key} = {show(value)} in [{table}]",
                   mend=f"leave {key} out")  # fmt: skip


def name(table: str, name: str, word: str, names: Sequence[str]) -> Problem | None:
    """A named part of a later version."""
    key = {"data": "source", "aggregate": "rule"}.get(table, "name")
    if name not in VALUES.get((table, key), ()):
        return None
    return Problem("not-yet", f'{word} "{name}" is not in this version', f"{key} = {show(name)} in [{table}]",
                   mend="this version has " + ", ".join(names))  # fmt: skip
