"""Job and environment: the job as it ran, versions, machine, licence of the data, paper of the algorithm, digests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import escape

from manyloom.core import text
from manyloom.track.folder import table
from manyloom.track.record import Run
from manyloom.track.sections.parts import Data, Drawer

ID = "job"


def title(run: Run) -> str:
    return "Job and environment"


def section(run: Run, draw: Drawer) -> Data:
    said = [str(n.get("text", "")) for n in run.notes]
    notes = said[:20] + ([f"and {len(said) - 20} more"] if len(said) > 20 else [])
    toml = "" if run.toml.startswith("#") and "[job]" not in run.toml else run.toml.strip()
    return {"toml": escape(toml), "facts": facts(run), "notes": notes}


def facts(run: Run) -> list[tuple[str, str]]:
    """Name and value of all that is known about where and with what a run ran."""
    env, source = run.env, run.source
    model = run.model.get("name")
    parameters = run.model.get("parameters")
    size = f", {text.plural(parameters, ('parameter', 'parameters'))}" if parameters is not None else ""
    paper = run.paper
    told: list[tuple[str, object]] = [
        ("Manyloom", env.get("manyloom")),
        ("Source", git(env)),
        ("Python", env.get("python")),
        ("torch", env.get("torch")),
        ("Machine", ", ".join(str(p) for p in (env.get("platform"), cores(env), device(env)) if p)),
        ("Runtime", runtime(run)),
        ("Algorithm", text.algorithm(run.algorithm) + (f" ({paper})" if paper else "") if run.algorithm else None),
        ("Model", f"{model}{size}" if model else None),
        ("Data", ", ".join(str(source[k]) for k in ("title", "licence") if source.get(k))),
        ("Attribution", source.get("attribution")),
        ("Seed", run.seed),
        ("Job digest", text.digest(run.job_digest) if run.job_digest else None),
        ("Model digest", text.digest(run.model_digest) if run.model_digest else None),
    ]
    return [(k, str(v)) for k, v in told if v not in (None, "")]


def git(env: Mapping[str, Any]) -> str:
    """ "git 3f1c9ab, clean" """
    found = table(env, "git")
    commit = str(found.get("commit") or "")[:7]
    return f"git {commit}, {'with changes' if found.get('dirty') else 'clean'}" if commit else ""


def cores(env: Mapping[str, Any]) -> str:
    n = env.get("cores")
    return text.plural(n, ("core", "cores")) if isinstance(n, int) else ""


def device(env: Mapping[str, Any]) -> str:
    found = str(env.get("device") or "")
    return "no GPU" if found == "cpu" else found


def runtime(run: Run) -> str:
    """ "in process, vectorised" """
    name = str(run.runtime or "")
    found = run.execution.get("device")
    where = f" on {found}" if found not in (None, "", "cpu") else ""
    return f"in process, {name}{where}" if name in ("sequential", "vectorised") else name
