"""`[privacy]`: what a job claims."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from manyloom.core.validate import Above, Below, Within
from manyloom.privacy.accountants import Accountant


class Privacy(NamedTuple):
    """User-level central differential privacy: updates clipped, noise on their sum: `[privacy]`.

    Args:
        clip: L2 bound of the whole update, C; with `adaptive` where it starts.
        epsilon: the budget; with it alone the noise follows from `rounds`.
        noise_multiplier: deviation of the noise on the sum, in clips, z; with it alone epsilon follows.
        delta: by default N^-1.1; at or above 1/N refused.
        adaptive: the clip follows a quantile of the updates' norms (Andrew et al. 2021).
        quantile: which share of the clients should be below the clip.
        clip_lr: step of the adaptive clip.
        unit: what one neighbour is.
        mechanism: the rounded Gaussian on the integer sum.
        accountant: by default rdp for a cohort of fixed size, else pld; another than is valid is refused.
    """

    clip: Annotated[float, Above(0)]
    epsilon: Annotated[float | None, Above(0)] = None
    noise_multiplier: Annotated[float | None, Above(0)] = None
    delta: Annotated[float | None, Below(1)] = None
    adaptive: bool = False
    quantile: Annotated[float, Within(0, 1)] = 0.5
    clip_lr: Annotated[float, Above(0)] = 0.2
    unit: Literal["client"] = "client"
    mechanism: Literal["gaussian"] = "gaussian"
    accountant: Accountant | None = None
