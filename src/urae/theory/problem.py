"""The setting of Theorem 2.4: a linearised model, a teacher, labels partly real and partly synthetic.

    f(u; W) = f(u; W_0) + Phi (W - W_0)                    (Eq. 9)
    synthetic label   f(u; W_ref)
    real label        f(u; W*) + xi,  Var(xi) = noise      (Assumption 2.2)
    one step          W <- W - eta Phi^T (f(u; W) - x)     (Eq. 21)

The paper's loss carries 1 / N, which Eq. 21 drops: to train with the loss of Assumption 2.3 literally, divide
its learning rate by the number of samples. Steps are full-batch gradient descent, not mini-batches: the proof
knows no sampling of batches. Everything here is given the inputs, that is, Phi is fixed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Measure", "Mixing", "Modes", "Problem", "learnt_part", "random_problem"]

Array = np.ndarray

Measure = Literal["parameters", "predictions"]
"""In what the error is measured: squared distance of the parameters (the theorem), or mean squared error of
the predictions on the training inputs, without label noise."""

Mixing = Literal["bernoulli", "fixed"]
"""How samples become synthetic: each on its own with probability p (Eq. 14), or exactly p N of them, chosen
at random."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One instance of the setting: N samples, D parameters."""

    features: Array
    """Phi, the gradient of f at W_0 for each sample: (N, D)."""
    start: Array
    """W_0: (D,)."""
    truth: Array
    """W*: (D,)."""
    teacher: Array
    """W_ref: (D,)."""
    noise: float | Array
    """Variance of the noise on real labels, sigma^2 in the paper: one number, or one per sample (N,)."""
    learning_rate: float
    """eta of Eq. 21, above 0. Training converges below 2 / (largest eigenvalue of Phi^T Phi)."""

    def __post_init__(self) -> None:
        num_samples, num_parameters = self.features.shape
        for name in ("start", "truth", "teacher"):
            shape = getattr(self, name).shape
            if shape != (num_parameters,):
                raise ValueError(
                    f"{name} has the shape {shape}: expected ({num_parameters},), one per feature"
                )
        if np.shape(self.noise) not in ((), (num_samples,)) or np.min(self.noise) < 0:
            raise ValueError(
                f"noise is {self.noise}: expected a variance, 0 or more, or {num_samples} of them"
            )
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: expected a number above 0")

    def predict(self, weights: Array) -> Array:
        """f(u; W) - f(u; W_0) for weights (..., D): (..., N)."""
        return (weights - self.start) @ self.features.T

    def pull(self, weights: Array, residuals: Array) -> Array:
        """Gradient of half the squared residuals (..., N) with respect to the weights (..., D)."""
        return residuals @ self.features

    def at_unit_rate(self) -> Problem:
        """The same training, step for step, with outputs in units in which eta is 1."""
        scale = math.sqrt(self.learning_rate)
        noise = self.noise * self.learning_rate
        return replace(self, features=self.features * scale, noise=noise, learning_rate=1.0)

    @cached_property
    def gap(self) -> Array:
        """delta = f(u; W_ref) - f(u; W*), the teacher's gap on each sample: (N,)."""
        return self.features @ (self.teacher - self.truth)

    @cached_property
    def noise_per_sample(self) -> Array:
        """Variance of each real label: (N,)."""
        return np.broadcast_to(np.asarray(self.noise, dtype=float), self.gap.shape)

    @cached_property
    def modes(self) -> Modes:
        """The problem in the eigenbasis of M = Phi^T Phi."""
        left, singular, right = np.linalg.svd(self.features, full_matrices=False)
        seen = singular > singular.max(initial=0) * max(self.features.shape) * np.finfo(float).eps
        left, singular, right = left[:, seen], singular[seen], right[seen]
        offsets = np.stack([self.start - self.truth, self.teacher - self.truth])
        inside = offsets @ right.T
        outside = np.asarray(np.linalg.qr((offsets - inside @ right).T, mode="r")).T
        num_samples, num_outside = len(left), outside.shape[1]
        start, teacher = np.concatenate([inside, outside], axis=1)
        return Modes(
            eigenvalues=np.concatenate([singular**2, np.zeros(num_outside)]),
            start=start,
            teacher=teacher,
            samples=np.concatenate([left, np.zeros((num_samples, num_outside))], axis=1),
            learning_rate=self.learning_rate,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Modes:
    """A problem in the eigenbasis of M: K directions, in each of which training is a scalar recursion.

    The directions are those that the data see, and at most two more of eigenvalue 0 that hold what W_0 - W*
    and W_ref - W* have outside: however many parameters there are, no more than that ever matters.
    """

    eigenvalues: Array
    """lambda, 0 or more: (K,)."""
    start: Array
    """W_0 - W*: (K,)."""
    teacher: Array
    """W_ref - W*: (K,)."""
    samples: Array
    """The orthonormal direction of each mode in the space of samples, 0 where lambda is 0: (N, K)."""
    learning_rate: float

    def learnt(self, steps: Array) -> Array:
        """1 - (1 - eta lambda)^T for steps (T,): (T, K)."""
        return learnt_part(self.eigenvalues, learning_rate=self.learning_rate, steps=steps)

    def weights(self, measure: Measure) -> Array:
        """How much a squared error along each mode counts: (K,)."""
        if measure == "parameters":
            return np.ones_like(self.eigenvalues)
        if measure == "predictions":
            return self.eigenvalues / len(self.samples)
        raise ValueError(f'measure is {measure!r}: expected "parameters" or "predictions"')

    def gain(self, steps: Array) -> Array:
        """How far one unit of label noise along each mode moves the parameters: (T, K).

        The mode's part of eta A_T Phi^T, which is (1 - (1 - eta lambda)^T) / sqrt(lambda): on the range of M
        the series A_T is (eta M)^+ (I - (I - eta M)^T), and its 1 / eta cancels the eta before it.
        """
        roots = np.sqrt(self.eigenvalues)
        return np.divide(self.learnt(steps), roots, out=np.zeros((len(steps), len(roots))), where=roots > 0)


def learnt_part(eigenvalues: ArrayLike, *, learning_rate: float, steps: ArrayLike) -> Array:
    """1 - (1 - eta lambda)^T: what part of each direction is learnt after T steps, (T, K).

    eigenvalues: lambda (K,), 0 or more. steps: (T,), whole numbers from 0 on, or inf for convergence, which
    needs eta lambda < 2. Exact also where eta lambda T is tiny.
    """
    rates = learning_rate * np.asarray(eigenvalues, dtype=float)
    return np.stack([_learnt(rates, float(num)) for num in np.asarray(steps, dtype=float)])


def _learnt(rates: Array, num_steps: float) -> Array:
    if num_steps < 0 or (math.isfinite(num_steps) and num_steps != int(num_steps)):
        raise ValueError(f"steps are {num_steps}: expected a whole number from 0 on, or math.inf")
    if math.isfinite(num_steps):
        slow = rates < 0.5
        by_logarithm = -np.expm1(num_steps * np.log1p(-np.where(slow, rates, 0.0)))
        return np.where(slow, by_logarithm, 1 - (1 - rates) ** num_steps)
    if rates.max() >= 2:
        raise ValueError(
            f"learning rate x largest eigenvalue is {rates.max():.4g}: expected less than 2, above which "
            "training does not converge; lower the learning rate or give a finite number of steps"
        )
    return (rates > 0).astype(float)


def random_problem(
    seed: int,
    *,
    num_samples: int = 24,
    num_parameters: int = 8,
    noise: float = 1.0,
    teacher_gap: float = 1.0,
    initial: float = 1.0,
    rate: float = 0.5,
    sizes: Sequence[float] = (1.0,),
) -> Problem:
    """A problem of Gaussian features, from `seed` alone.

    teacher_gap and initial: lengths of W_ref - W* and W_0 - W*, in random directions. rate: eta times the
    largest eigenvalue of M. sizes: the features' scale, repeated over the samples: (1.0, 3.0) makes labels of
    unlike leverage.
    """
    rng = np.random.default_rng(seed)
    scales = np.resize(sizes, num_samples)[:, None] / math.sqrt(num_samples)
    features = rng.normal(size=(num_samples, num_parameters)) * scales
    directions = rng.normal(size=(2, num_parameters))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    truth = rng.normal(size=num_parameters)
    return Problem(
        features=features,
        start=truth + initial * directions[0],
        truth=truth,
        teacher=truth + teacher_gap * directions[1],
        noise=noise,
        learning_rate=rate / float(np.linalg.norm(features, ord=2)) ** 2,
    )
