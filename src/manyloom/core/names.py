"""Names and texts that come from data, as one line may hold them."""

from __future__ import annotations

import re


def slug(name: str) -> str:
    """A name without blanks, for plain lines that `awk` reads.

    >>> slug("Long Beach VA")
    'long-beach-va'
    """
    return re.sub(r"[\s/\\]+", "-", printable(name).strip().lower()) or "-"


def printable(value: str) -> str:
    """Text without line ends and control characters: a name from data must not move a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in value)


def cut(value: str, most: int) -> str:
    """Text in one line of at most so many characters.

    >>> cut("What is the matter with you?", 12)
    'What is the…'
    """
    said = " ".join(printable(value).split())
    return said if len(said) <= most else said[: most - 1].rstrip() + "…"
