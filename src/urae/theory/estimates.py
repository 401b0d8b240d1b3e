"""The quantities of the theorem, from data: label noise, the teacher's gap, how much a model takes over.

All functions take arrays whose first axis counts samples; whatever the other axes hold (a latent, a velocity)
is averaged over, so every number is per element. At the same noise and sigma two velocities differ as their
clean latents do, up to sign: estimates from latents and from velocity targets are the same.

An image of a caption is never the only one possible. That diversity is no label noise: real and synthetic
data share it. It is subtracted where captions repeat; where they do not, noise and gap against a truth are
both too large by the same amount, which does not change which of the two is larger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from urae.theory.problem import Array

__all__ = ["Estimate", "Estimates", "estimate", "mean_squared_gap", "noise_gain", "repeat_variance"]

Groups = Mapping[str, ArrayLike]
"""Samples by caption: (k, ...) each, k of them for that caption."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number from data, with its standard error."""

    value: float
    """Mean square per element. Can come out negative where a larger variance was subtracted."""
    standard_error: float
    """From the spread between samples or captions; 0 for a number that was given."""
    basis: str
    """What it was computed from, as a phrase."""

    def minus(self, other: Estimate | None) -> Estimate:
        """The difference of two independent estimates; None stands for nothing to subtract."""
        if other is None:
            return self
        error = float(np.hypot(self.standard_error, other.standard_error))
        basis = f"{self.basis}, less {other.value:.4g} ({other.basis})"
        return Estimate(value=self.value - other.value, standard_error=error, basis=basis)


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """The three quantities that decide the best share."""

    noise: Estimate
    """Variance of real labels beyond the teacher's, s^2."""
    teacher_gap: Estimate
    """Mean square of the teacher's error, E[delta^2]."""
    teacher_bias: Estimate
    """The teacher's squared distance from the truth in the measure of interest: for errors of the predictions
    the same as the gap."""


def estimate(real: Groups, *, synthetic: Groups, truth: Groups) -> Estimates:
    """Label noise and the teacher's gap, in predictions, from images of the same captions.

    real, synthetic: training data. truth: held-out truth, which at least two synthetic captions need. Where
    real captions have a truth too (a clean/dirty pair), the noise is their mean squared distance; otherwise
    it is the variance between real images of one caption, which misses errors that all of them share. The
    variance between synthetic images, and between truths, of one caption is subtracted where captions repeat.
    Standard errors treat the parts as independent.
    """
    of_synthetic, of_truth = repeat_variance(synthetic, "synthetic"), repeat_variance(truth, "true")
    gap = _paired("synthetic", synthetic, truth)
    if gap is None:
        raise ValueError(
            f"none of {len(synthetic)} synthetic captions is among the {len(truth)} of the held-out truth: "
            "give true images for some of them"
        )
    gap = gap.minus(of_synthetic).minus(of_truth)
    return Estimates(noise=_noise(real, truth, of_synthetic, of_truth), teacher_gap=gap, teacher_bias=gap)


def _noise(real: Groups, truth: Groups, of_synthetic: Estimate | None, of_truth: Estimate | None) -> Estimate:
    pairs, repeats = _paired("real", real, truth), repeat_variance(real, "real")
    if pairs is not None:
        return pairs.minus(of_synthetic).minus(of_truth)
    if repeats is not None:
        return repeats.minus(of_synthetic)
    raise ValueError(
        f"the noise of {len(real)} real captions cannot be told: none has a held-out truth and fewer than two "
        "repeat; give the truth of some, or two real images of some"
    )


def repeat_variance(groups: Groups, name: str = "") -> Estimate | None:
    """Variance between samples of one caption, pooled over captions; None if fewer than two repeat.

    groups: (k, ...) by caption. Unbiased: each caption loses one degree of freedom to its own mean.
    """
    repeated = [
        np.asarray(samples, dtype=float) for samples in groups.values() if len(np.asarray(samples)) > 1
    ]
    if len(repeated) < 2:
        return None
    freedom = np.array([len(samples) - 1 for samples in repeated], dtype=float)
    variances = np.array([samples.var(axis=0, ddof=1).mean() for samples in repeated])
    return _weighted(variances, freedom, basis=f"{name} images of {len(repeated)} repeated captions".strip())


def mean_squared_gap(predictions: ArrayLike, truth: ArrayLike, *, basis: str = "pairs") -> Estimate:
    """Mean squared difference of paired arrays (n, ...): teacher and truth, or dirty and clean labels."""
    left, right = np.asarray(predictions, dtype=float), np.asarray(truth, dtype=float)
    if left.shape != right.shape or not left.size:
        raise ValueError(
            f"shapes are {left.shape} and {right.shape}: expected two equal ones with samples in them"
        )
    squares = ((left - right) ** 2).reshape(len(left), -1).mean(axis=1)
    return _weighted(squares, np.ones(len(squares)), basis=f"{len(left)} {basis}")


def noise_gain(first: ArrayLike, second: ArrayLike, *, noise: float) -> Estimate:
    """How much of the label noise a trained model takes over, kappa in predictions: 1 if it fits every label.

    first, second: predictions (n, ...) on the same inputs of two models, trained alike on disjoint halves of
    the real data. Half their mean squared difference is the noise term of the error; over the label noise s^2
    it is kappa. A model trained on all the data has about half as much.
    """
    if not noise > 0:
        raise ValueError(f"noise is {noise}: expected a variance above 0, since the gain is a multiple of it")
    gap = mean_squared_gap(first, second, basis="predictions of two models")
    return replace(gap, value=gap.value / (2 * noise), standard_error=gap.standard_error / (2 * noise))


def _paired(name: str, groups: Groups, truth: Groups) -> Estimate | None:
    """Mean squared distance of samples and truths of the same caption, weighted by the number of samples."""
    shared = [caption for caption in groups if caption in truth]
    if not shared:
        return None
    squares = np.array([_distance(groups[caption], truth[caption]) for caption in shared])
    counts = np.array([len(np.asarray(groups[caption])) for caption in shared], dtype=float)
    basis = f"{counts.sum():.0f} {name} images against the truth of {len(shared)} captions"
    return _weighted(squares, counts, basis=basis)


def _distance(samples: ArrayLike, truths: ArrayLike) -> float:
    left, right = np.asarray(samples, dtype=float), np.asarray(truths, dtype=float)
    return float(np.mean((left[:, None] - right) ** 2))


def _weighted(values: Array, weights: Array, *, basis: str) -> Estimate:
    """The weighted mean, with the standard error of a ratio."""
    num = len(values)
    if num < 2:
        raise ValueError(f"{basis}: expected 2 or more, since one says nothing about the spread")
    mean = float(np.average(values, weights=weights))
    spread = np.sqrt(np.sum((weights * (values - mean)) ** 2) * num / (num - 1)) / weights.sum()
    return Estimate(value=mean, standard_error=float(spread), basis=basis)
