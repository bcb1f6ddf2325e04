"""The rules as written in their papers, in float64 and with loops: slow and obvious. And how a test calls a rule."""

import inspect

import numpy as np
import torch

from manyloom.aggregate import RULES


def squared(x):
    return ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)


def krum_order(x, f):
    n = len(x)
    d = squared(x)
    scores = [sum(sorted(d[i][j] for j in range(n) if j != i)[: n - f - 2]) for i in range(n)]
    return np.argsort(scores, kind="stable")


def nnm(x, f):
    d = squared(x)
    return np.stack([x[np.argsort(d[i], kind="stable")[: len(x) - f]].mean(0) for i in range(len(x))])


def trimmed(x, f):
    return np.sort(x, axis=0)[f : len(x) - f].mean(0)


def weiszfeld(x, steps=300):
    z = x.mean(0)
    for _ in range(steps):
        w = 1 / np.maximum(1e-6, np.linalg.norm(x - z, axis=1))
        z = (w / w.sum()) @ x
    return z


def clip_around(x, v, tau, steps=1):
    for _ in range(steps):
        far = np.linalg.norm(x - v, axis=1)
        t = np.median(far) if tau is None else tau
        v = v + ((x - v) * np.minimum(1, t / np.maximum(far, 1e-300))[:, None]).mean(0)
    return v


def clip_norms(x, c):
    norms = np.linalg.norm(x, axis=1)
    return (x * np.minimum(1, (np.median(norms) if c is None else c) / np.maximum(norms, 1e-300))[:, None]).mean(0)


REFERENCES = {
    "mean": lambda x, f: x.mean(0),
    "median": lambda x, f: np.median(x, axis=0),
    "trimmed-mean": trimmed,
    "krum": lambda x, f: x[krum_order(x, f)[0]],
    "multi-krum": lambda x, f: x[krum_order(x, f)[: len(x) - f]].mean(0),
    "geometric-median": lambda x, f: weiszfeld(x),
    "centred-clipping": lambda x, f: clip_around(x, np.median(x, axis=0), None),
    "norm-clipping": lambda x, f: clip_norms(x, None),
}
ROBUST = [name for name in RULES if name != "mean"]
CASES = [(name, None) for name in ROBUST] + [(name, "nnm") for name in ROBUST]  # also rules that are not there yet
IDS = [name if pre is None else f"nnm {name}" for name, pre in CASES]


def make(name, f=0, pre=None, **keys):
    factory = RULES[name]
    known = inspect.signature(factory).parameters
    return factory(**{k: v for k, v in {"f": f, "pre": pre, **keys}.items() if k in known and v is not None})


def reduce(rule, rows, weights=None, state=None):
    """The aggregate of rows (a tensor: slot "u"), and who was kept."""
    slots = rows if isinstance(rows, dict) else {"u": torch.as_tensor(rows)}
    n = len(next(iter(slots.values())))
    weights = torch.ones(n, dtype=torch.float64) if weights is None else weights
    if rule.needs == "sum":
        slots = {name: (v.double() * weights[:, None]).sum(0) for name, v in slots.items()}
    aggregate, state = rule.reduce(slots, weights, state or {})
    kept = aggregate.pop("kept", torch.ones(n, dtype=torch.float64))
    return (aggregate if isinstance(rows, dict) else aggregate["u"]), kept, state


def enough(n):
    """The largest f that Krum, the most demanding, allows."""
    return max(0, (n - 3) // 2)


def updates(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).to(dtype)
