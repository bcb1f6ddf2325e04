"""A checkpoint is the run's state, in safetensors and JSON, renamed into place: whole, or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from manyloom.core.errors import Problem, RunFailed
from manyloom.core.slots import Slots, from_bytes, to_bytes
from manyloom.job.state import State

_PARTS = ("server", "rule", "clients", "preprocess", "open")


def save(state: State, folder: Path, keep: int = 3) -> tuple[Path, str]:
    """Write `folder/00027`, atomically, and remove all but the newest `keep` and the best; its path and SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{state.round:05d}"
    draft = folder / f".{state.round:05d}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    slots: Slots = {f"{part}/{name}": t for part in _PARTS for name, t in cast(Slots, getattr(state, part)).items()}
    data = to_bytes(slots)
    digest = hashlib.sha256(data).hexdigest()
    record = {"v": 1, "round": state.round, "record": state.record, "execution": state.execution, "sha256": digest}
    _write(draft / "state.safetensors", data)
    _write(draft / "state.json", json.dumps(record).encode())
    if final.exists():
        shutil.rmtree(final)
    os.rename(draft, final)
    best = f"{state.record.get('best_round') or 0:05d}"
    for old in checkpoints(folder)[:-keep]:
        if old.name != best:
            shutil.rmtree(old, ignore_errors=True)
    return final, digest


def load(path: Path) -> State:
    """The state of one checkpoint; `checkpoint-damaged` if its bytes are not what was written."""
    try:
        record = cast("dict[str, Any]", json.loads((path / "state.json").read_text()))
        data = (path / "state.safetensors").read_bytes()
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if hashlib.sha256(data).hexdigest() != record["sha256"]:
        raise _damaged(path, "its checksum differs")
    parts: dict[str, Slots] = {part: {} for part in _PARTS}
    for name, tensor in from_bytes(data).items():
        part, _, slot = name.partition("/")
        parts[part][slot] = tensor
    state = State(record["round"], parts["server"])
    return replace(
        state,
        rule=parts["rule"],
        clients=parts["clients"],
        preprocess=parts["preprocess"],
        open=parts["open"],
        record=record["record"],
        execution=record["execution"],
    )


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints, oldest first."""
    return sorted(p for p in folder.glob("[0-9]*") if p.is_dir()) if folder.is_dir() else []


def latest(folder: Path) -> State | None:
    """The newest checkpoint that can be read; a damaged one gives way to the one before it."""
    for path in reversed(checkpoints(folder)):
        try:
            return load(path)
        except RunFailed:
            continue
    return None


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, why: str) -> RunFailed:
    return RunFailed(
        Problem(
            "checkpoint-damaged",
            f"checkpoint {path.name} is damaged",
            why,
            mend="an older one is used where there is one; else run the job again",
        )
    )
