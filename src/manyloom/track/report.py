"""The report of a run: one HTML file that opens from disk, loads nothing and reads without its script."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from manyloom._version import __version__
from manyloom.track.folder import Folder, write_atomic
from manyloom.track.record import Run, read
from manyloom.track.sections import SECTIONS
from manyloom.track.sections.parts import Drawer


class Shown(NamedTuple):
    """One section as the template takes it."""

    id: str
    title: str
    data: dict[str, Any]


def write(folder: Folder | str | Path, to: str | Path | None = None, *, participation: bool = False) -> Path:
    """Write the report of a run, also of one that goes on or failed; where it lies.

    Args:
        folder: of the run.
        to: the file; `report.html` in the folder.
        participation: show who took part when, also where that weakens a promised privacy.
    """
    found = folder if isinstance(folder, Folder) else Folder(Path(folder))
    path = Path(to) if to is not None else found.path / "report.html"
    write_atomic(path, html(read(found), participation=participation))
    return path


def html(run: Run, *, participation: bool = False, now: datetime | None = None) -> str:
    """The report as text."""
    draw = Drawer(participation)
    shown = [Shown(s.ID, s.title(run), data) for s in SECTIONS if (data := s.section(run, draw)) is not None]
    script = part("page.js")
    return _pages().get_template("report.html.j2").render(
        run=run,
        sections=shown,
        lacking=draw.lacking,
        version=__version__,
        written=(now or datetime.now(UTC)).strftime("%d %B %Y, %H:%M UTC").lstrip("0"),
        css=Markup(part("page.css")),
        mark=Markup(part("mark.svg").strip()),
        script=Markup(script),
        script_hash=Markup(f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"),
    )  # fmt: skip


def part(name: str) -> str:
    """A file of the templates."""
    return files("manyloom.track").joinpath("templates", name).read_text("utf-8")


def _whole(value: Any) -> Any:
    """A text whose large numbers ("4 812", "ε = 8.00") do not break over lines; markup as it is."""
    if type(value) is not str:
        return value
    return re.sub(r"(?<=\d) (?=\d{3}\b)|(?<=[εδ]) (?==)|(?<=[εδ] =) (?=\d)", "\u00a0", value)


@cache
def _pages() -> Environment:
    return Environment(
        loader=PackageLoader("manyloom.track", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_whole,
    )
