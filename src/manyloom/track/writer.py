"""The one who writes a run: events, record and files, under its lock, the index beside them."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from manyloom.core.errors import ManyloomError
from manyloom.track import index
from manyloom.track.folder import FORMAT, Folder, Lock, dumps, lines, now, parse, storage_error, write_atomic

LIVE = ("queued", "running")


class Writer:
    """The one who writes a run: events, record, files. Holds its lock until closed."""

    def __init__(self, db: sqlite3.Connection, notes: list[str], folder: Folder, lock: Lock) -> None:
        self.db, self.notes = db, notes
        self.folder, self.lock = folder, lock
        self.record = folder.record()
        self.size, self.seq = _tail(folder.events_path)
        try:
            self.fd = os.open(folder.events_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self.fd, self.size)
        except OSError as error:
            raise storage_error(error, folder.events_path, folder.name) from error
        self.index: index.Indexer | None = None
        self._reindex()

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def path(self) -> Path:
        return self.folder.path

    def append(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Write one event (v, seq and t are filled in) and return it as written.

        Raises: `disk-full`, after taking back what was half written.
        """
        stamped: dict[str, Any] = {"v": FORMAT, "seq": self.seq + 1, "t": now()}
        stamped |= {k: v for k, v in event.items() if k not in ("v", "seq") and not (k == "t" and v is None)}
        line = (dumps(stamped) + "\n").encode()
        try:
            self._write(line)
            if stamped.get("type") == "run_done":
                os.fsync(self.fd)
        except OSError as error:
            raise storage_error(error, self.folder.events_path, self.run_id) from error
        self.seq += 1
        self.size += len(line)
        self.lock.beat()
        self._after(stamped)
        return stamped

    def _write(self, line: bytes) -> None:
        written = 0
        try:
            while written < len(line):
                written += os.write(self.fd, line[written:])
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise

    def _after(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "run_done":
            self.set(status=event.get("status", "done"), reason=event.get("reason"), ended=event.get("t"),
                     final=event.get("final"), error=event.get("error"))  # fmt: skip
        elif kind in ("run_started", "resumed"):
            self.set(status="running", reason=None, ended=None, pid=os.getpid(), host=socket.gethostname())
        if kind == "resumed":
            self._reindex()
        elif self.index is not None:
            self._guarded(lambda indexer: indexer.feed(event, self.size))

    def set(self, **fields: object) -> None:
        """Change fields of `run.json`, in one step."""
        self.record |= fields
        write_atomic(self.path / "run.json", dumps(self.record) + "\n", run=self.run_id)
        if self.index is not None:
            same = ("model_digest", "job_digest", "runtime", "algorithm", "host", "pid")
            self.index.row |= {k: fields[k] for k in same if k in fields}

    def write(self, relative: str, data: str | bytes) -> Path:
        """A file in the run's folder (`lost/009-hungary.txt`), whole or not at all."""
        path = self.path / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, path.parent, self.run_id) from error
        write_atomic(path, data, run=self.run_id)
        return path

    def close(self) -> None:
        """Write what the index still lacks and give the lock back; a run without an end is interrupted."""
        if self.lock.path.parent.exists():
            self._guarded(lambda indexer: indexer.flush())
        os.close(self.fd)
        self.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: TracebackType | None) -> None:
        if self.record.get("status") in LIVE:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            said = str(error).splitlines() or [type(error).__name__]
            try:
                self.end(status, "closed before the end" if error is None else said[0])
            except ManyloomError:  # the error that ended the run is the one to tell
                if error is None:
                    raise
        self.close()

    def end(self, status: str, reason: str, **more: object) -> None:
        """Say that the run ended without saying so itself."""
        said = {
            "type": "run_done",
            "status": status,
            "reason": reason,
            "final": self.record.get("final"),
            **more,
        }
        self.append({**said, "next": [f"manyloom resume {self.run_id}"]})

    def _reindex(self) -> None:
        try:
            self.index = index.reindex(self.db, self.folder)
        except sqlite3.Error as error:
            self._lose_index(error)

    def _guarded(self, act: Callable[[index.Indexer], None]) -> None:
        if self.index is not None:
            try:
                act(self.index)
            except sqlite3.Error as error:
                self._lose_index(error)

    def _lose_index(self, error: sqlite3.Error) -> None:
        self.index = None
        self.notes.append(f"the index could not be written ({error}); the next start mends it")


def _tail(path: Path) -> tuple[int, int]:
    """Where the last whole line of events ends, and its number."""
    last = seq = 0
    for line, end in lines(path):
        last, seq = end, max(seq, int((parse(line) or {}).get("seq", 0)))
    return last, seq
