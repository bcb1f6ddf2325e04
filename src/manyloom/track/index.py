"""The index: what the folders say, in SQLite, so that a list of runs need not read them all.

Every row comes from `Indexer`, fed with a run's record and its events: while a run goes on, after a crash,
and when the whole index is built anew. So the three can't differ.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from manyloom.core.text import finite
from manyloom.track.folder import Folder, dumps, items, table

VERSION = 1
TABLES = ("run", "client", "round", "metric", "part", "release", "file", "tag")
SCHEMA = """
CREATE TABLE run (id TEXT PRIMARY KEY, name TEXT, kind TEXT, status TEXT, stop_reason TEXT,
  parent TEXT REFERENCES run(id), started TEXT, ended TEXT, heartbeat TEXT, host TEXT, pid INT,
  rounds_planned INT, rounds_done INT, seed INT, runtime TEXT, algorithm TEXT, job_digest TEXT,
  model_digest TEXT, bytes_up INT, bytes_down INT, seconds REAL, epsilon REAL, budget REAL, final TEXT,
  guarantee TEXT, env TEXT, git TEXT, error TEXT, folder TEXT) STRICT;
CREATE TABLE client (run TEXT, client INT, name TEXT, train INT, test INT, labels TEXT, rounds INT,
  PRIMARY KEY (run, client)) STRICT;
CREATE TABLE round (run TEXT, round INT, attempt INT, started TEXT, seconds REAL, phases TEXT, asked INT,
  back INT, filtered INT, bytes_up INT, bytes_down INT, epsilon REAL, checkpoint TEXT,
  PRIMARY KEY (run, round)) STRICT;
CREATE TABLE metric (run TEXT, round INT, split TEXT, client INT, name TEXT, value REAL, weight INT,
  covered INT, PRIMARY KEY (run, round, split, client, name)) STRICT, WITHOUT ROWID;
CREATE TABLE part (run TEXT, round INT, client INT, outcome TEXT, reason TEXT, samples INT, steps INT,
  seconds REAL, bytes_up INT, bytes_down INT, score REAL, detail TEXT,
  PRIMARY KEY (run, round, client)) STRICT, WITHOUT ROWID;
CREATE TABLE release (run TEXT, seq INT, round INT, client INT, event TEXT, epsilon REAL, delta REAL,
  PRIMARY KEY (run, seq)) STRICT;
