"""`runs`, `show`, `report`, `card`: what the run store holds. None of them imports torch."""

from __future__ import annotations

import re
import sys
import webbrowser
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from manyloom.cli.out import Out, complete_runs, fields, shown
from manyloom.core.errors import bad
from manyloom.core.text import LOWER_IS_BETTER, finite, size
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.track.folder import Folder
    from manyloom.track.store import Store

RUN = Argument(metavar="RUN", autocompletion=complete_runs, help='a run\'s name, a unique prefix of it, or "last"')
STATUS = ("queued", "running", "done", "stopped", "interrupted", "failed")


# ---- runs


def runs(
    out: Out,
    status: Annotated[str | None, Option("--status", metavar="STATUS",
                                         help="only these: " + ", ".join(STATUS[1:]))] = None,
    job: Annotated[str | None, Option("--job", metavar="NAME", help="only runs of this job")] = None,
    since: Annotated[str | None, Option("--since", metavar="TIME", help="a date (2026-11-24), or 3d, 2h ago")] = None,
    sort: Annotated[str, Option("--sort", metavar="KEY",
                                help="started, name, status, rounds, seconds, bytes, or a metric (the best first) "
                                "[started]")] = "started",
    limit: Annotated[int | None, Option("--limit", metavar="N", min=1, help="at most N")] = None,
    rebuild: Annotated[bool, Option("--rebuild", help="make the index anew from the folders first")] = False,
    delete: Annotated[str | None, Option("--delete", metavar="RUN", autocompletion=complete_runs,
                                         help="delete a run; asks first, unless --yes")] = None,
    yes: Annotated[bool, Option("--yes", help="with --delete: don't ask")] = False,
) -> int:  # fmt: skip
    """List the runs, newest first."""
    from manyloom.track import text
    from manyloom.track.store import Store

    after = _since(since, datetime.now(UTC)) if since else None
    if status is not None and status not in STATUS:
        near = nearest(status, STATUS)
        raise bad("unknown-name", f'there is no status "{status}"', got=f"--status {status}", rule=", ".join(STATUS),
                  mend=f"did you mean {near}?" if near else None)  # fmt: skip
    with Store.open(out.home) as store:
        if rebuild:
            out.note(f"index    made anew from {store.rebuild()} folders")
        if delete is not None:
            _delete(out, store, delete, yes)
        for note in store.notes:
            out.warn(note)
        found = [r for r in store.runs()
                 if (status is None or r["status"] == status) and (job is None or r["name"] == job)
                 and (after is None or (r["started"] or "") >= after)]  # fmt: skip
        found = _sorted(found, sort)[:limit]
        human = text.runs_table(found, shown(out.home), _size(out.home))
    made = "\n".join(str(r["id"]) for r in found)
    out.emit({"home": str(out.home), "runs": [_row(r) for r in found]}, human, made=made)
    return 0


def _row(r: Mapping[str, Any]) -> dict[str, Any]:
    return {"run_id": r["id"], "name": r["name"], "kind": r["kind"], "status": r["status"], "started": r["started"],
            "rounds": r["rounds_done"], "rounds_planned": r["rounds_planned"], "final": r["final"],
            "epsilon": r["epsilon"], "budget": r["budget"], "bytes": _moved(r),
            "seconds": r["seconds"], "parent": r["parent"]}  # fmt: skip


