"""Texts kept in files: `GOLDEN=write pytest ...` writes them anew, then read the difference."""

from __future__ import annotations

import os
from pathlib import Path

HERE = Path(__file__).parent / "golden"


def check(name: str, found: str) -> None:
    """Compare with the kept text; no line of it is wider than 80 columns."""
    path = HERE / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(found + "\n", "utf-8")
    assert found + "\n" == path.read_text("utf-8")
    wide = [line for line in found.split("\n") if len(line) > 80]
    assert not wide, wide
