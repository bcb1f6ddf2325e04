"""`predict`: a finished run's model on new rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from manyloom.cli.out import Out, complete_runs, fields, shown
from manyloom.core.errors import bad
from manyloom.core.text import count, digest, listed, metrics_line, plural
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.track.model import SavedModel
    from manyloom.track.predictions import Predictions

WHICH = ("final", "best")
FEW = 10  # an AUC of fewer rows of a class is marked


def predict(
    out: Out,
    run: Annotated[
        str, Argument(metavar="RUN", help='a run\'s name, a unique prefix, or "last"', autocompletion=complete_runs)
    ],
    file: Annotated[Path, Argument(metavar="FILE", help="CSV or Parquet with the columns of training")],
    to: Annotated[
        Path | None, Option("--out", metavar="FILE", help="where to write [FILE with .predictions in its name]")
    ] = None,
    keep: Annotated[
        str | None, Option("--keep", metavar="COLS", help="columns of FILE to copy into the output: id,ward")
    ] = None,
    model: Annotated[
        str, Option("--model", metavar="WHICH", help="final, or best: the round that was best [final]")
    ] = "final",
) -> int:
    """Predict new rows with the model of a run.

    The rows are treated as in training: gaps get the run's federated means. If the file holds the label, the
    predictions are compared with it. Everything stays on this machine.
    """
    if model not in WHICH:
        near = nearest(model, WHICH)
        raise bad("unknown-name", f'there is no model "{model}"', got=f"--model {model}", rule="final or best",
                  mend=f"did you mean {near}?" if near else None)  # fmt: skip
    from manyloom.track.model import load_model
    from manyloom.track.rows import write_file
    from manyloom.track.store import Store

    with Store.open(out.home) as store:
        folder = store.resolve(run)
    saved = load_model(folder.path, "best" if model == "best" else "final")
    columns = saved.read(file)
    kept = _kept(columns, keep, file)
    found = saved.predict(file)
    path = to or file.with_name(f"{_stem(file)}.predictions{_suffix(file)}")
    table = found.table()
    if twice := [k for k in kept if k in table]:
        raise bad("bad-argument", f'the output has a column "{twice[0]}" already', got=f"--keep {keep}",
                  mend="rename it in the file")  # fmt: skip
    first = {"row": table.pop("row")}
    write_file(path, first | kept | table)
    names = [*first, *kept, *table]
    document: dict[str, Any] = {
        "run_id": folder.name,
        "model": model,
        "path": str(path),
        "rows": len(found),
        "columns": names,
        "ignored": list(found.ignored),
        "filled": dict(found.filled),
        "unseen": dict(found.unseen),
        "labelled": found.labelled,
        "counts": list(found.counts),
        "metrics": dict(found.metrics) if found.metrics is not None else None,
    }
    out.emit(document, _human(saved, found, file, path, names, model), made=str(path))
    return 0


def _human(saved: SavedModel, found: Predictions, file: Path, path: Path, names: Sequence[str], model: str) -> str:
    info = saved.info
    word = "" if model == "final" else ", its best round"
    needed = len(found.columns)
    other = plural(len(found.ignored), ("other", "others"))
    read = f"{file.name}: {plural(len(found), ('row', 'rows'))}, {needed} of {needed} columns"
    read += f", {other} ignored" if found.ignored else ""
    lines = [read]
    if found.filled:
        n = sum(found.filled.values())
        lines.append(f"{plural(n, ('value', 'values'))} missing in {listed(found.filled)}: "
                     "filled with the run's federated means")  # fmt: skip
    if found.unseen:
        n = sum(found.unseen.values())
        lines.append(f"{plural(n, ('value', 'values'))} in {listed(found.unseen)} that training never saw")
    label = footnote = ""
    if found.metrics is not None:
        name = info["preprocess"]["label"] if info["preprocess"] else "label"
        of = f"these {count(len(found))}" if found.labelled == len(found) else f"{count(found.labelled)}"
        row = "row" if found.labelled == 1 else "rows"
        told = metrics_line(_shown(found.metrics), _watch(found.metrics))
        few = min(found.counts, default=FEW)
        if "auc" in found.metrics and few < FEW:
            told = re.sub(r"(AUC [^,]+)", r"\1*", told)
            rarest = info["labels"][list(found.counts).index(few)] if info["labels"] else "of a class"
            footnote = f"\n* {count(few)} of {count(found.labelled)} {row} {rarest}: this AUC says little"
        label = f'the file holds "{name}": {told} on {of} {row}{footnote}'
    shown_names = names if len(names) <= 8 else [*names[:4], "...", names[-1]]
    return fields(
        ("model", f"{info['run']}, {info['name']}, {count(info['parameters'])} parameters, "
                  f"weights {digest(info['sha256'], 2)}{word}"),
        ("read", "\n".join(lines)),
        ("wrote", f"{shown(path)}   {', '.join(shown_names)}"),
        ("label", label),
        ("note", "read and written on this machine; nothing was sent"),
    )  # fmt: skip


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k != "loss" or len(metrics) == 1}


def _watch(metrics: Mapping[str, float]) -> str | None:
    return next((m for m in ("auc", "accuracy", "rmse") if m in metrics), None)


def _kept(columns: Mapping[str, Any], keep: str | None, file: Path) -> dict[str, Sequence[Any]]:
    names = [c.strip() for c in keep.split(",") if c.strip()] if keep else []
    for name in names:
        if name not in columns:
            near = nearest(name, columns)
            raise bad("unknown-name", f'{file.name} has no column "{name}"', got=f"--keep {keep}",
                      rule="it has " + listed(columns, most=10),
                      mend=f'did you mean "{near}"?' if near else None)  # fmt: skip
    return {name: columns[name].as_texts() for name in names}


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").rpartition(".")[0] or file.name


def _suffix(file: Path) -> str:
    found = Path(file.name.removesuffix(".gz")).suffix.lower()
    return found if found in (".parquet", ".pq", ".tsv") else ".csv"
