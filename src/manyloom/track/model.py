"""The model of a finished run, saved and used again: weights, how to build the module, preprocessing.

model.safetensors   every tensor of the module's state dict
model.json          the [model] table, shapes, classes, preprocessing: no code, no pickle
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.slots import Slots, from_bytes, to_bytes
from manyloom.core.task import Shape
from manyloom.core.tensors import from_numpy
from manyloom.data import rows as raw_rows
from manyloom.data.federation import Federation
from manyloom.data.preprocess import Preprocess
from manyloom.data.table import MISSING
from manyloom.job import checkpoint
from manyloom.job.assemble import Places, task_of
from manyloom.job.job import Job
from manyloom.job.prepare import module_of
from manyloom.job.promise import planned
from manyloom.job.state import State
from manyloom.track.adapter import SavedAdapter, load_adapter
from manyloom.track.folder import dumps, read_json, write_atomic
from manyloom.track.predictions import Predictions, outputs, tell

FORMAT = 1


# ---- saving


def save_model(folder: Path, job: Job, state: State, preprocess: Preprocess | None) -> str:
    """Write model.safetensors and model.json into a run's folder; the weights' SHA-256."""
    shape = shape_with(job, preprocess)
    theta = job.algorithm.server.model(state.server)
    module = module_of(job.task, shape, job.seed, state.server, theta, job.algorithm.local)
    if job.task.own is not None:
        digest = job.task.own.save(folder / "adapter", module, _facts(job, state))
        table = dict(job.task.table or {})
        told = {"v": FORMAT, "run": folder.name, "adapter": "adapter", "sha256": digest, "job_digest": job.digest,
                "name": job.task.name, "model": table, "parameters": theta.numel(), "job_base": job.base,
                "base_beside": (Path(job.base or ".") / str(table.get("base", ""))).is_dir()}  # fmt: skip
        write_atomic(folder / "model.json", dumps(told) + "\n", run=folder.name)
        return digest
    data = to_bytes(tensors_of(module))
    digest = hashlib.sha256(data).hexdigest()
    write_atomic(folder / "model.safetensors", data, run=folder.name)
    text = dumps(description(job, shape, preprocess, digest, module, run=folder.name))
    write_atomic(folder / "model.json", text + "\n", run=folder.name)
    return digest


def _facts(job: Job, state: State) -> dict[str, object]:
    """What the card of an adapter says of its run."""
    fed = job.federation
    return {
        "data": f"{fed.info.title} ({fed.info.name})",
        "clients": len(fed),
        "rounds": state.round,
        "error": state.record.get("agg_error"),
        "figures": dict(state.record.get("final") or {}),
        "licence": job.card.get("licence", ""),
        "guarantee": _promised(job),
    }


def _promised(job: Job) -> str:
    """What the job promises, in a sentence; nothing without a claim."""
    if job.privacy is None or job.protection is None:
        return ""
    g = planned(job, job.protection)
    if g is None:
        return ""
    return f"epsilon {g['epsilon']:.2f} at delta {g['delta']:.1e} for one {g['unit']}, planned for {job.rounds} rounds"


def shape_with(job: Job, preprocess: Preprocess | None) -> Shape:
    """What the job's model fits, once its statistics are known."""
    fed = job.federation
    features = (preprocess.width,) if preprocess else tuple(fed.features or ())
    return Shape(features, fed.classes if fed.target == "class" else None)


def description(
    job: Job, shape: Shape, preprocess: Preprocess | None, digest: str, module: nn.Module, run: str
) -> dict[str, Any]:
    """The body of model.json."""
    fed, task = job.federation, job.task
    data = (fed.tables or {}).get("data", {})
    reader = {k: data[k] for k in ("separator", "header") if k in data}
    return {
        "v": FORMAT,
        "run": run,
        "name": task.name or type(module).__name__,
        "parameters": sum(p.numel() for p in module.parameters()),
        "model": dict(task.table) if task.table is not None else None,
        "base": job.base,
        "loss": task.loss if isinstance(task.loss, str) else None,
        "metrics": list(task.metrics),
        "features": list(shape.features),
        "classes": shape.classes,
        "labels": list(fed.labels),
        "target": fed.target,
        "input": input_type(fed),
        "row_word": list(fed.row_word),
        "reader": reader,
        "preprocess": preprocess.to_json() if preprocess else None,
        "sha256": digest,
        "job_digest": job.digest,
    }


