"""The named algorithms, the samplers, and the interpreter of the record: one round.

Recipes: fedavg, fedprox, scaffold, fedavgm, fedadam, fedyogi, fedadagrad.
"""

from manyloom.algorithms.adaptive import fedadagrad, fedadam, fedavgm, fedyogi
from manyloom.algorithms.fedavg import fedavg
from manyloom.algorithms.fedprox import fedprox
from manyloom.algorithms.scaffold import scaffold

RECIPES = {
    "fedavg": fedavg,
    "fedprox": fedprox,
    "scaffold": scaffold,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
}

__all__ = ["RECIPES", "fedadagrad", "fedadam", "fedavg", "fedavgm", "fedprox", "fedyogi", "scaffold"]
