"""How each vertical algorithm is made of a job: one record an algorithm; a new one adds its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from manyloom.core.exchange import Handler
from manyloom.job.vertical.job import Vertical
from manyloom.models.split import bottom_part, label_part
from manyloom.vertical import distil, split
from manyloom.vertical.passes import Passes


class Maker(NamedTuple):
    """How an algorithm is made of a job.

    Args:
        name: as `[algorithm]` calls it.
        paper: author, year, where.
        passes: the label party's half, with its row numbers [m] in the agreed order.
        handlers: what feature parties answer; from the job alone, so that each makes its own.
        sizes: how many numbers each party trains, by its name.
    """

    name: str
    paper: str
    passes: Callable[[Vertical, Tensor], Passes]
    handlers: Callable[[Vertical], Mapping[str, Handler]]
    sizes: Callable[[Vertical], Mapping[str, int]]


def _rows(job: Vertical) -> tuple[Tensor, Tensor]:
    """The label party's rows and labels."""
    label = job.parties.label
    assert label.y is not None  # it would not be the label party
    return label.x, label.y


def _split_passes(job: Vertical, rows: Tensor) -> Passes:
    assert isinstance(job.algorithm, split.SplitLearning)
    x, y = _rows(job)
    return split.passes(
        job.model,
        job.algorithm,
        job.cut,
        seed=job.seed,
        rounds=job.rounds,
        x=x[rows],
        y=y[rows],
        classes=job.parties.classes,
        parties=[p.name for p in job.parties.features],
        test=job.test,
        deadline_s=job.deadline_s,
    )


def _split_handlers(job: Vertical) -> Mapping[str, Handler]:
    assert isinstance(job.algorithm, split.SplitLearning)
    return split.handlers(job.model, job.algorithm, job.cut, seed=job.seed, test=job.test)


def _split_sizes(job: Vertical) -> Mapping[str, int]:
    """The label party's part is its own bottom and the top."""
    label, features, classes = job.parties.label, job.parties.features, job.parties.classes
    own = label_part(job.model, label.x.shape[1], len(features), job.model.outputs(classes)).layout.d
    return {p.name: bottom_part(job.model, p.x.shape[1]).layout.d for p in features} | {label.name: own}


def _distil_passes(job: Vertical, rows: Tensor) -> Passes:
    assert isinstance(job.algorithm, distil.Distil)
    x, y = _rows(job)
    return distil.passes(
        job.model,
        job.algorithm,
        seed=job.seed,
        rounds=job.rounds,
        x=x,
        y=y,
        rows=rows,
        classes=job.parties.classes,
        parties=[p.name for p in job.parties.features],
        test=job.test,
        deadline_s=job.deadline_s,
    )


def _distil_handlers(job: Vertical) -> Mapping[str, Handler]:
    assert isinstance(job.algorithm, distil.Distil)
    return distil.handlers(job.model, job.algorithm, classes=job.parties.classes, seed=job.seed, test=job.test)


def _distil_sizes(job: Vertical) -> Mapping[str, int]:
    """A teacher, and a student each."""
    parties = (*job.parties.features, job.parties.label)
    return {p.name: distil.net(job.model, p.x.shape[1], job.parties.classes).layout.d for p in parties}


MAKERS: dict[type, Maker] = {
    split.SplitLearning: Maker(
        "split-learning", "Vepakomma et al. 2018, arXiv:1812.00564", _split_passes, _split_handlers, _split_sizes
    ),
    distil.Distil: Maker(
        "distil", "Hinton et al. 2015, arXiv:1503.02531", _distil_passes, _distil_handlers, _distil_sizes
    ),
}


def maker_of(job: Vertical) -> Maker:
    """The maker of a job's algorithm."""
    return MAKERS[type(job.algorithm)]
