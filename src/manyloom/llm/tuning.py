"""A language model in a job: what travels, how adapters are combined, what is told and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from manyloom.core.errors import BadInput, Problem
from manyloom.core.parts import Algorithm
from manyloom.core.task import Own, Task
from manyloom.data.federation import Federation
from manyloom.llm.adapters import Combine
from manyloom.llm.combine import averaged, svd
from manyloom.llm.model import LanguageModel
from manyloom.llm.saved import About, save_adapter
from manyloom.llm.tokenise import tokenised

A, B = "*.lora_A.*", "*.lora_B.*"
PRODUCTS = ("svd",)  # rules that need each client's adapter
MOVES = ("svd", "rolora")  # rules under which a coordinate of theta means something else a round later


class Tuning(NamedTuple):
    """The parts of a job that tunes a language model."""

    task: Task
    algorithm: Algorithm
    federation: Federation


def tuning(
    model: LanguageModel,
    federation: Federation,
    algorithm: Algorithm,
    *,
    combine: Combine | None = None,
    private: bool = False,
    secure: bool = False,
    seed: int = 0,
) -> Tuning:
    """The parts of a job that tunes `model` on texts.

        svd     the best rank-r adapter of sum_k p_k s B_k A_k (FlexLoRA; Bai et al. 2024, arXiv:2402.11505)
        fedavg  the mean of each factor; inexact by its cross terms (FedIT; Zhang et al. 2023, arXiv:2305.05644)
        ffa     A frozen and the same for all, B averaged: exact (FFA-LoRA; Sun et al. 2024, arXiv:2403.12313)
        rolora  B and A in turn: exact (RoLoRA; Chen et al. 2025, arXiv:2409.02346)

    Args:
        model: of `language_model`.
        federation: over texts, or tokens already.
        algorithm: a recipe; its rule for combining is replaced by that of `combine` where it is the mean.
        combine: by default svd; rolora under a secure sum or beside a robust rule, ffa under a privacy claim.
        private, secure: whether the job has [privacy] or [secure].
        seed: of the job; svd draws dead directions from it.

    Raises:
        BadInput: `combine-unsound`, with the rules that would do.
    """
    robust = algorithm.aggregate.name != "mean"
    rule = combine or model.lora.combine or ("ffa" if private else "rolora" if secure or robust else "svd")
    if wrong := _unsound(rule, algorithm, private, secure, robust):
        raise BadInput(*wrong)
    fed, counts = (federation, []) if federation.features is not None else tokenised(federation, model.tokenizer)
    names = federation.names
    told = [{"client": c.client, "name": names[c.client], "rows": c.rows, "supervised": c.supervised,
             "dropped": c.dropped, "shortened": c.shortened} for c in counts]  # fmt: skip
    lora = {
        "r": model.lora.r,
        "alpha": float(model.lora.alpha),
        "targets": model.lora.targets if isinstance(model.lora.targets, str) else list(model.spec.names),
        "dropout": float(model.lora.dropout),
        "combine": rule,
    }
    about: dict[str, object] = {
        "base": model.name,
        "base_digest": model.base_digest,
        "targets": list(model.spec.names),
        "matched": len(model.matched),
        "r": model.lora.r,
        "scale": model.lora.scale,
        "dtype": model.spec.dtype,
        "combine": rule,
        "base_parameters": sum(p.numel() for n, p in model.template.named_parameters() if ".lora_" not in n),
        "notes": list(model.notes),
    }
    own = Own(about, partial(_save, rule), partial(_say, model), model.prompts)
    task = replace(model.task, own=own, freeze=(A,) if rule == "ffa" else ())
    tables = {**algorithm.tables, "lora": lora}
    made = replace(algorithm, tables=tables, turns=((B,), (A,)) if rule == "rolora" else ())
    if not robust and rule in ("svd", "fedavg") and not (private or secure):
        combined = svd(model.pairs, model.layout, seed) if rule == "svd" else averaged(model.pairs, model.layout)
        made = replace(made, aggregate=combined._replace(weighed=True, table={}))
        made = replace(made, weights=algorithm.weights or "samples")
    return Tuning(task, made, replace(fed, told=told or federation.told))


def _unsound(rule: str, a: Algorithm, private: bool, secure: bool, robust: bool) -> list[Problem]:
    """Why a rule can't stand beside the rest; the rules that can are named."""
    found: list[Problem] = []
    got = f'combine = "{rule}" in [lora]'
    sums = [name for name, there in (("[privacy]", private), ("[secure]", secure)) if there]
    if rule in PRODUCTS and sums:
        mend = 'combine = "ffa" (one factor, so noise is not multiplied)' if private else \
            'combine = "rolora" (exact, half the bytes), "ffa" (exact) or "fedavg" (inexact)'  # fmt: skip
        found.append(Problem("combine-unsound", f'"{rule}" needs each client\'s adapter, beside {" and ".join(sums)}',
                             got, rule="there the hub gets a sum alone", mend=mend))  # fmt: skip
    elif rule in PRODUCTS and robust:
        found.append(Problem("combine-unsound", f'"{rule}" beside the rule "{a.aggregate.name}"', got,
                             rule="a robust rule acts on flat vectors, a product rule on matrices",
                             mend='combine = "rolora" or "ffa": the rule acts on one factor at a time'))  # fmt: skip
    remembers = set(a.server.init(torch.zeros(1))) != {"theta"} or bool(a.work.memory)
    if rule in MOVES and remembers:
        found.append(Problem("combine-unsound", f'"{rule}" beside {a.name}, which remembers earlier rounds', got,
                             rule="a round later the same coordinate means something else",
                             mend='combine = "fedavg" or "ffa", or algorithm fedavg without a [server]'))  # fmt: skip
    if rule in PRODUCTS and a.downlink.apply is not None:
        found.append(Problem("combine-unsound", f'"{rule}" beside a packed [downlink]', got,
                             rule="clients start from what they decoded, products are taken from what was sent",
                             mend='leave [downlink] out, or take combine = "fedavg"'))  # fmt: skip
    if rule in PRODUCTS and a.uplink.memory:
        found.append(Problem("combine-unsound", f'"{rule}" beside error feedback', got,
                             rule="what is carried over belongs to another basis",
                             mend="error_feedback = false in [uplink]"))  # fmt: skip
    return found


def _save(rule: str, folder: Path, module: nn.Module, facts: Mapping[str, Any]) -> str:
    known = {k: facts[k] for k in About._fields if k in facts}
    about: dict[str, Any] = {**known, "rule": rule}
    return save_adapter(folder, module, About(**about))


def _say(model: LanguageModel, module: nn.Module) -> list[tuple[str, str]]:
    return [(prompt, model.say(module, prompt)) for prompt in model.prompts]
