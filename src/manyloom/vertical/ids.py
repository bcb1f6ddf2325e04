"""Ids as keys: the same person must be the same bytes at every party, whatever file the id was read from.

A key is, for each id column in the agreed order, a 4-byte little-endian length and the canonical UTF-8 bytes; the
length also stands before a single column, so that ("ab", "c") and ("a", "bc") differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn, cast

import numpy as np
import numpy.typing as npt

from manyloom.core.errors import bad
from manyloom.core.text import count

I64 = npt.NDArray[np.int64]
Type = Literal["int", "text", "bytes"]

_DIGITS = re.compile(r"([+-]?)([0-9]+)")
# Unicode's White_Space; str.strip() takes four control characters more
_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


class Keys(NamedTuple):
    """Canonical keys of a table.

    `rows` names the row that each key came from, ascending, int64 [n]; `left_out` counts rows with an id missing.
    """

    keys: list[bytes]
    rows: I64
    left_out: int


def canonical(
    columns: Sequence[Sequence[object]],
    types: Sequence[Type],
    *,
    casefold: bool = False,
    duplicates: Literal["reject", "first"] = "reject",
    names: Sequence[str] = (),
) -> Keys:
    """The key of every row that has all its ids.

    Args:
        columns: the id columns in the agreed order, a value a row; None, NaN and what is empty are missing.
        types: what each column is, whatever it is stored as. "int": whole numbers, whole floats below 2^53, or text
            of digits. "text": NFKC, without white space around it. "bytes": as given; text as UTF-8.
        casefold: text that differs in case alone is the same.
        duplicates: of a key: an error, or the first row counts.
        names: what the columns are called, for messages.

    Raises BadInput naming column and row for a value that is no such id, and for duplicates naming the first five
    keys: messages for this party alone, never to be sent on.

    >>> canonical([[7, "007", None, " 8"[1:]]], ["int"], duplicates="first")
    Keys(keys=[b'\\x01\\x00\\x00\\x007', b'\\x01\\x00\\x00\\x008'], rows=array([0, 3]), left_out=1)
    """
    names = names or [f"id {i + 1}" for i in range(len(columns))]
    if not columns or not len(columns) == len(types) == len(names):
        raise bad("bad-ids", "id columns, types and names must be as many, and one at least",
                  got=f"{len(columns)} columns, {len(types)} types, {len(names)} names")  # fmt: skip
    if any(len(c) != len(columns[0]) for c in columns):
        raise bad("bad-ids", "id columns must be equally long", got=", ".join(f"{len(c)} rows" for c in columns))
    first: dict[bytes, int] = {}
    again: list[int] = []
    left_out = 0
    parts = [_column(column, kind, casefold, name) for column, kind, name in zip(columns, types, names)]
    for row, pieces in enumerate(zip(*parts)):
        if None in pieces:
            left_out += 1
        elif first.setdefault(b"".join(cast("tuple[bytes, ...]", pieces)), row) != row:
            again.append(row)
    if again and duplicates == "reject":
        _refuse_duplicates(again, columns, names)
    return Keys(list(first), np.array(list(first.values()), np.int64), left_out)


def key_of(parts: Sequence[bytes]) -> bytes:
    """The key of canonical columns.

    >>> key_of([b"ab", b"c"])
    b'\\x02\\x00\\x00\\x00ab\\x01\\x00\\x00\\x00c'
    """
    return b"".join(len(p).to_bytes(4, "little") + p for p in parts)


def parts_of(key: bytes) -> list[bytes]:
    """The canonical columns of a key, for showing it to those who have it.

    >>> parts_of(key_of([b"ab", b""]))
    [b'ab', b'']
    """
    parts: list[bytes] = []
    while key:
        n = int.from_bytes(key[:4], "little")
        parts.append(key[4 : 4 + n])
        key = key[4 + n :]
    return parts


def _column(column: Sequence[object], kind: Type, casefold: bool, name: str) -> list[bytes | None]:
    """Each value's length and canonical bytes; None where it is missing."""
    form = FORMS[kind]
    values = cast("list[object]", column.tolist()) if isinstance(column, np.ndarray) else column
    out: list[bytes | None] = []
    for row, value in enumerate(values):
        try:
            if type(value) is int and kind == "int":  # the common case, kept short
                part = b"%d" % value
            else:
                value = cast(object, value.item()) if isinstance(value, np.generic) else value
                part = b"" if _missing(value) else form(value, casefold)
        except ValueError as why:  # a UnicodeEncodeError is one, too
            raise bad("bad-id", f'column "{name}" holds what is no id of the type "{kind}"',
                      got=f"{value!r} in row {row + 1}", rule=RULES[kind], mend=str(why)) from None  # fmt: skip
        out.append(len(part).to_bytes(4, "little") + part if part else None)
    return out


def _missing(value: object) -> bool:
    if value is None or (isinstance(value, float) and value != value):
        return True
    return type(value).__name__ in ("NAType", "NaTType")  # pandas' own, without importing it


def _int(value: object, casefold: bool) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    if isinstance(value, float):
        if not value.is_integer() or abs(value) >= 2**53:
            raise ValueError("give this column as text, or make it whole")
        return b"%d" % int(value)
    if not isinstance(value, str):
        raise ValueError("make it whole numbers, or choose another type for this column")
    found = _DIGITS.fullmatch(value)
    if value and found is None:
        raise ValueError('choose the type "text" for this column, or mend the row')
    if found is None:
        return b""
    digits = found[2].lstrip("0") or "0"
    return ("-" + digits if found[1] == "-" and digits != "0" else digits).encode()


def _text(value: object, casefold: bool) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool):
        return b"%d" % value
    if not isinstance(value, str):
        raise ValueError("read this column as text")
    if value.isascii():
        text = value.strip(_SPACE)
        return (text.lower() if casefold else text).encode()
    if any(unicodedata.category(c) == "Cn" for c in value):
        raise ValueError("a character in it is in no version of Unicode known here, so parties may not agree on it")
    text = unicodedata.normalize("NFKC", value).strip(_SPACE)
    if casefold:
        text = unicodedata.normalize("NFKC", text.casefold())
    return text.encode()


def _bytes(value: object, casefold: bool) -> bytes:
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError("give bytes, or text that is taken as UTF-8")
    return value.encode()


FORMS: Mapping[Type, Callable[[object, bool], bytes]] = {"int": _int, "text": _text, "bytes": _bytes}
RULES: Mapping[Type, str] = {
    "int": "whole numbers, whole floats below 2^53, or an optional sign and digits 0-9",
    "text": "text, or whole numbers, in characters that Unicode has assigned",
    "bytes": "bytes, or text",
}


def _refuse_duplicates(again: Sequence[int], columns: Sequence[Sequence[object]], names: Sequence[str]) -> NoReturn:
    shown = "; ".join(", ".join(f"{n} = {c[row]!r}" for n, c in zip(names, columns)) for row in again[:5])
    more = f"; {count(len(again))} in all" if len(again) > 5 else ""
    raise bad("duplicate-ids", "an id stands in more than one row", got=shown + more,
              where=f"first again in row {again[0] + 1}",
              rule="one row an id, after ids were brought into one form",
              mend='take the rows out, or set [align] duplicates = "first" to keep the first of each')  # fmt: skip
