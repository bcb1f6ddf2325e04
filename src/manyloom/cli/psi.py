"""`psi`: which ids two files share, found as two parties would find it who do not show each other theirs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

from typer import Argument, Option

from manyloom.cli.keyed import Repeated, Side, Type, columns_of, one_of, pairs_of, side_of, types_of
from manyloom.cli.out import Out, fields, shown
from manyloom.core.errors import bad
from manyloom.core.text import count, percent, plural, seconds, size

if TYPE_CHECKING:
    from manyloom.core.exchange import Exchange
    from manyloom.vertical.psi import Aligned

Reveal = Literal["both", "label", "count"]
QUIET = 2.0  # seconds between two lines of progress


def psi(
    out: Out,
    left: Annotated[Path, Argument(metavar="LEFT", help="CSV or Parquet of the party that asks")],
    right: Annotated[Path, Argument(metavar="RIGHT", help="CSV or Parquet of the party that answers")],
    key: Annotated[
        str,
        Option("--key", metavar="COLS", help="the id columns: id, or name,born; where names differ: id=kunde"),
    ],
    types: Annotated[
        str | None,
        Option("--type", metavar="TYPES", help="int, text or bytes for each id column [seen from the values]"),
    ] = None,
    reveal: Annotated[
        str,
        Option(
            "--reveal",
            metavar="WHO",
            help="who learns the common ids: both, label (LEFT alone), or count (only how many) [both]",
        ),
    ] = "both",
    casefold: Annotated[bool, Option("--casefold", help="ids that differ in case are the same")] = False,
    duplicates: Annotated[
        str, Option("--duplicates", metavar="RULE", help="an id twice in a file: reject, or the first counts [reject]")
    ] = "reject",
    to: Annotated[
        Path | None, Option("--out", metavar="FILE", help="where to write the common ids with their row numbers")
    ] = None,
) -> int:
    """Find the ids that two files share, without showing the others.

    Both files lie on this machine, but the two sides exchange only what they would exchange between organisations:
    ids hashed to a curve and masked by each side's secret. Rows without an id are left out.
    """
    shown_to = cast("Reveal", one_of("--reveal", reveal, get_args(Reveal)))
    rule = cast("Repeated", one_of("--duplicates", duplicates, get_args(Repeated)))
    if to is not None and shown_to == "count":
        raise bad("bad-argument", "with --reveal count nobody learns the common ids", got=f"--out {to}",
                  mend="leave out --out, or take --reveal both")  # fmt: skip
    pairs = pairs_of(key)
    from manyloom.data.rows import read_file

    cells = [columns_of(read_file(file), [p[i] for p in pairs], file) for i, file in enumerate((left, right))]
    kinds = types_of(types, pairs, cells)
    sides = [
        side_of(file, other, [p[i] for p in pairs], cells[i], kinds, casefold, rule)
        for i, (file, other) in enumerate(((left, right), (right, left)))
    ]
    began = time.perf_counter()
    found, rows, opening = _played(out, sides, shown_to, kinds, casefold, rule)
    took = time.perf_counter() - began
    columns: list[str] = []
    if to is not None:
        columns = _written(to, sides, found, rows)
    up, down = found.sent_up + opening[0], found.sent_down + opening[1]
    document: dict[str, Any] = {
        "left": _document(sides[0]),
        "right": _document(sides[1]),
        "key": [{"left": a, "right": b, "type": kind} for (a, b), kind in zip(pairs, kinds)],
        "reveal": shown_to,
        "casefold": casefold,
        "common": None if found.few else found.common,
        "told": found.told,
        "path": str(to) if to is not None else None,
        "columns": columns,
        "sent_up": up,
        "sent_down": down,
        "seconds": took,
    }
    asks, answers = sides
    parts = [f"{percent(found.common / s.ids)} of {s.name}" for s in sides if s.ids and not found.few]
    shares = ": " + ", ".join(parts) if parts else ""
    human = fields(
        ("left", _read(asks)),
        ("right", _read(answers)),
        ("key", ", ".join(f"{a if a == b else f'{a} = {b}'} ({kind})" for (a, b), kind in zip(pairs, kinds))),
        ("common", f"{found.told if found.few else count(found.common)} "
                   f"{'id' if found.common == 1 and not found.few else 'ids'}{shares}"),
        ("learned", "\n".join(_learned(sides, shown_to))),
        ("bytes", f"{size(up)} from {answers.name}, {size(down)} from {asks.name}, in {seconds(took)}"),
        ("wrote", f"{shown(to)}   {', '.join(columns)}" if to is not None else ""),
        ("note", "both files were read on this machine; nothing was sent"),
    )  # fmt: skip
    out.emit(document, human, made=str(to) if to is not None else found.told)
    return 0


def _learned(sides: Sequence[Side], reveal: Reveal) -> Iterator[str]:
    """Who learned what, a line each."""
    a, b = sides
    yield f"{a.name}: {'how many are common' if reveal == 'count' else 'the common ids'}, how many ids {b.name} has"
    yield f"{b.name}: {'the common ids, ' if reveal == 'both' else ''}how many ids {a.name} has"
    yield "a hub between them would see sizes and times"


def _read(side: Side) -> str:
    lines = [f"{side.file.name}: {plural(side.rows, ('row', 'rows'))}, {plural(side.ids, ('id', 'ids'))}"]
    if side.keys.left_out:
        lines.append(f"{plural(side.keys.left_out, ('row', 'rows'))} without an id left out")
    if side.repeated:
        lines.append(f"{plural(side.repeated, ('row repeats', 'rows repeat'))} an id, the first counts")
    return "\n".join(lines)


def _document(side: Side) -> dict[str, Any]:
    return {
        "path": str(side.file),
        "rows": side.rows,
        "ids": side.ids,
        "left_out": side.keys.left_out,
        "repeated": side.repeated,
    }


# ---- the two parties


def _played(out: Out, sides: Sequence[Side], reveal: Reveal, kinds: Sequence[Type], casefold: bool,
            duplicates: Repeated) -> tuple[Aligned, Sequence[int], tuple[int, int]]:  # fmt: skip
    """What LEFT learned, RIGHT's row numbers in the same order, and the bytes of the opening."""
    import torch

    from manyloom.core.exchange import play
    from manyloom.core.tensors import ints
    from manyloom.runtime.parties import Site, answering
    from manyloom.vertical import opening, psi
    from manyloom.vertical.party import Party
    from manyloom.vertical.psi_wire import FLOOR
    from manyloom.vertical.settings import Align

    few = [s for s in sides if reveal == "count" and s.ids < FLOOR]
    if few:
        raise bad("too-few-ids", f"{few[0].name} has too few ids to tell only how many are common",
                  got=plural(few[0].ids, ("id", "ids")), rule=f"at least {count(FLOOR)} on both sides",
                  mend="a count over few ids tells who they are; take --reveal label or both")  # fmt: skip
    settings = Align(reveal, duplicates, casefold)
    agreed = (opening.digest("schema", {"types": list(kinds), "casefold": casefold}),
              opening.digest("parameters", settings._asdict()))  # fmt: skip
    mine, theirs = opening.node("left"), opening.node("right")
    pins = {n.name: n.public for n in (mine, theirs)}
    keys = sides[1].keys
    party = Party("right", keys.keys, torch.zeros(len(keys.keys), 0))
    site = Site(0, party, opening.handlers(theirs, pins, *agreed) | psi.handlers(settings))
    answer = answering([site])
    opened = play(opening.opened(1, mine, pins, names=["right"], schema=agreed[0], parameters=agreed[1]), answer)
    found = play(_told(out, psi.align(sides[0].keys.keys, 0, xid=opened.xid, settings=settings)), answer)
    at = ints(site.memory["rows"]) if reveal == "both" else []
    return found, [int(keys.rows[i]) for i in at], opening.traffic(["right"], "left")