def input_type(federation: Federation) -> str:
    """The number type of raw rows: uint8 rows are divided by 255 before the model sees them."""
    if federation.schema is not None or not len(federation):
        return "float32"
    some = np.flatnonzero(federation.sizes > 0)[:1]
    return str(federation.slab(some).x.dtype).removeprefix("torch.")


def tensors_of(module: nn.Module) -> Slots:
    """A module's state dict, each tensor with memory of its own (tied weights are saved under each name)."""
    return {name: t.detach().cpu().contiguous().clone() for name, t in module.state_dict().items()}


# ---- loading


def load_model(folder: Path, which: Literal["final", "best"] = "final") -> SavedModel | SavedAdapter:
    """The model of a run's folder; of a tuned language model its adapter.

    Args:
        folder: of the run.
        which: the last model, or that of the best round (its checkpoint must be there).

    Raises:
        BadInput: `model-missing`, `model-newer`, `model-damaged`.
    """
    info = read_json(folder / "model.json")
    path = folder / "model.safetensors"
    if not info or not (path.is_file() or "adapter" in info):
        raise _missing(folder)
    if info.get("v", FORMAT) > FORMAT:
        raise bad(
            "store-newer",
            f"{folder.name} was written by a newer Manyloom",
            got=f"model version {info['v']}",
            mend="pip install -U manyloom",
        )
    if "adapter" in info:
        best = best_state(folder) if which == "best" else None
        return load_adapter(folder, info, best.server["theta"] if best is not None else None)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != info["sha256"]:
        raise bad(
            "model-damaged",
            f"the weights of {folder.name} are not those that were saved",
            got="model.safetensors has another checksum than model.json says",
            mend=f"manyloom resume {folder.name} writes them again",
        )
    saved = SavedModel(folder, info, from_bytes(data))
    return saved if which == "final" else _best(saved)


def _missing(folder: Path) -> BadInput:
    """Why a folder holds no model."""
    name, kind = folder.name, read_json(folder / "run.json").get("kind")
    if kind == "sweep":
        return bad("model-missing", f"{name} is a sweep: each of its runs has a model", mend=f"manyloom compare {name}")
    if (folder / "clients").is_dir():
        return bad("model-missing", f"{name} has a model a client, not one for all", rule="they lie in clients/")
    return bad(
        "model-missing",
        f"{name} has no model yet",
        got="model.safetensors is not in its folder",
        rule="a run writes it at its end",
        mend=f"manyloom resume {name}",
    )


def best_state(folder: Path) -> State | None:
    """The state of a run's best round; None where that is the last."""
    kept = folder / "checkpoints"
    newest = checkpoint.latest(kept)
    best = newest.record.get("best_round") if newest else None
    if newest is not None and best == newest.round:
        return None
    path = kept / f"{best:05d}" if isinstance(best, int) and best else None
    if path is None or not path.is_dir():
        raise bad(
            "model-missing",
            f"{folder.name} has kept no checkpoint of its best round",
            got=f"best round {best}" if best else "no round was judged",
            mend="--model final",
        )
    return checkpoint.load(path)


