"""The theorem's setting, run: mix labels, take the steps, measure the distance from W*, many times over.

Nothing here uses the eigenbasis or any formula of `error`, so that the two can be held against each other.
The same loop trains the linear model and the network (`network`): both know how to predict and how to pull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from urae.theory.network import Network
from urae.theory.problem import Array, Mixing, Problem

__all__ = ["Model", "Simulation", "simulate"]

Model = Problem | Network
"""What can be trained here: the one is linear, the other is not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """Mean squared distances ||W_T - W*||^2, each of the shape shares.shape + steps.shape."""

    mean: Array
    """The average over the repeats."""
    standard_error: Array
    """Its standard error; 0 where nothing is random, as at p = 1."""


def simulate(
    model: Model,
    *,
    shares: ArrayLike,
    steps: ArrayLike,
    repeats: int = 1000,
    seed: int = 0,
    mixing: Mixing = "bernoulli",
) -> Simulation:
    """Train `repeats` times for each share by full-batch gradient descent, on labels drawn afresh each time.

    shares: p in [0, 1], any shape. steps: whole numbers from 0 on, any shape. With mixing="fixed", p N must
    be a whole number. Time and memory grow with shares x repeats x parameters.
    """
    if repeats < 2:
        raise ValueError(f"repeats is {repeats}: expected 2 or more, since one says nothing about the spread")
    p, num_steps = np.asarray(shares, dtype=float), _whole(steps)
    labels = _mixed_labels(model, p.reshape(-1), repeats=repeats, seed=seed, mixing=mixing)
    errors = _train(model, labels, num_steps.reshape(-1))
    shape = p.shape + num_steps.shape
    mean, spread = errors.mean(axis=1), errors.std(axis=1, ddof=1)
    return Simulation(mean=mean.reshape(shape), standard_error=spread.reshape(shape) / np.sqrt(repeats))


def _mixed_labels(model: Model, shares: Array, *, repeats: int, seed: int, mixing: Mixing) -> Array:
    """Labels (P, R, N): the teacher's output where a sample is synthetic, else a noisy true one."""
    rng = np.random.default_rng(seed)
    synthetic, clean = model.predict(model.teacher), model.predict(model.truth)
    shape = (len(shares), repeats, len(clean))
    real = clean + np.sqrt(model.noise) * rng.standard_normal(shape)
    return np.where(_choice(rng, shares, shape, mixing), synthetic, real)


def _choice(rng: np.random.Generator, shares: Array, shape: tuple[int, ...], mixing: Mixing) -> Array:
    ticket = rng.random(shape)
    if mixing == "bernoulli":
        return ticket < shares[:, None, None]
    counts = shares * shape[-1]
    if not np.allclose(counts, np.round(counts)):
        raise ValueError(
            f"shares are {shares}: with mixing fixed, expected whole numbers of {shape[-1]} samples; "
            'choose multiples of 1 / N or mixing "bernoulli"'
        )
    return ticket.argsort(axis=-1).argsort(axis=-1) < np.round(counts)[:, None, None]


def _train(model: Model, labels: Array, steps: Array) -> Array:
    """Squared distances from W* at each of the steps, (P, R, T)."""
    weights = np.broadcast_to(model.start, (*labels.shape[:2], len(model.start)))
    errors = np.empty((*labels.shape[:2], len(steps)))
    for step in range(int(steps.max()) + 1):
        due = steps == step
        if due.any():
            errors[..., due] = ((weights - model.truth) ** 2).sum(axis=-1, keepdims=True)
        if step < steps.max():
            residuals = model.predict(weights) - labels
            weights = weights - model.learning_rate * model.pull(weights, residuals)
    return errors


def _whole(steps: ArrayLike) -> Array:
    num_steps = np.asarray(steps, dtype=float)
    if not np.isfinite(num_steps).all() or (num_steps < 0).any() or (num_steps % 1).any():
        raise ValueError(
            f"steps are {num_steps}: expected whole numbers from 0 on; convergence cannot be simulated"
        )
    return num_steps.astype(int)
