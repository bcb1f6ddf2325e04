"""Tables -> parts -> a job. Each part's function fills in the defaults that follow from the rest of the job."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.parts import Algorithm
from manyloom.core.places import load
from manyloom.core.task import Shape, Task
from manyloom.core.validate import show
from manyloom.data.federation import Federation
from manyloom.data.partition import Partition
from manyloom.data.sources.registry import sources
from manyloom.job.job import Execution, Job, Simulate
from manyloom.job.tables import TABLES, Factory, Given, chosen
from manyloom.models import Model

PATHS = ("path", "vocabulary")  # keys of file sources that name files, relative to the job
RATES = {"class": (("accuracy", "auc"), ("accuracy", "f1")), "number": (("rmse", "mae", "r2"),)}


class Places:
    """Finds `module:function`, also beside the job file and in the folders above it."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def __call__(self, place: str, key: str, table: str) -> Factory:
        """The function; `unknown-name` if there is none."""
        module = place.partition(":")[0]
        top = module.split(".")[0]
        path = Path(*module.split("."))
        folders = (self.base, Path.cwd(), *self.base.parents)
        root = next((f for f in folders if (f / path).with_suffix(".py").is_file() or (f / path / "__init__.py").is_file()), None)
        with _first(root, top):
            return load(place, key, f"[{table}]")


@contextmanager
def _first(root: Path | None, top: str) -> Iterator[None]:
    """Look for modules in `root` first; a module of this name from elsewhere is forgotten."""
    if root is None:
        yield
        return
    known = getattr(sys.modules.get(top), "__file__", None) or next(iter(getattr(sys.modules.get(top), "__path__", [])), None)
    if known is not None and root not in Path(known).parents:
        for name in [n for n in sys.modules if n == top or n.startswith(top + ".")]:
            del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))


def algorithm_of(given: Given, places: Places) -> Algorithm:
    """[algorithm], with [server] if there is one."""
    own = dict(given.get("algorithm", {}))
    name = str(own.pop("name", None) or TABLES["algorithm"].default)
    server = None
    if "server" in given:
        keys = {k: v for k, v in given["server"].items() if k != "name"}
        step = str(chosen(TABLES["server"], given))
        server = _factory("server", step, places)(**keys)
    factory = _factory("algorithm", name, places)
    made = factory(**own, **({"server": server} if server is not None else {}))
    if not isinstance(made, Algorithm):
        raise _returns(name, "an Algorithm", made, "name", "algorithm")
    if ":" not in name:
        return made
    takes = inspect.signature(factory).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    filled = {k: v for k, v in made.tables.get("algorithm", {}).items() if every or k in takes}
    return replace(made, tables={**made.tables, "algorithm": {**filled, **own, "name": name}})


def federation_of(given: Given, seed: int, data_dir: str | None, places: Places) -> Federation:
    """[data] and [partition]."""
    own = dict(given["data"])
    name = str(own.pop("source"))
    factory = _factory("data", name, places)
    takes = inspect.signature(factory).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    folder = own.pop("data_dir", None)
    folder = data_dir if folder is None else str(places.base / str(folder))
    told = dict(own)
    for key, value in {"data_dir": folder, "seed": own.get("seed", seed), "partition": partition_of(given, places)}.items():
        if value is not None and (key in takes or (every and key in given["data"])):
            own[key] = value
        elif key == "partition" and value is not None:
            raise bad("contradiction", f'"{name}" takes no [partition]', got="[partition]",
                      mend="leave [partition] out, or give the function an argument `partition`")  # fmt: skip
    if name in sources():
        own |= {k: str(places.base / str(own[k])) for k in PATHS if k in own and own[k] != "federated"}
    fed = factory(**own)
    if not isinstance(fed, Federation):
        raise _returns(name, "a Federation", fed, "source", "data")
    tables = {k: dict(v) for k, v in (fed.tables or {"data": {}}).items()}
    if name not in sources():
        tables["data"] = {"source": name, **told, **({"seed": own["seed"]} if "seed" in takes else {})}
        if "partition" in own and "partition" not in tables:
            tables["partition"] = cast(Partition, own["partition"]).table()
    tables["data"] |= {k: told[k] for k in PATHS if k in told}
    return replace(fed, tables=tables)


