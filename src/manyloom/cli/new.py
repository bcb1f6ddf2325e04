"""`new`: a job of one's own, every key with its default and one line why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from manyloom.cli.out import WIDTH, Out, complete_jobs, fields, shown
from manyloom.cli.parse import job_path
from manyloom.core.errors import bad
from manyloom.core.text import count, listed, percent, plural
from manyloom.core.validate import nearest

if TYPE_CHECKING:
    from manyloom.job.job import Job

LABELS = ("label", "target", "y", "class", "outcome", "diagnosis", "disease", "default", "price", "value")
CLIENTS = ("client", "site", "hospital", "clinic", "centre", "center", "ward", "bank", "branch", "shop", "user",
           "writer", "institution", "country", "region", "source")  # fmt: skip
SIMULATED = 10  # clients to deal rows to, where no column names them
FEW = 20  # up to so many clients all are asked in every round
Tables = dict[str, dict[str, object]]


def new(
    out: Out,
    name: Annotated[str, Argument(metavar="NAME", help="the folder to make; the job is called after it")],
    data: Annotated[Path | None, Option("--data", metavar="FILE",
                                        help="CSV or Parquet: a file, or a folder with a file a client")] = None,
    label: Annotated[str | None, Option("--label", metavar="COL", help="the column to predict [guessed]")] = None,
    clients: Annotated[str | None, Option("--clients", metavar="COL",
                                          help="the column that names the client [guessed]")] = None,
    like: Annotated[str | None, Option("--from", metavar="JOB", autocompletion=complete_jobs,
                                       help="begin with a job file or a shipped job [heart]")] = None,
) -> int:  # fmt: skip
    """Make a folder with a commented job: on your own file, or after a shipped job."""
    folder = Path(name)
    if folder.exists():
        raise bad("exists", f"{name} is there already", mend="take another name, or remove it")
    if data is None and (label or clients):
        what = "--label and --clients name columns of a file"
        raise bad("missing-argument", what, mend=f"manyloom new {name} --data FILE")
    if data is not None and like is not None:
        raise bad("contradiction", "--data and --from are two ways to begin", mend="give one of them")
    part = folder.with_name(f".{folder.name}.part")
    try:
        part.mkdir(parents=True)
        made, guesses = _of_file(part, folder.name, data, label, clients) if data else _of_job(part, folder.name, like)
        _write(part, made, folder)
        os.rename(part, folder)
    except OSError as error:
        why = error.strerror or str(error)
        raise bad("unwritable", f"can't make {name}", got=why, mend="take another place") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    files = [f"{folder}/job.toml", f"{folder}/README.md"]
    whys = ["every key with its default and one line why", "what to change first"]
    wide = max(len(f) for f in files) + 5
    lines = [f.ljust(wide) + why if 9 + wide + len(whys[0]) <= WIDTH else f for f, why in zip(files, whys)]
    wrote = "\n".join(f"{'wrote' if i == 0 else '':8} {line}" for i, line in enumerate(lines))
    human = "\n".join(line for line in (fields(*_told(made, data, guesses)), wrote) if line)
    out.emit({"path": files[0], "files": files, "guesses": guesses}, human, made=files[0],
             next=[f"manyloom plan {files[0]}"])  # fmt: skip
    return 0


# ---- the job


def _of_job(part: Path, name: str, like: str | None) -> tuple[Job, dict[str, Any]]:
    """After another job: its tables, with the paths in them as seen from the new folder."""
    from manyloom.job.job import Job
    from manyloom.job.kinds import horizontal
    from manyloom.job.toml import find, write

    path = job_path(like) if like else find("heart")
    given = {k: dict(v) for k, v in Job.from_toml(str(path)).tables.items()}
    given["job"]["name"] = name
    here = given["data"].get("path")
    if isinstance(here, str) and not os.path.isabs(here):
        given["data"]["path"] = os.path.relpath(path.parent / here, part)
    (part / "job.toml").write_text(write(given), "utf-8")
    return horizontal(Job.from_toml(str(part / "job.toml")), "manyloom new"), {}


def _of_file(part: Path, name: str, data: Path, label: str | None, clients: str | None) -> tuple[Job, dict[str, Any]]:
    """On a file: what is to be predicted and who the clients are is guessed where it is not given."""
    from manyloom.job.job import Job
    from manyloom.job.kinds import horizontal
    from manyloom.job.toml import write

    kind, first, more = _kind(data)
    columns, separator = _columns(kind, first)
    label = _column(label, columns, "--label") if label else _guess(LABELS, columns) or columns[-1]
    key = _column(clients, columns, "--clients") if clients else None if more else _guess(CLIENTS, columns)
    own: dict[str, object] = {"source": kind, "path": os.path.relpath(data, part), "label": label}
    own |= {"key": key} if key else {}
    own |= {"separator": separator} if separator != "," else {}
    given: Tables = {"job": {"name": name, "rounds": 20, "seed": 1}, "data": own, "model": {"name": "logistic"},
                     "algorithm": {"name": "fedavg", "lr": 0.1, "epochs": 1, "batch_size": 32}}  # fmt: skip
    if not key and not more:
        given["partition"] = {"scheme": "iid", "clients": SIMULATED}
    made = _tried(part, given)
    fed = made.federation
    if fed.target == "number":
        given["model"]["name"] = "linear"
    elif (fed.classes or 2) > 2:
        given["model"]["name"] = "mlp"
    if len(fed) > FEW:
        given["job"]["cohort"] = SIMULATED
    (part / "job.toml").write_text(write(given), "utf-8")
    made = horizontal(Job.from_toml(str(part / "job.toml")), "manyloom new")
    rows = fed.sizes + fed.tests
    counts = fed.label_counts().sum(0) if fed.target == "class" else None
    schema = fed.schema
    guesses: dict[str, Any] = {
        "label": label, "clients": key, "target": fed.target, "rows": int(rows.sum()), "columns": len(columns),
        "population": len(fed), "smallest": int(rows.min()) if len(fed) else 0, "classes": fed.classes,
        "labels": list(fed.labels), "shares": (counts / max(1, counts.sum())).tolist() if counts is not None else None,
        "vocabularies": list(schema.categories) if schema is not None else [], "model": made.task.name,
    }  # fmt: skip
    return made, guesses


def _tried(part: Path, given: Tables) -> Job:
    """The job, as a number is predicted or a class: the model that fits either is taken first."""
    from manyloom.core.errors import BadInput
    from manyloom.job.job import Job
    from manyloom.job.kinds import horizontal
    from manyloom.job.toml import write

    path = part / "job.toml"
    path.write_text(write(given), "utf-8")
    try:
        return horizontal(Job.from_toml(str(path)), "manyloom new")
    except BadInput as error:
        given["model"]["name"] = "linear"
        path.write_text(write(given), "utf-8")
        try:
            return horizontal(Job.from_toml(str(path)), "manyloom new")
        except BadInput:
            raise error from None


def _kind(data: Path) -> tuple[str, Path, bool]:
    """csv or parquet, the first file, and whether there are more."""
    from manyloom.data.sources.files import SUFFIXES, expand

    if not data.is_dir():
        kind = "parquet" if data.name.lower().endswith(SUFFIXES["parquet"]) else "csv"
        found = expand(str(data), kind)
        return kind, found[0], len(found) > 1
    names = tuple(f.name.lower() for f in data.iterdir())
    kind = next((k for k, ends in SUFFIXES.items() if any(n.endswith(ends) for n in names)), "csv")
    return kind, expand(str(data), kind)[0], True


def _columns(kind: str, path: Path) -> tuple[list[str], str]:
    """The columns of a file, and what stands between its values."""
    from manyloom.data.sources.frame import read_csv, read_parquet

    if kind == "parquet":
        return list(read_parquet(path, "manyloom new")), ","
    with open(path, "rb") as file:
        first = file.readline().decode("utf-8-sig", "replace")
    separator = max(",;\t|", key=lambda s: (first.count(s), s == ","))
    return list(read_csv(path, (), separator=separator)), separator


def _guess(words: tuple[str, ...], columns: list[str]) -> str | None:
    plain = {c.lower().removesuffix("_id").removesuffix("s"): c for c in reversed(columns)}
    return next((plain[w] for w in words if w in plain), None)


def _column(given: str, columns: list[str], flag: str) -> str:
    if given in columns:
        return given
    near = nearest(given, columns)
    raise bad("unknown-name", f'there is no column "{given}"', got=f"{flag} {given}",
              rule="columns: " + listed(columns, most=12),
              mend=f"did you mean {flag} {near}?" if near else None)  # fmt: skip


# ---- what is written and told


def _write(part: Path, made: Job, folder: Path) -> None:
    from manyloom.cli.template import commented
    from manyloom.job.job import Job

    head = f"{made.name}\n  manyloom plan {folder}/job.toml\n  manyloom run {folder}/job.toml"
    path = part / "job.toml"
    path.write_text(commented(made.tables, head), "utf-8")
    if Job.from_toml(str(path)).digest != made.digest:
        raise RuntimeError("the commented job is not the job")
    (part / "README.md").write_text(_readme(made, folder), "utf-8")


def _readme(made: Job, folder: Path) -> str:
    metric, one = made.watched, made.federation.client_word[0]
    calls = {
        f"manyloom plan {folder}/job.toml": "what will happen; nothing is trained",
        f"manyloom run {folder}/job.toml --baselines": f"train; beside it each {one} alone, and all pooled",
        "manyloom report last": "the report, one HTML file",
    }
    wide = max(map(len, calls)) + 4
    typed = "\n".join(call.ljust(wide) + why for call, why in calls.items())
    return f"""# {made.name}

