"""A trained adapter as everybody's: a PEFT folder with a model card, and such a folder as a start."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from manyloom._version import __version__
from manyloom.core.errors import BadInput, bad
from manyloom.llm.adapters import saved_name
from manyloom.llm.forward import Adapted
from manyloom.llm.model import LanguageModel, Spec

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"


class About(NamedTuple):
    """What a card says beside the adapter itself; what is not known is said to be so."""

    data: str = ""  # what it learned from
    clients: int = 0
    rounds: int = 0
    rule: str = ""  # how adapters were combined
    guarantee: str = ""  # of privacy, in a sentence
    error: float | None = None  # the last round's aggregation error, mean over matrices
    figures: Mapping[str, float] = {}  # name -> value, held out
    licence: str = ""


def save_adapter(folder: str | Path, module: nn.Module, about: About | None = None) -> str:
    """Write adapter_config.json, adapter_model.safetensors and README.md; the weights' SHA-256.

    `PeftModel.from_pretrained(base, folder)` loads it, bit for bit. The base is named, never by a path on this machine.

    Args:
        folder: made if it isn't there.
        module: the trained one, as `LanguageModel.module(theta)` or a run's result gives it.
        about: for the card.
    """
    made = cast(Adapted, module)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    data = save(tensors_of(made), metadata={"format": "pt"})
    (place / WEIGHTS).write_bytes(data)
    text = json.dumps(config_of(made.spec), indent=2, sort_keys=True)
    (place / CONFIG).write_text(text + "\n", encoding="utf-8")
    digest = hashlib.sha256(data).hexdigest()
    (place / CARD).write_text(card(made.spec, about or About(), digest), encoding="utf-8")
    return digest


def tensors_of(module: Adapted) -> dict[str, Tensor]:
    """The factors under the names of an adapter's file, each with memory of its own."""
    return {saved_name(n): p.detach().cpu().contiguous().clone() for n, p in module.adapters().items()}


def config_of(spec: Spec) -> dict[str, Any]:
    """The body of adapter_config.json."""
    alpha = spec.lora.alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": spec.base,
        "r": spec.lora.r,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "lora_dropout": spec.lora.dropout,
        "bias": "none",
        "target_modules": list(spec.names),
        "fan_in_fan_out": spec.transposed,
        "inference_mode": True,
    }


def card(spec: Spec, about: About, digest: str = "") -> str:
    """README.md: what it is, on whose data, how combined, protected how."""
    unknown = "*not stated*"
    front = ["---", "library_name: peft", "pipeline_tag: text-generation", "tags: [federated-learning, lora]"]
    if "/" in spec.base:
        front.append(f"base_model: {json.dumps(spec.base)}")
    front += ["license: other", f"license_name: {json.dumps(about.licence or 'not-stated')}", "---"]
    who = f"{about.clients} clients" if about.clients else "several clients"
    rounds = f"{about.rounds} rounds" if about.rounds else f"rounds {unknown}"
    rows = [
        ("base", f"{spec.base}"),
        ("digest of the base", f"`{spec.digest}` (SHA-256 of its tensors, tokenizer and chat template)"),
        ("adapter", f"LoRA, r = {spec.lora.r}, alpha = {spec.lora.alpha:g}, on {len(spec.paths)} matrices: "
                    f"{', '.join(n if '.' not in n else f'`{n}`' for n in spec.names[:8])}"),
        ("digest of the adapter", f"`{digest}`" if digest else unknown),
        ("data", about.data or unknown),
        ("trained", f"{who}, {rounds}; no text left its client"),
        ("combined by", (about.rule or unknown) + _error(about.error)),
        ("privacy", about.guarantee or "no differential privacy: an adapter may repeat what it was trained on"),
        ("licence", about.licence or unknown),
    ]  # fmt: skip
    rows += [(f"{name}, held out", f"{value:.4g}") for name, value in about.figures.items()]
    lines = [*front, "", f"# Adapter for {spec.base}", "", "| | |", "|---|---|"]
    lines += [f"| {k} | {_cell(v)} |" for k, v in rows]
    lines += [
        "",
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{spec.base}")  # or its folder',
        'model = PeftModel.from_pretrained(base, "this folder")',
        "```",
        "",
        f"Made with Manyloom {__version__}.",
    ]
    return "\n".join(lines) + "\n"


def start_from(folder: str | Path, model: LanguageModel) -> Tensor:
    """theta [d] of an adapter that PEFT made: `model.starting(start_from(folder, model))` begins with it.

    Raises:
        BadInput: `start-missing`; `start-mismatch` where rank, scale, targets or kind differ.
    """
    place = Path(folder)
    try:
        config = cast("dict[str, Any]", json.loads((place / CONFIG).read_text(encoding="utf-8")))
        have = load((place / WEIGHTS).read_bytes())
    except (OSError, ValueError) as error:
        raise bad(
            "start-missing",
            f'the folder "{place.name}" holds no adapter',
            got=f"{type(error).__name__}",
            rule=f"{CONFIG} and {WEIGHTS}, as PEFT's save_pretrained writes them",
        ) from error
    _same_kind(config, model)
    want = {saved_name(e.name): e for e in model.layout.entries}
    theta = torch.zeros(model.layout.d, dtype=model.layout.dtype)
    views = model.layout.views(theta)
    missing, more = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    if missing or more:
        targets = config.get("target_modules")
        named = sorted(cast("list[str]", targets)) if isinstance(targets, list) else targets
        raise _mismatch(
            "it adapts other modules than this model",
            f"{len(missing)} tensors missing, {len(more)} unknown; such as {(missing + more)[0]}",
            f"targets match {', '.join(model.spec.names)}",
            f"targets = {json.dumps(named)}",
        )
    for name, e in want.items():
        if tuple(have[name].shape) != e.shape:
            raise _mismatch("a factor has another shape than this base needs", f"{name} {list(have[name].shape)}",
                            f"{list(e.shape)}", "take the adapter of this very base")  # fmt: skip
        views[e.name].copy_(have[name])
    return theta


def _same_kind(config: Mapping[str, Any], model: LanguageModel) -> None:
    """Refuse what can't be this model's theta, by the adapter's configuration."""
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        kind = "DoRA" if config.get("use_dora") else str(config.get("peft_type"))
        raise _mismatch("it is no plain LoRA", kind, "A and B alone", "train one with LoraConfig(use_dora=False)")
    if extra := [k for k in ("modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication") if config.get(k)]:
        rule = "the same r and alpha for each matrix, no further tensors"
        raise _mismatch("it holds more than one rank and scale for all", ", ".join(extra), rule, "train one without")
    if config.get("bias", "none") != "none":
        raise _mismatch("it trains biases", f"bias = {config['bias']}", "A and B alone",
                        'train one with LoraConfig(bias = "none")')  # fmt: skip
    r, alpha = int(config["r"]), float(config["lora_alpha"])
    if r != model.lora.r:
        raise _mismatch("it has another rank", f"r = {r}", f"this job has r = {model.lora.r}", f"r = {r} in [lora]")
    scale = alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r
    if not math.isclose(scale, model.lora.scale, rel_tol=1e-12):
        raise _mismatch("its products are scaled otherwise", f"scale {scale:g}",
                        f"alpha / r is {model.lora.scale:g} here", f"alpha = {scale * r:.17g} in [lora]")  # fmt: skip


def _mismatch(what: str, got: str, rule: str, mend: str) -> BadInput:
    return bad("start-mismatch", f"this adapter can't be the start: {what}", got=got, rule=rule, mend=mend)


def _error(value: float | None) -> str:
    return "" if value is None else f" (aggregation error of the last round {value:.3g})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
