"""A run's folder: the truth about a run, readable after a crash at any byte.

runs/heart-k3q9/
  run.json       status, versions, digests, final; replaced in one step
  job.toml       the whole job; job.digest beside it
  env.json       versions, platform, device, threads, git
  events.jsonl   one event a line, append only; a line counts once its line end is written
  lock           pid, host, heartbeat of who writes
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from manyloom.core.errors import BadInput, ManyloomError, Problem, RunFailed, bad

FORMAT = 1
HELD_S = 120.0  # a heartbeat older than this from another machine counts as dead
_SIGNS = "abcdefghijklmnopqrstuvwxyz23456789"


def home_of(given: str | Path | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The store's folder: what was given, or MANYLOOM_HOME, or `.manyloom`."""
    return Path(given or (os.environ if env is None else env).get("MANYLOOM_HOME") or ".manyloom")


def now() -> str:
    """The time in UTC as events carry it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_name(job: str) -> str:
    """A new run's name: the job's, and four of a-z2-9.

    >>> run_name("My job")[:7], len(run_name("My job"))
    ('my-job-', 11)
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "-" for c in job.strip().lower())
    plain = "-".join(part for part in plain.split("-") if part).strip(".")[:80] or "run"
    return plain + "-" + "".join(secrets.choice(_SIGNS) for _ in range(4))


def dumps(value: object) -> str:
    """Strict JSON in one line; numbers that are not finite become null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":"), default=_plain)


def _plain(value: object) -> object:
    for way in ("tolist", "item"):
        if hasattr(value, way):
            return _finite(getattr(value, way)())
    return str(value)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in cast("Iterable[object]", value)]
    if not isinstance(value, (str, int, bool, type(None))):
        return _plain(value)
    return value


def storage_error(error: OSError, path: Path, run: str | None = None) -> ManyloomError:
    """What a failed write means: a place that can't be written to, or a full disk; what was saved stays."""
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        on = f"manyloom resume {run}" if run else "run it again"
        mend = f"free some space, then: {on}"
        full = "the disk is full; what was saved is kept"
        return RunFailed(Problem("disk-full", full, f"{path}: {what}", mend=mend))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
        mend = "another place: --home DIR, or set MANYLOOM_HOME"
        return BadInput(Problem("home-unwritable", f"can't write to {path}", f"{what}", mend=mend))
    return RunFailed(Problem("storage", f"can't write {path}; what was saved is kept", what))


