"""A vertical job: parties that know different columns of the same people, and everything that decides the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.signature import keys
from manyloom.core.tensors import from_numpy
from manyloom.core.validate import Above, AtLeast
from manyloom.data.parties import Holding, Parties
from manyloom.data.table import Target
from manyloom.job.record import digest, filled, rates, watched
from manyloom.job.settings import Execution
from manyloom.models.split import SplitModel
from manyloom.vertical import ids
from manyloom.vertical.distil import Distil
from manyloom.vertical.party import Party
from manyloom.vertical.settings import Align, Cut
from manyloom.vertical.split import SplitLearning

# [algorithm] name -> its settings
ALGORITHMS: Mapping[str, type[SplitLearning | Distil]] = {"split-learning": SplitLearning, "distil": Distil}


class Sides(NamedTuple):
    """Both sides with their rows keyed canonically, as the conversations see them."""

    label: Party
    features: tuple[Party, ...]
    target: Target
    classes: int | None
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Vertical:
    """Who learns what together, and how long: `[job]` with `kind = "vertical"`.

    Args:
        data: the parties and their rows.
        model: the split network.
        algorithm: how it is trained.
        align: how rows are matched.
        cut: what happens to what crosses the cut.
        rounds: passes over the aligned rows, counted from 1.
        seed: of everything that is drawn but keys, masks and noise.
        eval_every: evaluation after every k-th pass and the last; with 1 also before the first.
        watch: what early stopping and best checkpoint look at.
        stop_at: stop when `watch` reaches it.
        patience: stop after so many evaluations without a better `watch`.
        deadline_s: seconds an ask may take.
        name: runs are called `<name>-<4 signs>`.
        execution: where it runs; not in the digest.
        card: what only a person knows: use, misuse, contact, licence; not in the digest.
        base: folder of the job file, where its relative paths and modules are looked up; not in the digest.
    """

    PARTS: ClassVar = frozenset({"data", "model", "algorithm", "align", "cut", "execution", "card", "base"})

    data: Parties
    model: SplitModel = SplitModel()
    algorithm: SplitLearning | Distil = SplitLearning()
    align: Align = Align()
    cut: Cut = Cut()
    _: KW_ONLY
    rounds: Annotated[int, AtLeast(1)]
    seed: Annotated[int, AtLeast(0)] = 0
    eval_every: Annotated[int, AtLeast(1)] = 1
    watch: str | None = None
    stop_at: float | None = None
    patience: Annotated[int | None, AtLeast(1)] = None
    deadline_s: Annotated[float, Above(0)] = 3600.0
    name: str = "job"
    execution: Execution = Execution()
    card: Mapping[str, str] = field(default_factory=dict[str, str])
    base: str = ""

    def __post_init__(self) -> None:
        from manyloom.job.vertical.check import misfits, wrongs  # they read jobs

        found = wrongs(self)
        if not found:
            model, d = self.model, self.data
            metrics = model.metrics if model.metrics is not None else rates(d.target, d.classes)
            object.__setattr__(self, "model", replace(model, loss=model.loss_of(d.classes), metrics=metrics))
            found = misfits(self)
        try:
            _ = self.parties
        except BadInput as error:
            found += error.problems
        if found:
            raise BadInput(*dict.fromkeys(found))

    # ---- what follows from the rest

    @cached_property
    def parties(self) -> Sides:
        """The parties with canonical keys; raises BadInput for ids that are none, or stand twice."""
        d, made, wrong = self.data, list[Party](), list[Problem]()
        for holding in d.holdings:
            try:
                made.append(self.party(holding))
            except BadInput as error:
                wrong += error.problems
        if wrong:
            raise BadInput(*wrong)
        return Sides(made[-1], tuple(made[:-1]), d.target, d.classes, d.labels)

    def party(self, holding: Holding) -> Party:
        """One party's rows, those without an id left out, keyed as `[align]` and id_types say."""
        try:
            found = ids.canonical(
                holding.ids,
                self.data.id_types,
                casefold=self.align.casefold,
                duplicates=self.align.duplicates,
                names=holding.reader.ids,
            )
        except BadInput as error:
            where = f'party "{holding.name}"'
            raise BadInput(
                *(replace(p, where=f"{where}, {p.where}" if p.where else where) for p in error.problems)
            ) from error
        rows = from_numpy(found.rows)
        y = None if holding.y is None else holding.y[rows]
        return Party(holding.name, found.keys, holding.x[rows], holding.columns, y)

    @property
    def names(self) -> tuple[str, ...]:
        """The feature parties in the order of their numbers, then the label party."""
        return self.data.names

    @property
    def test(self) -> float:
        """Share of the aligned rows that is held out."""
        return self.data.test

    @property
    def metrics(self) -> tuple[str, ...]:
        return self.model.metrics or ()

    @property
    def watched(self) -> str:
        """`watch`, or the first of auc, accuracy, rmse that is measured, or the loss."""
        return self.watch or watched(self.metrics)

    # ---- as data

    @property
    def tables(self) -> dict[str, dict[str, object]]:
        """The job as TOML tables with every default filled in; `unnamed-part` if its data have no name."""
        if self.data.tables is None:
            raise bad("unnamed-part", "the parties have no name that a job file could give",
                      rule="a job file holds names of sources and files; tensors have none",
                      mend="make them by csv_parties(...), or as module:function in [data] source")  # fmt: skip
        told = {k: getattr(self, k) for k in SETTINGS} | {"watch": self.watched}
        out: dict[str, Mapping[str, object]] = {
            "job": {"kind": "vertical", **told},
            **self.data.tables,
            "align": self.align._asdict(),
            "cut": self.cut._asdict() | {"dropout": self.cut.dropped},
            "model": self.model.table,
            "algorithm": {"name": algorithm_name(self.algorithm), **self.algorithm._asdict()},
            "runtime": {k: v for k, v in self.execution._asdict().items() if k in ("name", "device")},
            "card": self.card,
        }
        from manyloom.job.tables import canonical
        from manyloom.job.vertical.tables import VERTICAL

        return canonical(filled(out), VERTICAL)

    @property
    def digest(self) -> str:
        """SHA-256 of the job as data: all tables filled in, without [runtime], [card] and data_dir.

        Parties that have no name in a job file are left out of it, which a leading "~" says.
        """
        if self.data.tables is not None:
            return digest(self.tables)
        told = replace(self, data=replace(self.data, tables={}))
        return "~" + digest(told.tables)[1:]

    def to_toml(self) -> str:
        """The job as a TOML file with every default filled in."""
        from manyloom.job.toml import write

        return write(self.tables)

    def __repr__(self) -> str:
        return (
            f"Vertical({algorithm_name(self.algorithm)}, {self.model.table['name']}, {self.data!r}, "
            f"rounds={self.rounds}, seed={self.seed}, digest={self.digest[:8]})"
        )


SETTINGS = tuple(k for k in keys(Vertical) if k not in Vertical.PARTS)


def algorithm_name(algorithm: object) -> str:
    """What `[algorithm]` calls it."""
    return next(n for n, made in ALGORITHMS.items() if type(algorithm) is made)
