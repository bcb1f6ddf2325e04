"""The plays of Shakespeare: a role is a client, the next character is the label."""

from __future__ import annotations

import io
import lzma
import re
import tarfile
from typing import Annotated

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import bad
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import AtLeast, checked
from manyloom.data.build import federate
from manyloom.data.federation import Federation, TestKey
from manyloom.data.partition import Partition
from manyloom.data.sources.found import find
from manyloom.data.sources.registry import SHAKESPEARE
from manyloom.data.sources.sklearn import not_a_table

# fixed and public, so nothing about the text is federated; "?" stands for every other character too
VOCABULARY = " \n!\"&'(),-.:;[]?0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SPEECH = re.compile(r"<A NAME=speech\d+><b>(.*?)</b></a>\s*<blockquote>(.*?)</blockquote>", re.S | re.I)
MARKUP = re.compile(r"<i>.*?</i>|<[^>]+>", re.S | re.I)
MOST_BYTES = 64 * 2**20  # of one play: a file that unpacks to more is no play


@checked
def shakespeare(
    *,
    length: Annotated[int, AtLeast(1)] = 80,
    min_chars: Annotated[int, AtLeast(1)] = 500,
    partition: Partition | None = None,
    test: TestKey = None,
    standardise: bool = False,
    seed: Annotated[int, AtLeast(0)] = 0,
    data_dir: str | None = None,
) -> Federation:
    """Which character comes next? 37 plays by role, cut into whole windows that do not overlap.

    A role's text is its speeches joined by newlines. x and y are [rows, length] of 78 characters; y is x one
    character later. The last windows of each role, in time, are held out.

    Args:
        length: characters in a window.
        min_chars: roles with fewer characters are left out.
        partition: how windows are dealt; by default each role is a client.
        test: share held out at each client, 0.2 by default: its last windows, never shuffled before the cut.
        standardise: characters are no numbers; must stay false.
        seed: of the partition.
        data_dir: the directory above mobile/shakespeare_by_role; by default the one MANYLOOM_DATA names.
    """
    not_a_table(standardise, "shakespeare")
    data = find(SHAKESPEARE, data_dir, "one archive", instead="synthetic")[0]
    roles = {name: text for name, text in speeches(data).items() if len(text) >= max(min_chars, length + 1)}
    if not roles:
        raise bad(
            "out-of-range",
            "no role has so much text",
            got=f"length = {length}, min_chars = {min_chars} in [data]",
            rule="a role needs a whole window and the character after it",
            mend="length = 80, min_chars = 500",
        )
    windows = [cut(encode(text), length) for text in roles.values()]
    x, y = (from_numpy(np.concatenate([w[i] for w in windows])) for i in (0, 1))
    group = np.repeat(np.arange(len(windows)), [len(w[0]) for w in windows])
    names = list(roles)
    return federate(
        (x, y),
        SHAKESPEARE,
        partition=partition,
        test=test,
        seed=seed,
        groups=(names, names, group),
        keys={"length": length, "min_chars": min_chars},
        ordered=True,
        labels=list(VOCABULARY),
        classes=len(VOCABULARY),
        client_word=("role", "roles"),
        row_word=("window", "windows"),
    )


def encode(text: str) -> npt.NDArray[np.int64]:
    """Characters as numbers of the vocabulary; those that it lacks are "?".

    >>> encode("Ay?\\u00e9").tolist()
    [26, 76, 15, 15]
    """
    table = np.full(256, VOCABULARY.index("?"), np.int64)
    table[[ord(c) for c in VOCABULARY]] = np.arange(len(VOCABULARY))
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    return table[np.where(codes < 256, codes, ord("?"))]


def cut(codes: npt.NDArray[np.int64], length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whole windows one after the other, and the same one character later: x [n, length], y [n, length].

    >>> cut(np.arange(6), 2)[1].tolist()
    [[1, 2], [3, 4]]
    """
    n = (len(codes) - 1) // length
    return codes[: n * length].reshape(n, length), codes[1 : n * length + 1].reshape(n, length)


def speeches(archive: bytes) -> dict[str, str]:
    """{"play:ROLE": its speeches, joined by newlines}, from the tar.xz of the plays as HTML."""
    found: dict[str, list[str]] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as tar:
            for member in tar:
                handle = tar.extractfile(member) if member.isfile() and member.name.endswith("full.html") else None
                if handle is None or member.size > MOST_BYTES:
                    continue
                play = member.name.split("/")[-2]
                for role, body in SPEECH.findall(handle.read().decode("latin1")):
                    lines = (line.strip() for line in MARKUP.sub("", body).splitlines())
                    if text := "\n".join(line for line in lines if line):
                        found.setdefault(f"{play}:{role.strip()}", []).append(text)
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise bad(
            "data-corrupt",
            f"{SHAKESPEARE.files[0].name} is not the file that was expected",
            got=f"{len(archive)} bytes: {error}",
            rule="a tar.xz of plays as HTML",
            mend="delete it and get it again; docs/data.md says where",
        ) from error
    return {name: "\n".join(texts) for name, texts in found.items()}
