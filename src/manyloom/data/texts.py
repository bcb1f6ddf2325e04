"""Texts before tokenisation: conversations and documents, as their owners wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from manyloom.data.arrays import I64
from manyloom.data.store import All, Index, Part, Slab, Some, Store
from manyloom.data.table import Table

if TYPE_CHECKING:
    from manyloom.data.federation import Federation

Format = Literal["alpaca", "messages", "prompt", "qa", "text"]


class Message(NamedTuple):
    """One turn of a conversation."""

    role: str
    content: str


Conversation = tuple[Message, ...]
Row = Conversation | str  # a document is a str


@dataclass(frozen=True, eq=False)
class Corpus:
    """Rows of text, and what the source said of them.

    `length` and `pack` are what `[data]` asks of tokenisation; pack None packs documents and pads conversations.
    `topic` [n] are codes that a partition may deal by, all 0 without a topic.
    """

    rows: Sequence[Row]
    format: Format
    length: int = 512
    pack: bool | None = None
    topic: I64 | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def y(self) -> I64:
        """What rows are dealt by, [n]."""
        return np.zeros(len(self.rows), np.int64) if self.topic is None else self.topic


@dataclass(frozen=True, eq=False)
class Texts:
    """A store of raw texts: tensors come once a tokenizer is known (`manyloom.llm.tokenise`)."""

    corpus: Corpus
    train: Index
    test: Index

    def slab(self, clients: I64, part: Part) -> Slab:
        raise RuntimeError("texts have no tensors yet: tokenised(federation, tokenizer) makes them")

    def labels(self, clients: I64, part: Part) -> tuple[Tensor, I64]:
        _, off = (self.train if part == "train" else self.test)(clients)
        return torch.zeros(int(off[-1]), dtype=torch.int64), off

    def table(self, clients: I64, part: Part) -> Table | None:
        return None


def corpus_of(store: Store) -> Corpus | None:
    """The corpus below a federation's store; None where its rows are no raw texts."""
    while isinstance(store, (Some, All)):
        store = store.inner
    return store.corpus if isinstance(store, Texts) else None


def rows_of(store: Store, clients: I64, part: Part) -> tuple[I64, I64]:
    """Which rows of the corpus some clients own: client j of those asked has rows[off[j]:off[j + 1]]."""
    if isinstance(store, Some):
        return rows_of(store.inner, store.index[clients], part)
    if isinstance(store, All):
        rows, off = rows_of(store.inner, np.arange(store.count if len(clients) else 0), part)
        return rows, off[[0, -1]] if len(clients) else off[:1]
    if not isinstance(store, Texts):
        raise TypeError(f"no texts in {type(store).__name__}")
    return (store.train if part == "train" else store.test)(clients)


def texts(federation: Federation, client: int, part: Part = "train") -> list[Row]:
    """The raw rows of one client."""
    corpus = corpus_of(federation.store)
    rows, _ = rows_of(federation.store, np.array([client], np.int64), part)
    return [] if corpus is None else [corpus.rows[i] for i in rows.tolist()]


def passages(text: str, most: int) -> list[str]:
    """A long text cut at blank lines into passages of up to `most` characters; a longer paragraph is one by itself.

    >>> passages("One.\\n\\nTwo.\\n\\n\\nThree is long.", 12)
    ['One.\\n\\nTwo.', 'Three is long.']
    """
    found: list[str] = []
    size = 0
    paragraphs: list[str] = []
    for paragraph in _paragraphs(text):
        if paragraphs and size + 2 + len(paragraph) > most:
            found.append("\n\n".join(paragraphs))
            paragraphs, size = [], 0
        size += len(paragraph) + (2 if paragraphs else 0)
        paragraphs.append(paragraph)
    return [*found, "\n\n".join(paragraphs)] if paragraphs else found


def _paragraphs(text: str) -> list[str]:
    lines: list[str] = []
    found: list[str] = []
    for line in [*text.replace("\r\n", "\n").split("\n"), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            found.append("\n".join(lines))
            lines = []
    return found
