"""A job from a TOML file, and a TOML file from a job: every problem is told at once, each with its place."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.validate import nearest
from manyloom.job import assemble
from manyloom.job.adapters import followed, is_language, model_of, parts_of
from manyloom.job.judge import problems
from manyloom.job.kinds import AnyJob, books
from manyloom.job.tables import HORIZONTAL, Given
from manyloom.job.vertical import assemble as vertical
from manyloom.job.vertical.tables import VERTICAL

T = TypeVar("T")


class Source(NamedTuple):
    """A job file as read: its tables, and where each table and key stands ("heart.toml, line 3")."""

    file: str
    given: dict[str, object]
    places: Mapping[tuple[str, str], str]

    def where(self, table: str, key: str) -> str:
        """The place of a key, else of its table, else of the file."""
        return self.places.get((table, key)) or self.places.get((table, "")) or self.file

    def locate(self, problem: Problem, hint: str = "") -> Problem:
        """The problem with the place of the first key or table that its `got` names and the file has."""
        if problem.where is not None or problem.got is None:
            return problem
        named = re.findall(r"\[(\w+)\]", problem.got)
        tables = [*named, *([hint] if hint and not named else [])]
        for key in re.findall(r"(?<![\w.])(\w+) = ", problem.got):
            for table in [*tables, *(t for t, k in self.places if k == key)]:
                if place := self.places.get((table, key)):
                    return replace(problem, where=place)
        found = [self.places[t, ""] for t in named if (t, "") in self.places]
        return replace(problem, where=found[0]) if found else problem


def read(
    path: str | Path,
    overrides: Mapping[str, object] | None = None,
    data_dir: str | None = None,
    base: str | Path | None = None,
) -> AnyJob:
    """The job of a file, of the kind that `[job] kind` says.

    Args:
        path: a TOML file, or the name of a shipped job.
        overrides: "table.key" -> value, as `parse_override` gives them.
        data_dir: folder of named sources' files; else that of the job, else `MANYLOOM_DATA`.
        base: folder that relative paths and modules are looked up in; the file's own by default.

    Raises:
        BadInput: all that is wrong with the tables; else all that is wrong with the job they make.
    """
    file = find(path)
    source = parse(file, overrides or {})
    root = Path(base or _base(file)).resolve()
    places = assemble.Places(root)
    book, other = books(source.given)
    found = [
        replace(f.problem, where=source.where(f.table, f.key)) for f in problems(source.given, places, book, other)
    ]
    wrong = {t for (t, _), place in source.places.items() if place in {p.where for p in found}}
    if all(isinstance(v, dict) for v in source.given.values()):
        made_of = vertical if book is VERTICAL else assemble
        for table, make in made_of.first(cast(Given, source.given), places):
            if table in source.given and table not in wrong:
                attempt(make, found, source, table)
    if found:
        raise BadInput(*sorted(dict.fromkeys(found), key=_line))
    given = cast(Given, source.given) if book is VERTICAL else followed(cast(Given, source.given))
    seed = cast(int, given["job"].get("seed", 0))

    def build() -> AnyJob:
        if book is VERTICAL:
            return vertical.job_of(given, name=file.stem, base=str(root), data_dir=data_dir, places=places)
        algorithm = assemble.algorithm_of(given, places)
        fed = assemble.classes_of(assemble.federation_of(given, seed, data_dir, places), given)
        if is_language(given):
            made = parts_of(given, model_of(given, places), fed, algorithm, seed)
            return assemble.job_of(given, made.algorithm, made.federation, name=file.stem, base=str(root),
                                   task=made.task, places=places)  # fmt: skip
        task = assemble.task_of(given["model"], (fed.target, fed.classes), places)
        return assemble.job_of(given, algorithm, fed, name=file.stem, base=str(root), task=task, places=places)

    job = attempt(build, found, source)
    if job is None:
        raise BadInput(*sorted(found, key=_line))
    return job


def attempt(make: Callable[[], T], found: list[Problem], source: Source, table: str = "") -> T | None:
    """What `make` makes; or None, and its problems, located, are added to those found."""
    try:
        return make()
    except BadInput as error:
        found += [source.locate(p, table) for p in error.problems]
        return None


def _base(file: Path) -> Path:
    """Where a job's relative paths start: its folder; of a run's `job.toml` the folder that `run.json` says."""
    try:
        return Path(json.loads((file.parent / "run.json").read_text("utf-8"))["base"])
    except (OSError, ValueError, KeyError, TypeError):
        return file.parent


def _line(problem: Problem) -> int:
    at = re.search(r", line (\d+)$", problem.where or "")
    return int(at[1]) if at else 1 << 31


# ---- reading


def shipped() -> list[str]:
    """Names of the jobs that come with Manyloom."""
    names = sorted(
        f.name.removesuffix(".toml") for f in (files("manyloom") / "jobs").iterdir() if f.name.endswith(".toml")
    )
    return sorted(names, key=lambda n: n != "heart")


def find(path: str | Path) -> Path:
    """The job file of a path or of a shipped job's name; `job-not-found` names the nearest."""
    name = str(path)
    file = Path(name).expanduser()
    if file.is_file():
        return file
    if name in shipped():
        return Path(str(files("manyloom") / "jobs" / f"{name}.toml"))
    beside = [f.name for f in file.parent.glob("*.toml")] if file.parent.is_dir() else []
    near = nearest(file.name, beside) or (nearest(f"{file.name}.toml", beside) if not file.suffix else None)
    meant = str(file.parent / near) if near else nearest(file.stem, shipped())
    raise bad("job-not-found", f'there is no job file "{name}"',
              rule="a path to a TOML file, or a shipped job: " + ", ".join(shipped()),
              mend=f"did you mean {meant}?" if meant else "make one: manyloom new NAME")  # fmt: skip