def _since(given: str, now: datetime) -> str:
    """A time as events carry it: a date, or so many hours or days ago.

    >>> _since("2d", datetime(2026, 11, 24, 10, tzinfo=UTC)), _since("2026-11-01", datetime(2026, 11, 24, tzinfo=UTC))
    ('2026-11-22T10:00:00', '2026-11-01T00:00:00')
    """
    ago = re.fullmatch(r"(\d+)\s*([hdw])", given)
    if ago:
        hours = int(ago[1]) * {"h": 1, "d": 24, "w": 168}[ago[2]]
        return (now - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%S")
    try:
        then = datetime.fromisoformat(given)
    except ValueError as error:
        raise bad("bad-argument", f'can\'t read the time "{given}"', rule="a date, or a number with h, d or w",
                  mend="--since 2026-11-24, or --since 3d") from error  # fmt: skip
    return (then.astimezone(UTC) if then.tzinfo else then).strftime("%Y-%m-%dT%H:%M:%S")


_COLUMNS = {"started": "started", "name": "id", "status": "status", "rounds": "rounds_done", "seconds": "seconds"}
_MOST_FIRST = ("started", "rounds", "seconds", "bytes")


def _sorted(found: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Rows in the order of a column, or of a metric with the best first; what is unknown comes last."""
    from manyloom.track.folder import table

    if key == "bytes":
        return sorted(found, key=_moved, reverse=True)
    if key in _COLUMNS:
        column = _COLUMNS[key]
        have = [r for r in found if r[column] is not None]
        return [*sorted(have, key=lambda r: r[column], reverse=key in _MOST_FIRST),
                *(r for r in found if r[column] is None)]  # fmt: skip
    known = sorted({k for r in found for k in table(r, "final")})
    if key not in known and found:
        options = [*_COLUMNS, "bytes", *known]
        near = nearest(key, options)
        raise bad("unknown-name", f'can\'t sort by "{key}"', got=f"--sort {key}", rule=", ".join(options),
                  mend=f"did you mean {near}?" if near else None)  # fmt: skip
    sign = 1 if key in LOWER_IS_BETTER else -1

    def rank(r: Mapping[str, Any]) -> tuple[bool, float]:
        value = finite(table(r, "final").get(key))
        return value is None, sign * value if value is not None else 0.0

    return sorted(found, key=rank)


def _moved(r: Mapping[str, Any]) -> int:
    return (r["bytes_up"] or 0) + (r["bytes_down"] or 0)


def _size(home: Path) -> int:
    total = 0
    for path in home.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:
            continue
    return total


def _delete(out: Out, store: Store, name: str, yes: bool) -> None:
    folder = store.resolve(name)
    if not yes:
        if not sys.stdin.isatty():
            typed = f"manyloom runs --delete {folder.name} --yes"
            raise bad("needs-yes", f"nobody can be asked whether to delete {folder.name}",
                      rule="a question needs a terminal", mend=typed)  # fmt: skip
        print(f"Delete {folder.name} with its model and checkpoints? Type y: ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            out.note("kept     nothing was deleted")
            return
    store.delete(folder)
    out.note(f"deleted  {folder.name}")


# ---- show


def show(
    out: Out,
    run: Annotated[str, RUN],
    clients: Annotated[bool, Option("--clients", help="every client, also of many")] = False,
    events: Annotated[bool, Option("--events", help="every event, a line each")] = False,
    toml: Annotated[bool, Option("--toml", help="the whole job, defaults filled in")] = False,
) -> int:
    """Show one run: its result, its clients, what was lost, what it moved, what it left."""
    from manyloom.core.text import event_line
    from manyloom.track import record, text
    from manyloom.track.document import summary

    folder = _folder(out, run)
    found = record.read(folder)
    files = folder.files()
    if toml:
        human = found.toml.rstrip()
    elif events:
        human = "\n".join(event_line(e) for e in folder.events())
    else:
        human = text.show(found, files, f"{shown(folder.path)}/job.toml")
        if clients and found.last is not None:
            human += "\n" + text.clients_table(found, most=sys.maxsize)
    env = dict(folder.env())
    document = {**summary(folder), "error": found.error, "folder": str(folder.path), "files": files,
                "git": env.pop("git", None), "env": env}  # fmt: skip
    next = [f"manyloom resume {found.id}"] if found.status in ("interrupted", "failed") else []
    out.emit(document, human, made=found.id, next=[] if toml or events else next)
    return 0


def _folder(out: Out, run: str) -> Folder:
    from manyloom.track.store import Store

    with Store.open(out.home) as store:
        return store.resolve(run)


# ---- report, card


def report(
    out: Out,
    run: Annotated[str, RUN],
    to: Annotated[Path | None, Option("--out", metavar="FILE", help="where to write it [the run's folder]")] = None,
    open: Annotated[bool, Option("--open", help="show it in the browser")] = False,
    participation: Annotated[bool, Option("--participation",
                                          help="who took part when, also where that weakens privacy")] = False,
) -> int:  # fmt: skip
    """Write the report of a run: one HTML file, readable without a network."""
    from manyloom.track import promise, record
    from manyloom.track.report import write as written

    folder = _folder(out, run)
    hidden = not participation and promise.amplified(record.read(folder))
    why = "who took part when: epsilon counts on readers not knowing; --participation" if hidden else ""
    path = written(folder, to, participation=participation) if participation else written(folder, to)
    bytes = path.stat().st_size
    if open:
        webbrowser.open(path.resolve().as_uri())
    out.emit({"run_id": folder.name, "path": str(path), "bytes": bytes},
             fields(("report", f"{shown(path)}   ({size(bytes)}, no network)"), ("left out", why)),
             made=str(path))  # fmt: skip
    return 0


def card(
    out: Out,
    run: Annotated[str, RUN],
    to: Annotated[Path | None, Option("--out", metavar="FILE", help="where to write it [the run's folder]")] = None,
) -> int:
    """Write the model card of a run."""
    from manyloom.track import card as cards

    folder = _folder(out, run)
    path = cards.write(folder, to)
    missing: list[str] = list(cards.missing(folder))
    said = ", ".join(missing) + ": fill in [card] in the job, or edit the file" if missing else ""
    out.emit({"run_id": folder.name, "path": str(path), "missing": missing},
             fields(("card", shown(path)), ("missing", said)), made=str(path))  # fmt: skip
    return 0
