"""The run store: one truth, readable after a crash at any byte, with one writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manyloom.core.errors import BadInput, ManyloomError, RunFailed
from manyloom.track import folder as folders
from manyloom.track import index
from manyloom.track.document import summary
from manyloom.track.folder import Folder
from manyloom.track.record import read
from manyloom.track.report import html
from manyloom.track.store import Store

from . import streams


def fill(store: Store, events=None, job: str = "heart") -> Folder:
    with store.create(job, toml=streams.TOML, digest="9f2c41aa", env=streams.ENV) as writer:
        for event in events if events is not None else streams.run(rounds=3):
            writer.append(event)
    return writer.folder


def tables(store: Store) -> dict[str, list[dict]]:
    return {name: index.rows(store.db, name) for name in index.TABLES}


def test_a_run_leaves_a_folder_and_rows(tmp_path: Path) -> None:
    with Store.open(tmp_path / "home") as store:
        folder = fill(store)
        assert folder.name.startswith("heart-") and len(folder.name) == len("heart-") + 4
        present = {p.name for p in folder.path.iterdir()}
        assert present == {"run.json", "job.toml", "job.digest", "env.json", "events.jsonl"}
        assert folder.toml() == streams.TOML
        [row] = store.runs()
        assert (row["status"], row["rounds_done"], row["algorithm"], row["seed"]) == ("done", 3, "fedavg", 7)
        assert row["bytes_up"] == 3 * 4 * 56 and row["final"]["auc"] > 0.7
        assert row["git"] == {"commit": "3f1c9ab", "dirty": False}
        assert len(index.rows(store.db, "metric")) == 4 * 5 * 3
        assert store.db.execute("PRAGMA user_version").fetchone() == (1,)
        assert store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        strict = {name: strict for _, name, _, _, _, strict in store.db.execute("PRAGMA table_list")}
        assert all(strict[name] for name in index.TABLES)


def test_the_index_is_the_same_while_running_after_and_rebuilt(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store)
        fill(store, streams.run(rounds=4, privacy=True, end="stopped", reason="budget"), job="private")
        live = tables(store)
        assert store.rebuild() == 2
        assert tables(store) == live
    os.remove(tmp_path / "runs.sqlite")
    with Store.open(tmp_path) as store:
        assert tables(store) == live


def test_a_crash_between_folder_and_index_is_mended(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store)
        whole = tables(store)
        store.db.execute("DELETE FROM metric")
        store.db.execute("UPDATE file SET bytes = 10")
    with Store.open(tmp_path) as store:
        assert tables(store) == whole


def test_events_cut_at_any_byte_stay_readable(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder = fill(store, streams.run(names=("a", "b"), rounds=2, lost=()))
    data = folder.events_path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in [*range(0, len(data), 97), *ends, *(e - 1 for e in ends), *(e + 1 for e in ends[:-1])]:
        folder.events_path.write_bytes(data[:cut])
        assert len(list(folder.events())) == sum(e <= cut for e in ends)


def test_a_torn_line_is_taken_off_before_going_on(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder = fill(store, streams.run(rounds=2, end="interrupted"))
        seq = list(folder.events())[-1]["seq"]
        with open(folder.events_path, "ab") as file:
            file.write('{"v":1,"seq":99,"type":"note","text":"Zür'.encode()[:-1])
        with store.resume(folder) as writer:
            said = writer.append({"type": "resumed", "from_round": 1, "rounds": 2})
            assert said["seq"] == seq + 1
        kinds = [(e["type"], e.get("round")) for e in folder.events()]
        assert ("round_done", 2) not in kinds and ("round_done", 1) in kinds and ("resumed", None) in kinds
        assert [k for k, _ in kinds].count("run_done") == 1  # the end after the resume, not the one before
        [row] = store.runs()
        assert row["rounds_done"] == 1 and row["status"] == "interrupted"
        live = tables(store)
        store.rebuild()
        assert tables(store) == live


def test_released_epsilon_is_never_taken_back(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder = fill(store, streams.run(rounds=3, privacy=True, end="interrupted"))
        with store.resume(folder) as writer:
            writer.append({"type": "resumed", "from_round": 1})
            assert sum(e["type"] == "released" for e in folder.events()) == 3
            writer.append({"type": "run_done", "status": "stopped", "reason": "budget", "final": None})
        assert len(index.rows(store.db, "release")) == 3


def test_damaged_lines_unknown_types_and_keys_are_passed_over(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        events = list(streams.run(rounds=1))
        folder = fill(store, [*events[:-1], {"type": "from-the-future", "x": 1}, {**events[-1], "y": [2]}])
    data = folder.events_path.read_bytes().split(b"\n")
    folder.events_path.write_bytes(b"\n".join([data[0], b'{"v":1,"broken', *data[1:]]))
    assert len(list(folder.events())) == len(data) - 1
    with Store.open(tmp_path) as store:
        assert store.runs()[0]["status"] == "done"


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    import numpy as np

    with Store.open(tmp_path) as store, store.create("x") as writer:
        writer.append({"type": "evaluated", "round": 1, "metrics": {"loss": float("nan"), "auc": np.float32(0.5)}})
        writer.append({"type": "evaluated", "round": np.int64(2), "metrics": {"loss": np.float64("inf")}})
    first, second, _ = writer.folder.events()
    assert first["metrics"] == {"loss": None, "auc": 0.5}
    assert second["metrics"] == {"loss": None} and second["round"] == 2


def test_folders_of_every_version_stay_readable() -> None:
    """`folders/vN/` were written by version N and are never written again."""
    for folder in sorted((Path(__file__).parent / "folders").iterdir()):
        run = read(Folder(folder))
        assert (run.status, run.rounds_done, run.algorithm, run.size) == ("done", 3, "fedavg", 4)
        assert run.final is not None and run.final["auc"] == pytest.approx(0.8376, abs=1e-4)
        found = summary(run)
        assert found["bytes_up"] == 672 and len(found["history"]) == 3 and found["job_digest"].startswith("9f2c41aa")
        assert html(run).startswith("<!doctype html>")


WRITER = """
import sys, time
from manyloom.track.record import read
from manyloom.track.report import html
from manyloom.track.store import Store
store = Store.open(sys.argv[1])
writer = store.create("killed")
writer.append({"type": "run_started", "run": writer.run_id, "rounds": 10**9, "clients": []})
print(writer.run_id, flush=True)
r = 0
while True:
    r += 1
    writer.append({"type": "evaluated", "round": r, "metrics": {"loss": 1 / r}})
    writer.append({"type": "round_done", "round": r, "back": 0, "seconds": 0.0, "bytes_up": 1, "bytes_down": 1})
    time.sleep(float(sys.argv[2]))
