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
    from manyloom.track.folder import Folder
    from manyloom.track.model import SavedModel
    from manyloom.track.predictions import Predictions

WHICH = ("final", "best")
FEW = 10  # an AUC of fewer rows of a class is marked


def predict(
    out: Out,
    run: Annotated[
        str, Argument(metavar="RUN", help='a run\'s name, a unique prefix, or "last"', autocompletion=complete_runs)
    ],
    file: Annotated[Path | None, Argument(metavar="FILE", help="CSV or Parquet with the columns of training")] = None,
    party: Annotated[
        list[str] | None,
        Option(
            "--party", metavar="NAME=FILE", help="in place of FILE: a party's rows, once for each of a vertical run"
        ),
    ] = None,
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

    Of a vertical run every party gives a file of its own. Rows meet by their ids, and the label party alone gets the
    result: FILE is then its file.
    """
    if model not in WHICH:
        near = nearest(model, WHICH)
        raise bad("unknown-name", f'there is no model "{model}"', got=f"--model {model}", rule="final or best",
                  mend=f"did you mean {near}?" if near else None)  # fmt: skip
    from manyloom.track.store import Store

    with Store.open(out.home) as store:
        folder = store.resolve(run)
    if (folder.path / "parts").is_dir():
        from manyloom.cli.joint import joint

        return joint(out, folder, file, party or [], to, keep, model)
    if party:
        raise bad("bad-argument", f"{folder.name} has one model for all, and no parties", got=f"--party {party[0]}",
                  mend=f"manyloom predict {folder.name} rows.csv")  # fmt: skip
    if file is None:
        raise bad("missing-argument", "predict needs FILE", mend="manyloom predict --help")
    return _whole(out, folder, file, to, keep, model)


def _whole(out: Out, folder: Folder, file: Path, to: Path | None, keep: str | None, model: str) -> int:
    """A model for all, on one file of rows."""
    from manyloom.track.adapter import SavedAdapter
    from manyloom.track.model import load_model

    saved = load_model(folder.path, "best" if model == "best" else "final")
    if isinstance(saved, SavedAdapter):
        raise saved.refusal(file)
    columns = saved.read(file)
    found = saved.predict(file)
    path = to or beside(file)
    names = written(path, found, copied(columns, keep, file), keep)
    document = told(folder, found, path, names, model)
    out.emit(document, _human(saved, found, file, path, names, model), made=str(path))
    return 0


def beside(file: Path) -> Path:
    """Where predictions of a file are written, unless it is said."""
    return file.with_name(f"{_stem(file)}.predictions{_suffix(file)}")


def written(path: Path, found: Predictions, kept: Mapping[str, Sequence[Any]], keep: str | None) -> list[str]:
    """Write predictions with the copied columns after the row's number; the names of all columns."""
    from manyloom.track.rows import write_file

    table = found.table()
    if twice := [k for k in kept if k in table]:
        raise bad("bad-argument", f'the output has a column "{twice[0]}" already', got=f"--keep {keep}",
                  mend="rename it in the file")  # fmt: skip
    first = {"row": table.pop("row")}
    at = None if found.rows is None else [row - 1 for row in found.rows]
    rest = {k: v if at is None else [v[i] for i in at] for k, v in kept.items()}
    write_file(path, first | rest | table)
    return [*first, *rest, *table]


def told(folder: Folder, found: Predictions, path: Path, names: Sequence[str], model: str) -> dict[str, Any]:
    """What `--json` says."""
    return {
        "run_id": folder.name,
        "model": model,
        "path": str(path),
        "rows": len(found),
        "columns": list(names),
        "ignored": list(found.ignored),
        "filled": dict(found.filled),
        "unseen": dict(found.unseen),
        "missing": dict(found.missing),
        "left_out": found.left_out,
        "labelled": found.labelled,
        "counts": list(found.counts),
        "metrics": dict(found.metrics) if found.metrics is not None else None,
    }


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
    name = info["preprocess"]["label"] if info["preprocess"] else "label"
    return fields(
        ("model", f"{info['run']}, {info['name']}, {count(info['parameters'])} parameters, "
                  f"weights {digest(info['sha256'], 2)}{word}"),
        ("read", "\n".join(lines)),
        ("wrote", f"{shown(path)}   {listing(names)}"),
        ("label", compared(found, name, info["labels"])),
        ("note", "read and written on this machine; nothing was sent"),
    )  # fmt: skip


def listing(names: Sequence[str]) -> str:
    """The columns that were written."""
    return ", ".join(names if len(names) <= 8 else [*names[:4], "...", names[-1]])


def compared(found: Predictions, name: str, labels: Sequence[str]) -> str:
    """How right the predictions are, where the file holds the label; few rows of a class are told."""
    if found.metrics is None:
        return ""
    footnote = ""
    of = f"these {count(len(found))}" if found.labelled == len(found) else f"{count(found.labelled)}"
    row = "row" if found.labelled == 1 else "rows"
    said = metrics_line(_shown(found.metrics), _watch(found.metrics))
    few = min(found.counts, default=FEW)
    if "auc" in found.metrics and few < FEW:
        said = re.sub(r"(AUC [^,]+)", r"\1*", said)
        rarest = labels[list(found.counts).index(few)] if labels else "of a class"
        footnote = f"\n* {count(few)} of {count(found.labelled)} {row} {rarest}: this AUC says little"
    return f'the file holds "{name}": {said} on {of} {row}{footnote}'


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k != "loss" or len(metrics) == 1}


def _watch(metrics: Mapping[str, float]) -> str | None:
    return next((m for m in ("auc", "accuracy", "rmse") if m in metrics), None)


def copied(columns: Mapping[str, Any], keep: str | None, file: Path) -> dict[str, Sequence[Any]]:
    """The columns that `--keep` names, as texts."""
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
