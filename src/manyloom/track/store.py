"""The run store: a folder a run, and an index over them that can always be built anew.

store = Store.open(home)
with store.create("heart", toml=..., digest=..., env=...) as writer:
    writer.append(event)                      # one line in events.jsonl, flushed; the index once a round
store.resolve("last").events()
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from manyloom.core.errors import bad
from manyloom.core.validate import nearest
from manyloom.track import index
from manyloom.track.folder import (
    FORMAT,
    Folder,
    Lock,
    dumps,
    home_of,
    newer,
    now,
    run_name,
    storage_error,
    write_atomic,
)
from manyloom.track.writer import LIVE
from manyloom.track.writer import Writer as Writer


class Store:
    """All runs under one home."""

    def __init__(self, home: Path, db: sqlite3.Connection, notes: list[str]) -> None:
        self.home, self.db = home, db
        self.notes = notes  # what opening found worth saying, each once

    @classmethod
    def open(cls, home: str | Path | None = None) -> Store:
        """Open or make the store, and mend what a crash left between folders and index.

        Raises: `home-unwritable`, `disk-full`, `store-newer`.
        """
        where, notes = home_of(home), list[str]()
        try:
            (where / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, where) from error
        if not os.access(where / "runs", os.W_OK):
            raise storage_error(PermissionError(13, "permission denied"), where)
        store = cls(where, _connect(where / "runs.sqlite", notes), notes)
        store.mend()
        return store

    def close(self) -> None:
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- finding

    def folders(self) -> list[Folder]:
        """Every run's folder, by name."""
        found = (self.home / "runs").iterdir()
        return [Folder(p) for p in sorted(found) if p.name[0] != "." and (p / "run.json").is_file()]

    def runs(self) -> list[dict[str, Any]]:
        """The runs as the index has them, newest first; JSON columns as values."""
        found = [index.unpack(row) for row in index.rows(self.db, "run")]
        return sorted(found, key=lambda row: (row["started"] or "", row["id"]), reverse=True)

    def resolve(self, name: str) -> Folder:
        """The run of that name, of that unique prefix, or the newest for "last".

        Raises: `run-not-found`, `run-ambiguous`.
        """
        path = Path(name)
        if os.sep in name and (path / "run.json").is_file():
            return Folder(path)
        names = [row["id"] for row in self.runs()]
        if name == "last" and names:
            return Folder(self.home / "runs" / names[0])
        fits = [n for n in names if n == name] or [n for n in names if name and n.startswith(name)]
        if len(fits) == 1:
            return Folder(self.home / "runs" / fits[0])
        if fits:
            more = f" and {len(fits) - 6} more" if len(fits) > 6 else ""
            what = f'"{name}" fits {len(fits)} runs: {", ".join(sorted(fits)[:6])}{more}'
            raise bad("run-ambiguous", what, mend=f'give more letters, or "last" for the newest ({fits[0]})')
        near = nearest(name, names)
        mend = f"did you mean {near}? All runs: manyloom runs" if near else "all runs: manyloom runs"
        raise bad("run-not-found", f'no run is called "{name}" in {self.home}', mend=mend)

    def children(self, parent: str) -> list[Folder]:
        """The runs of a sweep, or the baselines of a run, oldest first."""
        found = self.db.execute("SELECT id FROM run WHERE parent = ? ORDER BY started, id", (parent,))
        return [Folder(self.home / "runs" / name) for (name,) in found]

    # ---- making

    def create(
        self,
        job: str,
        *,
        toml: str = "",
        digest: str | None = None,
        env: Mapping[str, Any] | None = None,
        kind: str = "run",
        parent: str | None = None,
        record: Mapping[str, Any] | None = None,
    ) -> Writer:
        """A new run's folder, whole in one step, and the right to write it.

        Raises: `home-unwritable`, `disk-full`.
        """
        runs = self.home / "runs"
        part = runs / f".new-{secrets.token_hex(6)}"
        written: dict[str, Any] = {
            "v": FORMAT,
            "name": job,
            "kind": kind,
            "status": "queued",
            "reason": None,
            "parent": parent,
            "started": now(),
            "ended": None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job_digest": digest,
            "model_digest": None,
            "final": None,
            **(record or {}),
        }
        lock: Lock | None = None
        try:
            part.mkdir()
            while True:
                name = run_name(job)
                written["run_id"] = name
                write_atomic(part / "run.json", dumps(written) + "\n")
                if lock is None:
                    write_atomic(part / "job.toml", toml)
                    write_atomic(part / "job.digest", (digest or "") + "\n")
                    write_atomic(part / "env.json", dumps(dict(env or {})) + "\n")
                    lock = Lock(part / "lock")
                try:
                    os.rename(part, runs / name)
                    break
                except FileExistsError:
                    continue
                except OSError as error:
                    if not (runs / name).exists():
                        raise storage_error(error, runs / name) from error
        except OSError as error:
            raise storage_error(error, runs) from error
        finally:
            if part.exists():
                shutil.rmtree(part, ignore_errors=True)
        lock.path = runs / name / "lock"
        return Writer(self.db, self.notes, Folder(runs / name), lock)

    def resume(self, folder: Folder) -> Writer:
        """The right to go on writing a run; a torn last line is taken off first.

        Raises: `run-in-use`, `store-newer`.
        """
        folder.record()
        return Writer(self.db, self.notes, folder, Lock(folder.path / "lock"))

    def delete(self, folder: Folder) -> None:
        """Remove a run. Raises: `run-in-use`."""
        lock = Lock(folder.path / "lock")
        gone = folder.path.with_name(f".gone-{secrets.token_hex(4)}")
        os.rename(folder.path, gone)
        os.close(lock.fd)
        shutil.rmtree(gone, ignore_errors=True)
        index.forget(self.db, folder.name)

    # ---- keeping index and folders alike

    def rebuild(self) -> int:
        """The whole index anew from the folders; how many runs there are."""
        for name in {row["id"] for row in index.rows(self.db, "run")}:
            index.forget(self.db, name)
        found = self.folders()
        for folder in found:
            index.reindex(self.db, folder)
        return len(found)

    def mend(self) -> None:
        """Make the index say what the folders say, and end runs whose process is gone."""
        known = {row["id"]: row["status"] for row in index.rows(self.db, "run")}
        sizes = dict(self.db.execute("SELECT run, bytes FROM file WHERE path = 'events.jsonl'"))
        for folder in self.folders():
            status = known.pop(folder.name, None)
            size = folder.events_path.stat().st_size if folder.events_path.exists() else 0
            if status is not None and status not in LIVE and sizes.get(folder.name) == size:
                continue
            if folder.holder() is not None:
                if status is None:
                    index.reindex(self.db, folder)
                continue
            if folder.record().get("status") in LIVE:
                _end(self, folder)
            else:
                index.reindex(self.db, folder)
        for name in known:
            index.forget(self.db, name)
        for path in (self.home / "runs").glob(".gone-*"):
            shutil.rmtree(path, ignore_errors=True)


