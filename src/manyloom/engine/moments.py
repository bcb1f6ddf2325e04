"""Mean and covariance of one client's features: all that a target tells of its rows."""

from __future__ import annotations

import torch
from torch import Tensor

from manyloom.core.slots import Slots
from manyloom.core.tensors import from_numpy
from manyloom.data.store import Slab
from manyloom.engine.engine import Engine, quiet
from manyloom.work.coral import moments as of_rows


def moments(engine: Engine, slab: Slab, theta: Tensor, running: Tensor | None = None) -> Slots:
    """`mu` [D], `cov` [D (D + 1) / 2] of what enters the last layer, over all rows of a slab, and `rows` [1]."""
    program, found = engine.machine.program, list[Tensor]()
    with quiet(engine.threads, False, engine.loop.device), torch.no_grad():
        program.train(False)
        if engine.buffers.d:
            engine.machine.start(engine.strangers["buffers"] if running is None else running)
        theta = theta.to(engine.loop.device, engine.layout.dtype)
        index, many = from_numpy(slab.rows), engine.loop.judged
        for rows in (index[lo : lo + many] for lo in range(0, len(index), many)):
            found.append(program.forward(theta, engine.loop.cast(slab, slab.x[rows]))[1].double().cpu())
    mu, cov = of_rows(torch.cat(found))
    return {"mu": mu.float(), "cov": cov.float(), "rows": torch.tensor([float(len(slab.rows))])}
