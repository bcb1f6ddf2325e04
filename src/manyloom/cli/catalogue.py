"""`algorithms` and `data`: what there is, and one of it in detail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from manyloom.cli.out import WIDTH, Out, fields, shown
from manyloom.core.errors import bad
from manyloom.core.text import columns, count, field, listed, plural
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.data.sources.info import SourceInfo


def _complete_algorithms(incomplete: str) -> list[str]:
    return [n for n in NAMES if n.startswith(incomplete)]


def _complete_data(incomplete: str) -> list[str]:
    from manyloom.data.sources.registry import sources

    return [n for n in sources() if n.startswith(incomplete)]


NAMES = ("fedavg", "fedprox", "scaffold", "fednova", "feddyn", "moon", "fedsam", "ditto", "fedper", "fedbn",
         "fedbuff", "coral", "fedavgm", "fedadam", "fedyogi", "fedadagrad")  # fmt: skip
"""The recipes, for completion without torch; a test compares."""


def algorithms(
    out: Out,
    name: Annotated[
        str | None, Argument(metavar="NAME", autocompletion=_complete_algorithms, help="one of them in detail")
    ] = None,
) -> int:
    """List the algorithms, or show one: its formula, its keys, its paper."""
    from manyloom.algorithms import RECIPES

    if name is None:
        items = [_algorithm(n) for n in RECIPES]
        head = ["name", "for", "keeps state", "sum", "paper"]
        rows = [
            [i["name"], i["use"], i["state"] or "no", "yes" if i["sum"] else "no", _paper(i["paper"])] for i in items
        ]
        told = ['"sum": the hub needs only the sum of all updates', "in detail: manyloom algorithms fedprox"]
        human = "\n".join([columns(head, rows, left=range(5)), *told])
        out.emit({"items": items}, human, made="\n".join(RECIPES))
        return 0
    if name not in RECIPES:
        raise _unknown("algorithm", name, tuple(RECIPES), "algorithms")
    item = {**_algorithm(name), **_detail("algorithm", name)}
    keeps = {
        "client": "a memory at each client, so clients should come back",
        "server": "an optimiser at the server",
    }
    lines = [
        fields(
            ("name", item["name"]),
            ("for", item["use"]),
            ("does", item["text"]),
            ("keeps", keeps.get(item["state"] or "", "nothing between rounds")),
            ("server", f"{item['server']} (change it in [server])"),
            ("paper", item["paper"]),
        ),
        _keys(item["keys"]),
    ]
    out.emit({"items": [item]}, "\n".join(lines), made=name, next=[f"manyloom run heart algorithm.name={name}"])
    return 0


def data(
    out: Out,
    name: Annotated[
        str | None, Argument(metavar="NAME", autocompletion=_complete_data, help="one of them in detail")
    ] = None,
) -> int:
    """List the data sources, or show one: its clients, its keys, its licence, its files."""
    from manyloom.data.sources.registry import sources

    known = sources()
    if name is None:
        items = [_source(info, out.data_dir) for info in known.values()]
        head = ["name", "clients", "samples", "task", "where"]
        rows = [
            [i["name"], _brief(i["clients"] or "by [partition]"), count(i["samples"]) if i["samples"] else "",
             _brief(i["task"]), _brief(i["where"])]
            for i in items
        ]  # fmt: skip
        lines = [columns(head, rows, left=(0, 1, 3, 4))]
        lines += [fields(("missing", _missing(i, out.data_dir))) for i in items if i["files"] and not i["here"]]
        human = "\n".join([*lines, "in detail: manyloom data heart-disease"])
        out.emit({"items": items}, human, made="\n".join(known))
        return 0
    if name not in known:
        raise _unknown("data source", name, tuple(known), "data")
    item = {**_source(known[name], out.data_dir), **_detail("data", name)}
    lines = [
        fields(
            ("name", f"{name}: {item['title']}"),
            ("does", item["text"]),
            ("clients", item["clients"] or "none of its own: [partition] says how rows are dealt"),
            ("samples", count(item["samples"]) if item["samples"] else ""),
            ("task", item["task"]),
            ("where", item["where"]),
            ("files", _files(item)),
            ("missing", _missing(item, out.data_dir) if item["files"] and not item["here"] else ""),
            ("licence", item["licence"] or ""),
            ("from", item["attribution"] or ""),
            ("paper", item["paper"] or ""),
        ),
        _keys(item["keys"]),
    ]
    out.emit({"items": [item]}, "\n".join(line for line in lines if line), made=name)
    return 0


# ---- what is told of each


def _algorithm(name: str) -> dict[str, Any]:
    from manyloom.algorithms import RECIPES
    from manyloom.algorithms.recipe import CARDS

    card = CARDS[name]
    made = RECIPES[name](**card.example)
    return {
        "name": name,
        "use": card.use,
        "state": None if card.state == "no" else card.state,
        "sum": made.aggregate.needs == "sum",
        "server": made.server.name,
        "weights": made.weights or "samples",
        "paper": card.paper,
    }


def _source(info: SourceInfo, data_dir: Path | None) -> dict[str, Any]:
    folder = data_dir / info.folder if data_dir and info.folder else None
    wanted = [*info.files, *([info.writers] if info.writers else [])]
    files = [{"name": f.name, "sha256": f.sha256, "here": bool(folder and lies(folder, f.name))} for f in wanted]
    return {
        "name": info.name, "title": info.title, "clients": info.natural, "samples": info.samples, "task": info.task,
        "where": info.where, "licence": info.licence, "attribution": info.attribution, "paper": info.paper,
        "own_test": info.own_test, "standardise": info.standardise, "folder": info.folder, "files": files,
        "here": all(f["here"] for f in files),
    }  # fmt: skip


def lies(folder: Path, name: str) -> bool:
    """Whether a source's file is in a folder, packed or not."""
    return (folder / name).is_file() or (folder / name.removesuffix(".gz")).is_file()