def _end(store: Store, folder: Folder) -> None:
    """Say that a run whose process is gone was interrupted."""
    with Writer(store.db, store.notes, folder, Lock(folder.path / "lock")) as writer:
        done = [e.get("round", 0) for e in folder.events() if e.get("type") == "round_done"]
        writer.end("interrupted", "its process ended without a word", rounds=max(done, default=0))


def _connect(path: Path, notes: list[str]) -> sqlite3.Connection:
    try:
        return _open(path, notes)
    except sqlite3.DatabaseError as error:
        if "malformed" not in str(error) and "not a database" not in str(error):
            raise storage_error(OSError(28 if "full" in str(error) else 13, str(error)), path) from error
        os.replace(path, path.with_name("runs.sqlite.broken"))
        notes.append("the index was damaged; it was built anew from the folders")
        return _open(path, notes)


def _open(path: Path, notes: list[str]) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA busy_timeout = 5000")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > index.VERSION:
        db.close()
        raise newer(str(path.parent), "store", version)
    try:
        mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    except sqlite3.OperationalError:
        mode = "none"
    if mode != "wal":
        db.execute("PRAGMA journal_mode = DELETE")
        notes.append(f"{path.parent} is on a disk without shared locks: its index is written the slower way")
    db.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        with db:
            db.execute("BEGIN IMMEDIATE")
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in index.SCHEMA.split(";\n"):
                    if statement.strip():
                        db.execute(statement)
                db.execute(f"PRAGMA user_version = {index.VERSION}")
    return db


def names(home: str | Path | None = None) -> Iterator[str]:
    """Run names without opening the store: for shell completion."""
    runs = home_of(home) / "runs"
    if runs.is_dir():
        yield from sorted(p.name for p in runs.iterdir() if p.name[0] != ".")
