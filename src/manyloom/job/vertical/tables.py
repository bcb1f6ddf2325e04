"""Which table of a vertical job's file is which factory: the same kind of tables, with other parts behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypedDict, cast

from manyloom.core.signature import Default, Key, keys, options
from manyloom.data.sources.registry import parties, sources
from manyloom.job.settings import Execution
from manyloom.job.tables import About, Book, Factory, Files, Kind, Table
from manyloom.job.vertical.job import ALGORITHMS, Vertical
from manyloom.models.split import split_mlp
from manyloom.vertical.settings import Align, Cut

MODELS: Mapping[str, Callable[..., Any]] = {"split-mlp": split_mlp}
WHY_ALL = "all parties take part in every pass: a row is whole only with all of them"


class Judged(TypedDict, total=False):
    """Keys of `[model]` that every split network takes.

    Args:
        loss: a sample; by what is predicted.
        metrics: beside the loss.
    """

    loss: Annotated[Literal["cross-entropy", "binary", "mse"] | None, Default(None)]
    metrics: Annotated[list[str] | None, Default(None)]


def _job() -> dict[str, Key]:
    found = {k: v for k, v in keys(Vertical).items() if k not in Vertical.PARTS}
    return {"name": found["name"], **options(Kind), **found}


def _source(name: str) -> Factory:
    return parties(name)


def _runtime() -> dict[str, Key]:
    return {k: v for k, v in keys(Execution).items() if k in ("name", "device")}


TABLES: Mapping[str, Table] = {t.name: t for t in (
    Table("job", common=_job),
    Table("data", "source", "data source", tuple(sources("vertical")), _source, "All names: manyloom data",
          common=lambda: options(Files), parts=frozenset({"parties", "data_dir"}),
          meaning="where the parties' rows come from; or module:function, which gives Parties."),
    Table("parties", free=str),
    Table("align", common=lambda: keys(Align)),
    Table("cut", common=lambda: keys(Cut)),
    Table("model", "name", "model", tuple(MODELS), MODELS.__getitem__, common=lambda: options(Judged),
          meaning="what is trained, cut between the parties."),
    Table("algorithm", "name", "algorithm", tuple(ALGORITHMS), lambda name: cast(Factory, ALGORITHMS[name]),
          default="split-learning", meaning="how the parties learn."),
    Table("runtime", common=_runtime),
    Table("card", common=lambda: options(About)),
)}  # fmt: skip

VERTICAL = Book(
    "vertical",
    TABLES,
    "parties differ in columns, not in rows",
    {
        **{("job", k): WHY_ALL for k in ("cohort", "sampling", "quorum", "min_available", "over_provision", "partial")},
        ("job", "retries"): "a pass that lost a party is done again by manyloom resume",
        ("job", "failed_round"): "a pass without all parties changes nothing: the run stops and can be resumed",
        ("job", "eval_cohort"): WHY_ALL,
        ("job", "client_metrics"): "the label party alone has labels to measure by",
        ("partition", ""): "whose row it is follows from its id: [parties] says who has which file",
        ("privacy", ""): "noise on sums of many clients' updates says nothing of two parties; see [cut] defence",
        ("secure", ""): "with one sender there is no sum to hide it in; between organisations bodies are sealed",
        ("attack", ""): "attacks on a mean of updates have nothing to act on: there is no mean",
        ("uplink", ""): "no updates are sent; bits in [cut] makes embeddings and gradients smaller",
        ("downlink", ""): "no model is sent; bits in [cut] makes embeddings and gradients smaller",
        ("aggregate", ""): "each party keeps a part of its own: nothing is averaged",
        ("server", ""): "each party's optimiser steps its own part: [algorithm] optimiser",
        ("validation", ""): "the label party judges the model on held-out rows: test in [data]",
        ("lora", ""): "adapters are of language models that clients train whole",
        ("simulate", ""): "absent parties are met by [cut] on_missing and dropout",
        ("data", "partition"): "whose row it is follows from its id",
    },
)