def _detail(table: str, name: str) -> dict[str, Any]:
    """The text and the keys of a choice, from its own signature."""
    from manyloom.job import reference
    from manyloom.job.tables import TABLES
    from manyloom.job.vertical.tables import VERTICAL

    found = TABLES[table] if name in TABLES[table].names else VERTICAL.tables[table]
    rows = [reference.row(table, key) for key in found.own(name).values() if not reference.typed(key.hint) == ""]
    keys = [{"key": r[0], "type": r[1], "default": r[2], "rule": r[3] or None, "meaning": r[4]} for r in rows]
    return {"text": reference.told(found, name).split("\n\n")[0], "keys": keys}


def _keys(keys: list[dict[str, Any]]) -> str:
    """The keys of a table: name, type and default, then what it means, wrapped beside."""
    if not keys:
        return ""
    wide = min(20, max(len(k["key"]) for k in keys))
    lines = ["keys"]
    for k in keys:
        rule = f", {k['rule']}" if k["rule"] else ""
        default = k["default"] if k["default"] in ("required", "none") else f"default {k['default']}"
        body = f"{k['meaning']} ({k['type']}{rule}; {default})"
        wrapped = field("", body, WIDTH - wide + 5).split("\n")
        pad = " " * (wide + 4)
        lines += [
            ("  " + k["key"].ljust(wide) + "  " if i == 0 else pad) + line.strip() for i, line in enumerate(wrapped)
        ]
    return "\n".join(lines)


def _missing(item: Mapping[str, Any], data_dir: Path | None) -> str:
    gone = sum(not f["here"] for f in item["files"])
    where = f"{shown(data_dir) if data_dir else 'MANYLOOM_DATA'}/{item['folder']}"
    some = "its" if gone == len(item["files"]) else "the other"
    return f"{item['name']}: put {some} {plural(gone, ('file', 'files'))} under {where}"


def _files(item: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{f['name']}  sha256 {f['sha256'][:16]}...{'' if f['here'] else '  not here'}" for f in item["files"]
    )


def _brief(text: str) -> str:
    """What fits into a column of the list.

    >>> _brief('your files; pip install "manyloom[parquet]"'), _brief('pip install "manyloom[huggingface]"')
    ('your files', 'extra "huggingface"')
    """
    text = text.partition(";")[0]
    return re.sub(r'pip install "manyloom\[(\w+)\]"', r'extra "\1"', text)


def _paper(text: str) -> str:
    """A paper in two words.

    >>> _paper("McMahan et al. 2017, AISTATS, arXiv:1602.05629")
    "McMahan '17"
    """
    found = re.match(r"(\w[\w-]*).*?\b\d\d(\d\d)\b", text)
    return f"{found[1]} '{found[2]}" if found else text


def _unknown(word: str, name: str, known: tuple[str, ...], verb: str) -> Exception:
    near = nearest(name, known)
    mend = f'did you mean "{near}"? ' if near else ""
    return bad("unknown-name", f'there is no {word} "{name}"', got=name, rule=listed(known, "and", 12),
               mend=f"{mend}All: manyloom {verb}")  # fmt: skip
