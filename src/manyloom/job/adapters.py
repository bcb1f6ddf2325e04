"""`[model] name = "causal-lm"` and `[lora]`: what follows from them, and the parts they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from manyloom.core.errors import bad
from manyloom.core.parts import Algorithm
from manyloom.core.signature import keys
from manyloom.core.validate import show
from manyloom.data.federation import Federation
from manyloom.llm.adapters import Lora
from manyloom.llm.model import LanguageModel, language_model
from manyloom.llm.tuning import Tuning, tuning

NAME = "causal-lm"
# what follows for [algorithm] where it is not given
USUAL: Mapping[str, object] = {"optimiser": "adamw", "lr": 1e-3, "batch_size": 4, "clip_grad": 1.0}
OTHERS = ("classes", "loss", "metrics", "buffers", "freeze")  # keys of [model] for other models

Given = Mapping[str, Mapping[str, object]]


def is_language(given: Given) -> bool:
    """Whether a job tunes a language model."""
    return given.get("model", {}).get("name") == NAME


def followed(given: Given) -> dict[str, dict[str, object]]:
    """The tables with what follows for a language model filled in."""
    out = {t: dict(keys) for t, keys in given.items()}
    if is_language(given):
        out["algorithm"] = {**USUAL, **out.get("algorithm", {})}
    elif "lora" in given:
        raise bad("contradiction", "[lora] is for a language model",
                  got=f"name = {show(given['model']['name'])} in [model]",
                  rule="adapters are put on a causal language model",
                  mend='name = "causal-lm", base = "FOLDER"')  # fmt: skip
    return out


def model_of(given: Given, places: Any) -> LanguageModel:
    """The base with adapters that [model] and [lora] name; it is loaded here, once."""
    own = {k: v for k, v in given["model"].items() if k != "name"}
    if wrong := [k for k in OTHERS if k in own]:
        raise bad("contradiction", f"{wrong[0]} does not fit a language model",
                  got=f"{wrong[0]} = {show(own[wrong[0]])} in [model]",
                  rule="the loss is that of the next token, over the labels a text has",
                  mend=f"leave {wrong[0]} out")  # fmt: skip
    base = str(own.pop("base"))
    beside = places.file(base)
    place = beside if beside is not None and Path(beside).is_dir() else base
    lora = Lora(**cast("dict[str, Any]", dict(given.get("lora", {}))))
    return language_model(place, lora=lora, **cast("dict[str, Any]", own))


def parts_of(given: Given, model: LanguageModel, federation: Federation, algorithm: Algorithm, seed: int) -> Tuning:
    """Task, algorithm and tokenised federation of the tables."""
    made = tuning(model, federation, algorithm, private="privacy" in given, secure="secure" in given, seed=seed)
    filled = {k.name: k.default for k in keys(language_model).values() if not k.required and k.name != "lora"}
    table = {"name": NAME, **filled, **given["model"], "base_digest": model.base_digest}
    return made._replace(task=replace(made.task, table=table))


__all__ = ["NAME", "followed", "is_language", "model_of", "parts_of"]
