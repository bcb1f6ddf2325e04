"""The adapter of a finished run, loaded again over its base."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from manyloom.core.errors import BadInput, bad
from manyloom.track.folder import read_json
from manyloom.track.tuned import loading

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True, eq=False)
class SavedAdapter:
    """A tuned language model: its adapter, and which base it belongs to."""

    folder: Path
    info: Mapping[str, Any]
    theta: Tensor | None = None  # of another round than the last

    def __repr__(self) -> str:
        told = f"{self.info['run']}: adapter of rank {self._config['r']} over {self._config['base_model_name_or_path']}"
        return f"SavedAdapter({told}, {self.info['parameters']} parameters)"

    @property
    def module(self) -> nn.Module:
        """The tuned model in evaluation mode, over the base that the job names; `.language_model` is transformers' own.

        Raises:
            BadInput: `base-missing`, `base-changed`, `extra-missing`.
        """
        base = str(self._table["base"])
        place = Path(self.info.get("job_base") or ".") / base
        if place.is_dir():
            return self.over(place)
        if self.info.get("base_beside", True) and not Path(base).is_dir():
            raise bad("base-missing", f"the base of {self.folder.name} is not where it was",
                      got=f'no folder "{base}" beside the job', rule="an adapter alone says nothing: it needs its base",
                      mend=f'ml.load("{self.folder.name}").over("FOLDER") where the base lies elsewhere')  # fmt: skip
        return self.over(base)

    def over(self, base: str | Path) -> nn.Module:
        """The tuned model over a base that lies in this folder; it must be the same, to the last bit."""
        from manyloom.llm.adapters import Lora
        from manyloom.llm.model import language_model
        from manyloom.llm.saved import start_from

        config, own = self._config, {k: v for k, v in self._table.items() if k not in ("name", "base")}
        lora = Lora(r=config["r"], alpha=config["lora_alpha"], targets=config["target_modules"],
                    dropout=config["lora_dropout"])  # fmt: skip
        model = language_model(str(base), lora=lora, **own)
        module = model.module(start_from(self.folder / "adapter", model))
        if self.theta is not None:
            from manyloom.core.flat import Layout

            frozen = () if self.theta.numel() == model.layout.d else ("*.lora_A.*",)
            Layout.of(module, frozen).load(module, self.theta)
        return module.eval()

    def read(self, rows: Any) -> Any:
        """Refused: an adapter takes no table."""
        raise self.refusal(rows)

    def predict(self, rows: Any, module: nn.Module | None = None) -> Any:
        """Refused: an adapter takes no table."""
        raise self.refusal(rows)

    def refusal(self, rows: Any) -> BadInput:
        """Why rows can't be predicted, with the lines that load the adapter."""
        base = str(self._config["base_model_name_or_path"])
        return bad("model-input",
                   f"{self.folder.name} tuned a language model: it writes text and takes no table of rows",
                   got=Path(rows).name if isinstance(rows, (str, Path)) else type(rows).__name__,
                   rule=f"its adapter is loaded by PEFT, over {base}: a name on the hub, or its folder",
                   mend=loading(base, str(self.folder / "adapter")).replace("model = ", ""))  # fmt: skip

    @property
    def _config(self) -> dict[str, Any]:
        return read_json(self.folder / "adapter" / CONFIG)

    @property
    def _table(self) -> dict[str, Any]:
        return dict(cast("Mapping[str, Any]", self.info["model"]))


def load_adapter(folder: Path, info: Mapping[str, Any], theta: Tensor | None = None) -> SavedAdapter:
    """The adapter of a run's folder, or with the theta of another of its rounds.

    Raises:
        BadInput: `model-missing`, `model-damaged`.
    """
    path = folder / "adapter" / WEIGHTS
    if not path.is_file() or not (folder / "adapter" / CONFIG).is_file():
        raise bad("model-missing", f"{folder.name} has no adapter any more", got="files of adapter/ are gone",
                  mend=f"manyloom resume {folder.name} writes them again")  # fmt: skip
    if hashlib.sha256(path.read_bytes()).hexdigest() != info["sha256"]:
        raise bad("model-damaged", f"the adapter of {folder.name} is not the one that was saved",
                  got="adapter_model.safetensors has another checksum than model.json says",
                  mend=f"manyloom resume {folder.name} writes it again")  # fmt: skip
    return SavedAdapter(folder, info, theta)
