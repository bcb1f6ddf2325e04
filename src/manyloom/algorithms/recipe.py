"""What all recipes do alike: put parts together and remember which keys made them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from manyloom.aggregate import mean
from manyloom.core.parts import Algorithm, ServerStep, Work
from manyloom.work.local import Local


@dataclass(frozen=True)
class Card:
    """What a reader is told of a recipe: `manyloom algorithms` and the report print it."""

    use: str
    state: str
    paper: str
    server: str = "sgd"
    uniform: bool = False  # the formula asks for uniform means
    example: Mapping[str, Any] = field(default_factory=dict[str, Any])  # of the keys that must be given
    uneven: Literal["keeps", "warns", "shifts"] = "shifts"  # what unequal steps do to its fixed point


CARDS: Mapping[str, Card] = {
    "fedavg": Card("the default", "no", "McMahan et al. 2017, AISTATS, arXiv:1602.05629"),
    "fedprox": Card("uneven work, strong skew", "no", "Li et al. 2020, MLSys, arXiv:1812.06127", uneven="warns"),
    "scaffold": Card(
        "skew, clients that come back",
        "client",
        "Karimireddy et al. 2020, ICML, arXiv:1910.06378",
        uniform=True,
        uneven="keeps",
    ),
    "fednova": Card("unequal work", "no", "Wang et al. 2020, NeurIPS, arXiv:2007.07481", uneven="keeps"),
    "feddyn": Card(
        "skew, fewest rounds", "client", "Acar et al. 2021, ICLR, arXiv:2111.04263", uniform=True, uneven="keeps"
    ),
    "moon": Card("skew, deep features", "client", "Li et al. 2021, CVPR, arXiv:2103.16257"),
    "fedsam": Card("flatter minima", "no", "Qu et al. 2022, ICML, arXiv:2206.02618"),
    "ditto": Card("clients that differ", "client", "Li et al. 2021, ICML, arXiv:2012.04221"),
    "fedbuff": Card("slow clients, no waiting", "no", "Nguyen et al. 2022, AISTATS, arXiv:2106.06639", uniform=True),
    "fedper": Card(
        "clients with other labels", "client", "Arivazhagan et al. 2019, arXiv:1912.00818", example={"local": ["2.*"]}
    ),
    "fedbn": Card("clients with other devices", "client", "Li et al. 2021, ICLR, arXiv:2102.07623"),
    "coral": Card("a site without labels", "no", "Sun, Saenko 2016, arXiv:1607.01719", example={"target_client": "0"}),
    "fedavgm": Card("few clients a round", "server", "Hsu et al. 2019, arXiv:1909.06335", "momentum"),
    "fedadam": Card("slow or sparse gradients", "server", "Reddi et al. 2021, ICLR, arXiv:2003.00295", "adam"),
    "fedyogi": Card("as fedadam, v grows gently", "server", "Reddi et al. 2021, ICLR, arXiv:2003.00295", "yogi"),
    "fedadagrad": Card("sparse features", "server", "Reddi et al. 2021, ICLR, arXiv:2003.00295", "adagrad"),
}


def compose(
    name: str,
    opt: Local,
    work: Work,
    server: ServerStep | None,
    default: Callable[[], ServerStep],
    *,
    own: Mapping[str, object] | None = None,
) -> Algorithm:
    """The record of a recipe: its client work, its server step (a given one wins), the mean.

    Args:
        name: of the recipe.
        opt: the local options.
        work: what a client does.
        server: what was given; else `default()` is taken.
        default: the recipe's own server step.
        own: the recipe's own keys, beside the local ones.
    """
    table = {"name": name} | {k: v for k, v in opt._asdict().items() if v is not None} | dict(own or {})
    if opt.steps is not None:
        table.pop("epochs")
    step = server or default()
    return Algorithm(
        name=name,
        work=work,
        server=step,
        aggregate=mean(),
        batches=opt.batches,
        weights=opt.weights,
        adapt=opt.adapt,
        tables={"algorithm": table, "server": step.table},
        paper=CARDS[name].paper,
    )
