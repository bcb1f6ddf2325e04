"""Tables -> parts -> a job. Each part's function fills in the defaults that follow from the rest of the job."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from manyloom.aggregate import Attack
from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.parts import Aggregator, Algorithm
from manyloom.core.places import load
from manyloom.core.task import Shape, Task
from manyloom.core.validate import show
from manyloom.data.federation import Federation
from manyloom.data.partition import Partition
from manyloom.data.sources.registry import sources
from manyloom.job.job import Execution, Job, Simulate, Validation
from manyloom.job.record import rates
from manyloom.job.tables import TABLES, Factory, Given, chosen
from manyloom.models import Model
from manyloom.privacy.settings import Privacy
from manyloom.secure.settings import Secure
from manyloom.transforms import downlink, uplink

PATHS = ("path", "vocabulary")  # keys of file sources that name files, relative to the job


class Places:
    """Finds `module:function`, also beside the job file and in the folders above it."""

    def __init__(self, base: Path) -> None:
        self.base = base

    def file(self, path: object) -> str | None:
        """A path, relative to the job file."""
        return None if path is None else str(self.base / Path(str(path)).expanduser())

    def __call__(self, place: str, key: str, table: str) -> Factory:
        """The function; `unknown-name` if there is none."""
        module = place.partition(":")[0]
        top = module.split(".")[0]
        path = Path(*module.split("."))
        folders = (self.base, Path.cwd(), *self.base.parents)
        root = next(
            (f for f in folders if (f / path).with_suffix(".py").is_file() or (f / path / "__init__.py").is_file()),
            None,
        )
        with _first(root, top):
            try:
                return load(place, key, f"[{table}]")
            except BadInput:
                raise
            except Exception as error:  # the module's own code fails
                raise bad("unknown-name", f'can\'t import "{place}"', got=f'{key} = "{place}" in [{table}]',
                          rule=f"{type(error).__name__}: {error}") from error  # fmt: skip


@contextmanager
def _first(root: Path | None, top: str) -> Generator[None]:
    """Look for modules in `root` first; a module of this name from elsewhere is forgotten."""
    if root is None:
        yield
        return
    known = getattr(sys.modules.get(top), "__file__", None) or next(
        iter(getattr(sys.modules.get(top), "__path__", [])), None
    )
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
    made = replace(made, **_messages(given, made, places))
    if ":" not in name:
        return made
    takes = inspect.signature(factory).parameters
    every = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    filled = {k: v for k, v in made.tables.get("algorithm", {}).items() if every or k in takes}
    return replace(made, tables={**made.tables, "algorithm": {**filled, **own, "name": name}})


def _messages(given: Given, made: Algorithm, places: Places) -> dict[str, Any]:
    """[aggregate], [uplink] and [downlink]: what happens to the messages of an algorithm."""
    parts: dict[str, Any] = {}
    if "aggregate" in given:
        rule = str(chosen(TABLES["aggregate"], given))
        parts["aggregate"] = _factory("aggregate", rule, places)(
            **{k: v for k, v in given["aggregate"].items() if k != "rule"}
        )
        if not isinstance(parts["aggregate"], Aggregator):
            raise _returns(rule, "an Aggregator", parts["aggregate"], "rule", "aggregate")
    vectors = tuple(n for n, length in made.work.sends.items() if length == "d")
    protected: dict[str, Any] = {"private": "privacy" in given, "secure": "secure" in given}
    if "uplink" in given:
        parts["uplink"] = uplink(**cast("dict[str, Any]", given["uplink"]), names=vectors, **protected)
    if "downlink" in given:
        state = made.server.init(torch.zeros(1))
        parts["downlink"] = downlink(**cast("dict[str, Any]", given["downlink"]), names=tuple(made.server.down(state)))
    return parts


def attack_of(given: Given, places: Places) -> Attack | None:
    """[attack], if there is one."""
    if "attack" not in given:
        return None
    name = str(chosen(TABLES["attack"], given))
    made = _factory("attack", name, places)(**{k: v for k, v in given["attack"].items() if k != "name"})
    if not isinstance(made, Attack):
        raise _returns(name, "an Attack", made, "name", "attack")
    return made


def federation_of(given: Given, seed: int, data_dir: str | None, places: Places) -> Federation:
    """[data] and [partition]."""
    told = {k: v for k, v in given["data"].items() if k not in ("source", "data_dir")}
    name = str(given["data"]["source"])
    named = name in sources("horizontal")
    factory = _factory("data", name, places)
    takes = inspect.signature(factory).parameters
    spec = partition_of(given, places)
    if spec is not None and "partition" not in takes:
        raise bad("contradiction", f'"{name}" takes no [partition]', got="[partition]",
                  mend="leave [partition] out, or give the function an argument `partition`")  # fmt: skip
    folder = data_dir or places.file(given["data"].get("data_dir")) or os.environ.get("MANYLOOM_DATA") or None
    more = {"partition": spec, "data_dir": folder, "seed": told.get("seed", seed)}
    more = {k: v for k, v in more.items() if k in takes and v is not None}
    paths = {k: places.file(told[k]) for k in PATHS if named and k in told and told[k] != "federated"}
    try:
        fed = factory(**told | more | paths)
    except BadInput as error:
        raise BadInput(*(_as_given(p, paths, told) for p in error.problems)) from error
    if not isinstance(fed, Federation):
        raise _returns(name, "a Federation", fed, "source", "data")
    tables = {k: dict(v) for k, v in (fed.tables or {}).items()} if named else {}
    filled = tables.get("data", {"source": name, **told}) | {k: told[k] for k in paths}
    if "seed" in more:
        filled["seed"] = more["seed"]
    if "data_dir" in more:
        filled["data_dir"] = str(Path(str(folder)).expanduser().absolute())
    if spec is not None and "partition" not in tables:
        tables["partition"] = spec.table()
    return replace(fed, tables={**tables, "data": filled})


def _as_given(problem: Problem, paths: Mapping[str, object], told: Mapping[str, object]) -> Problem:
    """The problem with paths as they stand in the job."""
    got = problem.got
    for k, path in paths.items():
        got = got and got.replace(f"{k} = {show(path)}", f"{k} = {show(told[k])}")
    return replace(problem, got=got)


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
    if target == "text":
        raise bad("model-input", "only a language model reads texts", got=f"name = {show(table['name'])} in [model]",
                  rule="the sources jsonl and text give conversations and documents, no numbers",
                  mend='name = "causal-lm" in [model]')  # fmt: skip
    if target == "number" and table.get("classes") is not None:
        raise bad("contradiction", "classes is for a target that is a class",
                  got=f"classes = {table['classes']} in [model]", rule="here a number is predicted",
                  mend='leave classes out, or set target = "class" in [data]')  # fmt: skip
    loss = str(table.get("loss") or model.loss(classes))
    metrics = table.get("metrics", list(rates(target, classes)))
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
    return bad(
        "wrong-type",
        f"{name} must return {what}",
        got=f"{key} = {show(name)} in [{table}] returned {type(made).__name__}",
    )


def classes_of(federation: Federation, given: Given) -> Federation:
    """The federation with as many classes as [model] says."""
    classes = given["model"].get("classes")
    if federation.target != "class" or not isinstance(classes, int) or classes == federation.classes:
        return federation
    federation.check_labels(classes)
    labels = (*federation.labels, *(str(i) for i in range(len(federation.labels), classes)))[:classes]
    return replace(federation, classes=classes, labels=labels if federation.labels else ())


def job_of(
    given: Given, algorithm: Algorithm, federation: Federation, *, name: str, base: str, task: Task, places: Places
) -> Job:
    """The job of the other tables and these parts."""
    settings = {k: v for k, v in given.get("job", {}).items() if k in TABLES["job"].common() and k != "kind"}

    def part(table: str) -> dict[str, Any]:
        return {k: v for k, v in given.get(table, {}).items() if k in TABLES[table].common()}

    return Job(
        task,
        algorithm,
        federation,
        privacy=Privacy(**part("privacy")) if "privacy" in given else None,
        secure=Secure(**part("secure")) if "secure" in given else None,
        attack=attack_of(given, places),
        validation=Validation(**part("validation")) if "validation" in given else None,
        simulate=Simulate(**part("simulate")),
        execution=Execution(**part("runtime")),
        card=part("card"),
        base=base,
        **cast("dict[str, Any]", {"name": name, **settings}),
    )


def first(given: Given, places: Places) -> Iterator[tuple[str, Callable[[], object]]]:
    """What can be made before the data are read, so that its errors are told together with all others."""
    model = given.get("model", {})
    neutral: dict[str, object] = {"loss": "mse", "metrics": [], **model, "classes": None}
    yield "algorithm", lambda: algorithm_of(given, places)
    yield "attack", lambda: attack_of(given, places)
    yield "partition", lambda: partition_of(given, places)
    if model.get("name") != "causal-lm":  # which is loaded once, with the data
        yield "model", lambda: task_of(neutral, ("number", None), places)
    yield "data", lambda: _factory("data", str(given["data"]["source"]), places)
