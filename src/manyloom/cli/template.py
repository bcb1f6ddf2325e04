"""A job file for people: every key with its value, and one line that says why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from manyloom.job.tables import TABLES, Table, chosen
from manyloom.job.toml import value_text

AT = 34  # the column in which remarks begin
WIDTH = 100
Tables = Mapping[str, Mapping[str, object]]
WHY = {
    "job": "who learns how long",
    "data": "the rows, and what is held out to judge the model",
    "partition": "which rows belong to which client",
    "model": "what is trained",
    "algorithm": "what a client does in a round",
    "server": "what the server does with the mean of the updates",
    "aggregate": "how updates become one",
    "simulate": "faults, to see whether the run survives them; in a simulation only",
    "runtime": "where and how fast; never changes the result, and is not part of the job's digest",
    "card": "what only a person knows; stands in the model card",
}


def commented(tables: Tables, head: str = "") -> str:
    """The tables as TOML; keys that are not set stand there too, as remarks.

    Args:
        tables: of a job, defaults filled in.
        head: remarks for the first lines.
    """
    blocks = [textwrap.indent(head.strip(), "# ")] if head else []
    for name, table in TABLES.items():
        if name in tables or name in ("card", "simulate"):
            blocks.append(_block(table, tables.get(name, {}), tables))
    return "\n\n".join(blocks) + "\n"


def _block(table: Table, given: Mapping[str, object], tables: Tables) -> str:
    name = chosen(table, tables) if table.choice else None
    known = table.known(name if name is not None and ":" not in name else None) if table.common() or name else {}
    lines = [_remarked(f"[{table.name}]", WHY.get(table.name, ""))]
    for key in [*given, *(k for k in known if k not in given)]:
        why = ", ".join(table.names) if key == table.choice else (known[key].meaning if key in known else "")
        code = f"{key} = {value_text(given[key])}" if key in given else f"# {key} = ..."
        lines.append(_remarked(code, why.rstrip(".")))
    return "\n".join(lines)


def _remarked(code: str, why: str) -> str:
    """Code with its remark behind it, further lines below."""
    if not why:
        return code
    rows = textwrap.wrap(why, WIDTH - AT - 2, break_long_words=False, break_on_hyphens=False)
    first = f"{code.ljust(AT)}# {rows[0]}" if len(code) < AT else f"{code}  # {rows[0]}"
    return "\n".join([first, *(" " * AT + "# " + row for row in rows[1:])])
