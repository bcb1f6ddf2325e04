"""`doctor`: whether this machine, this run store and a job are fit to run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from manyloom.cli.catalogue import lies
from manyloom.cli.out import WIDTH, Out, complete_jobs, fields, shown
from manyloom.cli.parse import job_path, overrides
from manyloom.cli.process import settle
from manyloom.core.errors import ManyloomError
from manyloom.core.text import columns, listed, plural, size

ENOUGH_DISK = 200e6
ENOUGH_MEMORY = 500e6
EXTRAS = {"parquet": "pyarrow", "tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "huggingface": "datasets"}


@dataclass(frozen=True)
class Check:
    """One look: what was found, what to think of it, what to do about it (None: nothing)."""

    name: str
    found: str
    verdict: str = "good"
    mend: str | None = None

    @property
    def ok(self) -> bool:
        return self.mend is None


def doctor(
    out: Out,
    job: Annotated[
        str | None, Argument(metavar="JOB", autocompletion=complete_jobs, help="a job to look at as well")
    ] = None,
    changes: Annotated[
        list[str] | None, Argument(metavar="TABLE.KEY=VALUE ...", help="changes to it, as in algorithm.lr=0.1")
    ] = None,
    fix: Annotated[bool, Option("--fix", help="mend what is safe to mend: the index of the run store")] = False,
) -> int:
    """Check this machine, the run store and, if one is named, a job with its data."""
    given = overrides(changes or [], job or "JOB.toml")
    looks: list[Callable[[], Check]] = [
        _python, _cores, _memory, lambda: _disk(out.home), lambda: _store(out.home, fix), lambda: _data(out.data_dir),
        _charts, _extras,
    ]  # fmt: skip
    checks = [_guarded(look) for look in looks]
    if job is not None:
        settle()
        checks += _job(out, job, given)
    problems = [c for c in checks if not c.ok]
    wide = [max(len(word), *map(len, cells)) for word, cells in
            (("check", [c.name for c in checks]), ("verdict", [c.verdict for c in checks]))]  # fmt: skip
    found = WIDTH - sum(wide) - 4
    rows = [[c.name, _cut(c.found, found), c.verdict] for c in checks]
    lines = [columns(["check", "found", "verdict"], rows, left=(0, 1, 2))]
    lines.append(fields(("doctor", plural(len(problems), ("problem", "problems")) if problems else "no problem")))
    for c in problems:
        lines.append("\n".join("  " + line for line in fields((c.name[:6], f"{c.mend}")).split("\n")))
    document: dict[str, Any] = {"checks": [asdict(c) for c in checks], "problems": len(problems)}
    ahead = [] if problems else [f"manyloom run {job or 'heart'}"]
    out.emit(document, "\n".join(lines), made=str(len(problems)), next=ahead, ok=not problems)
    return 1 if problems else 0


def _guarded(look: Callable[[], Check]) -> Check:
    """A look that fails is a finding, not the end of the others."""
    try:
        return look()
    except ManyloomError as error:
        return Check("store", error.what, "unfit", error.mend or error.rule or "see above")


def _python() -> Check:
    import torch

    from manyloom._version import __version__

    versions = f"{platform.python_version()}, manyloom {__version__}, torch {torch.__version__.partition('+')[0]}"
    return Check("python", versions)


def _cores() -> Check:
    import torch

    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Check("cores", f"{n}, {', '.join(gpus) or 'no GPU'}")


def _memory() -> Check:
    free, whole = _free_memory()
    if free is None or whole is None:
        return Check("memory", "can't be told here")
    found = f"{size(free)} of {size(whole)} free"
    if free < ENOUGH_MEMORY:
        return Check("memory", found, "scarce", f"torch alone takes about {size(ENOUGH_MEMORY)}: close something")
    return Check("memory", found)


def _free_memory() -> tuple[float | None, float | None]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kb = {k: float(v.split()[0]) for k, _, v in (line.partition(":") for line in lines)}
        return kb["MemAvailable"] * 1024, kb["MemTotal"] * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None, None


def _disk(home: Path) -> Check:
    there = next(p for p in (home.resolve(), *home.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free
    found = f"{size(free)} free in {shown(home)}"
    if not os.access(there, os.W_OK):
        return Check("disk", f"{shown(home)} can't be written", "unfit", "another place: --home DIR")
    if free < ENOUGH_DISK:
        return Check("disk", found, "scarce", "free some space, or another place: --home DIR")
    return Check("disk", found)


def _store(home: Path, fix: bool) -> Check:
    if not (home / "runs").is_dir():
        return Check("runs", f"none yet in {shown(home)}")
    from manyloom.track.store import Store

    with Store.open(home) as store:
        folders, rows = len(store.folders()), len(store.runs())
        if folders != rows and fix:
            return Check("runs", f"{plural(store.rebuild(), ('run', 'runs'))}; the index was made anew")
        if folders != rows:
            return Check("runs", f"{plural(folders, ('folder', 'folders'))}, {rows} in the index", "differ",
                         "manyloom runs --rebuild")  # fmt: skip
        open_ = sum(1 for r in store.runs() if r["status"] in ("interrupted", "failed"))
        more = f", {open_} can be resumed" if open_ else ""
        return Check("runs", f"{plural(rows, ('run', 'runs'))} in {shown(home)}{more}")


def _data(data_dir: Path | None) -> Check:
    """Files of named sources: whether they lie there; each is compared with its checksum when it is read."""
    from manyloom.data.sources.registry import sources

    if data_dir is None:
        return Check("data", "no data directory: heart-disease, digits, breast-cancer, synthetic")
    if not data_dir.is_dir():
        return Check("data", f"{shown(data_dir)} is no folder", "missing", "--data-dir DIR, or set MANYLOOM_DATA")
    wanted = [i for i in sources().values() if i.files and i.folder]
    here = [i.name for i in wanted if all(lies(data_dir / str(i.folder), f.name) for f in i.files)]
    return Check("data", f"{', '.join(here) or 'no named source'} in {shown(data_dir)}")


def _charts() -> Check:
    have = _version("vl-convert-python")
    if have is None:
        return Check("charts", "vl-convert-python is missing", "missing", "pip install vl-convert-python")
    if not have.startswith("1.9."):
        return Check("charts", f"vl-convert-python {have}", "another", 'pip install "vl-convert-python>=1.9,<1.10"')
    return Check("charts", f"vl-convert-python {have}")


def _extras() -> Check:
    have = [extra for extra, package in EXTRAS.items() if _version(package) is not None]
    return Check("extras", ", ".join(have) or "none (they are optional)")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _job(out: Out, job: str, given: dict[str, object]) -> list[Check]:
    """The job as its plan sees it: every problem a line of its own."""
    from manyloom.job.job import Job
    from manyloom.job.plan import Plan
    from manyloom.session import plan

    try:
        made = Job.from_toml(str(job_path(job)), given, str(out.data_dir) if out.data_dir else None)
        found = plan(made)
    except ManyloomError as error:
        return [Check("job", p.what, "refused", p.mend or f"look: manyloom plan {job}") for p in error.problems]
    about = Check("job", f"{made.name}: {made.rounds} rounds, digest {made.digest[:4]} {made.digest[4:8]}")
    if not isinstance(made, Job) or not isinstance(found, Plan):
        told = found.to_json()["vertical"]
        return [
            about,
            Check("parties", f"{listed(x['name'] for x in told['parties'])} share {told['rows']['common']} rows"),
        ]
    fed = made.federation
    one, many = fed.client_word
    told = f"{plural(len(fed), (one, many))}, {plural(int(fed.sizes.sum()), fed.row_word)} to train on"
    checks = [about, Check("clients", told)]
    free, _ = _free_memory()
    need = float(found.memory_bytes)
    if free is not None and need > free:
        checks.append(Check("needs", f"{size(need)} of memory, {size(free)} are free", "too much",
                            "a smaller cohort, model or [runtime] memory"))  # fmt: skip
    else:
        checks.append(Check("needs", f"about {size(need)} of memory"))
    return checks


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."
