"""Prompts: conversations as the template writes them, and which tokens of them are the assistant's own.

A template without generation marks says nothing of who wrote what, so each assistant turn is found by rendering what
stood before it (`pre`) and what stands with it (`full`): the turn is what the second has and the first has not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import BadInput, bad
from manyloom.data.texts import Conversation, Message, Row
from manyloom.llm.fast import Ids, encode, forged, places, specials, untrimmed

Bools = npt.NDArray[np.bool_]
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
DATE = "26 Jul 2024"  # what Llama's templates say without a clock: two runs on two days read the same text
T = TypeVar("T")
PROBE = (Message("user", "Which colour has the sky?"), Message("assistant", "Blue, on most days."))


class Masked(NamedTuple):
    """One row as tokens: ids [t], which of them are supervised [t]; `dropped` says why it is left out.

    `unstopped` turns have no end that could be learnt.
    """

    ids: Ids
    supervised: Bools
    dropped: str = ""
    unstopped: int = 0


class Turn(NamedTuple):
    """An assistant turn in the rendered text: characters [start, end) with its stripped content, up to `until`."""

    start: int
    end: int
    until: int


@dataclass(frozen=True, eq=False)
class Prompts:
    """A tokenizer whose offsets are not trimmed, and the template it renders with (None: prompt and completion, raw).

    `special` are the ids of special tokens, `forged` finds their texts in what a client wrote.
    """

    tokenizer: Any
    template: str | None
    name: str
    special: Ids
    forged: Callable[[str], str]

    @property
    def marks(self) -> bool:
        """Whether the template says itself what the assistant wrote."""
        return self.template is not None and bool(MARKS.search(self.template))


def prompts_of(tokenizer: Any, template: str | None = None) -> Prompts:
    """How to write and mask rows with a fast tokenizer.

    Args:
        tokenizer: of transformers; it is not changed.
        template: a chat template (Jinja), or the name of one the tokenizer has; its own by default, "" for none.

    Raises:
        BadInput: `tokenizer-slow`, or `template-refused` where assistant turns can't be told from the template.
    """
    own = untrimmed(tokenizer)
    known = specials(own)
    text = None if template == "" or (template is None and not own.chat_template) else own.get_chat_template(template)
    made = Prompts(
        own, text, _named(tokenizer, template, text), np.array(list(known), np.int64), forged(own, list(known.values()))
    )
    if text is not None and not made.marks:
        masked(made, [PROBE])  # contents that are no part of any template: what is refused here fails for all
    return made


def masked(prompts: Prompts, rows: Sequence[Row]) -> list[Masked]:
    """Tokens and masks of a batch of rows: a document whole, of a conversation what the assistant wrote.

    Raises:
        BadInput: `template-refused`, naming the template.
    """
    why = [_unfit(prompts, row) for row in rows]
    out = [_left_out(w) for w in why]
    documents = [i for i, row in enumerate(rows) if not why[i] and isinstance(row, str)]
    talks = [i for i, row in enumerate(rows) if not why[i] and not isinstance(row, str)]
    way = _raw if prompts.template is None else _marked if prompts.marks else _by_prefix
    chats = [cast(Conversation, rows[i]) for i in talks]
    whole = _whole(prompts, [str(rows[i]) for i in documents])
    for i, one in zip([*documents, *talks], [*whole, *way(prompts, chats)], strict=True):
        out[i] = one
    return out


# ---- the three ways to know what the assistant wrote


def _by_prefix(prompts: Prompts, chats: Sequence[Conversation]) -> list[Masked]:
    whole = _render(prompts, chats, False)
    turns = [(c, i) for c, chat in enumerate(chats) for i, m in enumerate(chat) if m.role == "assistant"]
    before = _render(prompts, [chats[c][:i] for c, i in turns], True)
    last = [i == len(chats[c]) - 1 for c, i in turns]
    inner = iter(_render(prompts, [chats[c][: i + 1] for (c, i), end in zip(turns, last) if not end], False))
    spans: list[list[Turn]] = [[] for _ in chats]
    broken: dict[int, str] = {c: str(text) for c, text in enumerate(whole) if isinstance(text, _Refusal)}
    for (c, i), pre, end in zip(turns, before, last):
        full = whole[c] if end else next(inner)
        failed = next((t for t in (whole[c], pre, full) if isinstance(t, _Refusal)), None)
        if failed is not None:
            broken[c] = str(failed)
        else:
            spans[c].append(_turn(prompts, str(whole[c]), str(pre), str(full), chats[c][i].content))
    texts = ["" if c in broken else str(text) for c, text in enumerate(whole)]
    out: list[Masked] = []
    for c, encoding in enumerate(encode(prompts.tokenizer, texts, False)):
        if c in broken:
            out.append(_left_out(f"the template refuses it: {broken[c]}"))
            continue
        ids, starts, ends = places(encoding)
        own = np.isin(ids, prompts.special)
        keep = np.zeros(len(ids), np.bool_)
        unstopped = 0
        for start, end, until in spans[c]:
            stops = np.flatnonzero(own & (starts >= end) & (starts < until))
            cut = int(ends[stops[0]]) if len(stops) else end
            unstopped += not len(stops)
            keep |= (starts >= start) & (starts < cut)
        out.append(Masked(ids, keep, "", unstopped))
    return out


def _turn(prompts: Prompts, whole: str, pre: str, full: str, content: str) -> Turn:
    """Where a turn lies, if the template is one that can be read by prefixes."""
    said = content.strip()
    tail = full[len(pre) :]
    lead = len(tail) - len(tail.lstrip()) if said else 0
    if not full.startswith(pre):
        raise _refused(prompts, "what it writes with the answer does not begin with what it writes before it")
    if not whole.startswith(full):
        raise _refused(prompts, "it rewrites an earlier turn once another follows")
    if not tail.startswith(said, lead):
        raise _refused(prompts, "it ignores the generation prompt, or does not write the answer as it is")
    return Turn(len(pre), len(pre) + lead + len(said), len(full))


def _marked(prompts: Prompts, chats: Sequence[Conversation]) -> list[Masked]:
    def make(some: Sequence[Conversation]) -> list[Masked]:
        made = prompts.tokenizer.apply_chat_template(
            _plain(some),
            chat_template=prompts.template,
            return_assistant_tokens_mask=True,
            return_dict=True,
            date_string=DATE,
        )
        pairs = zip(made["input_ids"], made["assistant_masks"], strict=True)
        return [Masked(np.array(ids, np.int64), np.array(mask, np.bool_)) for ids, mask in pairs]

    def fail(error: Exception) -> Masked:
        return _left_out(f"the template refuses it: {_Refusal.of(error)}")

    return _each(make, chats, fail)


def _raw(prompts: Prompts, chats: Sequence[Conversation]) -> list[Masked]:
    for chat in chats:
        if [m.role for m in chat] != ["user", "assistant"]:
            raise bad(
                "template-missing",
                "the tokenizer has no chat template, and these are conversations",
                got=f"turns of {', '.join(m.role for m in chat)}",
                rule="without a template a row is a prompt and its completion",
                mend="give one: template in [model]",
            )
    stop = prompts.tokenizer.eos_token_id
    out: list[Masked] = []
    for chat, encoding in zip(chats, encode(prompts.tokenizer, [a.content + b.content for a, b in chats], True)):
        ids, starts, _ = places(encoding)
        added = np.array(encoding.special_tokens_mask, np.bool_)
        keep = (starts >= len(chat[0].content)) & ~added
        if stop is not None and len(ids) and ids[-1] == stop:
            keep[-1] = True
        elif stop is not None:
            ids, keep = np.append(ids, stop), np.append(keep, True)
        out.append(Masked(ids, keep, "", int(stop is None)))
    return out


def _whole(prompts: Prompts, documents: Sequence[str]) -> list[Masked]:
    found = (np.array(e.ids, np.int64) for e in encode(prompts.tokenizer, documents, True))
    return [Masked(ids, np.ones(len(ids), np.bool_)) for ids in found]


# ---- what a row must be


def _left_out(why: str) -> Masked:
    return Masked(np.zeros(0, np.int64), np.zeros(0, np.bool_), why)


def _unfit(prompts: Prompts, row: Row) -> str:
    """Why a row is left out; empty where it is not."""
    if isinstance(row, str):
        forged = prompts.forged(row)
    else:
        if not any(m.role == "assistant" for m in row):
            return "no turn is the assistant's"
        if row[0].role == "assistant" and not prompts.marks:
            return "it begins with the assistant"
        forged = next((f for m in row if (f := prompts.forged(m.content) or prompts.forged(m.role))), "")
    return f"it holds the special token {forged}" if forged else ""


def _refused(prompts: Prompts, why: str) -> BadInput:
    return bad(
        "template-refused",
        f"{prompts.name} does not show which tokens are the assistant's",
        got=why,
        rule="loss is taken on the assistant's tokens only; a template without generation marks is read by prefixes",
        mend="give a template that marks the assistant's turns ({% generation %} ... {% endgeneration %}) "
        "and writes the same text: template in [model]",
    )


# ---- rendering and encoding


class _Refusal(str):
    """What a template said when it refused a conversation; cut, for it may quote what a client wrote."""

    @classmethod
    def of(cls, error: Exception) -> _Refusal:
        return cls(str(error).strip().split("\n")[0][:80] or type(error).__name__)


def _render(prompts: Prompts, chats: Sequence[Conversation], generate: bool) -> list[str]:
    def make(some: Sequence[Conversation]) -> list[str]:
        return prompts.tokenizer.apply_chat_template(
            _plain(some),
            chat_template=prompts.template,
            tokenize=False,
            add_generation_prompt=generate,
            date_string=DATE,
        )

    return _each(make, chats, _Refusal.of)


def _each(
    make: Callable[[Sequence[Conversation]], list[T]], chats: Sequence[Conversation], fail: Callable[[Exception], T]
) -> list[T]:
    """A batch at once; one by one where the template refuses one of them."""
    if not chats:
        return []
    try:
        return make(chats)
    except Exception as error:  # a template is a program of its own: what it raises is its own
        if len(chats) == 1:
            return [fail(error)]
    return [one for chat in chats for one in _each(make, [chat], fail)]


def _plain(chats: Iterable[Conversation]) -> list[list[dict[str, str]]]:
    return [[{"role": m.role, "content": m.content} for m in chat] for chat in chats]


def _named(tokenizer: Any, given: str | None, text: str | None) -> str:
    if text is None:
        return "no chat template"
    name = PurePath(str(getattr(tokenizer, "name_or_path", "") or "")).name
    whose = "the chat template given" if given is not None else f"the chat template of {name or 'this tokenizer'}"
    return f"{whose} (sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"
