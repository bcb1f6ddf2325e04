"""What is typed after a verb: names of jobs, and overrides `table.key=value`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from manyloom.core.errors import BadInput, Problem
from manyloom.core.validate import nearest

_OVERRIDE = re.compile(r"(?P<key>[A-Za-z_][\w-]*\.[A-Za-z_][\w-]*)=(?P<value>.*)", re.DOTALL)
JOBS = Path(__file__).parent.parent / "jobs"


def SHIPPED() -> list[str]:
    """Names of the jobs that ship with Manyloom."""
    return sorted(path.stem for path in JOBS.glob("*.toml"))


def value(text: str) -> object:
    """A TOML value; a bare word is text.

    >>> value("0.1"), value("true"), value("[64, 32]"), value("fedprox"), value("'a b'"), value("")
    (0.1, True, [64, 32], 'fedprox', 'a b', '')
    """
    try:
        return tomllib.loads(f"v = {text}")["v"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def overrides(given: Iterable[str], command: str = "manyloom run JOB") -> dict[str, object]:
    """Overrides as `{"algorithm.lr": 0.1}`; the last of two for one key counts.

    Raises: `bad-override`, with every one that can't be read.

    >>> overrides(["algorithm.lr=0.1", "model.hidden=[32]", "job.name=mine"])
    {'algorithm.lr': 0.1, 'model.hidden': [32], 'job.name': 'mine'}
    """
    found, wrong = dict[str, object](), list[Problem]()
    for one in given:
        match = _OVERRIDE.fullmatch(one)
        if match is None:
            wrong.append(_unread(one, command))
        else:
            found[match["key"]] = value(match["value"])
    if wrong:
        raise BadInput(*wrong)
    return found


def _unread(one: str, command: str) -> Problem:
    guess = re.sub(r"\s*[:=]+\s*", "=", one, count=1)
    mend = f"{command} {guess}" if _OVERRIDE.fullmatch(guess) else f"{command} algorithm.lr=0.1"
    return Problem("bad-override", f'can\'t read the override "{one}"',
                   rule="table.key=value, as in algorithm.lr=0.1", mend=mend)  # fmt: skip


def grid(given: Iterable[str], command: str = "manyloom sweep JOB") -> dict[str, list[object]]:
    """Lists of values by comma: `{"algorithm.lr": [0.3, 0.1]}`. A comma inside brackets or quotes is no end.

    >>> grid(["algorithm.lr=0.3,0.1", "model.hidden=[64,32],[16]"])
    {'algorithm.lr': [0.3, 0.1], 'model.hidden': [[64, 32], [16]]}
    """
    wrong = [_unread(one, command) for one in (given := list(given)) if _OVERRIDE.fullmatch(one) is None]
    if wrong:
        raise BadInput(*wrong)
    matches = [m for one in given if (m := _OVERRIDE.fullmatch(one))]
    return {m["key"]: [value(v.strip()) for v in _split(m["value"])] for m in matches}


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if sign == "," and not depth and not quote:
            parts.append("")
            continue
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        depth += (sign in "[{") - (sign in "]}")
        parts[-1] += sign
    return parts


def job_path(name: str) -> Path:
    """The file of a job: a path, or the bare name of a shipped job.

    Raises: `job-not-found`.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = JOBS / f"{name}.toml"
    if "/" not in name and shipped.is_file():
        return shipped
    inside = path / "job.toml"
    mend = None
    if inside.is_file():
        mend = f"{name} is a folder; did you mean {inside}?"
    else:
        try:
            here = [p.name for p in (path.parent if path.parent.is_dir() else Path()).iterdir() if p.suffix == ".toml"]
        except OSError:
            here = []
        near = nearest(path.name, [*here, *SHIPPED()])
        if near:
            place = str(path.parent / near) if near in here and str(path.parent) != "." else near
            mend = f"did you mean {place}?"
    rule = "a path to a TOML file, or a shipped job: " + ", ".join(SHIPPED())
    raise BadInput(Problem("job-not-found", f'there is no job file "{name}"', rule=rule,
                           mend=mend or "start your own: manyloom new my-job"))  # fmt: skip
