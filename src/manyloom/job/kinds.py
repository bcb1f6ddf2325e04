"""The two kinds of jobs, and which of them a file's tables are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from manyloom.core.errors import bad
from manyloom.job.job import Job
from manyloom.job.tables import HORIZONTAL, Book
from manyloom.job.vertical.job import Vertical
from manyloom.job.vertical.tables import VERTICAL

AnyJob = Job | Vertical


def books(given: Mapping[str, object]) -> tuple[Book, Book]:
    """The tables of the job's own kind, and those of the other; where `[job] kind` says none, horizontal.

    >>> [b.kind for b in books({"job": {"kind": "vertical"}})]
    ['vertical', 'horizontal']
    """
    job = given.get("job")
    kind = cast("Mapping[str, Any]", job).get("kind") if isinstance(job, Mapping) else None
    return (VERTICAL, HORIZONTAL) if kind == "vertical" else (HORIZONTAL, VERTICAL)


def horizontal(job: AnyJob, verb: str) -> Job:
    """The job, for what a vertical one is refused by: `verb` is done by clients that differ in rows."""
    if isinstance(job, Job):
        return job
    raise bad("other-kind", f"{verb} is for horizontal jobs", got='kind = "vertical" in [job]',
              rule="in a vertical job " + VERTICAL.rule, mend="plan, run and predict take either kind")  # fmt: skip
