"""Numbers with their uncertainty: means, shares and paired differences, the prompt being the unit.

Pictures of one prompt are not independent, so `by_prompt` averages them first and everything below counts prompts.
Intervals of means come from a percentile bootstrap whose tails are widened for small samples: a 95% interval from
eight normal values holds the truth 94% of the time, and would 88% without. Where all prompts agree there is nothing
to resample, and where values have bounds, as shares do, the interval comes from Wilson's instead. A difference is
`real` when the sign test, corrected for the number of comparisons, and the interval of the mean agree on its direction.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

__all__ = [
    "CONFIDENCE",
    "MIN_PROMPTS",
    "Comparison",
    "Interval",
    "adjusted",
    "agreed",
    "by_prompt",
    "check_prompts",
    "check_same_prompts",
    "compare",
    "expanded_tail",
    "holm",
    "least_prompts",
    "mean",
    "sign_test",
    "wilson",
]

CONFIDENCE = 0.95
MIN_PROMPTS = 6
"""With fewer, no outcome is significant: five wins out of five have a two-sided sign test of 0.0625."""
RESAMPLES = 10_000
_CHUNK = 1 << 20
"""Draws held in memory at once."""

Bounds = tuple[float, float]
"""Least and greatest value that a prompt can have."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and what it may as well have been."""

    value: float
    low: float
    high: float
    count: int
    """Prompts, or trials of a share."""
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate against a baseline on the same prompts; differences are candidate minus baseline."""

    difference: Interval
    above: int
    """Prompts on which the candidate has the larger value."""
    below: int
    equal: int
    p_value: float
    """Exact two-sided sign test."""
    p_adjusted: float
    """The same after Holm's correction; equal to `p_value` where only one comparison was made."""

    @property
    def real(self) -> bool:
        """Whether test and interval both exclude zero, in the same direction."""
        alpha = 1 - self.difference.confidence
        upward = self.difference.low > 0 and self.above > self.below
        downward = self.difference.high < 0 and self.below > self.above
        return self.p_adjusted <= alpha and (upward or downward)


def by_prompt(prompts: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """Mean value of each prompt's pictures, in the order in which prompts first come."""
    groups: dict[str, list[float]] = defaultdict(list)
    for prompt, value in zip(prompts, values, strict=True):
        groups[prompt].append(float(value))
    return {prompt: math.fsum(group) / len(group) for prompt, group in groups.items()}


def mean(
    scores: Mapping[str, float],
    *,
    bounds: Bounds | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean over prompts with its bootstrap interval. `scores`: prompt -> value, at least `MIN_PROMPTS`, finite.

    Where all values agree, the interval has no width; with `bounds` it is `agreed`.
    """
    return _interval(_checked(scores), bounds, confidence, resamples, seed)


def wilson(successes: int, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Share of independent trials with Wilson's score interval (1927), which stays within [0, 1]."""
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"{successes} of {trials} is not a share: expected 0 <= successes <= trials, trials > 0"
        )
    z, share = _quantile(confidence), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    # At 0 and 1 the bound is exact, and rounding must not push it beyond the share.
    low, high = min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)
    return Interval(value=share, low=low, high=high, count=trials, confidence=confidence)


def agreed(value: float, bounds: Bounds, *, count: int, confidence: float = CONFIDENCE) -> Interval:
    """Interval of a mean where all of `count` prompts have the same value: of all prompts at least Wilson's share has
    it, and the others may have any within `bounds`."""
    least = wilson(count, count, confidence=confidence).low
    low, high = (least * value + (1 - least) * bound for bound in bounds)
    return Interval(value=value, low=low, high=high, count=count, confidence=confidence)


