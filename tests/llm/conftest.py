"""Tiny bases, saved once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.llm.toys import CHATML, bytelevel, llama


def gpt2(tokenizer: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny Llama and a tiny GPT-2 with one tokenizer."""
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    place = tmp_path_factory.mktemp("bases")
    tokenizer = bytelevel(CHATML)
    for name, model in (("tiny-llama", llama(tokenizer)), ("tiny-gpt2", gpt2(tokenizer))):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return {"llama": place / "tiny-llama", "gpt2": place / "tiny-gpt2"}
