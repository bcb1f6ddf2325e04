"""Tables of a job that are plain records: where it runs, a set held by the hub, what a simulation has to face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from manyloom.core.validate import Above, AtLeast, Within


class Execution(NamedTuple):
    """Where and how the job runs: `[runtime]`. Not in the digest: it decides speed, not the result.

    Args:
        name: one client at a time, groups of clients at once, or the rule of the engine.
        provider: where gradients come from.
        device: of the model and the data, as torch names it.
        group: clients at once, K.
        memory: budget of a process.
    """

    name: Literal["auto", "sequential", "vectorised"] = "auto"
    provider: Literal["autograd", "vmap"] | None = None
    device: str = "cpu"
    group: Annotated[int | None, AtLeast(1)] = None
    memory: str = "2 GiB"


class Validation(NamedTuple):
    """A set held by the hub: a round whose model is worse on it is not taken: `[validation]`.

    Args:
        rows: so many training rows, taken from the clients before they train, in a simulation.
        path: or a file of the hub's own, CSV or Parquet, with the clients' columns; relative to the job file.
        metric: what is looked at; `watch`.
        tolerance: how much worse than the last model a round's may be.
    """

    rows: Annotated[int | None, AtLeast(1)] = None
    path: str | None = None
    metric: str | None = None
    tolerance: Annotated[float, AtLeast(0)] = 0.05


class Simulate(NamedTuple):
    """Faults, speeds and absences for a simulation: `[simulate]`.

    Args:
        dropout: chance that a client's reply is lost, each round.
        drop: exactly these are lost: "round:client" pairs, the client by name or number.
        speed: virtual seconds a local step, per client: one for all, or exp(`speed_sigma` z) with z normal; with it
            `deadline_s` counts on the virtual clock.
        speed_sigma: of "lognormal".
        availability: share of time a client is reachable, in stretches of ten virtual minutes; who is away is not
            asked, who leaves before it is done is lost.
        trace: CSV `client,start,end,seconds_per_step`: when each client is reachable and how fast; it begins again
            after its last end.
    """

    dropout: Annotated[float, Within(0, 1)] = 0.0
    drop: Sequence[str] = ()
    speed: Literal["equal", "lognormal"] | None = None
    speed_sigma: Annotated[float, AtLeast(0)] = 1.0
    availability: Annotated[float, Above(0), Within(0, 1)] = 1.0
    trace: str | None = None

    @property
    def clocked(self) -> bool:
        """Whether time passes: rounds take virtual seconds and deadlines count."""
        return self.speed is not None or self.trace is not None or self.absent

    @property
    def absent(self) -> bool:
        """Whether clients may be away."""
        return self.trace is not None or self.availability < 1
