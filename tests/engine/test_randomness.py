"""The same seed gives the same bits, in any order, group or process; the caller's generators are left alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from manyloom.algorithms import scaffold
from manyloom.core.task import Task
from tests.engine.toys import B, Toy, algorithm, down_of, engine, memory_of, task, trained

FED = Toy()


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3)).double()


def total(e, a, order, fed: Toy = FED) -> torch.Tensor:  # type: ignore[no-untyped-def]
    found = torch.zeros(e.layout.d, dtype=torch.float64)
    for g in e.train(fed, np.array(order), down_of(e, a), lambda ids: memory_of(e, ids), 1):
        found += (g.samples[:, None] * g.up["u"]).sum(0)
    return found


def test_order_and_group_change_nothing() -> None:
    a = scaffold(lr=0.1, batch_size=B, epochs=2)
    first = total(engine(task(), a, FED), a, range(9))
    rng = np.random.default_rng(0)
    for k in (1, 2, 5, 16):
        e = engine(task(), a, FED, provider="vmap", group=k)
        assert torch.allclose(total(e, a, rng.permutation(9)), first, rtol=0, atol=1e-12)
        assert torch.equal(total(e, a, rng.permutation(9)), total(e, a, range(9)))


def test_names_in_another_order_change_nothing() -> None:
    a, other = algorithm(epochs=2), Toy()
    back = np.arange(9)[::-1]
    other.ids, other.sizes, other.rows = other.ids[back], other.sizes[back], [other.rows[i] for i in back]
    one, two = trained(engine(task(), a, FED), FED, down_of(engine(task(), a, FED), a)), {}
    e = engine(task(), a, other, provider="vmap", group=4)
    two = trained(e, other, down_of(e, a))
    for c, (up, *_) in one.items():
        assert torch.allclose(up["u"], two[8 - c][0]["u"], atol=1e-12)


@pytest.mark.parametrize("provider", ["autograd", "vmap"])
def test_a_client_does_not_depend_on_who_else_is_asked(provider: str) -> None:
    a = algorithm(epochs=2)
    e = engine(task(), a, FED, provider=provider, group=1)
    down = down_of(e, a)
    everybody = trained(e, FED, down)
    for c in (5, 3):
        assert torch.equal(trained(e, FED, down, [c])[c][0]["u"], everybody[c][0]["u"])


def test_rounds_seeds_and_clients_differ() -> None:
    a = algorithm(epochs=1)
    e = engine(task(), a, FED)
    down = down_of(e, a)
    one, two = trained(e, FED, down, [5], 1)[5][0]["u"], trained(e, FED, down, [5], 2)[5][0]["u"]
    assert not torch.equal(one, two)
    assert torch.equal(one, trained(e, FED, down, [5], 1)[5][0]["u"])
    other = engine(task(), a, FED, seed=2)
    assert not torch.equal(other.initial, e.initial)
    assert not torch.equal(trained(other, FED, down, [5], 1)[5][0]["u"], one)


def test_random_modules_draw_by_client_and_step() -> None:
    a = algorithm(epochs=2)
    e = engine(Task(dropout), a, FED, name="vectorised")
    assert e.record["random"] is True and e.record["provider"] == "autograd"
    down = down_of(e, a)
    one = trained(e, FED, down)
    torch.manual_seed(123)
    again = trained(e, FED, down, list(range(9))[::-1])
    assert all(torch.equal(one[c][0]["u"], again[c][0]["u"]) for c in one)
    still = engine(Task(dropout), a, FED, seed=3)
    assert not torch.allclose(trained(still, FED, down)[5][0]["u"], one[5][0]["u"])
    judged = e.evaluate(FED, np.arange(9), e.initial)  # type: ignore[arg-type]
    assert torch.equal(judged.loss_sums, e.evaluate(FED, np.arange(9), e.initial).loss_sums)  # type: ignore[arg-type]


@pytest.mark.parametrize("module", [dropout, None], ids=["dropout", "plain"])
def test_the_callers_generator_and_threads_are_left_alone(module) -> None:  # type: ignore[no-untyped-def]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(7)
        want = torch.rand(6)
        torch.manual_seed(7)
        found = [torch.rand(1)]
        a = algorithm()
        e = engine(Task(module) if module else task(), a, FED)
        found.append(torch.rand(1))
        for _ in e.train(FED, np.arange(9), down_of(e, a), lambda ids: {}, 1):  # type: ignore[arg-type]
            if len(found) < 4:
                found.append(torch.rand(1))
            assert torch.get_num_threads() == 2
        e.evaluate(FED, np.arange(9), e.initial)  # type: ignore[arg-type]
        found.append(torch.rand(2))
        assert torch.equal(torch.cat(found), want)
        assert torch.get_num_threads() == 2 and e.record["threads"] == 1
    finally:
        torch.set_num_threads(threads)


PRINT = """
import hashlib, numpy as np, torch
from tests.engine.toys import Toy, algorithm, down_of, engine, task, trained
a, fed = algorithm(epochs=2), Toy()
for name in ("sequential", "vectorised"):
    e = engine(task(), a, fed, name=name)
    found = trained(e, fed, down_of(e, a))
    print(hashlib.sha256(b"".join(found[c][0]["u"].numpy().tobytes() for c in sorted(found))).hexdigest())
"""


def test_two_processes_agree_bit_for_bit() -> None:
    root = Path(__file__).parents[2]
    hashes = []
    for salt in ("1", "2"):
        env = {
            "PYTHONHASHSEED": salt,
            "PYTHONPATH": f"{root / 'src'}:{root}",
            "OMP_NUM_THREADS": salt,
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, env=env, cwd=root)
        assert done.returncode == 0, done.stderr
        hashes.append(done.stdout.split())
    assert hashes[0] == hashes[1]
    a = algorithm(epochs=2)
    for name, want in zip(("sequential", "vectorised"), hashes[0]):
        e = engine(task(), a, FED, name=name)
        found = trained(e, FED, down_of(e, a))
        assert hashlib.sha256(b"".join(found[c][0]["u"].numpy().tobytes() for c in sorted(found))).hexdigest() == want