CREATE TABLE file (run TEXT, path TEXT, kind TEXT, sha256 TEXT, bytes INT, PRIMARY KEY (run, path)) STRICT;
CREATE TABLE tag (run TEXT, key TEXT, value TEXT, PRIMARY KEY (run, key)) STRICT;
CREATE INDEX run_started ON run(started);
CREATE INDEX run_digest ON run(job_digest);
CREATE INDEX metric_curve ON metric(run, name, client, round);
"""
_ROUND = """
INSERT INTO round (run, round, attempt, seconds, phases, back, filtered, bytes_up, bytes_down, epsilon)
VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (run, round) DO UPDATE SET attempt=excluded.attempt,
seconds=excluded.seconds, phases=excluded.phases, back=excluded.back, filtered=excluded.filtered,
bytes_up=excluded.bytes_up, bytes_down=excluded.bytes_down, epsilon=excluded.epsilon"""
_ASKED = """
INSERT INTO round (run, round, attempt, started, asked) VALUES (?,?,?,?,?) ON CONFLICT (run, round)
DO UPDATE SET attempt=excluded.attempt, started=excluded.started, asked=excluded.asked"""
_FILTERED = """
INSERT INTO part (run, round, client, outcome, reason, score) VALUES (?,?,?,'filtered',?,?)
ON CONFLICT (run, round, client)
DO UPDATE SET outcome='filtered', reason=excluded.reason, score=excluded.score"""
_FLUSH = frozenset({"run_started", "planned", "round_done", "run_done", "baseline"})
_MOST = 50_000  # rows kept in memory before they are written, whatever the round does


def whole(value: object) -> int | None:
    """A value as a whole number, or None."""
    v = finite(value)
    return None if v is None else int(v)


def _sum(*values: object) -> int | None:
    """The sum of what is known, or None."""
    known = [v for v in map(whole, values) if v is not None]
    return sum(known) if known else None


def text(value: object) -> str | None:
    """A value as JSON text, or None."""
    return None if value is None else dumps(value)


class Indexer:
    """Turns one run's events into rows; one transaction a round."""

    def __init__(self, db: sqlite3.Connection, folder: Folder) -> None:
        record, env = folder.record(), folder.env()
        self.db, self.run = db, folder.name
        self.clients: dict[int, Mapping[str, Any]] = {}
        self.rounds: dict[int, tuple[int, int]] = {}  # client -> rounds taken part in, the last of them
        self.epsilon: float | None = None
        self.offset = 0
        self.pending: list[tuple[str, tuple[object, ...]]] = []
        self.row: dict[str, object] = {
            "id": self.run,
            "name": record.get("name"),
            "kind": record.get("kind", "run"),
            "status": record.get("status", "queued"),
            "stop_reason": record.get("reason"),
            "parent": record.get("parent"),
            "started": record.get("started"),
            "ended": record.get("ended"),
            "heartbeat": record.get("started"),
            "host": record.get("host"),
            "pid": whole(record.get("pid")),
            "rounds_planned": whole(record.get("rounds_planned")),
            "rounds_done": 0,
            "seed": whole(record.get("seed")),
            "runtime": record.get("runtime"),
            "algorithm": record.get("algorithm"),
            "job_digest": record.get("job_digest"),
            "model_digest": record.get("model_digest"),
            "bytes_up": 0,
            "bytes_down": 0,
            "seconds": 0.0,
            "epsilon": None,
            "budget": None,
            "final": text(record.get("final")),
            "guarantee": None,
            "env": text(env or None),
            "git": text(env.get("git")),
            "error": text(record.get("error")),
            "folder": f"runs/{self.run}",
        }
        for key, value in table(record, "tags").items():
            self._put("INSERT OR REPLACE INTO tag VALUES (?,?,?)", self.run, str(key), str(value))

    def feed(self, event: Mapping[str, Any], end: int) -> None:
        """Take one event; `end` is the byte after its line."""
        kind, self.offset = str(event.get("type")), end
        self.row["heartbeat"] = event.get("t") or self.row["heartbeat"]
        take = getattr(self, "_" + kind, None)
        if take is not None:
            take(event)
        if kind in _FLUSH or len(self.pending) > _MOST:
            self.flush()

    def flush(self) -> None:
        """Write what is pending, in one transaction."""
        at = (self.run, "events.jsonl", "events", None, self.offset)
        self._put("INSERT OR REPLACE INTO file VALUES (?,?,?,?,?)", *at)
        marks = ",".join("?" * len(self.row))
        self._put(f"INSERT OR REPLACE INTO run VALUES ({marks})", *self.row.values())
        with self.db:
            self.db.execute("BEGIN IMMEDIATE")
            for sql, group in groupby(self.pending, key=lambda put: put[0]):
                self.db.executemany(sql, (values for _, values in group))
        self.pending.clear()

    def _put(self, sql: str, *values: object) -> None:
        self.pending.append((sql, values))

    # one method a type of event; the others leave no row

    def _run_started(self, e: Mapping[str, Any]) -> None:
        self.clients = {int(c["client"]): c for c in items(e, "clients")}
        self.row["status"] = "running"
        for key, name in (("rounds_planned", "rounds"), ("seed", "seed")):
            self.row[key] = whole(e.get(name)) if e.get(name) is not None else self.row[key]
        for key in ("runtime", "algorithm", "job_digest"):
            self.row[key] = e.get(key) or self.row[key]

    def _resumed(self, e: Mapping[str, Any]) -> None:
        self.row |= {"status": "running", "stop_reason": None, "ended": None}
        self.row["rounds_planned"] = whole(e.get("rounds")) or self.row["rounds_planned"]

    def _planned(self, e: Mapping[str, Any]) -> None:
        if privacy := table(e, "privacy"):
            self.row["guarantee"] = text(privacy)
            self.row["budget"] = finite(privacy.get("budget"))

    def _round_started(self, e: Mapping[str, Any]) -> None:
        asked = len(items(e, "cohort")) or whole(e.get("asked", e.get("cohort")))
        self._put(
            _ASKED,
            *(self.run, e["round"], whole(e.get("attempt", 0)), e.get("t"), asked),
        )

    def _client_done(self, e: Mapping[str, Any]) -> None:
        client, number = int(e["client"]), int(e["round"])
        done, last = self.rounds.get(client, (0, -1))
        self.rounds[client] = (done + (last != number), number)
        about = self.clients.get(client, {})
        self._put(
            "INSERT OR REPLACE INTO client VALUES (?,?,?,?,?,?,?)",
            *(self.run, client, about.get("name"), whole(about.get("train")), whole(about.get("test"))),
            *(text(about.get("labels")), self.rounds[client][0]),
        )
        self._part(e, "done", None, e.get("detail"))

    def _client_lost(self, e: Mapping[str, Any]) -> None:
        self._part(e, "refused" if e.get("reason") == "refused" else "lost", e.get("reason"), e.get("text"))

    def _client_filtered(self, e: Mapping[str, Any]) -> None:
        self._put(
            _FILTERED,
            *(self.run, e["round"], e["client"], e.get("rule"), finite(e.get("score"))),
        )

    def _client_skipped(self, e: Mapping[str, Any]) -> None:
        if "round" in e and "client" in e:
            self._part(e, "refused", e.get("reason"), e.get("text"))

    def _part(self, e: Mapping[str, Any], outcome: str, reason: object, detail: object) -> None:
        self._put(
            "INSERT OR REPLACE INTO part VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            *(
                self.run,
                e["round"],
                e["client"],
                outcome,
                reason,
                whole(e.get("samples")),
                whole(e.get("steps")),
            ),
            *(finite(e.get("seconds")), whole(e.get("bytes_up")), whole(e.get("bytes_down")), None, detail),
        )

    def _released(self, e: Mapping[str, Any]) -> None:
        self.epsilon = finite(e.get("epsilon")) if e.get("epsilon") is not None else self.epsilon
        self.row["epsilon"] = self.epsilon
        self._put(
            "INSERT OR REPLACE INTO release VALUES (?,?,?,?,?,?,?)",
            *(self.run, e["seq"], whole(e.get("round")), whole(e.get("client")), dumps(e)),
            *(finite(e.get("epsilon")), finite(e.get("delta"))),
        )

    def _evaluated(self, e: Mapping[str, Any]) -> None:
        split, covered = str(e.get("split", "test")), int(bool(e.get("covered")))
        found = {-1: {**table(e, "metrics"), "rows": e.get("rows")}}
        found |= {int(k): v for k, v in table(e, "clients").items()}
        for client, metrics in found.items():
            weight = whole(metrics.get("rows"))
            for name, value in metrics.items():
                if name not in ("rows", "positives"):
                    self._put(
                        "INSERT OR REPLACE INTO metric VALUES (?,?,?,?,?,?,?,?)",
                        *(self.run, e.get("round", 0), split, client, name, finite(value), weight, covered),
                    )

    def _round_done(self, e: Mapping[str, Any]) -> None:
        channel, seconds = table(e, "secure"), finite(e.get("seconds"))
        up, down = (_sum(e.get(f"bytes_{way}"), channel.get(way)) for way in ("up", "down"))
        self._put(
            _ROUND,
            *(
                self.run,
                e["round"],
                whole(e.get("attempt", 0)),
                seconds,
                text(e.get("phases")),
                whole(e.get("back")),
            ),
            *(whole(e.get("filtered")), up, down, self.epsilon),
        )
        self.row["rounds_done"] = e["round"]
        for key, value in (("bytes_up", up), ("bytes_down", down), ("seconds", seconds)):
            self.row[key] = self.row[key] + (value or 0)  # type: ignore[operator]

    def _saved(self, e: Mapping[str, Any]) -> None:
        sql = "UPDATE round SET checkpoint=? WHERE run=? AND round=?"
        self._put(sql, e.get("path"), self.run, e.get("round"))

    def _run_done(self, e: Mapping[str, Any]) -> None:
        self.row |= {"status": e.get("status", "done"), "stop_reason": e.get("reason"), "ended": e.get("t")}
        self.row["final"] = text(e.get("final")) or self.row["final"]
        self.row["error"] = text(e.get("error")) or self.row["error"]
        self.row["model_digest"] = e.get("model_digest") or self.row["model_digest"]
        if privacy := table(e, "privacy"):
            self.row |= {"guarantee": text(privacy), "epsilon": finite(privacy.get("epsilon")) or self.row["epsilon"]}


