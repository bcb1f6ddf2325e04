"""Adaptive clipping: the clip follows a quantile of the clients' norms (Andrew et al. 2021; privacy.md §2.2).

The bit says *unclipped*, the sign is minus, and the noise of round t uses C_t: each has been got wrong elsewhere.
"""

from __future__ import annotations

import math

from manyloom.core.errors import bad

BIT_SCALE = 2**10
"""S_b: the clip bit travels as +S_b or -S_b."""


def bit(norm: float, clip: float) -> int:
    """(2 b - 1) S_b with b = 1[||D|| <= C_t], the norm before the clip; a client without an update sends zero.

    >>> bit(0.5, 1.0), bit(2.0, 1.0), bit(float("nan"), 1.0)
    (1024, -1024, 0)
    """
    if math.isnan(norm):
        return 0
    return BIT_SCALE if norm <= clip else -BIT_SCALE


def bit_noise(cohort: float) -> float:
    """sigma_b = n/20, n the expected cohort; on the integer coordinate its deviation is 2 sigma_b S_b.

    >>> bit_noise(100)
    5.0
    """
    return cohort / 20


def split(noise_multiplier: float, sigma_b: float) -> float:
    """z_D = (z^-2 - (2 sigma_b)^-2)^(-1/2): noise on the update so that (update, bit) together cost exactly z.

    Raises `BadInput` where 2 sigma_b <= z: the bit alone would cost as much as both may.

    >>> round(split(1.0, 5.0), 6)
    1.005038
    """
    if 2 * sigma_b <= noise_multiplier:
        raise bad(
            "adaptive-cohort-too-small",
            "the noise of the clip bit alone would use up the round",
            got=f"2 sigma_b = {2 * sigma_b:g}, noise multiplier = {noise_multiplier:g}",
            rule="2 sigma_b must exceed the noise multiplier; sigma_b is a twentieth of the cohort",
            mend=f"ask more than {10 * noise_multiplier:g} clients a round, or set privacy.adaptive = false",
        )
    return (noise_multiplier**-2 - (2 * sigma_b) ** -2) ** -0.5


def fraction(noised_sum: int, cohort: float) -> float:
    """bbar_t = 1/2 + (sum_i (b_i - 1/2) + noise) / n from the noised integer sum of bits; n the expected cohort.

    >>> fraction(20 * BIT_SCALE, 100)      # 60 unclipped, 40 clipped
    0.6
    """
    return 0.5 + noised_sum / (2 * BIT_SCALE) / cohort


def next_clip(clip: float, unclipped: float, quantile: float = 0.5, lr: float = 0.2) -> float:
    """C_{t+1} = C_t exp(-eta (bbar_t - gamma_q)).

    >>> next_clip(1.0, 0.5), next_clip(1.0, 1.0) < 1 < next_clip(1.0, 0.0)
    (1.0, True)
    """
    return clip * math.exp(-lr * (unclipped - quantile))
