"""The frozen base: loaded once, its dropout off, what it is called and which bytes it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from manyloom.core.errors import BadInput, bad
from manyloom.llm.adapters import library
from manyloom.llm.fast import check_vocabulary

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class Base(NamedTuple):
    """A base model, frozen."""

    model: Any  # a causal LM of transformers
    tokenizer: Any
    name: str  # of the hub, or the folder's own: never a path
    digest: str  # SHA-256 of stored tensors, tokenizer and template
    notes: tuple[str, ...]  # what was changed, or should be known


def load_base(base: str | Path, dtype: str = "float32", template: str | None = None) -> Base:
    """Load a causal language model and its tokenizer from a folder, or by its name on the hub.

    Raises:
        BadInput: `extra-missing`, `bad-value` (dtype), `base-missing`, `vocabulary-mismatch`.
    """
    transformers = library("transformers")
    if dtype not in DTYPES:
        raise bad("bad-value", "there is no such dtype for a base", got=f'dtype = "{dtype}"', rule=", ".join(DTYPES))
    place = str(base)
    folder = Path(place)
    local = folder.is_dir()
    name = folder.resolve().name if local else place
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(place)
        off = _no_dropout(config)
        model = transformers.AutoModelForCausalLM.from_pretrained(place, config=config, dtype=DTYPES[dtype])
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    except BadInput:
        raise
    except Exception as error:  # transformers and the hub raise many types
        raise _missing(place, name, local, error) from error
    finally:
        if shown:
            bars.enable_progress_bar()
    for p in model.parameters():
        p.requires_grad_(False)
    off += _no_dropout_modules(model)
    if template is not None:
        tokenizer.chat_template = template
    notes = [f"dropout of the base set to 0 ({', '.join(dict.fromkeys(off))})"] if off else []
    check_vocabulary(tokenizer, int(model.get_input_embeddings().weight.shape[0]))
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
        notes.append("no padding token: the end of text pads; labels go by length")
    if dtype == "bfloat16" and not _bf16():
        notes.append("this processor has no bfloat16 arithmetic: float32 is several times faster")
    return Base(model.eval(), tokenizer, name, _digest(folder if local else _cached(place), model, tokenizer),
                tuple(notes))  # fmt: skip


def tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 of what a tokenizer does: its pieces, rules, special tokens and template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("padding", "truncation")}
    else:
        rules = dict(sorted(tokenizer.get_vocab().items()))
    special = {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items()) if k != "pad_token"}
    told = [rules, special, tokenizer.chat_template]
    return hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _digest(folder: Path | None, model: nn.Module, tokenizer: Any) -> str:
    """SHA-256 over the sorted (name, dtype, shape, bytes) of stored tensors, then tokenizer and template."""
    total = hashlib.sha256()
    for name, t in sorted(_stored(folder, model), key=lambda pair: pair[0]):
        total.update(f"{name} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}\n".encode())
        if t.numel():
            total.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    total.update(tokenizer_digest(tokenizer).encode())
    return total.hexdigest()


def _stored(folder: Path | None, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a folder's safetensors files; without any, the loaded ones, each once."""
    from safetensors import safe_open

    every = sorted(folder.glob("*.safetensors")) if folder is not None else list[Path]()
    files = [f for f in every if not f.name.startswith("adapter_")]
    for file in files:
        with cast(Any, safe_open)(str(file), framework="pt") as opened:
            for name in list(opened.keys()):
                yield name, opened.get_tensor(name)
    if not files:
        yield from cast("Iterable[tuple[str, Tensor]]", model.named_parameters())


def _cached(name: str) -> Path | None:
    """Where the hub's client keeps a model that was just loaded by its name."""
    try:
        return Path(library("huggingface_hub").snapshot_download(name, local_files_only=True))
    except Exception:  # then the loaded tensors are what is hashed
        return None


def _no_dropout(config: Any) -> list[str]:
    """Set every dropout of a configuration to 0; the names of those that weren't."""
    off: list[str] = []
    for key, value in cast("dict[str, object]", dict(config.__dict__)).items():
        if "drop" in key and isinstance(value, float) and value > 0:
            setattr(config, key, 0.0)
            off.append(key)
    return off


def _no_dropout_modules(model: nn.Module) -> list[str]:
    off: list[str] = []
    for m in model.modules():
        if isinstance(m, nn.Dropout) and m.p > 0:
            m.p = 0.0
            off.append("dropout modules")
    return off


def _bf16() -> bool:
    cpu = cast(Any, torch.cpu)
    found = [getattr(cpu, n, None) for n in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(f() for f in found if f is not None) or torch.cuda.is_available()


def _missing(place: str, name: str, local: bool, error: Exception) -> BadInput:
    line = (str(error).strip().splitlines() or [""])[0][:160]
    if local:
        return bad(
            "base-missing",
            f'the folder "{name}" holds no causal language model that transformers can open',
            got=f"{type(error).__name__}: {line}".replace(place, name),
            rule="a folder with config.json, *.safetensors and a tokenizer, as save_pretrained writes it",
            mend="save model and tokenizer into the same folder",
        )
    return bad(
        "base-missing",
        f'there is no base model "{place}"',
        got=f"no such folder, and the hub's client says {type(error).__name__}",
        rule="a folder, or a name on the hub when there is a network",
        mend="give the path of a folder with config.json and *.safetensors",
    )
