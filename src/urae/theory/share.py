"""Which share of synthetic data is best: the exact error is a parabola in p, so the answer is closed form.

    E(p) = start + 2 p pull + p^2 bias  +  p (1 - p) gap  +  (1 - p) noise

Its five coefficients depend on the steps T, not on p. `best_share` gets them from three summary numbers and
the spectrum, `error_curve` from a whole `Problem`, exactly. The parabola opens upwards where the teacher's
bias weighs more than its disagreement with the real labels (bias > gap): then a mixture can be best. Where it
opens downwards, one kind of data alone is best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from urae.theory.error import noise_terms
from urae.theory.problem import Array, Measure, Mixing, Problem, learnt_part

__all__ = ["BestShare", "ErrorCurve", "Sensitivity", "best_share", "error_curve"]


@dataclass(frozen=True, kw_only=True)
class ErrorCurve:
    """The expected squared error as a function of the share p of synthetic data, at one number of steps."""

    start: float
    """What is left of the starting point's error."""
    noise: float
    """What the noise of real labels puts in, at p = 0."""
    gap: float
    """What mixing puts in, over p (1 - p): the two kinds of labels disagree."""
    bias: float
    """What the teacher's own error puts in, at p = 1."""
    pull: float
    """Half the cross term of start and teacher; negative where they lie on opposite sides of the truth."""

    def at(self, shares: ArrayLike) -> Array:
        """The error at shares p in [0, 1], any shape."""
        p = np.asarray(shares, dtype=float)
        return self.start + 2 * p * self.pull + p**2 * self.bias + (1 - p) * (p * self.gap + self.noise)

    def minimum(self) -> float:
        """The share in [0, 1] of the least error, p = 0 where both ends are equally good."""
        if self._curvature > 0:
            return min(max(-self._slope / (2 * self._curvature), 0.0), 1.0)
        return 1.0 if self._slope + self._curvature < 0 else 0.0

    def best(self, *, tolerance: float = 0.1) -> BestShare:
        """The minimum over p in [0, 1]. tolerance: how much above the least error still counts as good."""
        share = self.minimum()
        error = float(self.at(share))
        return BestShare(
            share=share,
            error=error,
            error_real=float(self.at(0.0)),
            error_synthetic=float(self.at(1.0)),
            good=self._within((1 + tolerance) * error, share),
            sensitivity=self._sensitivity(share),
            noise_factors=self._noise_factors(),
            curve=self,
        )

    @property
    def _curvature(self) -> float:
        return self.bias - self.gap

    @property
    def _slope(self) -> float:
        return 2 * self.pull + self.gap - self.noise

    def _within(self, limit: float, share: float) -> tuple[float, float]:
        """The stretch around `share` on which the error stays below the limit, to 0.001."""
        grid = np.linspace(0, 1, 1001)
        beyond = grid[self.at(grid) > limit]
        below, above = beyond[beyond < share], beyond[beyond > share]
        return float(below.max(initial=0.0)), float(above.min(initial=1.0))

    def _sensitivity(self, share: float) -> Sensitivity:
        if not 0 < share < 1:
            return Sensitivity(noise=0.0, teacher_gap=0.0, teacher_bias=0.0)
        half = 0.5 / self._curvature
        return Sensitivity(
            noise=self.noise * half,
            teacher_gap=self.gap * (2 * share - 1) * half,
            # The pull holds the teacher once, not squared: doubling the bias multiplies it by sqrt(2).
            teacher_bias=-(2 * share * self.bias + self.pull) * half,
        )

    def _noise_factors(self) -> tuple[float, float]:
        """Where the minimum leaves p = 0 and where it reaches p = 1, as multiples of the noise term."""
        least = self.gap + 2 * self.pull
        most = 2 * self.bias - self.gap + 2 * self.pull
        if self._curvature <= 0:
            least = most = self.bias + 2 * self.pull
        return _multiple(least, self.noise), _multiple(most, self.noise)


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How far the best share moves per unit of log change of an input: with noise = 0.5, 10% more label noise
    moves it by about 0.05. 0 where the best share is an end, p = 0 or p = 1: small changes do not move it."""

    noise: float
    """To the variance of the real labels' noise."""
    teacher_gap: float
    """To the mean squared gap, the bias held."""
    teacher_bias: float
    """To the squared bias, the gap held."""


