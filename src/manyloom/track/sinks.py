"""Trackers that others run: TensorBoard and MLflow read the same events. Each is an extra, imported when used.

sink = tensorboard(folder)
for event in ml.run(job):
    sink.feed(event.to_json())
sink.close()
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from manyloom.core.errors import bad
from manyloom.core.text import finite
from manyloom.track.folder import table


class Sink(Protocol):
    """Something that takes events."""

    def feed(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def scalars(event: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """The round of an event and the numbers a curve is drawn of: evaluations, bytes, seconds, replies, epsilon.

    >>> scalars({"type": "evaluated", "round": 3, "split": "test", "metrics": {"loss": 0.5}})
    (3, {'test/loss': 0.5})
    """
    kind, step = event.get("type"), int(event.get("round") or 0)
    found: dict[str, object] = {}
    if kind == "evaluated":
        found = {f"{event.get('split', 'test')}/{k}": v for k, v in table(event, "metrics").items()}
    elif kind == "round_done":
        found = {
            f"round/{k}": event.get(k) for k in ("loss_train", "seconds", "bytes_up", "bytes_down", "back", "lost")
        }
        found |= {f"phase/{k}": v for k, v in table(event, "phases").items()}
        found |= {f"secure/bytes_{k}": v for k, v in table(event, "secure").items()}
        found |= {f"privacy/{k}": v for k, v in table(event, "guard").items() if k != "next_clip"}
    elif kind == "released":
        found = {"privacy/epsilon": event.get("epsilon")}
    return step, {k: v for k, raw in found.items() if (v := finite(raw)) is not None}


def _needed(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise bad(
            "extra-missing",
            f'this needs the extra "{extra}", which is not installed',
            mend=f'pip install "manyloom[{extra}]"',
        ) from error


class tensorboard:
    """Curves for TensorBoard, in a folder of event files.

    Args:
        folder: where the files go; a run a folder.

    Raises:
        BadInput: `extra-missing`.
    """

    def __init__(self, folder: str | Path) -> None:
        self._event = _needed("tensorboard.compat.proto.event_pb2", "tensorboard").Event
        self._summary = _needed("tensorboard.compat.proto.summary_pb2", "tensorboard").Summary
        writer = _needed("tensorboard.summary.writer.event_file_writer", "tensorboard")
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._writer = writer.EventFileWriter(str(folder))

    def feed(self, event: Mapping[str, Any]) -> None:
        step, found = scalars(event)
        if not found:
            return
        import time

        values = [self._summary.Value(tag=k, simple_value=_single(v)) for k, v in found.items()]
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=self._summary(value=values)))

    def close(self) -> None:
        self._writer.close()


def _single(value: float) -> float:
    """The nearest number that 32 bits hold; beyond them the largest."""
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return 3.4028234e38 if value > 0 else -3.4028234e38


class mlflow:
    """A run in MLflow: parameters of `run_started`, metrics a round, the end's status.

    Args:
        experiment: its name.
        uri: of the tracking server or folder; MLflow's own setting by default.

    Raises:
        BadInput: `extra-missing`.
    """

    def __init__(self, experiment: str = "manyloom", uri: str | None = None) -> None:
        client = _needed("mlflow.tracking", "mlflow").MlflowClient
        self._client = client(tracking_uri=uri) if uri else client()
        found = self._client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run: str | None = None
        self._over = False

    def feed(self, event: Mapping[str, Any]) -> None:
        kind = event.get("type")
        if kind == "run_started" and self._run is None:
            name = str(event.get("run") or "run")
            self._run = self._client.create_run(self._experiment, run_name=name).info.run_id
            for key in ("name", "algorithm", "rounds", "seed", "runtime", "job_digest"):
                if event.get(key) is not None:
                    self._client.log_param(self._run, key, event[key])
        if self._run is None:
            return
        if kind == "planned":
            self._planned(event)
        step, found = scalars(event)
        for key, value in found.items():
            self._client.log_metric(self._run, key, value, step=step)
        if kind == "run_done":
            ends = {"done": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
            self._over = True
            self._client.set_terminated(self._run, ends.get(str(event.get("status")), "FINISHED"))

    def _planned(self, event: Mapping[str, Any]) -> None:
        """The terms of a guarantee and of a secure sum as parameters."""
        terms = {
            "privacy": ("budget", "delta", "unit", "adjacency", "noise_multiplier", "clip", "sampling", "accountant")
        }
        terms |= {"secure": ("mode", "least", "threshold", "gamma")}
        for name, keys in terms.items():
            for key in keys:
                if (value := table(event, name).get(key)) is not None:
                    self._client.log_param(self._run, f"{name}.{key}", value)

    def close(self) -> None:
        if self._run is not None and not self._over:
            self._client.set_terminated(self._run, "KILLED")
