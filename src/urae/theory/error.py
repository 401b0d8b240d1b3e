"""E ||W_T - W*||^2 after T steps on labels of which a share p is synthetic: as printed, exactly, bounded.

Every function takes shares and steps of any shape and returns terms of the shape shares.shape + steps.shape:

    initial   ||(I - eta M)^T Delta_0||^2,  Delta_0 = W_0 - (p W_ref + (1 - p) W*)
    noise     what the spread of the labels around p f(u; W_ref) + (1 - p) f(u; W*) does to the parameters
    teacher   p^2 ||W_ref - W*||^2
    cross     2 p <(I - eta M)^T Delta_0, W_ref - W*>, of either sign; the theorem leaves it out

The exact error is their sum. In the valid bound noise and cross are replaced by their largest possible
values; in the printed one cross is 0 and noise carries a factor eta^2 that does not belong there
(docs/concepts/theory.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from urae.theory.problem import Array, Measure, Mixing, Problem

__all__ = ["ErrorTerms", "exact_error", "mixed_label_noise", "noise_terms", "printed_bound", "valid_bound"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorTerms:
    """An expected squared error, or a bound on it, by its terms, each of shape shares.shape + steps.shape."""

    initial: Array
    """What is left of the starting point's error."""
    noise: Array
    """What label noise, and disagreement between teacher and truth, puts in."""
    teacher: Array
    """The mixture's own distance from the truth."""
    cross: Array
    """Twice the inner product of the two errors above; at most 2 sqrt(initial x teacher)."""

    @property
    def total(self) -> Array:
        """The sum of the four."""
        return self.initial + self.noise + self.teacher + self.cross


def exact_error(
    problem: Problem,
    *,
    shares: ArrayLike,
    steps: ArrayLike,
    measure: Measure = "parameters",
    mixing: Mixing = "bernoulli",
) -> ErrorTerms:
    """E ||W_T - W*||^2 exactly, over the choice of synthetic samples and the label noise, inputs fixed.

    shares: p in [0, 1]. steps: T, whole numbers or inf. Labels may be of unlike variance: sample j has
    p (1 - p) delta_j^2 + (1 - p) noise_j, and counts by its own leverage, not by the mean. With
    mixing="fixed", p N must be a whole number for the value to belong to a real draw.
    """

    def terms(p: Array, num_steps: Array) -> ErrorTerms:
        initial, teacher, cross = _bias_terms(problem, p, num_steps, measure)
        by_gap, by_noise = noise_terms(problem, steps=num_steps, measure=measure, mixing=mixing)
        noise = p * (1 - p) * by_gap + (1 - p) * by_noise
        return ErrorTerms(initial=initial, noise=noise, teacher=teacher, cross=cross)

    return _over(terms, shares, steps)


def valid_bound(
    problem: Problem,
    *,
    shares: ArrayLike,
    steps: ArrayLike,
    measure: Measure = "parameters",
    mixing: Mixing = "bernoulli",
) -> ErrorTerms:
    """A bound on E ||W_T - W*||^2 that holds for every input, in the theorem's own quantities:

        (||(I - eta M)^T Delta_0|| + p ||W_ref - W*||)^2
            + max_j Var(xi'_j) sum_i (1 - (1 - eta lambda_i)^T)^2 / lambda_i

    The first part is the triangle inequality where it does hold, for norms and not for their squares; the
    second takes the largest label variance instead of the mean, since that sample may be the one of highest
    leverage. With mixing="fixed" the gap's part of the variance is N / (N - 1) times as large. It cannot be
    made smaller in these quantities: some problems attain it.
    """

    def terms(p: Array, num_steps: Array) -> ErrorTerms:
        initial, teacher, _ = _bias_terms(problem, p, num_steps, measure)
        largest = _label_variance(problem, p, mixing).max(axis=-1, keepdims=True)
        noise, cross = largest * _total_gain(problem, num_steps, measure), 2 * np.sqrt(initial * teacher)
        return ErrorTerms(initial=initial, noise=noise, teacher=teacher, cross=cross)

    return _over(terms, shares, steps)


