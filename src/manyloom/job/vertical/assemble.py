"""Tables -> parties, model and settings -> a vertical job."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from manyloom.core.errors import BadInput, bad
from manyloom.core.validate import show
from manyloom.data.parties import Parties
from manyloom.data.sources.registry import parties as named_parties
from manyloom.data.sources.registry import sources
from manyloom.job.assemble import Places
from manyloom.job.settings import Execution
from manyloom.job.tables import Given, chosen
from manyloom.job.vertical.job import ALGORITHMS, Vertical
from manyloom.job.vertical.tables import MODELS, TABLES
from manyloom.models.split import SplitModel
from manyloom.vertical.settings import Align, Cut


def job_of(given: Given, *, name: str, base: str, data_dir: str | None, places: Places) -> Vertical:
    """The job of the tables."""
    seed = cast(int, given["job"].get("seed", 0))
    settings = {k: v for k, v in given["job"].items() if k in TABLES["job"].common() and k != "kind"}
    return Vertical(
        parties_of(given, seed, data_dir, places),
        model_of(given),
        ALGORITHMS[str(chosen(TABLES["algorithm"], given))](**_part(given, "algorithm", "name")),
        Align(**_part(given, "align")),
        Cut(**_part(given, "cut")),
        execution=Execution(**_part(given, "runtime")),
        card=_part(given, "card"),
        base=base,
        **cast("dict[str, Any]", {"name": name, **settings}),
    )


def model_of(given: Given) -> SplitModel:
    """[model]: widths, and what is measured."""
    own = _part(given, "model", "name", "loss", "metrics")
    made = cast(SplitModel, MODELS[str(given["model"]["name"])](**own))
    metrics = given["model"].get("metrics")
    loss = cast(Any, given["model"].get("loss"))
    return replace(made, loss=loss, metrics=None if metrics is None else tuple(cast("list[str]", metrics)))


def parties_of(given: Given, seed: int, data_dir: str | None, places: Places) -> Parties:
    """[data] and [parties]; files relative to the job, and told as they stand there."""
    name = str(given["data"]["source"])
    named = name in sources("vertical")
    factory = named_parties(name) if named else places(name, "source", "data")
    takes = inspect.signature(factory).parameters
    told = _part(given, "data", "source", "data_dir")
    listed = cast("dict[str, str]", given.get("parties", {}))
    if listed and "parties" not in takes:
        raise bad("contradiction", f'"{name}" has parties of its own', got="[parties]",
                  mend='leave [parties] out, or set source = "csv" in [data]')  # fmt: skip
    folder = data_dir or places.file(given["data"].get("data_dir")) or os.environ.get("MANYLOOM_DATA") or None
    paths = {n: str(places.file(p)) for n, p in listed.items()}
    more: dict[str, Any] = {"data_dir": folder, "seed": told.get("seed", seed), "parties": paths}
    more = {k: v for k, v in more.items() if k in takes and v is not None}
    try:
        made = factory(**told | more)
    except BadInput as error:
        raise BadInput(*(replace(p, got=_as_given(p.got, paths, listed)) for p in error.problems)) from error
    if not isinstance(made, Parties):
        raise bad("wrong-type", f"{name} must return Parties",
                  got=f"source = {show(name)} in [data] returned {type(made).__name__}")  # fmt: skip
    tables = {k: dict(v) for k, v in (made.tables or {}).items()} if named else {}
    data = tables.get("data", {"source": name, **told})
    if "seed" in more:
        data["seed"] = more["seed"]
    if "data_dir" in more:
        data["data_dir"] = str(Path(str(folder)).expanduser().absolute())
    return replace(made, tables={"data": data} | ({"parties": dict(listed)} if listed else {}))


def first(given: Given, places: Places) -> Iterator[tuple[str, Callable[[], object]]]:
    """What can be made before the data are read, so that its errors are told together with all others."""
    yield "model", lambda: model_of(given)
    source = str(given["data"]["source"]) if "source" in given.get("data", {}) else ""
    if ":" in source:
        yield "data", lambda: places(source, "source", "data")


def _as_given(got: str | None, paths: Mapping[str, str], listed: Mapping[str, str]) -> str | None:
    """A problem's text with paths as they stand in the job."""
    for name, path in paths.items():
        got = got and got.replace(f"{name} = {show(path)}", f"{name} = {show(listed[name])}")
    return got


def _part(given: Given, table: str, *but: str) -> dict[str, Any]:
    return {k: v for k, v in given.get(table, {}).items() if k not in but}