def partition_of(given: Given, places: Places) -> Partition | None:
    """[partition], if there is one."""
    if "partition" not in given:
        return None
    keys = {k: v for k, v in given["partition"].items() if k != "scheme"}
    name = str(chosen(TABLES["partition"], given))
    made = _factory("partition", name, places)(**keys)
    if not isinstance(made, Partition):
        raise _returns(name, "a Partition", made, "scheme", "partition")
    return made


def task_of(table: Mapping[str, object], shape: tuple[str, int | None], places: Places | None = None) -> Task:
    """[model], for a target ("class" or "number") and so many classes; its `table` has every default.

    >>> task_of({"name": "logistic"}, ("class", 2)).table["loss"]
    'binary'
    """
    target, classes = shape
    common = TABLES["model"].common()
    own = {k: v for k, v in table.items() if k not in common and k != "name"}
    model = _model(str(table["name"]), own, places or Places(Path.cwd()))
    if target == "number" and table.get("classes") is not None:
        raise bad("contradiction", "classes is for a target that is a class",
                  got=f"classes = {table['classes']} in [model]", rule="here a number is predicted",
                  mend='leave classes out, or set target = "class" in [data]')  # fmt: skip
    loss = str(table.get("loss") or model.loss(classes))
    binary = target == "class" and classes == 2
    metrics = table.get("metrics", list(RATES[target][0 if binary or target == "number" else 1]))
    filled: dict[str, object] = {"name": model.name, **model.table}
    if target == "class":
        filled["classes"] = classes
    filled |= {"loss": loss, "metrics": metrics}
    filled |= {k: table.get(k, v.default) for k, v in common.items() if k not in filled and k != "classes"}

    def module(at: Shape) -> Any:
        return model.build(at.features, at.classes, loss)

    args = cast("dict[str, Any]", {k: filled[k] for k in common if k in filled and k != "classes"})
    return Task(module, **args, needs_shape=True, name=model.name, table=filled)


def _model(name: str, own: dict[str, object], places: Places) -> Model:
    if ":" not in name:
        return cast(Model, _factory("model", name, places)(**own))
    function = places(name, "name", "model")

    def make(features: tuple[int, ...], outputs: int, classes: int | None) -> Any:
        module = function(features, classes, **own)
        import torch

        if not isinstance(module, torch.nn.Module):
            raise _returns(name, "a torch.nn.Module", module, "name", "model")
        return module

    return Model(name, make, own, one_logit=False)


def _factory(table: str, name: str, places: Places) -> Callable[..., Any]:
    found = TABLES[table]
    return places(name, str(found.choice), table) if ":" in name else found.factory(name)


def _returns(name: str, what: str, made: object, key: str, table: str) -> BadInput:
    return bad("wrong-type", f"{name} must return {what}", got=f"{key} = {show(name)} in [{table}] returned {type(made).__name__}")


def classes_of(federation: Federation, given: Given) -> Federation:
    """The federation with as many classes as [model] says."""
    classes = given["model"].get("classes")
    if federation.target != "class" or not isinstance(classes, int) or classes == federation.classes:
        return federation
    federation.check_labels(classes)
    labels = (*federation.labels, *(str(i) for i in range(len(federation.labels), classes)))[:classes]
    return replace(federation, classes=classes, labels=labels if federation.labels else ())


def job_of(given: Given, algorithm: Algorithm, federation: Federation, *, name: str, base: str, task: Task) -> Job:
    """The job of the other tables and these parts."""
    settings = {k: v for k, v in given.get("job", {}).items() if k in TABLES["job"].common()}
    own = cast("dict[str, dict[str, Any]]", {
        t: {k: v for k, v in given.get(t, {}).items() if k in TABLES[t].common()} for t in ("simulate", "runtime", "card")
    })  # fmt: skip
    return Job(task, algorithm, federation, simulate=Simulate(**own["simulate"]), execution=Execution(**own["runtime"]),
               card=own["card"], base=base, **cast("dict[str, Any]", {"name": name, **settings}))  # fmt: skip


def first(given: Given) -> Iterator[tuple[str, Callable[[Places], object]]]:
    """What can be made before the data are read, so that its errors are told together with all others."""
    model = given.get("model", {})

    def task(places: Places) -> object:
        made = task_of({"metrics": [], **model, "loss": model.get("loss", "mse"), "classes": None}, ("number", None), places)
        return made

    yield "algorithm", lambda places: algorithm_of(given, places)
    yield "partition", lambda places: partition_of(given, places)
    yield "model", task


def unknown_key(problem: Problem) -> bool:
    return problem.code == "unknown-key"
