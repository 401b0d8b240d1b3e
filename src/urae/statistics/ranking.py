"""Bradley-Terry: one strength for each candidate from wins in pairs, for more than two candidates.

P(a beats b) = 1 / (1 + exp(strength_b - strength_a)) (Bradley & Terry, 1952); a tie is half a win each way. A tenth of
a drawn game is added to each pair that was compared, so that a candidate that won everything keeps a finite strength.
Where all prompts agree on a pair there is nothing to resample, and its share is drawn from Jeffreys' posterior instead.
Fitted by Newton's method: the usual minorisation (Hunter, 2004) takes 100,000 steps where one wins nearly always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from urae.statistics.intervals import CONFIDENCE, Interval, check_prompts, expanded_tail

__all__ = ["bradley_terry", "rank"]

PRIOR = 0.1
MAX_STEPS = 200
"""Ten to sixty are needed, the more the clearer the games are."""


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Strengths (..., k), in log-odds with mean 0, from `wins` (..., k, k): row's wins over column.

    `ValueError` where the games do not connect all candidates, or one of them never won or never lost (which has
    no finite answer).
    """
    wins = np.asarray(wins, dtype=np.float64)
    _check_connected(wins)
    strengths = np.zeros(wins.shape[:-1])
    for _ in range(MAX_STEPS):
        step = _newton_step(strengths, wins)
        strengths = strengths + step
        if np.abs(step).max() < 1e-9:
            return strengths
    raise AssertionError(f"strengths still change by {np.abs(step).max():.1e} after {MAX_STEPS} steps")


def _newton_step(strengths: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """Towards the greatest likelihood, shortened so far from it that it always gets nearer (Sun & Tran-Dinh, 2019)."""
    games = wins + np.swapaxes(wins, -1, -2)
    expected = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))
    gradient = (wins - games * expected).sum(axis=-1)
    weights = games * expected * (1 - expected)
    # The mean is not determined by the games; the constant keeps it where it is.
    hessian = weights.sum(axis=-1)[..., None] * np.eye(wins.shape[-1]) - weights + 1 / wins.shape[-1]
    step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    length = np.maximum(np.ptp(step, axis=-1, keepdims=True), 1e-12)
    return step * np.log1p(length) / length


def rank(
    outcomes: Mapping[tuple[str, str], Mapping[str, float]],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Strength of each candidate, strongest first, with an interval by bootstrap over prompts.

    `outcomes`: (a, b) -> prompt -> credit of a, in [0, 1]. Prompts may lack in some pairs. `ValueError` with fewer than
    six prompts.
    """
    names = list(dict.fromkeys(name for pair in outcomes for name in pair))
    prompts = list(dict.fromkeys(prompt for values in outcomes.values() for prompt in values))
    check_prompts(len(prompts))
    wins = _wins(outcomes, names, prompts)
    compared = (wins + wins.transpose(0, 2, 1)).sum(axis=0) > 0
    prior = PRIOR / 2 * compared
    strengths = bradley_terry(wins.sum(axis=0) + prior)
    drawn = bradley_terry(_resampled(wins, resamples, np.random.default_rng(seed)) + prior)
    tail = expanded_tail(len(prompts), CONFIDENCE)
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    intervals = {
        name: Interval(
            value=float(strengths[i]),
            # Of one that won everything no draw has more.
            low=min(float(low[i]), float(strengths[i])),
            high=max(float(high[i]), float(strengths[i])),
            count=len(prompts),
            confidence=CONFIDENCE,
        )
        for i, name in enumerate(names)
    }
    return dict(sorted(intervals.items(), key=lambda entry: -entry[1].value))


def _resampled(wins: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Wins (resamples, k, k) over prompts drawn with replacement."""
    num, count = len(wins), wins.shape[1]
    drawn = np.tensordot(rng.multinomial(num, np.full(num, 1 / num), size=resamples), wins, axes=1)
    games = wins + wins.transpose(0, 2, 1)
    for a, b in zip(*np.triu_indices(count, 1), strict=True):
        credits = wins[games[:, a, b] > 0, a, b]
        if len(credits) and (credits == credits[0]).all():
            total = games[:, a, b].sum()
            won = credits.sum()
            share = rng.beta(won + 0.5, total - won + 0.5, size=resamples)
            drawn[:, a, b], drawn[:, b, a] = total * share, total * (1 - share)
    return drawn


def _wins(
    outcomes: Mapping[tuple[str, str], Mapping[str, float]], names: Sequence[str], prompts: Sequence[str]
) -> np.ndarray:
    """(prompts, k, k)."""
    wins = np.zeros((len(prompts), len(names), len(names)))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    for (a, b), values in outcomes.items():
        for prompt, credit in values.items():
            wins[place[prompt], names.index(a), names.index(b)] += credit
            wins[place[prompt], names.index(b), names.index(a)] += 1 - credit
    return wins


def _check_connected(wins: np.ndarray) -> None:
    """There is a finite maximum if and only if everyone reaches everyone by a chain of wins (Ford, 1957)."""
    count = wins.shape[-1]
    reach: np.ndarray = (wins > 0) | np.eye(count, dtype=bool)
    for _ in range(count):
        reach = np.any(reach[..., :, :, None] & reach[..., None, :, :], axis=-2)
    if not reach.all():
        raise ValueError(
            "the games do not order all candidates: expected each to reach each other one by a chain of wins"
        )