def parse(file: Path, overrides: Mapping[str, object]) -> Source:
    """The tables of a file with overrides put in; `bad-toml` says in which line it can't be read."""
    try:
        text = file.read_text("utf-8-sig")
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(file, str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise bad("bad-toml", f"can't read {file.name}", got=str(file), rule=why) from None
    places = {at: f"{file.name}, line {line}" for at, line in lines(text).items()}
    for name, value in overrides.items():
        table, _, key = name.partition(".")
        content = given.setdefault(table, {})
        if not key or not isinstance(content, dict):
            raise bad_override(name, name)
        cast("dict[str, object]", content)[key] = value
        places[table, key] = f"override {name}"
        places.setdefault((table, ""), f"override {name}")
    return Source(file.name, given, places)


def lines(text: str) -> dict[tuple[str, str], int]:
    """(table, key) -> line, and (table, "") -> line of the table, of a TOML text that can be read.

    >>> lines("[job]\\nrounds = 3\\n\\n[secure]")
    {('job', ''): 1, ('job', 'rounds'): 2, ('secure', ''): 4}
    """
    out: dict[tuple[str, str], int] = {}
    rows = text.replace("\r\n", "\n").split("\n")
    table, i = "", 0
    while i < len(rows):
        start, found = i, None
        while found is None:  # a statement may go on over several lines
            i += 1
            try:
                found = tomllib.loads("\n".join(rows[start:i]))
            except tomllib.TOMLDecodeError:
                if i >= len(rows):
                    return out
        header = rows[start].lstrip().startswith("[")
        for name, value in found.items():
            if header:
                table = name
                out.setdefault((table, ""), start + 1)
            elif table:
                out.setdefault((table, name), start + 1)
            else:
                out.setdefault((name, ""), start + 1)
                for key in cast("dict[str, object]", value) if isinstance(value, dict) else ():
                    out.setdefault((name, key), start + 1)
    return out


def _unreadable(file: Path, message: str) -> BadInput:
    rows = file.read_text("utf-8-sig").split("\n")
    at = re.search(r" \((?:at line (\d+), column (\d+)|at end of document)\)", message)
    line = int(at[1]) if at and at[1] else len(rows)
    row = rows[line - 1].strip() if line <= len(rows) else ""
    bare = re.fullmatch(r"([\w-]+)\s*=\s*([A-Za-z][\w:./-]*)\s*(#.*)?", row)
    mend = f'text stands in quotes: {bare[1]} = "{bare[2]}"' if bare else None
    if bare and bare[2].lower() in ("true", "false"):
        mend = f"write {bare[1]} = {bare[2].lower()}"
    return bad("bad-toml", f"{file.name} is no TOML", got=row or "(nothing)", where=f"{file.name}, line {line}",
               rule=re.sub(r" \(at .*\)", "", message), mend=mend)  # fmt: skip


def parse_override(text: str, job: str = "JOB.toml") -> tuple[str, object]:
    """`table.key=value` of a command line; the value as in TOML, a bare word as text.

    >>> parse_override("algorithm.lr=0.1"), parse_override("model.name=mlp"), parse_override("model.hidden=[8, 8]")
    (('algorithm.lr', 0.1), ('model.name', 'mlp'), ('model.hidden', [8, 8]))
    """
    name, equals, value = (s.strip() for s in text.partition("="))
    if not equals or not value or not re.fullmatch(r"[\w-]+\.[\w-]+", name):
        raise bad_override(text, job)
    return name, _value(text, value, job)


def _value(text: str, value: str, job: str) -> object:
    try:
        found = tomllib.loads(f"v = {value}")
        if len(found) == 1:
            return found["v"]
    except tomllib.TOMLDecodeError:
        if value[0] not in "[{\"'":
            return value
    raise bad_override(text, job)


def bad_override(text: str, job: str) -> BadInput:
    """The error of an override that can't be read."""
    name, sign, value = re.fullmatch(r"([\w.-]*)([=:]?)(.*)", text, re.S).groups()  # type: ignore[union-attr]
    every = (*HORIZONTAL.tables.values(), *VERTICAL.tables.values())
    home = next((t.name for t in every if name in t.known()), None)
    example = "algorithm.lr=0.1"
    if sign == ":" and "." in name and value:
        example = f"{name}={value}"
    elif sign and home and value:
        example = f"{home}.{name}={value}"
    return bad("bad-override", f'can\'t read the override "{text}"', rule="table.key=value, as in algorithm.lr=0.1",
               mend=f"manyloom run {job} {example}")  # fmt: skip


# ---- writing


def write(tables: Mapping[str, Mapping[str, object]]) -> str:
    """Tables as TOML; `read` gives the same job again.

    >>> print(write({"job": {"rounds": 3}, "model": {"name": "mlp", "hidden": [8]}}), end="")
    [job]
    rounds = 3
    <BLANKLINE>
    [model]
    name = "mlp"
    hidden = [8]
    """
    known = books(tables)[0].tables
    order = [*(t for t in known if t in tables), *(t for t in tables if t not in known)]
    blocks = [[f"[{_key(t)}]", *(f"{_key(k)} = {value_text(v)}" for k, v in tables[t].items())] for t in order]
    return "\n".join("\n".join(block) + "\n" for block in blocks)


def value_text(value: object) -> str:
    """A value in TOML.

    >>> value_text(1e-05), value_text(True), value_text(["a", 1.0]), value_text("tab\\there")
    ('1e-05', 'true', '["a", 1.0]', '"tab\\\\there"')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value).items()
        return "{" + ", ".join(f"{_key(k)} = {value_text(v)}" for k, v in pairs) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(value_text(v) for v in cast("Sequence[object]", value)) + "]"
    return str(cast(Any, value).isoformat())  # dates and times


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML has JSON's escapes, and one more rule
