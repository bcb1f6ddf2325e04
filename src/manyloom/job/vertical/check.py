"""What is wrong with a vertical job: values against their rules, parts against each other, a model against labels."""

from __future__ import annotations

from collections.abc import Iterator

from manyloom.core.errors import Problem
from manyloom.core.metrics import METRICS
from manyloom.core.signature import keys, wrong
from manyloom.core.task import LOSSES
from manyloom.core.validate import nearest, show
from manyloom.job.settings import Execution
from manyloom.job.vertical.job import SETTINGS, Vertical
from manyloom.vertical.settings import Align, Cut


def wrongs(job: Vertical) -> list[Problem]:
    """Values that break a rule of their own, and parts that contradict each other."""
    found = wrong(keys(Vertical), {k: getattr(job, k) for k in SETTINGS}, "job")
    found += wrong(keys(Align), job.align._asdict(), "align") + wrong(keys(Cut), job.cut._asdict(), "cut")
    found += wrong(keys(type(job.algorithm)), job.algorithm._asdict(), "algorithm")
    found += wrong(keys(Execution), job.execution._asdict(), "runtime")
    return found or [*_parties(job), *_unsound(job)]


def _parties(job: Vertical) -> Iterator[Problem]:
    d = job.data
    if not d.features:
        yield Problem("missing-key", "a vertical job needs a feature party", f"[parties]: {d.label.name} alone",
                      rule="one party with the label, one or more with features of the same people",
                      mend='name another: shop = "shop.csv" in [parties]')  # fmt: skip
    for name in dict.fromkeys(n for n in d.names if d.names.count(n) > 1):
        yield Problem("contradiction", f'two parties are called "{name}"', f"{name} in [parties]",
                      mend="rename one")  # fmt: skip
    if d.label.y is None:
        yield Problem("missing-key", f'the label party "{d.label.name}" has no labels', f"{d.label.name} in [parties]")


def _unsound(job: Vertical) -> Iterator[Problem]:
    if job.align.reveal != "both":
        yield Problem("reveal", "parties can't train on rows that they may not know",
                      f"reveal = {show(job.align.reveal)} in [align]",
                      rule="to train, each party must know its rows of the ids in common",
                      mend='reveal = "both" in [align]; manyloom psi matches and counts without training')  # fmt: skip
    if job.cut.defence != "isotropic" and job.cut.strength != 1.0:
        yield Problem("contradiction", "strength is of the isotropic noise alone",
                      f"strength = {job.cut.strength:g} in [cut]", rule=f"defence = {show(job.cut.defence)}",
                      mend='leave strength out, or set defence = "isotropic"')  # fmt: skip
    if job.cut.dropped and not job.data.label.x.shape[1] and len(job.data.features) == 1:
        told = "dropout" if job.cut.dropout is not None else "on_missing"
        yield Problem("contradiction", "with its only other party left out of a step, there is nothing to learn from",
                      f"{told} = {show(getattr(job.cut, told))} in [cut]",
                      rule=f'the label party "{job.data.label.name}" has no features',
                      mend='dropout = 0.0 and on_missing = "error" in [cut]')  # fmt: skip
    if job.execution.name == "vectorised":
        yield Problem("contradiction", "parties are not trained in groups", 'name = "vectorised" in [runtime]',
                      rule="each has a part of its own, which no other party's has the shape of",
                      mend='name = "auto" in [runtime]')  # fmt: skip
    if job.execution.device != "cpu":
        yield Problem("not-yet", "parts of a split network train on the CPU in this version",
                      f"device = {show(job.execution.device)} in [runtime]", mend='device = "cpu"')  # fmt: skip


def misfits(job: Vertical) -> list[Problem]:
    """Loss, metrics and `watch` against what is predicted; the model's defaults are filled in already."""
    d, model, found = job.data, job.model, list[Problem]()
    loss, metrics = model.loss_of(d.classes), job.metrics
    fits = {"number": ("mse",), "class": ("cross-entropy", "binary") if d.classes == 2 else ("cross-entropy",)}
    if loss not in fits[d.target]:
        predicted = "a number" if d.target == "number" else f"{d.classes} classes"
        what = "does not fit what is predicted" if loss in LOSSES else "is no loss"
        found.append(Problem("loss-target", f'"{loss}" {what}', f"loss = {show(loss)} in [model]",
                             rule=f"for {predicted}: " + ", ".join(fits[d.target]),
                             mend="leave loss out"))  # fmt: skip
    for m in metrics:
        got = f"metrics = {show(list(metrics))} in [model]"
        if m not in METRICS:
            near = nearest(m, METRICS)
            found.append(Problem("unknown-name", f'there is no metric "{m}"', got,
                                 mend=f'did you mean "{near}"?' if near else None))  # fmt: skip
        elif METRICS[m].target != d.target or (m == "auc" and d.classes != 2):
            found.append(Problem("metric-target", f"{m} does not fit what is predicted", got,
                                 rule=f"target = {show(d.target)}" + (f", {d.classes} classes" if d.classes else ""),
                                 mend="classes: accuracy, auc (of two), f1; a number: rmse, mae, r2"))  # fmt: skip
    measured = ("loss", *metrics)
    if job.watch is not None and job.watch not in measured:
        near = nearest(job.watch, measured)
        found.append(Problem("unknown-name", f'"{job.watch}" is not measured', f"watch = {show(job.watch)} in [job]",
                             rule="measured: " + ", ".join(measured),
                             mend=f'did you mean "{near}"?' if near else None))  # fmt: skip
    return found
