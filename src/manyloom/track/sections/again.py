"""Run it again: the commands, the digest, and what comes out the same bit for bit."""

from __future__ import annotations

from manyloom.core import text
from manyloom.track import parties
from manyloom.track.record import Run
from manyloom.track.sections.parts import Data, Drawer

ID = "again"


def title(run: Run) -> str:
    return "Run it again"


def section(run: Run, draw: Drawer) -> Data:
    seed = f" ({run.seed})" if run.seed is not None else ""
    said = (
        f"The same seed{seed} on the same runtime gives the same start, cohorts, batches and results bit for bit, "
        "also when a run is interrupted and resumed; another runtime or device gives them to rounding."
    )
    if run.privacy is not None:
        said = (
            "The same seed gives the same start, cohorts and batches. Noise, keys and masks are never seeded: a "
            "private run repeats the guarantee, not the weights. Resumed half-way it goes on with fresh noise, and a "
            "release that was half done counts as spent."
        )
    if run.vertical and parties.noisy(run):
        said = (
            "The same seed gives the same start, order and batches. The noise on gradients is never seeded, as the "
            "other side knows the seed: a run repeats to noise, also when it is interrupted and resumed. With [cut] "
            'defence = "none" it repeats bit for bit.'
        )
    digest = f"digest {text.digest(run.job_digest, 3)}" if run.job_digest else ""
    if run.role is not None:
        verb = "sweep" if run.role == "sweep" else f"baseline {run.role}"
        return {"text": said, "commands": [(f"manyloom {verb} job.toml", "the job above")]}
    commands = [("manyloom run job.toml", f"the job above, {digest}" if digest else "the job above")]
    if run.status in ("interrupted", "failed"):
        commands.insert(0, (f"manyloom resume {run.id}", f"go on from round {run.rounds_done}"))
    if run.rounds:
        commands.append((f"manyloom compare {run.id} last", ""))
    return {"text": said, "commands": commands}