"""


def start(home: Path, pause: float = 0.0) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-c", WRITER, str(home), str(pause)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_kill_9_leaves_a_readable_store_and_an_interrupted_run(tmp_path: Path) -> None:
    for wait in (0.0, 0.05, 0.21):
        process, name = start(tmp_path)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with Store.open(tmp_path) as store:
            folder = store.resolve(name)
            events = list(folder.events())
            assert events[-1]["type"] == "run_done" and events[-1]["status"] == "interrupted"
            assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
            row = next(r for r in store.runs() if r["id"] == name)
            assert row["status"] == "interrupted"
            assert row["rounds_done"] == sum(e["type"] == "round_done" for e in events)
            assert folder.record()["status"] == "interrupted"


def test_one_writer_a_run_and_many_runs_a_store(tmp_path: Path) -> None:
    first, one = start(tmp_path, 0.005)
    second, two = start(tmp_path, 0.005)
    try:
        with Store.open(tmp_path) as store:
            time.sleep(0.2)
            assert {r["id"]: r["status"] for r in store.runs()} == {one: "running", two: "running"}
            with pytest.raises(RunFailed) as failed:
                store.resume(store.resolve(one))
            assert failed.value.code == "run-in-use"
            assert failed.value.what == f"{one} is running already"
            assert f"process {first.pid} on this machine, last event " in (failed.value.got or "")
            with pytest.raises(RunFailed):
                store.delete(store.resolve(two))
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
            process.stdout.close()
    with Store.open(tmp_path) as store:
        assert {r["status"] for r in store.runs()} == {"interrupted"}
        live = tables(store)
        store.rebuild()
        assert tables(store) == live


def test_a_lock_of_a_dead_process_is_no_lock(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder = fill(store)
        (folder.path / "lock").write_text('{"pid": 1, "host": "elsewhere", "heartbeat": "2020-01-01T00:00:00Z"}')
        assert folder.holder() is None
        store.resume(folder).close()
        lively = folders.now()
        (folder.path / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "heartbeat": lively}))
        assert folder.holder() is not None
        with pytest.raises(RunFailed, match="process 1 on elsewhere"):
            store.resume(folder)


def test_resolve(tmp_path: Path) -> None:
    with Store.open(tmp_path / ".manyloom") as store:
        with pytest.raises(BadInput, match='no run is called "last"'):
            store.resolve("last")
        one = fill(store, streams.run(rounds=1))
        two = fill(store, streams.run(rounds=1), job="heart-private")
        assert store.resolve("last").name == two.name
        assert store.resolve(one.name).name == one.name
        assert store.resolve("heart-priv").name == two.name
        assert store.resolve(str(one.path)).name == one.name
        with pytest.raises(BadInput) as unknown:
            store.resolve(one.name[:-1] + ("2" if one.name[-1] != "2" else "3"))
        assert unknown.value.code == "run-not-found"
        assert unknown.value.mend == f"did you mean {one.name}? All runs: manyloom runs"
        with pytest.raises(BadInput) as twice:
            store.resolve("heart")
        assert str(twice.value).startswith(f'error: "heart" fits 2 runs: {", ".join(sorted([one.name, two.name]))}')
        assert twice.value.mend == f'give more letters, or "last" for the newest ({two.name})'


def test_newer_stores_and_runs_are_refused(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder = fill(store)
    record = json.loads((folder.path / "run.json").read_text())
    (folder.path / "run.json").write_text(json.dumps({**record, "v": 7}))
    with pytest.raises(BadInput) as old:
        folder.record()
    assert old.value.code == "store-newer"
    (folder.path / "run.json").write_text(json.dumps(record))
    db = sqlite3.connect(tmp_path / "runs.sqlite")
    db.execute("PRAGMA user_version = 3")
    db.close()
    before = (tmp_path / "runs.sqlite").read_bytes()
    with pytest.raises(BadInput) as refused:
        Store.open(tmp_path)
    assert refused.value.code == "store-newer" and "store version 3" in (refused.value.got or "")
    assert (tmp_path / "runs.sqlite").read_bytes() == before


def test_a_damaged_index_is_built_anew(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        fill(store)
        whole = tables(store)
    for extra in ("-wal", "-shm"):
        (tmp_path / f"runs.sqlite{extra}").unlink(missing_ok=True)
    (tmp_path / "runs.sqlite").write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with Store.open(tmp_path) as store:
        assert tables(store) == whole and store.notes


def test_delete_takes_folder_and_rows(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder, kept = fill(store), fill(store)
        store.delete(folder)
        assert not folder.path.exists() and [r["id"] for r in store.runs()] == [kept.name]
        assert {row["run"] for row in index.rows(store.db, "metric")} == {kept.name}


def test_an_unwritable_home_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput) as refused:
        Store.open(tmp_path / "file" / "home")
    assert refused.value.code == "home-unwritable" and "--home" in (refused.value.mend or "")


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(tmp_path) as store:
        writer = store.create("heart")
        events = list(streams.run(rounds=2))
        for event in events[:12]:
            writer.append(event)
        real, left = os.write, [40]

        def full(fd: int, data: bytes) -> int:
            if fd != writer.fd:
                return real(fd, data)
            if not left[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            done, left[0] = real(fd, data[: left[0]]), 0
            return done

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunFailed) as failed:
            writer.append(events[12])
        assert failed.value.code == "disk-full" and failed.value.mend
        assert f"manyloom resume {writer.run_id}" in failed.value.mend
        monkeypatch.undo()
        assert writer.folder.events_path.read_bytes().endswith(b"\n")
        assert len(list(writer.folder.events())) == 12
        assert writer.append(events[12])["seq"] == 13
        writer.close()


def test_no_half_written_file_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    folders.write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(ManyloomError, match="disk is full"):
        folders.write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_an_error_ends_the_run_as_failed_and_no_word_as_interrupted(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        with pytest.raises(ValueError), store.create("a") as writer:
            writer.append({"type": "run_started", "run": writer.run_id, "rounds": 1})
            raise ValueError("no such thing\nsecond line")
        assert writer.folder.record()["status"] == "failed"
        assert writer.folder.record()["reason"] == "no such thing"
        with pytest.raises(KeyboardInterrupt), store.create("b") as writer:
            raise KeyboardInterrupt
        assert writer.folder.record()["status"] == "interrupted"


def test_the_store_costs_little_of_a_round(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, store.create("quick") as writer:
        events = list(streams.run(rounds=150, lost=(), baselines=False))
        began = time.perf_counter()
        for event in events:
            writer.append(event)
        took = time.perf_counter() - began
    assert took / 150 < 0.02  # a round of four clients; measured about 1 ms
