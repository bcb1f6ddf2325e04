"""The pinned document of a run: what `run`, `resume` and `show` give with `--json`, and `Result.history`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manyloom.track.folder import Folder
from manyloom.track.record import Baseline, Metrics, Run, of_events, read


def history(events: Iterable[Mapping[str, Any]] | Run) -> list[dict[str, Any]]:
    """One object a round: round, loss, other metrics, asked, back, epsilon, seconds, bytes_up, bytes_down.

    A metric of a round that was not evaluated is None.
    """
    run = events if isinstance(events, Run) else of_events(events)
    names = ["loss", *(m for m in run.metric_names if m != "loss")]
    return [
        {
            "round": r.round,
            **{name: r.judged.metrics.get(name) if r.judged else None for name in names},
            "asked": r.asked,
            "back": r.back,
            "epsilon": r.epsilon,
            "seconds": r.seconds,
            "bytes_up": r.up,
            "bytes_down": r.down,
        }
        for r in run.rounds
    ]


def summary(source: Folder | Run, report: str | None = None) -> dict[str, Any]:
    """The pinned document besides `schema`, `ok` and `next`; numbers unrounded, null where unknown."""
    run = source if isinstance(source, Run) else read(source)
    if report is None and isinstance(source, Folder) and (source.path / "report.html").is_file():
        report = str(source.path / "report.html")
    return {
        "run_id": run.id,
        "status": run.status,
        "reason": run.reason,
        "rounds": run.rounds_done,
        "rounds_planned": run.rounds_planned,
        "final": run.final,
        "history": history(run),
        "bytes_up": run.bytes_up,
        "bytes_down": run.bytes_down,
        "bytes": {k: dict(v) for k, v in run.bytes.items()},
        "seconds": {"total": run.seconds, "phases": dict(run.phases)},
        "privacy": {"others": [], **run.privacy} if run.privacy else None,
        "clients": [
            {"client": p.index, "name": p.name, "rounds": p.rounds, "samples": p.samples}
            for p in sorted(run.people.values(), key=lambda p: p.index)
        ],
        "lost": [
            {"round": x.round, "client": x.client, "name": x.name, "reason": x.reason, "text": x.text} for x in run.lost
        ],
        "job_digest": run.job_digest,
        "model_digest": run.model_digest,
        "baselines": {k: _baseline(b) for k, b in run.baselines.items()} or None,
        "report": report,
    }


def _baseline(found: Baseline) -> dict[str, Any]:
    def told(clients: Mapping[int, Metrics]) -> dict[str, Metrics]:
        return {str(i): m for i, m in clients.items()}

    return {
        "run": found.run,
        "metrics": found.metrics,
        "clients": told(found.clients),
        "alone_on_all": told(found.on_all),
    }