def write_atomic(path: Path, data: str | bytes, mode: int = 0o666, run: str | None = None) -> None:
    """Replace a file in one step: the old one or the new one is there, never a part.

    Raises: `disk-full`, `home-unwritable`.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path, run) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty where it is missing or broken."""
    try:
        found: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def table(of: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A key that holds an object; empty where it is missing or null."""
    found: object = of.get(key)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def items(of: Mapping[str, Any], key: str) -> list[Any]:
    """A key that holds a list; empty where it is missing or null."""
    found: object = of.get(key)
    return cast("list[Any]", found) if isinstance(found, list) else []


def lines(path: Path, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """Whole lines of a file from a byte on, each with the byte after it; a torn last one is left out."""
    try:
        file = open(path, "rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start += len(line)
            yield line, start


def parse(line: bytes) -> dict[str, Any] | None:
    """One line as an event, or None where it is damaged."""
    try:
        found: object = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def dropped(event: Mapping[str, Any], later: Iterable[int]) -> bool:
    """Whether a later `resumed` takes an event back: rounds after the one it went on from, and the end.

    What was released stays released.
    """
    if event.get("type") == "run_done":
        return any(True for _ in later)
    return event.get("type") != "released" and any(event.get("round", 0) > r for r in later)


@dataclass(frozen=True)
class Folder:
    """One run's folder, to read."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    def record(self) -> dict[str, Any]:
        """`run.json`.

        Raises: `store-newer` where a newer Manyloom wrote it.
        """
        found = read_json(self.path / "run.json")
        if found.get("v", FORMAT) > FORMAT:
            raise newer(f"run {self.name}", "run", found["v"])
        return found

    def env(self) -> dict[str, Any]:
        return read_json(self.path / "env.json")

    def toml(self) -> str:
        path = self.path / "job.toml"
        return path.read_text("utf-8") if path.is_file() else ""

    def events(self, resumed: bool = True) -> Iterator[dict[str, Any]]:
        """The events in order; with `resumed` without those that a later `resumed` takes back.

        Unknown types and keys are for the reader to ignore; damaged lines are passed over.
        Raises: `store-newer` where a newer Manyloom wrote them.
        """
        marks = self._marks() if resumed else []
        for line, end in lines(self.events_path):
            event = parse(line)
            if event is None:
                continue
            if event.get("v", FORMAT) > FORMAT:
                raise newer(f"run {self.name}", "event", event["v"])
            if marks and dropped(event, (r for at, r in marks if at > end)):
                continue
            yield event

    def _marks(self) -> list[tuple[int, int]]:
        found = [(end, parse(line)) for line, end in lines(self.events_path) if b'"resumed"' in line]
        return [(end, int(e.get("from_round", 0))) for end, e in found if e and e.get("type") == "resumed"]

    def holder(self) -> dict[str, Any] | None:
        """Who writes this run now (pid, host, heartbeat), or None."""
        lock = self.path / "lock"
        try:
            fd = os.open(lock, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return read_json(lock) or {"pid": None}
        finally:
            os.close(fd)
        found = read_json(lock)
        elsewhere = found.get("host") not in (None, socket.gethostname())
        return found if elsewhere and _age(found) < HELD_S else None

    def files(self) -> list[str]:
        """What is in the folder: files by name, folders with how many things they hold."""
        found = sorted(p for p in self.path.iterdir() if p.name[0] != "." and p.name != "lock")
        return [f"{p.name}/ ({sum(1 for _ in p.iterdir())})" if p.is_dir() else p.name for p in found]


def newer(what: str, kind: str, version: object) -> BadInput:
    """The refusal of what a newer version wrote."""
    from manyloom._version import __version__

    return bad(
        "store-newer",
        f"{what} was written by a newer Manyloom",
        got=f"{kind} version {version}; this is Manyloom {__version__} with version {FORMAT}",
        mend="pip install -U manyloom, or use another place: --home other/",
    )


def _age(held: Mapping[str, Any]) -> float:
    try:
        return time.time() - datetime.fromisoformat(str(held.get("heartbeat"))).timestamp()
    except ValueError:
        return math.inf


class Lock:
    """The right to write one run. It ends with the process, however that ends.

    Raises: `run-in-use` where another process holds it.
    """

    def __init__(self, path: Path, wait_s: float = 0.5) -> None:
        self.path = path
        run, until = path.parent.name, time.monotonic() + wait_s
        while True:
            try:
                self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise storage_error(error, path) from error
            held = self._taken()
            if held is None:
                break
            os.close(self.fd)
            if time.monotonic() > until:
                raise _in_use(run, held)
            time.sleep(0.05)
        self.beat(force=True)

    def _taken(self) -> dict[str, Any] | None:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return read_json(self.path)
        try:
            if os.stat(self.path).st_ino != os.fstat(self.fd).st_ino:
                return {}  # its last owner removed the file between our open and our lock
        except FileNotFoundError:
            return {}
        held = read_json(self.path)
        elsewhere = held.get("host") not in (None, socket.gethostname())
        return held if elsewhere and _age(held) < HELD_S else None

    def beat(self, force: bool = False) -> None:
        """Say that this process lives, at most every five seconds."""
        if not force and time.monotonic() - self.beaten < 5:
            return
        self.beaten = time.monotonic()
        text = dumps({"pid": os.getpid(), "host": socket.gethostname(), "heartbeat": now()}).encode()
        try:
            os.ftruncate(self.fd, 0)
            os.pwrite(self.fd, text, 0)
        except OSError:
            pass  # a full disk is told by the event that could not be written

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.fd)


def _in_use(run: str, held: Mapping[str, Any]) -> RunFailed:
    here = held.get("host") in (None, socket.gethostname())
    age = _age(held)
    last = f", last event {age:.0f} s ago" if math.isfinite(age) else ""
    place = "this machine" if here else str(held.get("host"))
    got = f"process {held.get('pid', 'unknown')} on {place}{last}"
    mend = f"wait until it ends, then: manyloom resume {run}"
    return RunFailed(Problem("run-in-use", f"{run} is running already", got, mend=mend))
