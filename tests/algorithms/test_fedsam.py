"""FedSAM: FedAvg at rho 0, near it at a small rho, something else at a large one."""

from __future__ import annotations

import pytest
import torch

from manyloom import algorithms as A
from manyloom.job.job import Execution
from tests.toys import job, theta

LOCAL = {"lr": 0.1, "batch_size": 5, "epochs": 2, "momentum": 0.5}


@pytest.mark.parametrize("name", ["sequential", "vectorised"])
def test_rho(name: str):
    run = {"execution": Execution(name=name)}
    plain = theta(job(A.fedavg(**LOCAL), **run))
    assert torch.equal(plain, theta(job(A.fedsam(rho=0.0, **LOCAL), **run)))
    off = [float((theta(job(A.fedsam(rho=rho, **LOCAL), **run)) - plain).norm()) for rho in (1e-4, 1e-3, 1e-1)]
    assert 5 < off[1] / off[0] < 20 and off[0] < 1e-3 < off[2]  # of first order in rho