def _told(out: Out, exchange: Exchange[Aligned]) -> Exchange[Aligned]:
    """The same conversation; where it takes long, a line every few seconds says where it stands."""
    from manyloom.core.tensors import ints

    began = last = time.perf_counter()
    try:
        ask = next(exchange)
        while True:
            now = time.perf_counter()
            if now - last > QUIET:
                k, of = ints(ask.body["k"]) if "k" in ask.body else (0, 1)
                out.note(f"{seconds(now - began)}  {ask.verb}, chunk {k + 1} of {of}")
                last = now
            ask = exchange.send((yield ask))
    except StopIteration as end:
        return end.value


def _written(to: Path, sides: Sequence[Side], found: Aligned, rows: Sequence[int]) -> list[str]:
    """The common ids as LEFT has them, with row numbers from 1, in the agreed order."""
    from manyloom.track.rows import write_file

    left = sides[0]
    assert found.rows is not None
    mine = [int(left.keys.rows[i]) for i in found.rows]
    table: dict[str, Sequence[Any]] = {"left_row": [r + 1 for r in mine]}
    if len(rows) == len(mine):
        table["right_row"] = [r + 1 for r in rows]
    for name, texts in zip(left.columns, left.texts):
        table[name if name not in table else f"id_{name}"] = [texts[r] for r in mine]
    write_file(to, table)
    return list(table)
