"""Private set intersection: CPU seconds of both parties, beside openmined_psi in the same run (vertical.md §2.8).

    OMP_NUM_THREADS=1 python benchmarks/psi.py [--n 100000] [--repeat 3] [--other PYTHON] [--json]

n ids a side, half of them common. Ours runs in this process: hashing, both masks, digests, matching and the
confirmation of both parties, without opening and seals. The other runs in a process of its own, by an interpreter that
has `openmined_psi` (`--other`, this one by default): set-up in the raw encoding, request, response and intersection,
with its messages serialised. Runs take turns and the median counts; `ratio` is ours over theirs, and there is none
without openmined_psi. gmpy2 makes ours twice as fast (`symbol` says which was used).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, cast

import torch

from manyloom.core.exchange import Ask, Lost, Reply, play
from manyloom.core.slots import Slots, size_bytes
from manyloom.vertical import psi
from manyloom.vertical.ids import canonical
from manyloom.vertical.party import Party
from manyloom.vertical.settings import Align

OTHER = """
import json, sys, time
import private_set_intersection.python as psi
n = int(sys.argv[1])
mine = [str(i) for i in range(n)]
theirs = [str(i) for i in range(n // 2, n // 2 + n)]
began, wall = time.process_time(), time.perf_counter()
client, server = psi.client.CreateWithNewKey(True), psi.server.CreateWithNewKey(True)
setup = server.CreateSetupMessage(1e-12, n, theirs, psi.DataStructure.RAW).SerializeToString()
request = client.CreateRequest(mine).SerializeToString()
asked = psi.Request()
asked.ParseFromString(request)
response = server.ProcessRequest(asked).SerializeToString()
given, answered = psi.ServerSetup(), psi.Response()
given.ParseFromString(setup)
answered.ParseFromString(response)
common = client.GetIntersection(given, answered)
print(json.dumps({"cpu": time.process_time() - began, "seconds": time.perf_counter() - wall, "common": len(common),
                  "bytes": len(setup) + len(request) + len(response)}))
"""

Row = dict[str, Any]


def ours(n: int, settings: Align, threads: int) -> Row:
    """Both parties in this process, ids as text."""
    mine = canonical([[str(i) for i in range(n)]], ["text"]).keys
    theirs = canonical([[str(i) for i in range(n // 2, n // 2 + n)]], ["text"]).keys
    xid = os.urandom(32)
    handlers = psi.handlers(settings, threads=threads)
    party = Party("shop", theirs, torch.zeros(n, 0))
    memory: Slots = {"xid": torch.tensor(list(xid), dtype=torch.uint8)}
    up, down = 0, 0

    def answer(ask: Ask) -> list[Reply | Lost]:
        nonlocal memory, up, down
        body, changes = handlers[ask.verb].run(ask.body, memory, party)
        memory = memory | changes
        up, down = up + size_bytes(body), down + size_bytes(ask.body)
        return [Reply(ask.to, body, ask.number)]

    began, wall = time.process_time(), time.perf_counter()
    found = play(psi.align(mine, 0, xid=xid, settings=settings, threads=threads), answer)
    cpu, seconds = time.process_time() - began, time.perf_counter() - wall
    assert (found.sent_up, found.sent_down) == (up, down)
    if settings.reveal == "both":
        assert found.rows is not None
        assert [mine[i] for i in found.rows.tolist()] == [theirs[int(i)] for i in memory["rows"]]
    return {"cpu": cpu, "seconds": seconds, "common": found.common, "bytes": up + down}


def other(python: str, n: int) -> Row | None:
    """openmined_psi in a process of its own; None where that interpreter has none."""
    has = subprocess.run([python, "-c", "import private_set_intersection.python"], capture_output=True)
    if has.returncode:
        return None
    done = subprocess.run([python, "-c", OTHER, str(n)], capture_output=True, text=True, check=True)
    return cast(Row, json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000, help="ids a side")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--reveal", choices=["both", "label", "count"], default="both")
    parser.add_argument("--other", default=sys.executable, help="an interpreter that has openmined_psi")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rows: list[tuple[Row, Row | None]] = []
    for _ in range(asked.repeat):
        one = ours(asked.n, Align(asked.reveal), asked.threads)
        two = other(asked.other, asked.n)
        if two is not None:
            assert two["common"] == one["common"], "the two do not find the same"
        rows.append((one, two))
    mine = statistics.median(one["cpu"] for one, _ in rows)
    theirs = [two["cpu"] for _, two in rows if two is not None]
    out: Row = {
        "n": asked.n, "reveal": asked.reveal, "threads": asked.threads,
        "symbol": "gmpy2" if importlib.util.find_spec("gmpy2") else "plain Python",
        "runs": [{"manyloom": one, "openmined_psi": two} for one, two in rows],
        "cpu": mine, "us_per_id": mine / (2 * asked.n) * 1e6, "bytes_per_pair": rows[0][0]["bytes"] / asked.n,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "openmined_psi": statistics.median(theirs) if theirs else None,
        "ratio": mine / statistics.median(theirs) if theirs else None,
    }  # fmt: skip
    if asked.json:
        print(json.dumps(out, indent=2))
        return
    print(f"{asked.n} ids a side, half common, reveal = {asked.reveal}, symbol by {out['symbol']}")
    for one, two in rows:
        beside = f"   openmined_psi {two['cpu']:8.2f} CPU-s {two['bytes'] / asked.n:6.1f} bytes a pair" if two else ""
        print(f"manyloom {one['cpu']:8.2f} CPU-s {one['bytes'] / asked.n:6.1f} bytes a pair{beside}")
    if out["ratio"] is None:
        print("openmined_psi is not installed for that interpreter: no ratio")
    else:
        print(f"ratio    {out['ratio']:8.3f}  (at most 0.75 is asked for)")
    print(f"{out['us_per_id']:.1f} us an id, peak memory {out['peak_mib']:.0f} MiB")


if __name__ == "__main__":
    main()
