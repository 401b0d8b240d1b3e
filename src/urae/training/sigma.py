"""How the noise level is drawn: a distribution on [0, 1] and a shift, independent of any scheduler object.

The published training is uniform and unshifted (method: "Training objective"). A shift a moves a sigma s to a
s / (1 + (a - 1) s), towards pure noise for a > 1. The rule by which other trainers grow the shift with the
size, exp(linear in tokens), reaches 25 at 2048 px and 103,777 at 4096 px; the square-root rule offered here
reaches 2 and 4 times the shift of the native size. A shift that leaves most draws above sigma = 0.99 is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

__all__ = ["DISTRIBUTIONS", "NEARLY_NOISE", "SHIFT_RULES", "draw_sigma", "share_above", "shift_at", "shifted"]

NEARLY_NOISE = 0.99
"""Above this sigma a sample is noise to the eye, and teaches next to nothing."""

DISTRIBUTIONS: dict[str, Callable[[np.random.Generator], float]] = {
    "uniform": lambda rng: float(rng.random()),
    "logit_normal": lambda rng: 1 / (1 + math.exp(-rng.standard_normal())),
}
"""Draws of the unshifted sigma by name."""

SHIFT_RULES: dict[str, Callable[[float], float]] = {
    "constant": lambda scale: 1.0,
    "sqrt": lambda scale: scale,
}
"""Factor on the shift by name, at `scale` = size / native size = sqrt(image tokens / native image tokens)."""


def draw_sigma(rng: np.random.Generator, *, distribution: str, shift: float) -> float:
    """One sigma in [0, 1]."""
    return shifted(DISTRIBUTIONS[distribution](rng), shift)


def shifted(sigma: float, shift: float) -> float:
    """sigma' = a sigma / (1 + (a - 1) sigma) for the shift a (Esser et al. 2024, Eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def share_above(sigma: float, *, distribution: str, shift: float) -> float:
    """The share of draws above this sigma in (0, 1), exactly."""
    unshifted = shifted(sigma, 1 / shift)
    if distribution == "uniform":
        return 1 - unshifted
    return 1 - NormalDist().cdf(math.log(unshifted / (1 - unshifted)))


def shift_at(scale: float, *, shift: float, rule: str, distribution: str) -> float:
    """The shift at this size / native size; `ValueError` where it leaves most draws above sigma = 0.99."""
    grown = shift * SHIFT_RULES[rule](scale)
    share = share_above(NEARLY_NOISE, distribution=distribution, shift=grown)
    if share > 0.5:
        raise ValueError(
            f"a sigma shift of {grown:g} puts {share:.1%} of the {distribution} draws above sigma = "
            f"{NEARLY_NOISE}, where there is only noise to learn from: use 1, the published code's, or a few units"
        )
    return grown
