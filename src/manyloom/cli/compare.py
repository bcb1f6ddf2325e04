"""`compare`: runs side by side, and what differs in their jobs. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from manyloom.cli.out import WIDTH, Out, complete_runs
from manyloom.core.errors import bad
from manyloom.core.text import columns, epsilon, finite, number, ordered

if TYPE_CHECKING:
    from manyloom.track.folder import Folder
    from manyloom.track.record import Run
    from manyloom.track.store import Store


def compare(
    out: Out,
    runs: Annotated[
        list[str],
        Argument(metavar="RUN ...", autocompletion=complete_runs, help="two runs or more; a sweep stands for its runs"),
    ],
) -> int:
    """Compare runs: their results, what they cost, and what differs in their jobs.

    Of two runs the difference is shown, and whether it is more than chance on so many rows.
    """
    from manyloom.track import compare as document
    from manyloom.track import record
    from manyloom.track.store import Store

    with Store.open(out.home) as store:
        folders = [f for name in runs for f in _expanded(store, name)]
    folders = list({f.name: f for f in folders}.values())
    if len(folders) < 2:
        raise bad("missing-argument", "a comparison needs two runs", got=" ".join(runs),
                  mend=f"manyloom compare {runs[0]} OTHER; all runs: manyloom runs")  # fmt: skip
    found = [record.read(f) for f in folders]
    human = document.human(found)
    if any(len(line) > WIDTH for line in human.split("\n")):
        human = _rows(found, document.job_diff([r.toml for r in found]))
    human += "".join(f"\n{r.id} is a baseline: {_KINDS.get(k, k)}" for r in found for k in _baseline_of(r))
    out.emit(document.document(found), human, made="\n".join(f.name for f in folders))
    return 0


_KINDS = {"central": "the same job with all records pooled", "local": "the same job at each client alone"}


def _baseline_of(run: Run) -> list[str]:
    """What kind of baseline a run is itself."""
    return [kind for kind, found in run.baselines.items() if found.run == run.id]


def _expanded(store: Store, name: str) -> list[Folder]:
    """A run; of a sweep its runs."""
    folder = store.resolve(name)
    if folder.record().get("kind") != "sweep":
        return [folder]
    members = store.children(folder.name)
    if not members:
        raise bad("run-not-found", f"{folder.name} has no runs yet", mend="run the sweep again: it goes on")
    return members


def _rows(found: Sequence[Run], diff: Sequence[dict[str, Any]]) -> str:
    """A row a run: as many metrics and changed keys as 80 columns hold, the best run first."""
    names = list(dict.fromkeys(m for r in found for m in ordered(r.final or {}, r.main)))
    main = names[0] if names else "loss"
    ranked = sorted(range(len(found)), key=lambda i: _rank(found[i], main))
    private = any(r.spent is not None for r in found)
    heads = ["run", *names[:3], *(["epsilon"] if private else []), "seconds"]
    cells = [
        [r.id, *(number((r.final or {}).get(m)) for m in names[:3]),
         *([epsilon(r.spent) if r.spent is not None else "none"] if private else []), f"{r.seconds:.1f}"]
        for r in found
    ]  # fmt: skip
    left = [0]
    changed = [d for d in diff if d["key"] != "data.seed" or not any(e["key"] == "seed" for e in diff)]
    shown = 0
    for d in changed:
        more = ["-" if v is None else str(v) for v in d["values"]]
        wider = [[*row, value] for row, value in zip(cells, more, strict=True)]
        if max(map(len, columns([*heads, d["key"]], wider, left).split("\n"))) > WIDTH:
            break
        heads, cells, shown = [*heads, d["key"]], wider, shown + 1
    lines = [columns(heads, [cells[i] for i in ranked], left)]
    if shown < len(changed):
        rest = ", ".join(str(d["key"]) for d in changed[shown:])
        lines.append(f"also differ: {rest}"[:WIDTH])
    return "\n".join(line[:WIDTH] for line in "\n".join(lines).split("\n"))


def _rank(run: Run, main: str) -> tuple[bool, float]:
    value = finite((run.final or {}).get(main))
    return value is None, 0.0 if value is None else -value if run.better(1.0, 0.0, main) else value
