"""Fast tokenizers: where each token begins, which are special, and what a client may not write."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import bad
from manyloom.data.sources.frame import extra_missing

Ids = npt.NDArray[np.int64]


def specials(tokenizer: Any) -> Mapping[int, str]:
    """Special tokens, id -> text; those of blanks alone are text."""
    known = cast("dict[int, Any]", tokenizer.added_tokens_decoder)
    return {i: str(t.content) for i, t in known.items() if t.special and t.content.strip()}


def check_vocabulary(tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer that has more tokens than the model's embedding has rows; fewer is a padded embedding.

    Raises:
        BadInput: `vocabulary-mismatch`.
    """
    most = max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)
    if most > rows:
        last = tokenizer.convert_ids_to_tokens(most - 1)
        raise bad(
            "vocabulary-mismatch",
            "the tokenizer has tokens that the model has no embedding for",
            got=f"{most} tokens, the last is {last!r}; the embedding has {rows} rows",
            rule="the tokenizer has at most as many tokens as the embedding has rows",
            mend="take the tokenizer that belongs to this model, without tokens added to it",
        )


def untrimmed(tokenizer: Any) -> Any:
    """A copy whose byte-level offsets keep their blanks; ids are the same.

    Trimmed, a token of blanks alone has an empty place, and the prompt's last blank counts as the answer's.

    Raises:
        BadInput: `tokenizer-slow`, or `extra-missing`.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise bad(
            "tokenizer-slow",
            "the tokenizer must be a fast one: masks need to know where each token begins",
            got=type(tokenizer).__name__,
            mend="convert it: AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)",
        )
    try:
        tokenizers: Any = import_module("tokenizers")
    except ImportError as error:
        raise extra_missing("llm", "a tokenizer") from error
    made = copy.deepcopy(tokenizer)
    backend = made.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    post = json.loads(backend.to_str())["post_processor"]
    if _untrim(post):
        model: dict[str, object] = {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}
        rest = ("truncation", "padding", "normalizer", "pre_tokenizer", "decoder")
        empty: dict[str, object] = {"version": "1.0", "added_tokens": [], **dict.fromkeys(rest)}
        empty |= {"post_processor": post, "model": model}
        backend.post_processor = tokenizers.Tokenizer.from_str(json.dumps(empty)).post_processor
    return made


def _untrim(part: Any) -> bool:
    """Set every `trim_offsets` of a post-processor to false; whether there was one to set."""
    if isinstance(part, list):
        return sum(_untrim(p) for p in cast("list[Any]", part)) > 0
    if not isinstance(part, dict):
        return False
    fields = cast("dict[str, Any]", part)
    found = bool(fields.get("trim_offsets"))
    if found:
        fields["trim_offsets"] = False
    return sum(_untrim(v) for v in fields.values()) > 0 or found


def encode(tokenizer: Any, texts: Sequence[str], special: bool) -> list[Any]:
    """A batch of texts as encodings, with or without what the tokenizer adds at their ends."""
    return tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=special) if texts else []


def places(encoding: Any) -> tuple[Ids, Ids, Ids]:
    """Ids, and where each token begins and ends in the text."""
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    return np.array(encoding.ids, np.int64), offsets[:, 0], offsets[:, 1]


def forged(tokenizer: Any, texts: Sequence[str]) -> Callable[[str], str]:
    """Finds the text of a special token in what somebody wrote, also one that normalisation would make."""
    if not texts:
        return lambda text: ""
    search = re.compile("|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True))).search
    normalizer = tokenizer.backend_tokenizer.normalizer

    def find(text: str) -> str:
        hit = search(text) or (search(normalizer.normalize_str(text)) if normalizer is not None else None)
        return hit.group() if hit else ""

    return find
