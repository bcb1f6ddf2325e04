"""`run --baselines`: what the run is compared with, as events beside its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from manyloom.cli.out import Out
from manyloom.cli.process import Stop
from manyloom.cli.run import Ran
from manyloom.core.text import about
from manyloom.job import baseline
from manyloom.job.job import Job
from manyloom.runtime.local import Local
from manyloom.track.store import Store


def with_baselines(out: Out, job: Job, ran: Ran) -> Ran:
    """Each client alone, then all records pooled: events beside the run's own."""
    assert ran.folder is not None
    began, one = time.monotonic(), job.federation.client_word[0]
    counts = not (out.quiet or out.plain) and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def trained(done: int, of: int) -> None:
        if counts:
            line = f"\rcompare  each {one} alone, then all records pooled: {done} of {of}"
            print(line, end="", file=sys.stderr, flush=True)

    with Stop(lambda text: None) as stop:  # one Ctrl-C ends it: the run itself is done
        try:
            compare(out, job, ran.folder, trained)
        except KeyboardInterrupt:
            out.note("\ncompare  interrupted: the run is done, without what it is compared with\n")
            return replace(ran, code=stop.code or 130)
    took = about(time.monotonic() - began)
    out.note(("\r" if counts else "") + f"compare  each {one} alone, then all records pooled: done in {took}\n")
    return ran


def compare(out: Out, job: Job, folder: Path, trained: Callable[[int, int], None]) -> None:
    """Train each client alone and all pooled, judge them on the run's held-out rows, and add that to its events.

    Args:
        out: the flags.
        job: of the run.
        folder: the run's.
        trained: told after each model how many of how many are trained.
    """
    began, judged = time.perf_counter(), dict[int, baseline.Judged]()
    models = len(baseline.everyone(job)) + 1
    trained(0, models)
    for client, _, found in baseline.each_alone(job, Local):
        judged[client] = found
        trained(len(judged), models)
    alone = baseline.of_local(judged, seconds=time.perf_counter() - began)
    pooled = baseline.pooled(job, Local)
    _append(out.home, folder.name, [alone.to_json(), pooled.to_json()])


def _append(home: Path, run: str, events: list[Mapping[str, Any]]) -> None:
    with Store.open(home) as store, store.resume(store.resolve(run)) as writer:
        for event in events:
            writer.append(event)
