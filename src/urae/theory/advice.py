"""What share of synthetic data to train on, in words, with how sure that is.

Estimates have errors, so the answer is computed for many draws of them too: the advice is firm only if the
draws agree. The gap and the bias come from one comparison of the teacher with the truth and err together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from urae.theory.estimates import Estimate, Estimates
from urae.theory.problem import Array
from urae.theory.share import BestShare, ErrorCurve

__all__ = ["Advice", "advise"]

NUM_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A share of synthetic data, and why."""

    best: BestShare
    """The answer to the estimates as they stand."""
    likely: tuple[float, float]
    """The central 90% of the answers to draws of the estimates."""
    gain: float
    """kappa: how much of the label noise ends up in the model."""
    reasons: tuple[str, ...]
    """Sentences for a reader, the verdict first."""


def advise(estimates: Estimates, *, gain: float = 1.0, seed: int = 0) -> Advice:
    """The best share of synthetic data at convergence, for estimates of the three quantities.

    gain: kappa = sum 1 / lambda in parameters. For errors of the predictions it is the trained parameters per
    sample, at most 1, and 1 means that the model fits every label exactly (the paper's infinite width);
    `noise_gain` measures it. Estimates below 0 count as 0, and the reasons say so.
    """
    if not gain > 0:
        raise ValueError(f"gain is {gain}: expected a number above 0, 1 for a model that fits every label")
    noise, gap, bias = (max(each.value, 0.0) for each in _three(estimates))
    best = _curve(noise, gap, bias, gain=gain).best()
    drawn = [_curve(*values, gain=gain).minimum() for values in _draws(estimates, seed).tolist()]
    low, high = np.quantile(drawn, [0.05, 0.95])
    likely = (float(low), float(high))
    return Advice(best=best, likely=likely, gain=gain, reasons=_reasons(estimates, best, likely, noise))


def _curve(noise: float, gap: float, bias: float, *, gain: float) -> ErrorCurve:
    # At convergence nothing is left of the starting point, and of the spectrum only kappa matters.
    return ErrorCurve(start=0.0, noise=gain * noise, gap=gain * gap, bias=bias, pull=0.0)


def _three(estimates: Estimates) -> tuple[Estimate, Estimate, Estimate]:
    return estimates.noise, estimates.teacher_gap, estimates.teacher_bias


def _draws(estimates: Estimates, seed: int) -> Array:
    """(NUM_DRAWS, 3): noise on its own, gap and bias moved together, none below 0."""
    normal = np.random.default_rng(seed).standard_normal((NUM_DRAWS, 2))[:, [0, 1, 1]]
    values = np.array([each.value for each in _three(estimates)])
    errors = np.array([each.standard_error for each in _three(estimates)])
    return np.maximum(values + errors * normal, 0.0)


def _reasons(
    estimates: Estimates, best: BestShare, likely: tuple[float, float], noise: float
) -> tuple[str, ...]:
    reasons = [_verdict(best), *_inputs(estimates), _turning_points(best, noise)]
    if 0 < best.share < 1:
        reasons.append(
            f"10% more label noise moves the best share by {best.sensitivity.noise / 10:+.2f}, a teacher 10% "
            f"further off by {(best.sensitivity.teacher_gap + best.sensitivity.teacher_bias) / 10:+.2f}."
        )
    reasons.append(
        f"Shares from {best.good[0]:.0%} to {best.good[1]:.0%} come within 10% of the least error."
    )
    if any(each.standard_error for each in _three(estimates)):
        reasons.append(
            "The estimates' own errors put the best share between "
            f"{likely[0]:.0%} and {likely[1]:.0%} (90% of draws)."
        )
    if likely[1] - likely[0] > 0.5:
        reasons.append("That is too wide to rely on: estimate from more images.")
    return tuple(reasons)


def _verdict(best: BestShare) -> str:
    only = {1.0: "only synthetic images", 0.0: "only real images"}
    what = only.get(best.share, f"{_percent(best.share)} synthetic images")
    ends = {0.0: ("real", best.error_real), 1.0: ("synthetic", best.error_synthetic)}
    others = [
        f"{error:.4g} with {kind} ones only" for end, (kind, error) in ends.items() if end != best.share
    ]
    return f"Train on {what}: expected error {best.error:.4g}, against {' and '.join(others)}."


def _percent(share: float) -> str:
    if 0.01 <= share <= 0.99:
        return f"{share:.0%}"
    return "less than 1%" if share < 0.5 else "more than 99%"


def _inputs(estimates: Estimates) -> list[str]:
    names = ("Label noise of real images", "The teacher's gap", "The teacher's squared bias")
    sentences = [_sentence(name, each) for name, each in zip(names, _three(estimates), strict=True)]
    return sentences[:2] if estimates.teacher_bias == estimates.teacher_gap else sentences


def _sentence(name: str, value: Estimate) -> str:
    spread = f" ± {value.standard_error:.2g}" if value.standard_error else ""
    floor = " It came out negative and counts as 0." if value.value < 0 else ""
    return f"{name}: {value.value:.4g}{spread}, from {value.basis}.{floor}"


def _turning_points(best: BestShare, noise: float) -> str:
    first, last = best.noise_factors
    if math.isinf(last):
        return "Without label noise in real images, synthetic ones have nothing to mend."
    if math.isclose(first, last):
        return f"The answer turns from real to synthetic where label noise reaches {first * noise:.4g}."
    return (
        f"Synthetic images help once label noise exceeds {first * noise:.4g}, and real ones stop helping "
        f"once it exceeds {last * noise:.4g}."
    )
