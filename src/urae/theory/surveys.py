"""Many random problems: does the exact error agree with simulation, which bound holds, how wide is wide.

The numbers in docs/concepts/theory.md come from here, by `urae theory simulate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from urae.theory.error import exact_error, printed_bound, valid_bound
from urae.theory.network import random_network
from urae.theory.problem import Array, Problem, random_problem
from urae.theory.simulation import simulate

__all__ = ["Case", "WidthCase", "survey", "survey_widths", "varied_problem"]

SHARES = np.array([0.0, 0.3, 0.7, 1.0])
STEPS = np.array([0, 1, 7, 60])
ROUNDING = 1e-9
"""Relative: what differs by no more than this is equal."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One random problem, at 4 shares and 4 numbers of steps."""

    seed: int
    deviations: Array
    """(simulated mean - exact) / standard error wherever anything is random, flat."""
    printed_ratio: float
    """The largest exact error over the printed bound: where it is above 1 the bound fails."""
    unit_rate_ratio: float
    """The same in units in which eta is 1, where the factor eta^2 does no harm."""
    valid_ratio: float
    """The largest exact error over the valid bound."""

    @staticmethod
    def fails(ratio: float) -> bool:
        """Whether a ratio is above 1 by more than rounding."""
        return ratio > 1 + ROUNDING


@dataclass(frozen=True, kw_only=True)
class WidthCase:
    """The network against its linearisation at one width."""

    width: int
    """Hidden units."""
    difference: float
    """Relative difference between the mean errors of network and linear model, trained on labels from the
    same random numbers: the average over the networks."""
    deviations: Array
    """(a network's mean error - the exact one of its linearisation) / standard error, by network."""


def survey(*, num_problems: int = 100, repeats: int = 1000, seed: int = 0) -> Iterator[Case]:
    """Simulate random problems one after the other, `varied_problem(seed)` onwards."""
    for number in range(seed, seed + num_problems):
        yield _case(number, repeats)


def survey_widths(
    widths: Sequence[int] = (16, 64, 256, 1024),
    *,
    num_networks: int = 8,
    share: float = 0.3,
    steps: int = 50,
    repeats: int = 20,
) -> Iterator[WidthCase]:
    """Train random networks of each width, and their linearisations, on labels of the same random numbers."""
    for width in widths:
        cases = np.array([_beside_linear(seed, width, share, steps, repeats) for seed in range(num_networks)])
        yield WidthCase(width=width, difference=float(cases[:, 0].mean()), deviations=cases[:, 1])


def _beside_linear(seed: int, width: int, share: float, steps: int, repeats: int) -> tuple[float, float]:
    network = random_network(seed, width=width)
    trained, linear = (
        simulate(model, shares=share, steps=steps, repeats=repeats, seed=seed)
        for model in (network, network.problem)
    )
    exact = exact_error(network.problem, shares=share, steps=steps).total
    deviation = (trained.mean - exact) / trained.standard_error
    return float(abs(trained.mean / linear.mean - 1)), float(deviation)


def varied_problem(seed: int) -> Problem:
    """A random problem whose sizes, noise, distances and learning rate are random as well: more parameters
    than samples in some, samples of unlike leverage in all."""
    rng = np.random.default_rng([seed, 1])
    return random_problem(
        seed,
        num_samples=int(rng.integers(2, 20)),
        num_parameters=int(rng.integers(1, 16)),
        noise=rng.uniform(0, 2),
        teacher_gap=rng.uniform(0, 2),
        initial=rng.uniform(0, 2),
        rate=rng.uniform(0.05, 1.9),
        sizes=(1.0, 3.0),
    )


def _case(seed: int, repeats: int) -> Case:
    problem = varied_problem(seed)
    exact = exact_error(problem, shares=SHARES, steps=STEPS).total
    simulation = simulate(problem, shares=SHARES, steps=STEPS, repeats=repeats, seed=seed)
    chance = simulation.standard_error > ROUNDING * exact
    ratios = [
        float(np.max(exact / bound(which, shares=SHARES, steps=STEPS).total))
        for bound, which in (
            (printed_bound, problem),
            (printed_bound, problem.at_unit_rate()),
            (valid_bound, problem),
        )
    ]
    return Case(
        seed=seed,
        deviations=(simulation.mean - exact)[chance] / simulation.standard_error[chance],
        printed_ratio=ratios[0],
        unit_rate_ratio=ratios[1],
        valid_ratio=ratios[2],
    )
