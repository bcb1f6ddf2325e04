"""How a cohort's messages become one: rules [n, d] -> [d]."""

from manyloom.aggregate.mean import mean

RULES = {"mean": mean}

__all__ = ["RULES", "mean"]
