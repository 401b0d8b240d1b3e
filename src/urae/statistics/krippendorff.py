"""How far raters agree: as much as chance would make them, or because there is something to see.

Krippendorff's alpha for nominal data: 1 for full agreement, 0 for that of chance, given how often each candidate is
chosen in all; raters may have left items out. Where one candidate wins nearly everywhere, alpha is low although
almost everybody agrees, so the plain share of agreeing pairs stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from urae.statistics.intervals import CONFIDENCE, MIN_PROMPTS, expanded_tail, wilson

__all__ = ["Agreement", "agreement", "krippendorff_alpha"]

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Of all raters in one aspect. None where there is nothing to compute it from."""

    alpha: float | None
    low: float | None
    """Interval by bootstrap over prompts; None with fewer than six."""
    high: float | None
    pairs: float | None
    """Chance that two raters of one item chose the same candidate."""
    num_items: int
    """Items with two votes or more."""


def agreement(
    counts: np.ndarray, prompts: Sequence[int], *, confidence: float = CONFIDENCE, seed: int = 0
) -> Agreement:
    """Agreement in `counts` (items, candidates) of votes; `prompts` (items,) numbers the prompt of each item."""
    shared = counts.sum(axis=1) >= 2
    agreeing, chosen = _sums(counts[shared])
    low, high = _interval(agreeing, chosen, np.asarray(prompts)[shared], confidence, seed)
    alpha = _alpha(agreeing.sum(), chosen.sum(axis=0))
    return Agreement(
        alpha=None if np.isnan(alpha) else float(alpha),
        low=low,
        high=high,
        pairs=float(np.mean(agreeing / chosen.sum(axis=1))) if shared.any() else None,
        num_items=int(shared.sum()),
    )


def krippendorff_alpha(counts: np.ndarray) -> float:
    """Alpha of `counts` (items, values), how often each item was given each value; NaN where all are the same.

    Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C.
    """
    agreeing, chosen = _sums(counts[counts.sum(axis=1) >= 2])
    return float(_alpha(agreeing.sum(), chosen.sum(axis=0)))


def _sums(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each item the diagonal of its coincidence matrix, summed (items,), and its counts (items, values)."""
    counts = counts.astype(np.float64)
    votes = counts.sum(axis=1)
    return (counts * (counts - 1)).sum(axis=1) / (votes - 1), counts


def _alpha(agreeing: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`agreeing` (...), `chosen` (..., values)."""
    total = chosen.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = 1 - agreeing / total
        expected = 1 - (chosen * (chosen - 1)).sum(axis=-1) / (total * (total - 1))
        return 1 - observed / np.where(expected > 0, expected, np.nan)


def _interval(
    agreeing: np.ndarray, chosen: np.ndarray, prompts: np.ndarray, confidence: float, seed: int
) -> tuple[float, float] | tuple[None, None]:
    members = (prompts[:, None] == np.unique(prompts)).astype(np.float64)
    num = members.shape[1]
    if num < MIN_PROMPTS:
        return None, None
    weights = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=RESAMPLES) @ members.T
    drawn = _alpha(weights @ agreeing, weights @ chosen)
    if np.isnan(drawn).all():
        return None, None
    if (agreeing == chosen.sum(axis=1)).all():
        # Nothing to resample: the most that prompts without agreement may be, over what chance would make them.
        share = wilson(num, num, confidence=confidence).low
        return float(_alpha(share * agreeing.sum(), chosen.sum(axis=0))), 1.0
    tail = expanded_tail(num, confidence)
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return float(low), float(high)
