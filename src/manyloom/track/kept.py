"""One party's part of a vertical run's model, as that party keeps it: a folder of its own, and nothing of the others.

parts/<party>/model.safetensors   the party's tensors: its bottom; at the label party its bottom and the top
parts/<party>/model.json          how to build them, and how this party reads its rows: no code, no pickle
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from manyloom.core.errors import BadInput, bad
from manyloom.core.slots import Slots, from_bytes, to_bytes
from manyloom.core.tensors import from_numpy
from manyloom.data.parties import Holding, Reader
from manyloom.job.state import State
from manyloom.job.vertical.job import Vertical
from manyloom.models.split import Part, SplitModel, bottom_part, label_part
from manyloom.runtime.parties import memory_of
from manyloom.track.folder import dumps, read_json, write_atomic
from manyloom.vertical import distil, ids, split
from manyloom.vertical.party import Party
from manyloom.vertical.settings import Align, Cut

FORMAT = 1
FOLDER = "parts"


def save_parts(folder: Path, job: Vertical, state: State) -> str:
    """Write each party's part into a folder of its own; a SHA-256 over all of them."""
    digests: list[str] = []
    for info, tensors in _parts(job, state):
        data = to_bytes(tensors)
        info["sha256"] = hashlib.sha256(data).hexdigest()
        info["parameters"] = sum(t.numel() for t in tensors.values())
        place = folder / FOLDER / info["party"]
        place.mkdir(parents=True, exist_ok=True)
        write_atomic(place / "model.safetensors", data, run=folder.name)
        write_atomic(place / "model.json", dumps({**info, "run": folder.name}) + "\n", run=folder.name)
        digests.append(info["sha256"])
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _parts(job: Vertical, state: State) -> list[tuple[dict[str, Any], Slots]]:
    """What each party writes down: the label party first."""
    data, features = job.data, [h.name for h in job.data.features]
    shared: dict[str, Any] = {
        "v": FORMAT,
        "model": dict(job.model.table),
        "align": job.align._asdict(),
        "cut": job.cut._asdict(),
        "id_types": list(data.id_types),
        "row_word": list(data.row_word),
        "seed": job.seed,
        "job_digest": job.digest,
    }
    taught = isinstance(job.algorithm, distil.Distil)
    if taught:  # each part stands alone
        shared |= {"alone": True, "classes": data.classes, "loss": job.model.loss_of(data.classes)}
    label: dict[str, Any] = {
        "party": data.label.name,
        "role": "label",
        "features": data.label.x.shape[1],
        "reader": data.label.reader.to_json(),
        "parties": features,
        "target": data.target,
        "classes": data.classes,
        "labels": list(data.labels),
        "loss": job.model.loss_of(data.classes),
        "metrics": list(job.metrics),
    }
    found = [(shared | label, part_of(job.model, shared | label).layout.state_dict(state.server["theta"]))]
    for k, h in enumerate(data.features):
        info = shared | {"party": h.name, "role": "feature", "features": h.x.shape[1], "reader": h.reader.to_json()}
        memory, width = memory_of(state.clients, k), h.x.shape[1]
        part = distil.part(job.model, width, memory, data.classes) if taught else split.part(job.model, width, memory)
        found.append((info, part))
    return found


def part_of(model: SplitModel, info: Mapping[str, Any]) -> Part:
    """How a part's flat weights are laid out."""
    if info.get("alone"):
        return distil.net(model, info["features"], info["classes"])
    if info["role"] == "feature":
        return bottom_part(model, info["features"])
    return label_part(model, info["features"], len(info["parties"]), model.outputs(info["classes"]))


class Kept(NamedTuple):
    """One party's part as its folder has it."""

    info: Mapping[str, Any]
    tensors: Slots

    @property
    def name(self) -> str:
        return str(self.info["party"])

    @property
    def model(self) -> SplitModel:
        table = self.info["model"]
        loss, metrics = table.get("loss"), table.get("metrics")
        made = SplitModel(tuple(table["bottom"]), table["cut"], tuple(table["top"]), loss)
        return replace(made, metrics=None if metrics is None else tuple(metrics))

    @property
    def cut(self) -> Cut:
        return Cut(**self.info["cut"])

    @property
    def align(self) -> Align:
        return Align(**self.info["align"])

    @property
    def theta(self) -> Tensor:
        """The part's weights, flat [d]."""
        return part_of(self.model, self.info).layout.flatten(self.tensors)

    @property
    def memory(self) -> Slots:
        """What its handlers remember."""
        return {"theta": self.theta}

    @property
    def nobody(self) -> Party:
        """This party without a row."""
        return Party(self.name, [], torch.zeros(0, self.info["features"]))

    @property
    def reader(self) -> Reader:
        return Reader.from_json(self.info["reader"])

    def read(self, rows: Any) -> Holding:
        """New rows of this party; what is wrong with them says whose they are."""
        try:
            return self.reader.read(rows)
        except BadInput as error:
            told = [p if self.name in p.what else replace(p, what=f"{self.name}: {p.what}") for p in error.problems]
            raise BadInput(*told) from error

    def party(self, holding: Holding) -> tuple[Party, ids.Keys]:
        """Rows as this party's half of a conversation sees them, and which rows of the file they are."""
        align = self.align
        keys = ids.canonical(holding.ids, self.info["id_types"], casefold=align.casefold, duplicates=align.duplicates,
                             names=holding.reader.ids)  # fmt: skip
        at = from_numpy(keys.rows)
        y = None if holding.y is None else holding.y[at]
        return Party(self.name, keys.keys, holding.x[at], holding.columns, y), keys


def load_part(folder: Path, place: Path) -> Kept:
    """The part in one party's folder, of a run's folder."""
    info, path = read_json(place / "model.json"), place / "model.safetensors"
    if info.get("v", FORMAT) > FORMAT:
        raise bad("store-newer", f"{folder.name} was written by a newer Manyloom", got=f"model version {info['v']}",
                  mend="pip install -U manyloom")  # fmt: skip
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != info.get("sha256"):
        raise bad("model-damaged", f"the part of {place.name} in {folder.name} is not what was saved",
                  got="model.safetensors has another checksum than model.json says",
                  mend=f"manyloom resume {folder.name} writes it again")  # fmt: skip
    return Kept(info, from_bytes(data))
