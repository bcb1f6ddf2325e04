"""What is typed after a verb: names of jobs, and overrides `table.key=value`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from manyloom.core.errors import BadInput, Problem

JOBS = Path(__file__).parent.parent / "jobs"


def shipped() -> list[str]:
    """Names of the jobs that ship with Manyloom, without importing what reads them."""
    return sorted(path.stem for path in JOBS.glob("*.toml"))


def overrides(given: Iterable[str], job: str = "JOB.toml") -> dict[str, object]:
    """Overrides as `{"algorithm.lr": 0.1}`; the last of two for one key counts.

    Raises: `bad-override`, with every one that can't be read.

    >>> overrides(["algorithm.lr=0.1", "model.hidden=[32]", "job.name=mine"])
    {'algorithm.lr': 0.1, 'model.hidden': [32], 'job.name': 'mine'}
    """
    from manyloom.job.toml import parse_override

    found, wrong = dict[str, object](), list[Problem]()
    for one in given:
        try:
            key, value = parse_override(one, job)
            found[key] = value
        except BadInput as error:
            wrong += error.problems
    if wrong:
        raise BadInput(*wrong)
    return found


def grid(given: Sequence[str], job: str = "JOB.toml") -> dict[str, list[object]]:
    """Lists of values by comma: `{"algorithm.lr": [0.3, 0.1]}`. A comma inside brackets or quotes is no end.

    >>> grid(["algorithm.lr=0.3,0.1", "model.hidden=[64,32],[16]"])
    {'algorithm.lr': [0.3, 0.1], 'model.hidden': [[64, 32], [16]]}
    """
    out, wrong = dict[str, list[object]](), list[Problem]()
    for one in given:
        key, _, values = one.partition("=")
        found = list[object]()
        try:
            for value in _split(values):
                found += overrides([f"{key}={value.strip()}"] if values else [one], job).values()
        except BadInput as error:
            wrong += error.problems
        out[key.strip()] = found
    if wrong:
        raise BadInput(*dict.fromkeys(wrong))
    return out


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
    from manyloom.job.toml import find

    path = Path(name)
    if (path / "job.toml").is_file():
        return path / "job.toml"
    return find(name)