def printed_bound(problem: Problem, *, shares: ArrayLike, steps: ArrayLike) -> ErrorTerms:
    """The right-hand side of Theorem 2.4 (Eqs. 3, 8) as printed. `exact_error` can exceed it."""

    def terms(p: Array, num_steps: Array) -> ErrorTerms:
        initial, teacher, cross = _bias_terms(problem, p, num_steps, "parameters")
        mean = mixed_label_noise(problem, shares=p[:, 0]).mean(axis=-1, keepdims=True)
        noise = problem.learning_rate**2 * mean * _total_gain(problem, num_steps, "parameters")
        return ErrorTerms(initial=initial, noise=noise, teacher=teacher, cross=np.zeros_like(cross))

    return _over(terms, shares, steps)


def mixed_label_noise(problem: Problem, *, shares: ArrayLike) -> Array:
    """Variance of each mixed label around p f(u; W_ref) + (1 - p) f(u; W*) (Eq. 18, sample by sample).

    shares: (...), returns (..., N): p (1 - p) delta_j^2 + (1 - p) noise_j. The same under both ways of
    mixing, which differ in how labels of unlike samples go together.
    """
    p = _checked_shares(shares)[..., None]
    return p * (1 - p) * problem.gap**2 + (1 - p) * problem.noise_per_sample


def noise_terms(
    problem: Problem, *, steps: Array, measure: Measure = "parameters", mixing: Mixing = "bernoulli"
) -> tuple[Array, Array]:
    """The two parts of the noise term, (T,) each: it is p (1 - p) x the first + (1 - p) x the second.

    The first comes from the teacher's gap, the second from the noise of real labels. With mixing="fixed" the
    labels are no longer independent: the gap's have covariance (N diag(delta^2) - delta delta^T) / (N - 1).
    """
    modes = problem.modes
    strength = modes.weights(measure) * modes.gain(steps) ** 2
    leverage = strength @ (modes.samples**2).T
    by_gap, by_noise = leverage @ problem.gap**2, leverage @ problem.noise_per_sample
    if mixing == "fixed":
        num_samples = _at_least_two(problem)
        together = strength @ (modes.samples.T @ problem.gap) ** 2
        by_gap = (num_samples * by_gap - together) / (num_samples - 1)
    elif mixing != "bernoulli":
        raise ValueError(f'mixing is {mixing!r}: expected "bernoulli" or "fixed"')
    return by_gap, by_noise


def _bias_terms(problem: Problem, p: Array, steps: Array, measure: Measure) -> tuple[Array, Array, Array]:
    """The terms without noise: initial, teacher and cross."""
    modes = problem.modes
    weights, retained = modes.weights(measure), 1 - modes.learnt(steps)
    left = retained * (modes.start - p[..., None] * modes.teacher)
    initial, cross = left**2 @ weights, 2 * p * (left @ (weights * modes.teacher))
    return initial, np.broadcast_to(p**2 * (modes.teacher**2 @ weights), initial.shape), cross


def _total_gain(problem: Problem, steps: Array, measure: Measure) -> Array:
    return problem.modes.gain(steps) ** 2 @ problem.modes.weights(measure)


def _label_variance(problem: Problem, p: Array, mixing: Mixing) -> Array:
    if mixing == "bernoulli":
        return mixed_label_noise(problem, shares=p[:, 0])
    num_samples = _at_least_two(problem)
    return p * (1 - p) * problem.gap**2 * num_samples / (num_samples - 1) + (1 - p) * problem.noise_per_sample


def _at_least_two(problem: Problem) -> int:
    num_samples = len(problem.gap)
    if num_samples < 2:
        raise ValueError(f'mixing "fixed" with {num_samples} sample: expected 2 or more, or use "bernoulli"')
    return num_samples


def _over(terms: Callable[[Array, Array], ErrorTerms], shares: ArrayLike, steps: ArrayLike) -> ErrorTerms:
    """Evaluate terms, written for shares (P, 1) and steps (T,), at shares and steps of any shape."""
    p, num_steps = _checked_shares(shares), np.asarray(steps, dtype=float)
    flat = terms(p.reshape(-1, 1), num_steps.reshape(-1))
    shape = p.shape + num_steps.shape
    return ErrorTerms(**{name: value.reshape(shape) for name, value in vars(flat).items()})


def _checked_shares(shares: ArrayLike) -> Array:
    p = np.asarray(shares, dtype=float)
    outside = p[(p < 0) | (p > 1)]
    if outside.size:
        raise ValueError(f"share is {outside.flat[0]}: expected a synthetic share in [0, 1]")
    return p
