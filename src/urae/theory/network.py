"""A wide network with one hidden layer: where the theorem's linear model comes from (Assumption 2.1).

    f(u; W) = sum_k a_k tanh(w_k . u) / sqrt(width)

With many hidden units the weights hardly move, and training follows the linearisation at W_0 (Jacot et al.,
2018). `Network` trains the network itself, `Network.problem` is its linearisation: the distance between the
two falls with 1 / sqrt(width). There are far more parameters than samples, as the paper assumes, so most of
the initial error is never learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from urae.theory.problem import Array, Problem

__all__ = ["Network", "random_network"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A one-hidden-layer network and its training data. Weights are flat, (D,) with D = width x (d + 1):
    the rows of the hidden layer, then the output layer."""

    inputs: Array
    """u: (N, d)."""
    start: Array
    """W_0: (D,)."""
    truth: Array
    """W*: (D,)."""
    teacher: Array
    """W_ref: (D,)."""
    noise: float
    """Variance of the noise on real labels."""
    learning_rate: float
    """eta of Eq. 21."""

    @property
    def width(self) -> int:
        """Hidden units."""
        return len(self.start) // (self.inputs.shape[1] + 1)

    def predict(self, weights: Array) -> Array:
        """f(u; W) for weights (..., D): (..., N)."""
        hidden, output = self._layers(weights)
        return (output[..., None, :] @ np.tanh(hidden @ self.inputs.T))[..., 0, :] / np.sqrt(self.width)

    def pull(self, weights: Array, residuals: Array) -> Array:
        """Gradient (..., D) of half the squared residuals (..., N)."""
        hidden, output = self._layers(weights)
        active = np.tanh(hidden @ self.inputs.T)
        to_output = (active @ residuals[..., None])[..., 0]
        to_hidden = (output[..., None] * (1 - active**2) * residuals[..., None, :]) @ self.inputs
        flat = to_hidden.reshape(*to_hidden.shape[:-2], -1)
        return np.concatenate([flat, to_output], axis=-1) / np.sqrt(self.width)

    @cached_property
    def problem(self) -> Problem:
        """The linearisation at W_0 (Eq. 9), with the same W_0, W*, W_ref, noise and learning rate."""
        num_samples = len(self.inputs)
        starts = np.broadcast_to(self.start, (num_samples, len(self.start)))
        return Problem(
            features=self.pull(starts, np.eye(num_samples)),
            start=self.start,
            truth=self.truth,
            teacher=self.teacher,
            noise=self.noise,
            learning_rate=self.learning_rate,
        )

    def _layers(self, weights: Array) -> tuple[Array, Array]:
        hidden, output = np.split(weights, [-self.width], axis=-1)
        return hidden.reshape(*hidden.shape[:-1], self.width, self.inputs.shape[1]), output


def random_network(
    seed: int,
    *,
    width: int,
    num_samples: int = 12,
    num_inputs: int = 3,
    noise: float = 0.25,
    teacher_gap: float = 0.5,
    initial: float = 1.0,
    rate: float = 0.9,
) -> Network:
    """A network of standard normal weights, from `seed` alone; W* and W_ref lie near W_0.

    teacher_gap and initial: lengths of W_ref - W* and W_0 - W*; half of the square of each is in directions
    that the data see. rate: eta times the largest eigenvalue of M.
    """
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(num_samples, num_inputs))
    start = rng.normal(size=width * (num_inputs + 1))
    bare = Network(inputs=inputs, start=start, truth=start, teacher=start, noise=noise, learning_rate=1.0)
    features = bare.problem.features
    truth = start - initial * _direction(rng, features)
    return Network(
        inputs=inputs,
        start=start,
        truth=truth,
        teacher=truth + teacher_gap * _direction(rng, features),
        noise=noise,
        learning_rate=rate / float(np.linalg.norm(features, ord=2)) ** 2,
    )


def _direction(rng: np.random.Generator, features: Array) -> Array:
    """A unit vector, half seen by the data and half not: a random one would lie outside almost entirely."""
    seen = np.linalg.svd(features, full_matrices=False)[2].T @ rng.normal(size=len(features))
    anywhere = rng.normal(size=features.shape[1])
    unseen = anywhere - np.linalg.lstsq(features, features @ anywhere, rcond=None)[0]
    return (seen / np.linalg.norm(seen) + unseen / np.linalg.norm(unseen)) / np.sqrt(2)
