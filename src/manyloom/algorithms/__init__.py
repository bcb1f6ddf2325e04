"""The named algorithms, the samplers, and the interpreter of the record: one round.

Recipes: fedavg, fedprox, scaffold, fednova, feddyn, moon, fedsam, ditto, fedavgm, fedadam, fedyogi, fedadagrad.
"""

from manyloom.algorithms.adaptive import fedadagrad, fedadam, fedavgm, fedyogi
from manyloom.algorithms.ditto import ditto
from manyloom.algorithms.fedavg import fedavg
from manyloom.algorithms.feddyn import feddyn
from manyloom.algorithms.fednova import fednova
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
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
}

__all__ = [
    "RECIPES",
    "ditto",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "feddyn",
    "fednova",
    "fedprox",
    "fedsam",
    "fedyogi",
    "moon",
    "scaffold",
]
