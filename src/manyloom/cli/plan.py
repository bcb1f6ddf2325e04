"""`plan`: what a job will do, before anything is trained."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from manyloom.cli.out import Out, complete_jobs, complete_overrides
from manyloom.cli.parse import job_path, overrides
from manyloom.cli.process import settle


def plan(
    out: Out,
    job: Annotated[str, Argument(metavar="JOB", autocompletion=complete_jobs,
                                 help="a job file, or a shipped job: heart, digits")],
    changes: Annotated[list[str] | None, Argument(metavar="TABLE.KEY=VALUE ...", autocompletion=complete_overrides,
                                                  help="changes to it, as in algorithm.lr=0.1")] = None,
    tried: Annotated[int, Option("--try", metavar="N", min=0,
                                 help="time N rounds on a throw-away state [2]; 0: no estimate")] = 2,
) -> int:  # fmt: skip
    """Say what a job will do: clients, steps, bytes, time, what protects it. Nothing is trained.

    Whatever is wrong with the job or its data is told, all of it at once.
    """
    given = overrides(changes or [], job)
    path = job_path(job)
    settle()
    from manyloom.job.job import Job
    from manyloom.session import plan as planned

    made = Job.from_toml(str(path), given, str(out.data_dir) if out.data_dir else None)
    found = planned(made, tried=tried)
    typed = " ".join(["manyloom run", job, *(_quoted(c) for c in changes or [])])
    out.emit(found.to_json(), str(found), made=str(found.job["digest"]), next=[typed])
    return 0


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(word)
