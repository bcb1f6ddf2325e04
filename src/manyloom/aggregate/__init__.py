"""How a cohort's messages become one: rules [n, d] -> [d], what is dropped before them, and attacks to test them by.

The names of `[aggregate] rule`: mean, median, trimmed-mean, krum, multi-krum, geometric-median, centred-clipping,
norm-clipping. `rule.py` says what all robust rules have in common.
"""

from manyloom.aggregate.attacks import ATTACKS, Attack, attackers
from manyloom.aggregate.clipping import centred_clipping, norm_clipping
from manyloom.aggregate.condition import Condition, TooFew
from manyloom.aggregate.coordinate import median, trimmed_mean
from manyloom.aggregate.geometric import geometric_median
from manyloom.aggregate.krum import krum, multi_krum
from manyloom.aggregate.mean import mean
from manyloom.aggregate.rule import Robust, filtered, planned, remarks
from manyloom.aggregate.screen import Screened, screen

RULES = {
    "mean": mean,
    "median": median,
    "trimmed-mean": trimmed_mean,
    "krum": krum,
    "multi-krum": multi_krum,
    "geometric-median": geometric_median,
    "centred-clipping": centred_clipping,
    "norm-clipping": norm_clipping,
}

__all__ = [
    "ATTACKS", "RULES", "Attack", "Condition", "Robust", "Screened", "TooFew", "attackers", "centred_clipping",
    "filtered", "geometric_median", "krum", "mean", "median", "multi_krum", "norm_clipping", "planned", "remarks",
    "screen", "trimmed_mean",
]  # fmt: skip