def forget(db: sqlite3.Connection, run: str) -> None:
    """Take a run's rows out."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        for name in TABLES:
            db.execute(f"DELETE FROM {name} WHERE {'id' if name == 'run' else 'run'} = ?", (run,))


def reindex(db: sqlite3.Connection, folder: Folder) -> Indexer:
    """One run's rows anew from its folder; the indexer is ready for further events."""
    forget(db, folder.name)
    indexer = Indexer(db, folder)
    for event in folder.events():
        indexer.feed(event, 0)
    try:
        data = folder.events_path.read_bytes()
        indexer.offset = data.rfind(b"\n") + 1
    except FileNotFoundError:
        indexer.offset = 0
    indexer.flush()
    return indexer


def rows(db: sqlite3.Connection, name: str) -> list[dict[str, Any]]:
    """All rows of a table, in the order of its key."""
    cursor = db.execute(f"SELECT * FROM {name} ORDER BY 1, 2, 3")
    names = [d[0] for d in cursor.description]
    return [dict(zip(names, row)) for row in cursor]


def unpack(row: dict[str, Any]) -> dict[str, Any]:
    """A run's row with its JSON columns as values."""
    packed = ("final", "guarantee", "env", "git", "error")
    return {k: json.loads(v) if k in packed and isinstance(v, str) else v for k, v in row.items()}
