"""The command line as a user has it: a process; or, where only words are looked at, a call in this process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("MANYLOOM_GOLDEN") == "write"
SCHEMAS = Path(__file__).parents[2] / "src" / "manyloom" / "cli" / "schemas"
SRC = Path(__file__).parents[2] / "src"


class Ran(NamedTuple):
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


Cli = Callable[..., Ran]


def environment(**more: str) -> dict[str, str]:
    """The environment of a call: nothing that would change what it prints."""
    gone = ("MANYLOOM_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(gone)}
    path = os.pathsep.join([str(SRC), *filter(None, [kept.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"} | more


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """`cli("run", "heart")`: a process of its own, in an empty folder."""

    def call(*args: str, env: dict[str, str] | None = None, cwd: Path | None = None, stdin: str = "") -> Ran:
        done = subprocess.run([sys.executable, "-m", "manyloom", *args], cwd=cwd or tmp_path, input=stdin,
                              env=environment(**(env or {})), capture_output=True, text=True, timeout=120)  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """`here("plan", "heart")`: the same in this process, where torch is there already."""
    from manyloom.cli.app import entry

    for name in list(os.environ):
        if name.startswith("MANYLOOM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Ran:
        capfd.readouterr()
        code = entry(list(args))
        return Ran(code, *capfd.readouterr())

    return call


def golden(name: str, text: str) -> None:
    """Compare with a kept text; MANYLOOM_GOLDEN=write keeps this one."""
    path = GOLDEN / f"{name}.txt"
    if WRITE:
        path.write_text(text, "utf-8")
    assert path.is_file(), f"{path.name} is missing: MANYLOOM_GOLDEN=write makes it"
    assert text == path.read_text("utf-8")


def narrow(text: str, width: int = 80) -> None:
    """No line is wider than a terminal."""
    assert [line for line in text.split("\n") if len(line) > width] == []


def valid(document: Any, verb: str | None = None) -> None:
    """The document keeps its own schema."""
    name = verb or document["schema"].split(".")[1].split("/")[0]
    schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)


def masked(text: str) -> str:
    """A text without its times, numbers, digests and the four signs that end a run's name."""
    text = re.sub(r"^time .*(?:\n .*)*$", "time #", digits(text), flags=re.MULTILINE)
    text = re.sub(r"[ \t]+", " ", re.sub(r"0+(?:[.:]0+)*(?:e[-+]0+)?", "#", text))
    return re.sub(r"(?:# )+#|#(?:-#)+", "#", text)


def digits(text: str) -> str:
    """A text with 0 for every digit, and for digests, dates and names of runs: its layout stays."""
    text = re.sub(r"\b[0-9a-f]{4}(?: [0-9a-f]{4}){2,}", "0000 0000 0000 0000", text)
    text = re.sub(r"\b(\d+) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (\d{4})\b", "00 Jan 0000", text)
    text = re.sub(r"\b([a-z]+(?:-[a-z]+)*)-[a-z2-9]{4}\b(?=[ /\n)]|$)", r"\1-0000", text)
    return re.sub(r"\d", "0", text)