@dataclass(frozen=True, kw_only=True)
class BestShare:
    """The share of synthetic data of the least expected error, and how firm that answer is."""

    share: float
    """p in [0, 1]."""
    error: float
    """The expected squared error there."""
    error_real: float
    """The same at p = 0, real data only."""
    error_synthetic: float
    """The same at p = 1, synthetic data only."""
    good: tuple[float, float]
    """The shares around the best one whose error is at most the tolerance above the least, to 0.001."""
    sensitivity: Sensitivity
    noise_factors: tuple[float, float]
    """Multiples of the label noise at which the answer turns: below the first real data alone is best, above
    the second synthetic data alone. inf where there is no label noise to multiply."""
    curve: ErrorCurve
    """The error at every share."""


def best_share(
    noise: float,
    teacher_gap: float,
    teacher_bias: float,
    *,
    eigenvalues: ArrayLike = (1.0,),
    learning_rate: float = 1.0,
    steps: float = math.inf,
    initial: float = 0.0,
    alignment: float = 0.0,
    tolerance: float = 0.1,
) -> BestShare:
    """The share p of synthetic data that minimises E ||W_T - W*||^2, from summary numbers.

    noise: variance s^2 of the real labels, beyond what the teacher's labels have. teacher_gap: E[delta^2],
    mean square of f(u; W_ref) - f(u; W*). teacher_bias: ||W_ref - W*||^2. eigenvalues: of M = Phi^T Phi, one
    for each parameter, so 0 for directions that the data do not see. initial: ||W_0 - W*||^2. alignment:
    cosine between W_0 - W* and W_ref - W*, in [-1, 1]. The start and the teacher are taken to be
    spread evenly over the eigenvectors, and delta^2 over the samples, as the theorem does; with a `Problem` at
    hand, `error_curve(problem).best()` assumes neither.

    At convergence (steps = inf) of full rank, with kappa = sum 1 / lambda:

        p = kappa (noise - teacher_gap) / (2 (teacher_bias - kappa teacher_gap)), cut to [0, 1],

    and where the denominator is not positive, p = 1 if kappa noise > teacher_bias, else 0. Before convergence
    kappa becomes sum (1 - (1 - eta lambda)^T)^2 / lambda, and start and bias fade in and out likewise.

    The defaults (one eigenvalue, 1) describe a model that fits every label exactly, its error measured in its
    predictions: then teacher_bias equals teacher_gap, and all depends on which of noise and gap is larger.
    """
    _check(noise=noise, teacher_gap=teacher_gap, teacher_bias=teacher_bias, initial=initial)
    if not -1 <= alignment <= 1:
        raise ValueError(f"alignment is {alignment}: expected a cosine in [-1, 1]")
    spectrum = np.asarray(eigenvalues, dtype=float)
    learnt = learnt_part(spectrum, learning_rate=learning_rate, steps=[steps])[0]
    seen = spectrum > 0
    gain = float(np.sum(learnt[seen] ** 2 / spectrum[seen]))
    curve = ErrorCurve(
        start=initial * float(np.mean((1 - learnt) ** 2)),
        noise=gain * noise,
        gap=gain * teacher_gap,
        bias=teacher_bias * float(np.mean(learnt**2)),
        pull=alignment * math.sqrt(initial * teacher_bias) * float(np.mean(learnt * (1 - learnt))),
    )
    return curve.best(tolerance=tolerance)


def error_curve(
    problem: Problem,
    *,
    steps: float = math.inf,
    measure: Measure = "parameters",
    mixing: Mixing = "bernoulli",
) -> ErrorCurve:
    """The exact expected error of a problem as a function of the share, after `steps` steps."""
    modes, at = problem.modes, np.array([steps])
    learnt, weights = modes.learnt(at)[0], modes.weights(measure)
    kept = (1 - learnt) * modes.start
    taken = learnt * modes.teacher
    by_gap, by_noise = noise_terms(problem, steps=at, measure=measure, mixing=mixing)
    return ErrorCurve(
        start=float(weights @ kept**2),
        noise=float(by_noise[0]),
        gap=float(by_gap[0]),
        bias=float(weights @ taken**2),
        pull=float(weights @ (kept * taken)),
    )


def _multiple(value: float, of: float) -> float:
    if value <= 0:
        return 0.0
    return value / of if of > 0 else math.inf


def _check(**mean_squares: float) -> None:
    for name, value in mean_squares.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} is {value}: expected a mean square, 0 or more")