def compare(
    scores: Mapping[str, float],
    baseline: Mapping[str, float],
    *,
    bounds: Bounds | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Paired difference over the same prompts: mean with bootstrap interval, and the exact sign test. `bounds` are of
    the scores, as in `mean`."""
    check_same_prompts(scores, baseline)
    _checked(baseline)
    _checked(scores)
    differences = np.array([scores[prompt] - baseline[prompt] for prompt in scores])
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = sign_test(above, below)
    furthest = (bounds[0] - bounds[1], bounds[1] - bounds[0]) if bounds else None
    return Comparison(
        difference=_interval(differences, furthest, confidence, resamples, seed),
        above=above,
        below=below,
        equal=len(differences) - above - below,
        p_value=p_value,
        p_adjusted=p_value,
    )


def adjusted(results: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """The same comparisons with `p_adjusted` corrected by Holm over all of them."""
    corrected = holm([result.p_value for result in results.values()])
    return {
        name: replace(result, p_adjusted=p)
        for (name, result), p in zip(results.items(), corrected, strict=True)
    }


def sign_test(above: int, below: int) -> float:
    """Exact two-sided p-value of `above` against `below` under a fair coin; equal pairs are left out."""
    trials, ways, tail = above + below, 1, 0
    for k in range(min(above, below) + 1):
        tail += ways
        ways = ways * (trials - k) // (k + 1)
    return min(1.0, 2 * tail / 2**trials)


def least_prompts(num_comparisons: int, *, confidence: float = CONFIDENCE) -> int:
    """Prompts from which on one of so many comparisons can be real: the sign test of fewer, all on one side, does not
    pass Holm's correction."""
    return max(MIN_PROMPTS, math.ceil(1 + math.log2(num_comparisons / (1 - confidence)) - 1e-9))


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down adjusted p-values, in the given order (Holm, 1979): the chance of any false alarm stays alpha."""
    if any(not 0 <= p <= 1 for p in p_values):
        raise ValueError(f"p-values are {list(p_values)}: expected numbers in [0, 1]")
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    stepped = np.maximum.accumulate(np.minimum(1.0, factors * np.asarray(p_values, dtype=float)[order]))
    result = np.empty(len(p_values))
    result[order] = stepped
    return result.tolist()


def check_prompts(count: int) -> None:
    """`ValueError` for fewer prompts than can show anything."""
    if count < MIN_PROMPTS:
        raise ValueError(
            f"there are {count} different prompts: expected at least {MIN_PROMPTS}, because fewer cannot show a "
            "difference at the 5% level"
        )


def _interval(
    values: np.ndarray, bounds: Bounds | None, confidence: float, resamples: int, seed: int
) -> Interval:
    if bounds and (values == values[0]).all():
        return agreed(float(values[0]), bounds, count=len(values), confidence=confidence)
    return _bootstrap(values, confidence, resamples, seed)


def _bootstrap(values: np.ndarray, confidence: float, resamples: int, seed: int) -> Interval:
    """Percentile interval of the mean of `values` (n,), tails widened for small n."""
    tail = expanded_tail(len(values), confidence)
    if resamples * tail < 1:
        raise ValueError(
            f"{resamples} resamples do not reach the tail of a {confidence:.0%} interval over {len(values)} prompts: "
            f"give at least {math.ceil(1 / tail)}"
        )
    low, high = np.quantile(_resampled_means(values, resamples, seed), [tail, 1 - tail])
    return Interval(
        value=float(values.mean()),
        low=float(low),
        high=float(high),
        count=len(values),
        confidence=confidence,
    )


def _resampled_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means (resamples,) of draws with replacement."""
    # Sums of equal values differ from their mean by rounding; deviations from the first are exactly zero.
    rng, deviations = np.random.default_rng(seed), values - values[0]
    rows = max(1, _CHUNK // len(values))
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    means = [deviations[rng.integers(len(values), size=(size, len(values)))].mean(axis=1) for size in sizes]
    return values[0] + np.concatenate(means)


def expanded_tail(count: int, confidence: float) -> float:
    """Tail of the expanded percentile interval: Phi(-sqrt(n / (n - 1)) t) (Hesterberg 2015, section 4.3)."""
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * _student(_quantile(confidence), count - 1))


def _student(z: float, freedom: int) -> float:
    """Student's quantile from the normal one by the Cornish-Fisher expansion; within 0.3% from 5 degrees on."""
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: expected a number between 0 and 1, such as 0.95")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _checked(scores: Mapping[str, float]) -> np.ndarray:
    values = np.array(list(scores.values()), dtype=np.float64)
    bad = [prompt for prompt, value in scores.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(scores)} prompts have no finite value, such as {bad[0]!r}: "
            "find out why, or leave these prompts out of every candidate"
        )
    check_prompts(len(values))
    return values


def check_same_prompts(scores: Iterable[str], baseline: Iterable[str]) -> None:
    """`ValueError` for prompts that only one of two candidates has."""
    asked, expected = set(scores), set(baseline)
    missing, extra = sorted(asked - expected), sorted(expected - asked)
    if missing or extra:
        raise ValueError(
            f"a paired comparison needs the same prompts: {len(missing)} only in the candidate, {len(extra)} only in "
            f"the baseline, such as {(missing + extra)[0]!r}; score both on the same list"
        )
