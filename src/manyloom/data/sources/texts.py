"""Your own texts: conversations in JSON lines, and plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import numpy as np

from manyloom.core.errors import bad
from manyloom.core.validate import AtLeast, checked
from manyloom.data.arrays import I64
from manyloom.data.build import federate
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.files import expand, stems
from manyloom.data.sources.records import Record, misfit, name_of, read, records, text_of, value_of
from manyloom.data.sources.registry import JSONL, TEXT
from manyloom.data.sources.sklearn import not_a_table
from manyloom.data.table import encode_labels
from manyloom.data.texts import Conversation, Corpus, Format, Message, Row, passages

# format -> the fields it needs; the first whose fields are all in the first record is taken
FORMATS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "preference": ("chosen", "rejected"),
    "alpaca": ("instruction", "output"),
    "prompt": ("prompt", "completion"),
    "qa": ("question", "answer"),
    "text": ("text",),
}
CHARACTERS = 4  # of a token of English, about: a passage of 4 x length characters is about one row


@checked
def jsonl(
    *,
    path: str,
    format: Format | None = None,
    key: str | None = None,
    topic: str | None = None,
    length: Annotated[int, AtLeast(2)] = 512,
    pack: bool | None = None,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Instructions, chats or texts, a JSON object a line (also gzipped, a JSON array, or CSV with these columns).

    Only the assistant's turns are learnt; of the format `text` every token is.

    Args:
        path: a file, or a folder or glob whose files are the clients; relative to the job file.
        format: alpaca (instruction, input, output), messages, prompt (prompt, completion), qa (question, answer) or
            text; seen from the first record by default.
        key: the field that says which client a record belongs to.
        topic: the field whose values `dirichlet` and `shards` deal by.
        length: tokens of a row at most; a longer conversation is cut at its end.
        pack: several conversations in one row, none sees another; by default only of the format `text`.
        partition: how records are dealt; by default a client a value of `key`, or a client a file.
        test: share held out at each client, 0.2 by default.
        standardise: texts are no numbers; must stay false.
        seed: of partition and held-out rows.
    """
    not_a_table(standardise, "jsonl")
    paths = expand(path, "jsonl")
    parts = [list(records(p)) for p in paths]
    flat = [r for part in parts for r in part]
    if not flat:
        raise bad(
            "data-corrupt",
            f'there is no record in "{path}"',
            got=f"{len(paths)} file{'s' if len(paths) > 1 else ''}, all empty",
            rule="one JSON object a line",
            mend='check path in [data]: path = "chats.jsonl"',
        )
    kind = format or seen(flat[0])
    corpus = Corpus(
        [row_of(r, kind) for r in flat],
        kind,
        length,
        pack,
        None if topic is None else encode_labels([name_of(r, "topic", topic) for r in flat])[0],
    )
    _dealable(partition, topic)
    groups: tuple[Sequence[str], I64] | None = None
    if key is not None:
        code, names = encode_labels([name_of(r, "key", key) for r in flat])
        groups = names, code
    elif len(paths) > 1:
        groups = stems(paths), np.repeat(np.arange(len(paths)), [len(p) for p in parts])
    given = {"path": path, "format": kind, "key": key, "topic": topic, "length": length, "pack": pack}
    return federate(
        corpus,
        JSONL,
        partition=partition,
        test=test,
        seed=seed,
        groups=None if groups is None else (groups[0], groups[0], groups[1]),
        keys={k: v for k, v in given.items() if v is not None},
        empty=": the file holds no record" if key is None else "",
        row_word=("text", "texts") if kind == "text" else ("conversation", "conversations"),
    )


