"""Saved adapters in plain PEFT, and PEFT's adapters as a start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from manyloom.core.errors import BadInput
from manyloom.core.task import Shape
from manyloom.engine.build import fresh
from manyloom.llm.model import LanguageModel, Lora, language_model
from manyloom.llm.saved import About, save_adapter, start_from

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's own


def adapter(base: Path, **lora: Any) -> tuple[LanguageModel, torch.Tensor]:
    model = language_model(base, lora=Lora(**lora))
    return model, 0.2 * torch.randn(model.layout.d, generator=torch.Generator().manual_seed(0))


def loaded(base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("targets", [None, "all-linear", ["mlp.c_proj", "c_attn"]])
def test_plain_peft_loads_it_bit_for_bit(
    bases: dict[str, Path], tmp_path: Path, kind: str, targets: list[str] | str | None
) -> None:
    from peft import PeftModel

    if kind == "llama" and isinstance(targets, list):
        targets = ["mlp.up_proj", "q_proj"]
    model, theta = adapter(bases[kind], r=3, alpha=7.0, targets=targets)
    module = model.module(theta).eval()
    save_adapter(tmp_path, module)
    tuned = PeftModel.from_pretrained(loaded(bases[kind]), tmp_path).eval()
    theirs = dict(tuned.named_parameters())
    assert {n for n in theirs if "lora_" in n} == set(model.layout.names)
    for name, t in model.layout.views(theta).items():
        assert torch.equal(theirs[name], t)
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        ours = module.language_model(input_ids=ids).logits
        plain = loaded(bases[kind])(input_ids=ids).logits
        torch.testing.assert_close(tuned(input_ids=ids).logits, ours, rtol=0, atol=1e-5)
        merged = tuned.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=ids).logits, ours, rtol=0, atol=1e-5)
    assert float((ours - plain).abs().max()) > 1e-3


def test_a_run_with_a_frozen_saves_the_a_of_its_seed(bases: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, _ = adapter(bases["llama"])
    module: Any = fresh(model.task, Shape((3, 8), None), 11)
    save_adapter(tmp_path, module)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    first = model.layout.views(model.layout.flatten(module))
    assert len(saved) == 8
    for pair in model.pairs:
        assert torch.equal(saved[pair.a.replace(".default", "")], first[pair.a])
        assert not saved[pair.b.replace(".default", "")].any()


def test_the_folder_names_its_base_and_no_place_on_this_machine(bases: dict[str, Path], tmp_path: Path) -> None:
    model, theta = adapter(bases["gpt2"])
    about = About("four clinics' made-up notes", 4, 3, "svd", "epsilon 8 at delta 1e-5", 0.12, {"loss": 1.5}, "MIT")
    save_adapter(tmp_path / "a", model.module(theta), about)
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert config == {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "tiny-gpt2", "r": 8,
        "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none", "target_modules": ["c_attn"], "fan_in_fan_out": True,
        "inference_mode": True,
    }  # fmt: skip
    card = (tmp_path / "a/README.md").read_text()
    for said in (model.base_digest, "tiny-gpt2", about.data, "3 rounds", "4 clients", "svd", about.guarantee, "0.12"):
        assert said in card
    for file in (tmp_path / "a").iterdir():
        assert str(bases["gpt2"].parent).encode() not in file.read_bytes()
    save_adapter(tmp_path / "b", model.module(theta))
    assert "not stated" in (tmp_path / "b/README.md").read_text()


def made_by_peft(base: Path, folder: Path, **settings: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | settings
    tuned = get_peft_model(loaded(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for n, p in tuned.named_parameters():
            if "lora_B" in n:
                p.normal_()
    tuned.save_pretrained(folder)
    return tuned.eval()


def test_an_adapter_that_peft_made_is_a_start(bases: dict[str, Path], tmp_path: Path) -> None:
    tuned = made_by_peft(bases["llama"], tmp_path)
    model = language_model(bases["llama"], lora=Lora(r=4, alpha=8.0))
    theta = start_from(tmp_path, model)
    theirs = dict(tuned.named_parameters())
    for name, t in model.layout.views(theta).items():
        assert torch.equal(theirs[name], t)
    begun: Any = fresh(model.starting(theta).task, Shape((3, 8), None), 5)
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(begun.eval().language_model(input_ids=ids).logits, tuned(input_ids=ids).logits)


@pytest.mark.parametrize(
    "settings, lora, said",
    [
        ({}, {"r": 8, "alpha": 16.0}, "r = 4 in [lora]"),
        ({}, {"r": 4, "alpha": 16.0}, "alpha = 8 in [lora]"),
        ({"use_rslora": True}, {"r": 4, "alpha": 8.0}, "alpha = 16 in [lora]"),
        ({}, {"r": 4, "alpha": 8.0, "targets": "all-linear"}, 'targets = ["q_proj", "v_proj"]'),
        ({"use_dora": True}, {"r": 4, "alpha": 8.0}, "DoRA"),
        ({"rank_pattern": {"q_proj": 2}}, {"r": 4, "alpha": 8.0}, "rank_pattern"),
        ({"bias": "all"}, {"r": 4, "alpha": 8.0}, 'bias = "none"'),
    ],
)
def test_a_start_that_does_not_fit_is_told(
    bases: dict[str, Path], tmp_path: Path, settings: dict[str, Any], lora: dict[str, Any], said: str
) -> None:
    made_by_peft(bases["llama"], tmp_path, **settings)
    model = language_model(bases["llama"], lora=Lora(**lora))
    with pytest.raises(BadInput) as caught:
        start_from(tmp_path, model)
    assert caught.value.code == "start-mismatch" and said in f"{caught.value.got} {caught.value.mend}"


def test_a_folder_without_an_adapter_and_one_of_another_base_are_told(bases: dict[str, Path], tmp_path: Path) -> None:
    model = language_model(bases["llama"], lora=Lora(r=4, alpha=8.0))
    with pytest.raises(BadInput) as caught:
        start_from(tmp_path, model)
    assert caught.value.code == "start-missing"
    made_by_peft(bases["gpt2"], tmp_path, target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(BadInput) as caught:
        start_from(tmp_path, model)
    assert caught.value.code == "start-mismatch"
