"""Building an engine: the module is looked at once, vmap is proved, and the choice is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from manyloom.algorithms.turns import turns_of
from manyloom.core.errors import bad
from manyloom.core.flat import Layout, shared
from manyloom.core.metrics import METRICS
from manyloom.core.parts import Algorithm, Seen
from manyloom.core.seeds import scalar
from manyloom.core.slots import Slots
from manyloom.core.task import Shape, Task
from manyloom.core.tensors import torch_seeded
from manyloom.engine.autograd import Autograd
from manyloom.engine.choose import Facts, Name, bytes_of, choose
from manyloom.engine.engine import Engine, quiet
from manyloom.engine.loop import Loop
from manyloom.engine.prove import refusal, traits
from manyloom.engine.provider import Program
from manyloom.engine.vmapped import Vmap
from manyloom.work.personal import held

JUDGED = 4 << 20  # bytes of the largest activation of one forward pass in evaluation


def fresh(task: Task, shape: Shape, seed: int) -> nn.Module:
    """The module with its initial weights, a function of the job's seed; torch's generator is left alone.

    The one place where they are drawn: theta_0, what is frozen, and every saved model come from here.
    """
    with torch_seeded(scalar(seed, 0, "initial theta")):
        return task.build(shape)


def build(
    task: Task,
    shape: Shape,
    algorithm: Algorithm,
    *,
    seed: int,
    rounds: int,
    cohort: int,
    probe: tuple[Tensor, Tensor],
    name: Name = "auto",
    provider: str | None = None,
    device: str = "cpu",
    group: int | None = None,
    memory: str = "2 GiB",
    threads: int = 1,
    recorded: Mapping[str, object] | None = None,
) -> Engine:
    """Build the module, look at it on a few real rows, prove vmap, choose, and keep all of it warm.

    Args:
        task: module, losses, metrics.
        shape: of the data.
        algorithm: its client work and batches.
        seed, rounds: of the job.
        cohort: the largest number of clients of a round.
        probe: a few real rows (x, y), cast.
        name, provider, device, group, memory: `[runtime]`.
        threads: intra-op threads while it trains; cores are for processes.
        recorded: the record of the run that is resumed; its choice wins.

    Raises:
        BadInput: `batchnorm`, `nothing-to-train`, `model-input`, `model-labels`, `memory`.
    """
    module = fresh(task, shape, seed).to(device)
    layout = Layout.of(module, task.freeze)
    buffers = Layout.of_buffers(module) if task.buffers != "refuse" else Layout((), layout.dtype)
    if buffers.d and task.buffers == "average" and algorithm.local == "batchnorm":
        raise bad("fedbn-buffers", "fedbn keeps BatchNorm at the client", got='buffers = "average" in [model]',
                  rule="its running statistics stay with its weights", mend='buffers = "local"')  # fmt: skip
    if buffers.d and algorithm.batches.size < 2:
        raise bad("batchnorm", "BatchNorm needs batches of two rows or more", got="batch_size = 1",
                  rule="the variance of one row is none", mend="batch_size = 32, or use GroupNorm")  # fmt: skip
    features = 0  # of what enters the last layer, where an algorithm asks
    program = Program(module, layout, task.losses, algorithm.work.objective)
    x, y = _probe(*probe, layout.dtype, device)
    task.check(module, x, y, shape)
    with quiet(threads, True, device):
        widths = _widths(task, program, x, y)
        found = traits(program, x, y)
        theta = layout.flatten(module).to(device)
        part, index, rest = shared(module, layout, algorithm.local)
        memory_of = algorithm.work.memory
        strangers = {n: theta.new_zeros(layout.d if size == "d" else 1) for n, size in memory_of.items()}
        if len(rest):
            algorithm = replace(algorithm, work=held(algorithm.work, index.to(device), rest.to(device)))
            strangers["own"] = theta[rest]
        down = algorithm.server.down(algorithm.server.init(theta[index]))
        if algorithm.before is not None:
            features = program.forward(theta, x, aside=True)[1].shape[1]
            down |= {n: theta.new_zeros(length) for n, length in algorithm.before.down(features).items()}
        rows = {n: t[None] for n, t in strangers.items()}
        one = theta.new_ones(1, 1)
        seen = Seen(1, rounds, one, one, one, _measured(algorithm, theta))
        _, state = algorithm.work.begin(down, rows, seen)
        anchors = {n: v for n, v in state.items() if isinstance(v, Tensor)}
        refused = task.serial or refusal(program, x, y, found.random, anchors if algorithm.work.objective else None)
    facts = Facts(
        d=layout.d,
        batch=algorithm.batches.size,
        cohort=cohort,
        convolution=found.convolution,
        state_rows=sum(v.dim() >= 2 and v.shape[-1] == layout.d for v in anchors.values()),
        memory_rows=sum(size == "d" for size in algorithm.work.memory.values()),
        item=layout.dtype.itemsize,
        row_bytes=(x[:1].nbytes + y[:1].nbytes),
        activation_bytes=found.saved_bytes,
        budget=bytes_of(memory),
        device=torch.device(device).type,
        refused={"vmap": refused} if refused else {},
    )
    choice = choose(facts, name, provider, group)
    was = dict(recorded or {})
    reasons = dict(choice.reasons)
    if was.get("provider") == "autograd" or (was.get("provider") == "vmap" and not refused):
        choice = choice._replace(provider=str(was["provider"]), group=int(str(was["group"])))
        reasons = dict(was.get("reasons") or reasons)  # type: ignore[call-overload]
    machine = Autograd(program, buffers, device)
    if buffers.d:
        strangers["buffers"] = machine.running.clone()
    loop = Loop(
        provider=machine if choice.provider == "autograd" else Vmap(program),
        work=algorithm.work,
        task=task,
        layout=layout,
        running=buffers,
        buffers=task.buffers,
        seed=seed,
        rounds=rounds,
        random=found.random,
        judged=max(16, min(1024, JUDGED // max(1, found.largest_bytes))),
        device=device,
    )
    record: dict[str, object] = {
        "name": name,
        "provider": choice.provider,
        "group": choice.group,
        "device": device,
        "threads": threads,
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "random": found.random,
        "reasons": reasons,
    }
    if algorithm.before is not None:
        record["features"] = features
    kept = ("provider", "group", "device", "threads", "torch", "capability")
    if changed := [k for k in kept if k in was and was[k] != record[k]]:
        record["changed"] = {k: [was[k], record[k]] for k in changed}  # equal to tolerance, not bit for bit
    return Engine(layout, part, buffers, theta, strangers, record, algorithm, loop, machine, widths, choice.group,
                  threads, max(1, facts.row_bytes), turns_of(layout, algorithm.turns))  # fmt: skip


def _measured(algorithm: Algorithm, theta: Tensor) -> Slots:
    """An example of what `Work.measure` finds before training."""
    what = algorithm.work.measure.before if algorithm.work.measure else ()
    return {f"before.{w}": theta.new_zeros(1, 1 if w == "loss" else len(theta)) for w in what}


def _probe(x: Tensor, y: Tensor, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """At least two rows to look at a module with: BatchNorm takes no batch of one."""
    if len(x) < 2:
        x, y = (torch.cat([t, t, t.new_zeros(2, *t.shape[1:])])[:2] for t in (x, y))
    return x.to(device, dtype) if x.is_floating_point() else x.to(device), y.to(device)


def _widths(task: Task, program: Program, x: Tensor, y: Tensor) -> dict[str, int]:
    """How many sums each metric has, for this model's output."""
    program.train(False)
    with torch.no_grad():
        output = program.module(x)
        return {m: METRICS[m].sums(output, y).shape[-1] for m in task.metrics}
