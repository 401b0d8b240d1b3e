"""The best share: the curve is the exact error, its minimum is the least, its sensitivity is its derivative."""

import math
from dataclasses import replace

import numpy as np
import pytest

from urae.theory import best_share, error_curve, exact_error, random_problem, varied_problem

GRID = np.linspace(0, 1, 2001)


@pytest.mark.parametrize("mixing", ["bernoulli", "fixed"])
@pytest.mark.parametrize("measure", ["parameters", "predictions"])
@pytest.mark.parametrize("steps", [0, 1, 7, 300])
def test_the_curve_is_the_exact_error(steps, measure, mixing):
    for seed in range(10):
        problem = varied_problem(seed)
        curve = error_curve(problem, steps=steps, measure=measure, mixing=mixing)
        exact = exact_error(problem, shares=GRID[::100], steps=steps, measure=measure, mixing=mixing)
        np.testing.assert_allclose(curve.at(GRID[::100]), exact.total, rtol=1e-8)


@pytest.mark.parametrize("steps", [0, 1, 7, 300])
def test_the_best_share_has_the_least_error_of_a_fine_grid(steps):
    inside = 0
    for seed in range(60):
        problem = random_problem(seed, noise=0.1 + seed / 100, teacher_gap=2.0)
        best = error_curve(problem, steps=steps).best()
        errors = best.curve.at(GRID)
        assert best.error <= errors.min() * (1 + 1e-12)
        inside += 0 < best.share < 1
    assert inside > 10 or steps == 0


def test_the_closed_form_at_convergence():
    spectrum = np.array([0.5, 1.0, 4.0])
    kappa = 2 + 1 + 0.25
    best = best_share(0.6, 0.2, 2.0, eigenvalues=spectrum, learning_rate=0.1)
    assert best.share == pytest.approx(kappa * (0.6 - 0.2) / (2 * (2.0 - kappa * 0.2)))
    assert 0 < best.share < 1
    assert best.error_real == pytest.approx(kappa * 0.6)
    assert best.error_synthetic == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("noise", "gap", "bias", "share"),
    [
        (0.0, 0.1, 1.0, 0.0),  # nothing to mend
        (9.0, 0.1, 1.0, 1.0),  # labels worse than the teacher
        (1.0, 0.0, 0.0, 1.0),  # a perfect teacher
        (0.3, 1.0, 0.5, 0.0),  # mixing costs more than either: the better end
        (0.7, 1.0, 0.5, 1.0),
    ],
)
def test_ends(noise, gap, bias, share):
    best = best_share(noise, gap, bias)
    assert best.share == share
    assert best.sensitivity.noise == best.sensitivity.teacher_gap == best.sensitivity.teacher_bias == 0


def test_a_model_that_fits_every_label_takes_the_better_kind_alone():
    assert best_share(0.3, 0.1, 0.1).share == 1
    assert best_share(0.1, 0.3, 0.3).share == 0


def test_before_convergence_summary_and_problem_agree_where_directions_are_even():
    """An orthogonal design of equal eigenvalues: the start and the teacher are then spread as assumed."""
    eigenvalue, eta, steps = 0.8, 0.3, 5
    problem = replace(
        random_problem(0, num_samples=4, num_parameters=4, noise=0.5),
        features=np.sqrt(eigenvalue) * np.eye(4),
        truth=np.zeros(4),
        start=np.full(4, 0.7),
        teacher=np.array([0.5, 0.5, 0.5, -0.5]),
        learning_rate=eta,
    )
    exact = error_curve(problem, steps=steps)
    summary = best_share(
        0.5,
        np.mean(problem.gap**2),
        1.0,
        eigenvalues=np.full(4, eigenvalue),
        learning_rate=eta,
        steps=steps,
        initial=4 * 0.49,
        alignment=0.5,
    ).curve
    np.testing.assert_allclose(summary.at(GRID), exact.at(GRID), rtol=1e-12)


@pytest.mark.parametrize("steps", [6, math.inf])
def test_sensitivity_is_the_logarithmic_derivative(steps):
    values = {"noise": 0.5, "teacher_gap": 0.2, "teacher_bias": 1.5}
    setting = {
        "eigenvalues": [0.5, 2.0],
        "learning_rate": 0.2,
        "steps": steps,
        "initial": 0.5,
        "alignment": -0.4,
    }
    best = best_share(**values, **setting)
    assert 0 < best.share < 1
    for name, value in values.items():
        up, down = (
            best_share(**{**values, name: value * math.exp(s)}, **setting).share for s in (1e-5, -1e-5)
        )
        assert getattr(best.sensitivity, name) == pytest.approx((up - down) / 2e-5, rel=1e-5), name


@pytest.mark.parametrize("bias", [2.0, 0.1])  # parabola upwards, downwards
def test_the_answer_turns_at_the_noise_factors(bias):
    noise = 0.4
    first, last = best_share(noise, 0.2, bias).noise_factors
    assert best_share(noise * first * 0.999, 0.2, bias).share == 0
    assert best_share(noise * last * 1.001, 0.2, bias).share == 1
    between = best_share(noise * (first + last) / 2, 0.2, bias).share
    assert 0 < between < 1 or first == last


def test_good_shares_are_those_within_the_tolerance():
    best = best_share(0.5, 0.1, 1.0, tolerance=0.05)
    low, high = best.good
    assert 0 < low < best.share < high < 1
    np.testing.assert_allclose(best.curve.at([low, high]), 1.05 * best.error, rtol=2e-3)


def test_before_training_every_share_is_as_good():
    assert error_curve(random_problem(0), steps=0).best().good == (0.0, 1.0)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"teacher_gap is -0.1"):
        best_share(0.1, -0.1, 1.0)
    with pytest.raises(ValueError, match="alignment is 2"):
        best_share(0.1, 0.1, 1.0, alignment=2)
