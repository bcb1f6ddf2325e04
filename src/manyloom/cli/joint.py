"""`predict --party ...`: the parts of a vertical run on new rows of its parties; the label party gets the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from manyloom.cli.out import Out, fields, shown
from manyloom.cli.predict import beside, compared, copied, listing, told, written
from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.text import count, digest, listed, plural

if TYPE_CHECKING:
    from manyloom.track.folder import Folder
    from manyloom.track.parts import JointModel
    from manyloom.track.predictions import Predictions


def joint(
    out: Out, folder: Folder, file: Path | None, given: Sequence[str], to: Path | None, keep: str | None, model: str
) -> int:
    """Predict the label party's rows with what the others know of them."""
    from manyloom.data.rows import read_file
    from manyloom.track.parts import load_parts

    made = load_parts(folder.path, "best" if model == "best" else "final")
    if file is not None:
        typed = " ".join(f"--party {name}=FILE" for name in made.names)
        raise bad("bad-argument", f"{folder.name} has parties: each gives a file of its own", got=str(file),
                  mend=f"manyloom predict {folder.name} {typed}")  # fmt: skip
    files = parties(given)
    made.check(files)
    first = next(iter(files)) if made.alone else made.label.name
    own = files[first]
    reader = next(p for p in (made.label, *made.features) if p.name == first).reader
    columns = read_file(own, missing=reader.preprocess.schema.missing, separator=reader.separator, header=reader.header)
    kept = copied(columns, keep, own)
    found = made.predict(files)
    path = to or beside(own)
    names = written(path, found, kept, keep)
    out.emit(told(folder, found, path, names, model), _human(made, found, files, path, names, model), made=str(path))
    return 0


def parties(given: Sequence[str]) -> dict[str, Path]:
    """NAME=FILE, as typed.

    >>> parties(["bank=new/bank.csv"])
    {'bank': PosixPath('new/bank.csv')}
    """
    files: dict[str, Path] = {}
    wrong: list[Problem] = []
    for text in given:
        name, sign, file = (part.strip() for part in text.partition("="))
        if not (name and sign and file):
            wrong.append(Problem("bad-argument", "a party's rows are given as NAME=FILE", got=f"--party {text}",
                                 mend="--party bank=new.csv"))  # fmt: skip
        elif name in files:
            wrong.append(Problem("contradiction", f"{name} has two files", got=f"--party {text}",
                                 rule="one file a party"))  # fmt: skip
        files[name] = Path(file)
    if wrong:
        raise BadInput(*wrong)
    return files


def _human(
    made: JointModel, found: Predictions, files: Mapping[str, Path], path: Path, names: Sequence[str], model: str
) -> str:
    info, label = made.info, made.label
    if made.alone:
        [(name, file)] = files.items()
        kept = next(p for p in (label, *made.features) if p.name == name)
        read = f"{file.name}: {plural(len(found), info['row_word'])} of {name}"
        return fields(
            ("model", f"{info['run']}, the {'teacher' if kept is label else 'student'} of {name}, "
                      f"{count(kept.info['parameters'])} parameters"),
            ("read", read + (f", {count(found.left_out)} without an id left out" if found.left_out else "")),
            ("wrote", f"{shown(path)}   {listing(names)}"),
            ("label", compared(found, kept.reader.preprocess.schema.label, info["labels"])),
            ("note", "read and written on this machine; nothing was sent, and nobody else is needed"),
        )  # fmt: skip
    each = ", ".join(f"{p.name} {count(p.info['parameters'])}" for p in (label, *made.features))
    lines = [f"{files[label.name].name}: {plural(len(found), info['row_word'])} of {label.name}"]
    lines[0] += f", {count(found.left_out)} without an id left out" if found.left_out else ""
    for p in made.features:
        lacks = found.missing.get(p.name, 0)
        whose = f"{files[p.name].name}: {p.name}" if p.name in files else f"{p.name} gave no file, and"
        lines.append(f"{whose} has {'all of them' if not lacks else f'{count(len(found) - lacks)} of them'}")
    if found.missing:
        lines.append(f"what {listed(found.missing)} {'lacks' if len(found.missing) == 1 else 'lack'} was made up for")
    word = "" if model == "final" else ", its best round"
    target = label.reader.preprocess.schema.label
    return fields(
        ("model", f"{info['run']}, parameters {each}, weights {digest(info['sha256'], 2)}{word}"),
        ("read", "\n".join(lines)),
        ("wrote", f"{shown(path)}   {listing(names)}"),
        ("label", compared(found, target, info["labels"])),
        ("note", f"all parties were played on this machine; {label.name} alone gets the result"),
    )