@checked
def text(
    *,
    path: str,
    length: Annotated[int, AtLeast(2)] = 512,
    pack: bool | None = None,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
) -> Federation:
    """Plain text files (also gzipped): every next token is learnt.

    A file is cut at blank lines into passages of about one row; the last passages of each client are held out.

    Args:
        path: a file, or a folder or glob whose files are the clients; relative to the job file.
        length: tokens of a row at most.
        pack: several passages in one row, none sees another; true by default.
        partition: how passages are dealt; by default a client a file.
        test: share held out at each client, 0.2 by default: its last passages, unless [partition] shuffles them.
        standardise: texts are no numbers; must stay false.
        seed: of partition and held-out rows.
    """
    not_a_table(standardise, "text")
    paths = expand(path, "text")
    parts = [passages(read(p), CHARACTERS * length) for p in paths]
    rows = [t for part in parts for t in part]
    if not rows:
        raise bad(
            "data-corrupt",
            f'there is no text in "{path}"',
            got=f"{len(paths)} file{'s' if len(paths) > 1 else ''}, all blank",
            mend="check path in [data]",
        )
    _dealable(partition, None)
    names = stems(paths)
    group = np.repeat(np.arange(len(paths)), [len(p) for p in parts])
    given = {"path": path, "length": length, "pack": pack}
    return federate(
        Corpus(rows, "text", length, pack),
        TEXT,
        partition=partition,
        test=test,
        seed=seed,
        groups=(names, names, group) if len(paths) > 1 else None,
        keys={k: v for k, v in given.items() if v is not None},
        ordered=True,
        empty=": the file is blank",
        row_word=("passage", "passages"),
    )


def seen(record: Record) -> Format:
    """The format of a file, by the fields of its first record."""
    found = next((f for f, needs in FORMATS.items() if all(n in record.fields for n in needs)), None)
    if found is None:
        every = "; ".join(f"{f}: {', '.join(needs)}" for f, needs in FORMATS.items() if f != "preference")
        raise bad(
            "missing-key",
            f"the format of {record.file} is not known",
            got=f"{record.place} has {', '.join(record.fields) or 'no field'}",
            rule=every,
            mend='rename the fields, or say it: format = "qa" in [data]',
        )
    if found == "preference":
        raise bad(
            "out-of-range",
            "learning from preferences is a later part",
            got=f'{record.file}, {record.place} has "chosen" and "rejected"',
            rule="a format with one answer: " + ", ".join(f for f in FORMATS if f != "preference"),
            mend="train on the chosen answers: write them as prompt and completion",
        )
    return cast(Format, found)


def row_of(record: Record, format: Format) -> Row:
    """What a record says: a conversation, or a document."""
    if format == "text":
        return text_of(record, "text", format)
    if format == "messages":
        return _messages(record)
    ask, answer = (text_of(record, f, format) for f in FORMATS[format])
    more = record.fields.get("input") if format == "alpaca" else None
    if more is not None and not isinstance(more, str):
        raise misfit(record, "input", more)
    if more and more.strip():
        ask = f"{ask}\n{more}"
    return Message("user", ask), Message("assistant", answer)


def _messages(record: Record) -> Conversation:
    turns: object = value_of(record, "messages", "messages")
    listed = cast("list[object]", turns) if isinstance(turns, list) else []
    if not listed:
        raise misfit(record, "messages", cast(object, turns), "a list of {role, content}")
    found: list[Message] = []
    for i, turn in enumerate(listed):
        place = f"messages[{i}]"
        if not isinstance(turn, dict):
            raise misfit(record, place, turn, "an object {role, content}")
        inner = Record(cast("dict[str, Any]", turn), record.file, f"{record.place}, {place}")
        found.append(Message(text_of(inner, "role", "messages"), text_of(inner, "content", "messages")))
    return tuple(found)


def _dealable(partition: Partition | None, topic: str | None) -> None:
    if topic is None and partition is not None and partition.scheme in ("dirichlet", "shards"):
        raise bad(
            "contradiction",
            f"{partition.scheme} deals rows by their label, and texts have none",
            got=f'scheme = "{partition.scheme}" in [partition]',
            rule="topic in [data] (of jsonl) names the field to deal by",
            mend='topic = "subject", or scheme = "iid"',
        )