def _best(saved: SavedModel) -> SavedModel:
    """The model of the best round: its theta, put where the saved tensors are."""
    from manyloom.core.flat import Layout

    state = best_state(saved.folder)
    if state is None:
        return saved
    module = saved.module
    Layout.of(module).load(module, state.server["theta"])
    if "buffers" in state.server:
        Layout.of_buffers(module).load(module, state.server["buffers"])
    return SavedModel(saved.folder, saved.info, tensors_of(module))


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained model with its preprocessing; `predict` takes raw rows."""

    folder: Path
    info: Mapping[str, Any]
    tensors: Slots

    def __repr__(self) -> str:
        return f"SavedModel({self.info['run']}: {self.info['name']}, {self.info['parameters']} parameters)"

    @property
    def preprocess(self) -> Preprocess | None:
        """From raw columns to what the module takes; None where rows are tensors."""
        found = self.info["preprocess"]
        return Preprocess.from_json(found) if found else None

    @property
    def shape(self) -> Shape:
        return Shape(tuple(self.info["features"]), self.info["classes"])

    @property
    def module(self) -> nn.Module:
        """A new module with the trained weights, in evaluation mode.

        Raises:
            BadInput: `unnamed-part` where the job's model had no name; then load `tensors` into your own.
        """
        if self.info["model"] is None:
            raise bad(
                "unnamed-part",
                f"the model of {self.info['run']} has no name to build it again by",
                rule="a lambda or a local function is not saved; its weights are",
                mend="my_module.load_state_dict(ml.load(run).tensors), or name the model module:function",
            )
        module = build(self.info)
        module.load_state_dict(self.tensors)
        return module.eval()

    def into(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The trained weights in a module of your own making."""
        module = make()
        module.load_state_dict(self.tensors)
        return module.eval()

    def predict(self, rows: Any, module: nn.Module | None = None) -> Predictions:
        """Predictions for raw rows.

        Args:
            rows: a CSV or Parquet path, a pandas frame, a mapping of columns, a list of mappings; or a tensor
                [n, ...] of what the source held (for a table: of encoded rows).
            module: the module to use, for models without a name.

        Raises:
            BadInput: `columns-missing`, `not-a-number`, `label-range`, `file-format`, `model-input`.
        """
        module = self.module if module is None else module
        if isinstance(rows, (Tensor, np.ndarray)):
            x = rows if isinstance(rows, Tensor) else from_numpy(cast(Any, rows))
            return tell(self.info, outputs(module, self._tensor(x)), None)
        source = Path(rows).name if isinstance(rows, (str, Path)) else "the table"
        pre = self.preprocess
        columns = self.read(rows)
        if pre is None:
            return self._flat(module, columns, source)
        raw = raw_rows.encode(pre, columns, source)
        told = tell(self.info, outputs(module, from_numpy(pre.encode(raw.table))), raw.y)
        return replace(
            told,
            columns=[c.name for c in pre.schema.columns],
            ignored=raw.ignored,
            filled=pre.filled(raw.table),
            unseen=pre.unseen(raw.table),
        )

    def read(self, rows: Any) -> raw_rows.Columns:
        """The raw columns of whatever `predict` takes, a tensor apart."""
        pre, reader = self.preprocess, cast("dict[str, Any]", self.info["reader"])
        missing = pre.schema.missing if pre else MISSING
        if isinstance(rows, (str, Path)):
            return raw_rows.read_file(rows, missing=missing, **reader)
        return raw_rows.columns_of(rows, missing)

    def _flat(self, module: nn.Module, named: raw_rows.Columns, source: str) -> Predictions:
        """Rows of a tensor source: a column a number, in order, and perhaps one named `label`."""
        wrong: list[Problem] = []
        columns = {c: raw_rows.numbers(cells, c, source, wrong) for c, cells in named.items()}
        y = columns.pop("label", None)
        need = math.prod(self.shape.features)
        if len(columns) != need:
            raise bad(
                "columns-missing",
                f"{source} does not have the columns that the model takes",
                got=f"{len(columns)} columns",
                rule=f'{need} numbers a row, and perhaps a column "label"',
                mend="write one column a number, in the order of the tensor",
            )
        if wrong:
            raise BadInput(*wrong)
        flat = np.stack(list(columns.values()), axis=1)
        if not np.isfinite(flat).all():
            raise bad("not-finite", f"{source} holds values that are missing or infinite", rule="finite numbers only")
        x = self._tensor(from_numpy(flat).reshape(-1, *self.shape.features))
        if y is not None and self.info["target"] == "class":
            y = np.where(np.isnan(y), -1, y).astype(np.int64)
        return replace(tell(self.info, outputs(module, x), y), columns=list(columns))

    def _tensor(self, x: Tensor) -> Tensor:
        """Rows as the module takes them: whole numbers for tokens, pixels of 0 to 255 divided by 255."""
        if list(x.shape[1:]) != list(self.shape.features):
            raise bad(
                "model-input",
                "the model can't take these rows",
                got=f"rows of shape {list(x.shape[1:])}",
                rule=f"a row has the shape {list(self.shape.features)}",
            )
        kind = self.info["input"]
        if kind == "int64":
            return x.long()
        return x.float() / 255 if kind == "uint8" else x.float()


def build(info: Mapping[str, Any]) -> nn.Module:
    """The module of a model.json, its weights whatever they are at the start."""
    target = info["target"]
    task = task_of(info["model"], (target, info["classes"]), Places(Path(info.get("base") or ".")))
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        return task.build(Shape(tuple(info["features"]), info["classes"]))
