"""What a trained model says of some clients' rows, for what the run's own evaluation does not ask."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from manyloom.core.task import Shape
from manyloom.data.store import Part
from manyloom.job.baseline import Fitted
from manyloom.job.job import Job, shape_of
from manyloom.job.prepare import module_of


def outputs(job: Job, fitted: Fitted, clients: Sequence[int], part: Part = "test") -> tuple[Tensor, Tensor]:
    """Outputs [m, ...] and labels [m, ...] of these clients' rows, encoded by the model's own statistics."""
    fed = job.federation
    if fitted.preprocess is not None:
        fed = fed.prepare(fitted.preprocess)
    shape: Shape = shape_of(fed)
    module = module_of(job.task, shape, job.seed, dict(fitted.model), fitted.model["theta"])
    slab = fed.slab(np.asarray(clients), part)
    rows = torch.from_numpy(np.asarray(slab.rows))
    x = slab.x[rows]
    with torch.no_grad():
        return module(slab.cast(x) if slab.cast else x), slab.y[rows]