```
{typed}
```

What to change first, in `job.toml` or on the command line (`manyloom run {folder}/job.toml algorithm.lr=0.03`):

1. `[algorithm] lr`: the step size of local training. Too large: the loss jumps; too small: it crawls.
2. `[job] rounds`: until {metric} stays where it is; or `patience = 5` stops by itself.
3. `[model] name`: `logistic` and `linear` are the simplest; `mlp` with `hidden = [64]` learns curves.
4. `[algorithm] epochs`: more local work a round saves rounds where clients are alike, and drifts where they differ;
   then `name = "fedprox"` or `"scaffold"`.
5. `[card]`: what the model is for, what it must not be used for, and whom to ask.
"""


def _told(made: Job, data: Path | None, guesses: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was read and guessed, in two lines."""
    if data is None:
        return []
    fed = made.federation
    who = plural(len(fed), (guesses["clients"] or "client", f"{guesses['clients'] or 'client'}s"))
    if guesses["clients"] is None and made.tables.get("partition", {}).get("scheme") == "iid":
        who = f"dealt at random to {who}: no column names them"
    least = f" (smallest {plural(guesses['smallest'], ('row', 'rows'))})"
    rows, columns = plural(guesses["rows"], ("row", "rows")), plural(guesses["columns"], ("column", "columns"))
    read = f"{shown(data)}: {rows}, {columns}, {who}{least}"
    if fed.target == "number":
        said = [f"{guesses['label']} is a number"]
    else:
        shares: list[float] = guesses["shares"] or []
        share = f' ({percent(shares[1])} "{fed.labels[1]}")' if len(shares) == 2 and len(fed.labels) == 2 else ""
        said = [f"{guesses['label']} has {count(fed.classes or 0)} classes{share}"]
    texts = guesses["vocabularies"]
    if texts:
        said.append(f"{plural(len(texts), ('text column gets', 'text columns get'))} a vocabulary")
    return [("read", read), ("guess", "; ".join(said))]
