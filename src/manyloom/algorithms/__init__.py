"""The named algorithms, the samplers, and the interpreter of the record: one round.

Recipes: fedavg, fedprox, scaffold, fednova, feddyn, moon, fedsam, ditto, fedper, fedbn, fedbuff, coral; and fedavg with
another server step: fedavgm, fedadam, fedyogi, fedadagrad.
"""

from manyloom.algorithms.adaptive import fedadagrad, fedadam, fedavgm, fedyogi
from manyloom.algorithms.coral import coral
from manyloom.algorithms.ditto import ditto
from manyloom.algorithms.fedavg import fedavg
from manyloom.algorithms.fedbn import fedbn
from manyloom.algorithms.fedbuff import fedbuff
from manyloom.algorithms.feddyn import feddyn
from manyloom.algorithms.fednova import fednova
from manyloom.algorithms.fedper import fedper
from manyloom.algorithms.fedprox import fedprox
from manyloom.algorithms.fedsam import fedsam
from manyloom.algorithms.moon import moon
from manyloom.algorithms.scaffold import scaffold

RECIPES = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "fednova": fednova,
    "feddyn": feddyn,
    "moon": moon,
    "fedsam": fedsam,
    "ditto": ditto,
    "fedper": fedper,
    "fedbn": fedbn,
    "fedbuff": fedbuff,
    "coral": coral,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
}

__all__ = [
    "RECIPES",
    "coral",
    "ditto",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedbn",
    "fedbuff",
    "feddyn",
    "fednova",
    "fedper",
    "fedprox",
    "fedsam",
    "fedyogi",
    "moon",
    "scaffold",
]
