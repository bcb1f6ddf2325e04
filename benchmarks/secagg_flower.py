"""Flower's SecAgg+ on the same sum, in an interpreter that has flwr (1.41): run by `benchmarks/secagg.py`.

    PYTHON benchmarks/secagg_flower.py N K T D LOST

Flower's own client mod (`secaggplus_mod`) and workflow (`SecAggPlusWorkflow`) talk through a grid in this process:
messages are handed over as objects, nothing is signed, sent or stored. Timed, as CPU time of this process (its Shamir
works in threads, which count): of a client all four stages of the mod, without the client app that it wraps, and
without quantisation, which is shown apart; of the server all between its messages, without the strategy. `num_shares`
is K + 1, as a client of Flower's keeps a share of its own. The LOST clients answer no more after they shared. Bytes up
are those of the byte strings in a client's answers and 8 for each number. The mean is checked.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from statistics import median
from types import SimpleNamespace
from typing import Any

import flwr
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity

LOOK = sys.modules["flwr.client.mod.secure_aggregation.secaggplus_mod"]


class Clock:
    """CPU seconds by name; what runs inside `apart` is counted there alone."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.open: list[tuple[str, float]] = []

    def run(self, name: str, call: Any, *arguments: Any) -> Any:
        now = time.process_time()
        if self.open:
            outer, since = self.open[-1]
            self.spent[outer] = self.spent.get(outer, 0.0) + now - since
        self.open.append((name, time.process_time()))
        try:
            return call(*arguments)
        finally:
            _, since = self.open.pop()
            now = time.process_time()
            self.spent[name] = self.spent.get(name, 0.0) + now - since
            if self.open:
                self.open[-1] = (self.open[-1][0], time.process_time())


def main() -> None:
    n, k, t, d, lost = map(int, sys.argv[1:6])
    logging.disable(logging.CRITICAL)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, n + 1, 1
    clock = Clock()
    quantize = LOOK.quantize
    current = [0]
    LOOK.quantize = lambda *a: clock.run(f"encode {current[0]}", quantize, *a)
    ids = list(range(1, n + 1))
    gone = set(np.random.default_rng(1).permutation(ids)[:lost].tolist())
    vectors = {i: np.random.default_rng(i).uniform(-1, 1, d).astype(np.float32) for i in ids}
    contexts = {i: Context(1, i, {}, RecordDict(), {}) for i in ids}
    up = dict.fromkeys(ids, 0)

    def app(i: int) -> Any:
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([vectors[i]]), 1, {})
        content = compat.fitres_to_recorddict(result, True)
        return lambda msg, _: Message(content, reply_to=msg)

    apps = {i: app(i) for i in ids}
    stage = [0]

    def send_and_receive(messages: Any, timeout: Any = None) -> list[Message]:
        answers = []
        for message in messages:
            i = current[0] = message.metadata.dst_node_id
            if stage[0] >= 2 and i in gone:
                continue
            own = RecordDict(dict(message.content))  # a grid that serialises gives each client its own
            own.config_records[RECORD_KEY_CONFIGS] = ConfigRecord(dict(own.config_records[RECORD_KEY_CONFIGS]))
            message = Message(own, metadata=message.metadata)
            answer = clock.run(f"client {i}", secaggplus_mod, message, contexts[i],
                               lambda m, c, i=i: clock.run("app", apps[i], m, c))  # fmt: skip
            up[i] += size(answer.content.config_records[RECORD_KEY_CONFIGS])
            answers.append(answer)
        stage[0] += 1
        return answers

    def aggregate(round: int, results: Any, failures: Any) -> Any:
        return results[0][1].parameters, {}

    strategy = SimpleNamespace(
        configure_fit=lambda *_: [(SimpleNamespace(node_id=i), FitIns(ndarrays_to_parameters([]), {})) for i in ids],
        aggregate_fit=lambda *a: clock.run("strategy", aggregate, *a),
    )
    manager = SimpleNamespace(num_available=lambda: n)
    context = LegacyContext(Context(1, n + 1, {}, RecordDict(), {}), None, strategy, manager)  # type: ignore[arg-type]
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(ndarrays_to_parameters([]), True)
    grid = SimpleNamespace(send_and_receive=lambda *a, **b: clock.run("grid", lambda: send_and_receive(*a, **b)))
    workflow = SecAggPlusWorkflow(k + 1, t, max_weight=1.0)
    began = time.perf_counter()
    clock.run("server", workflow, grid, context)
    whole = time.perf_counter() - began
    there = [i for i in ids if i not in gone]
    mean = compat.arrayrecord_to_parameters(context.state.array_records[MAIN_PARAMS_RECORD], True)
    found = parameters_to_ndarrays(mean)
    np.testing.assert_allclose(found[0], np.mean([vectors[i] for i in there], 0), atol=1e-5)
    row = {
        "case": f"Flower {flwr.__version__}", "mode": "semi", "n": n, "k": k, "t": t, "d": d, "lost": lost,
        "encode_ms": 1e3 * median(clock.spent[f"encode {i}"] for i in there),
        "client_ms": 1e3 * median(clock.spent[f"client {i}"] for i in there), "server_s": clock.spent["server"],
        "whole_s": whole, "up": median(up[i] for i in there), "up_over_4d": median(up[i] for i in there) / (4 * d),
    }  # fmt: skip
    print(json.dumps(row))


def size(record: ConfigRecord) -> int:
    """Bytes of the values."""
    total = 0
    for value in record.values():
        for one in value if isinstance(value, list) else [value]:
            total += len(one) if isinstance(one, bytes) else 8
    return total


if __name__ == "__main__":
    main()
