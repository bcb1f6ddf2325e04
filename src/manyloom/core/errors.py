"""What goes wrong, said in five fields.

ManyloomError            .problems: one or many, all found before anything is said
├── BadInput             the job, the data or the command is wrong: exit code 2, nothing was trained
├── RunFailed            a run began and can't go on: exit code 1, what was saved is kept
└── Interrupted          somebody asked it to stop: exit code 130 or 143, resumable
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: *what* in plain words, *got* and *where*, the *rule*, the *mend* to type.

    >>> print(Problem("out-of-range", "lr must be above 0", got="lr = -0.1", mend="try lr = 0.1").text())
    error: lr must be above 0
      got    lr = -0.1
      mend   try lr = 0.1
    """

    code: str
    what: str
    got: str | None = None
    where: str | None = None
    rule: str | None = None
    mend: str | None = None

    def text(self, width: int = 80) -> str:
        """The problem as a terminal shows it, at most `width` columns where words allow it."""
        lines = textwrap.wrap("error: " + self.what, width, subsequent_indent="       ", break_long_words=False)
        if self.got is not None or self.where is not None:
            lines += _got(self.got or "", self.where, width)
        for label, value in (("rule", self.rule), ("mend", self.mend)):
            if value is not None:
                lines += _field(label, value, width)
        return "\n".join(lines)

    def to_json(self) -> dict[str, str | None]:
        """The problem as `--json` shows it."""
        return {
            "code": self.code,
            "what": self.what,
            "got": self.got,
            "where": self.where,
            "rule": self.rule,
            "mend": self.mend,
        }


def _field(label: str, value: str, width: int) -> list[str]:
    lines: list[str] = []
    for part in value.split("\n"):
        lines += textwrap.wrap(part, width - 9, break_long_words=False, break_on_hyphens=False) or [""]
    return [("  " + label.ljust(7) if i == 0 else " " * 9) + line for i, line in enumerate(lines)]


def _got(got: str, where: str | None, width: int) -> list[str]:
    lines = _field("got", got, width)
    if where is None:
        return lines
    if len(lines[-1]) + 2 + len(where) <= width:
        lines[-1] += where.rjust(width - len(lines[-1]))
        return lines
    return [*lines, where.rjust(width)]


class ManyloomError(Exception):
    """The base of all that Manyloom raises on purpose; `str()` prints every problem."""

    exit_code = 1

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems: tuple[Problem, ...] = problems

    def __str__(self) -> str:
        return "\n".join(p.text() for p in self.problems)

    @property
    def code(self) -> str:
        return self.problems[0].code

    @property
    def what(self) -> str:
        return self.problems[0].what

    @property
    def got(self) -> str | None:
        return self.problems[0].got

    @property
    def where(self) -> str | None:
        return self.problems[0].where

    @property
    def rule(self) -> str | None:
        return self.problems[0].rule

    @property
    def mend(self) -> str | None:
        return self.problems[0].mend


class BadInput(ManyloomError):
    """The job, the data or the command is wrong; nothing was trained."""

    exit_code = 2


class RunFailed(ManyloomError):
    """A run began and can't go on; what was saved is kept."""


class Interrupted(ManyloomError):
    """A run was asked to stop; it can be resumed."""

    exit_code = 130


def bad(
    code: str,
    what: str,
    *,
    got: str | None = None,
    where: str | None = None,
    rule: str | None = None,
    mend: str | None = None,
) -> BadInput:
    """`BadInput` with one problem: `raise bad("out-of-range", "lr must be above 0", got=...)`."""
    return BadInput(Problem(code, what, got, where, rule, mend))


def located(error: ManyloomError, where: str) -> ManyloomError:
    """The same error with a place for each problem that names none."""
    return type(error)(*(replace(p, where=where) if p.where is None else p for p in error.problems))
