"""byzfl's rules on the cohort of `benchmarks/robust.py`: run by it, with the interpreter of another environment.

    python -m venv BYZFL && BYZFL/bin/pip install "torch==2.13.0" numpy scipy && BYZFL/bin/pip install --no-deps byzfl

Installed with its dependencies it would bring another torch; it imports torchvision and plots, of which nothing is
needed here, so stand-ins are put in their place. Its Krum(f) sums n-f-1 distances, so f + 1 is asked for; its
geometric median does 3 steps (not converged); its nearest neighbours copy n (n - f) rows and are left out above 200 000
coordinates.
"""

from __future__ import annotations

import sys
import time
from unittest.mock import MagicMock

import torch


def main() -> None:
    n, d = int(sys.argv[1]), int(sys.argv[2])
    f = n // 5
    for name in ("torchvision", "torchvision.transforms", "torchvision.datasets", "byzfl.benchmark"):
        sys.modules[name] = MagicMock(__all__=[])
    import byzfl

    torch.set_num_threads(1)
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    rules = {
        "median": byzfl.Median(), "trimmed-mean": byzfl.TrMean(f), "krum": byzfl.Krum(f + 1),
        "multi-krum": byzfl.MultiKrum(f + 1), "geometric-median": byzfl.GeometricMedian(nu=1e-6, T=3),
        "centred-clipping": byzfl.CenteredClipping(m=None, L=1, tau=100.0),
    }  # fmt: skip
    if d <= 200_000:
        mix = byzfl.NNM(f)
        for name in ("trimmed-mean", "geometric-median"):
            rules[f"nnm, {name}"] = lambda x, rule=rules[name]: rule(mix(x))
    print("|".join(rules), flush=True)
    for line in sys.stdin:
        began = time.process_time()
        rules[line.strip()](x)
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
