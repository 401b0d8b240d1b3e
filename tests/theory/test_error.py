"""The exact error against dense matrices and simulation; the bounds against the exact error."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from urae.theory import (
    Problem,
    exact_error,
    mixed_label_noise,
    printed_bound,
    random_problem,
    simulate,
    valid_bound,
    varied_problem,
)

SHARES = np.array([0.0, 0.25, 0.6, 1.0])
STEPS = np.array([0, 1, 2, 15, 80])


def by_hand(features, start, teacher, *, noise=0.0, learning_rate=1.0):
    """A problem with W* = 0."""
    features = np.array(features, dtype=float)
    truth = np.zeros(features.shape[1])
    return Problem(
        features=features,
        start=truth + start,
        truth=truth,
        teacher=truth + teacher,
        noise=noise,
        learning_rate=learning_rate,
    )


def dense_error(problem, share, steps):
    """E ||W_T - W*||^2 by enumerating every choice of synthetic samples: no formula of the theorem."""
    phi, eta = problem.features, problem.learning_rate
    keep = np.eye(len(problem.start)) - eta * phi.T @ phi
    total = 0.0
    for choice in product([0, 1], repeat=len(phi)):
        synthetic = np.array(choice, dtype=float)
        chance = np.prod(np.where(synthetic == 1, share, 1 - share))
        labels = phi @ np.where(synthetic[:, None] == 1, problem.teacher, problem.truth).T
        targets = np.diag(labels) - phi @ problem.start
        offset, response = np.zeros(len(problem.start)), np.zeros_like(phi.T)
        for _ in range(steps):
            offset = keep @ offset + eta * phi.T @ targets
            response = keep @ response + eta * phi.T
        squared_bias = np.sum((problem.start + offset - problem.truth) ** 2)
        variance = np.sum(response**2 @ ((1 - synthetic) * problem.noise_per_sample))
        total += chance * (squared_bias + variance)
    return total


@pytest.mark.parametrize(("num_samples", "num_parameters"), [(5, 2), (4, 4), (3, 6), (1, 1), (5, 1)])
def test_exact_is_the_average_over_every_choice_of_labels(num_samples, num_parameters):
    problem = random_problem(
        7, num_samples=num_samples, num_parameters=num_parameters, noise=0.7, sizes=(1, 3), rate=1.2
    )
    exact = exact_error(problem, shares=SHARES, steps=STEPS).total
    dense = [[dense_error(problem, share, steps) for steps in STEPS] for share in SHARES]
    np.testing.assert_allclose(exact, dense, rtol=1e-9)


def test_exact_and_simulation_agree_in_100_random_problems():
    deviations = []
    for seed in range(100):
        problem = varied_problem(seed)
        exact = exact_error(problem, shares=[0.0, 0.3, 0.7, 1.0], steps=[0, 1, 7, 60]).total
        simulation = simulate(
            problem, shares=[0.0, 0.3, 0.7, 1.0], steps=[0, 1, 7, 60], repeats=500, seed=seed
        )
        chance = simulation.standard_error > 1e-9 * exact
        np.testing.assert_allclose(simulation.mean[~chance], exact[~chance], rtol=1e-9)
        deviations.append((simulation.mean - exact)[chance] / simulation.standard_error[chance])
    pooled = np.concatenate(deviations)
    assert len(pooled) > 800
    assert np.abs(pooled).max() < 4
    assert 0.9 < pooled.std() < 1.1  # the standard errors mean what they say


def test_exact_and_simulation_agree_for_a_fixed_number_of_synthetic_samples():
    problem = random_problem(5, num_samples=8, num_parameters=5, sizes=(1, 3), noise=0.3)
    arguments = {"shares": [0.25, 0.5], "steps": [1, 20], "mixing": "fixed"}
    simulation = simulate(problem, repeats=20000, **arguments)
    deviations = (simulation.mean - exact_error(problem, **arguments).total) / simulation.standard_error
    assert np.abs(deviations).max() < 4
    independent = exact_error(problem, shares=[0.25, 0.5], steps=[1, 20]).total
    assert np.abs((simulation.mean - independent) / simulation.standard_error).max() > 4


def test_noise_of_each_real_label_counts_by_its_leverage():
    problem = by_hand([[1.0], [3.0]], start=0, teacher=0, noise=np.array([0.0, 1.0]))
    noisy_small = by_hand([[1.0], [3.0]], start=0, teacher=0, noise=np.array([1.0, 0.0]))
    # At convergence W = sum phi x / sum phi^2: weights 0.1 and 0.3.
    assert exact_error(
        replace(problem, learning_rate=0.1), shares=0.0, steps=math.inf
    ).noise == pytest.approx(0.09)
    assert exact_error(
        replace(noisy_small, learning_rate=0.1), shares=0.0, steps=math.inf
    ).noise == pytest.approx(0.01)


def test_mixed_label_noise_is_equation_18():
    problem = by_hand([[1.0], [2.0]], start=0, teacher=3.0, noise=0.5)
    np.testing.assert_allclose(
        mixed_label_noise(problem, shares=[0.0, 0.25, 1.0]),
        [[0.5, 0.5], [0.1875 * 9 + 0.375, 0.1875 * 36 + 0.375], [0.0, 0.0]],
    )


# --- what is wrong with the printed bound: one sample, one parameter, numbers by hand ---------------------


def test_counterexample_to_the_factor_eta_squared():
    """phi = 1, eta = 1/2, one step from the truth on one noisy label x = xi: W_1 = xi / 2, so E W_1^2 = 1/4.
    The theorem says 1/16."""
    problem = by_hand([[1.0]], start=0, teacher=0, noise=1.0, learning_rate=0.5)
    assert exact_error(problem, shares=0.0, steps=1).total == pytest.approx(1 / 4)
    assert printed_bound(problem, shares=0.0, steps=1).total == pytest.approx(1 / 16)
    simulation = simulate(problem, shares=0.0, steps=1, repeats=20000)
    assert abs(simulation.mean - 1 / 4) < 4 * simulation.standard_error < 1 / 16


def test_counterexample_to_the_triangle_inequality_of_squares():
    """phi = 1, eta = 1/2, W* = 0, W_ref = 1, W_0 = 3, synthetic data alone: W_1 = 2 without any chance, so
    the error is 4. The theorem says 2."""
    problem = by_hand([[1.0]], start=3.0, teacher=1.0, learning_rate=0.5)
    assert simulate(problem, shares=1.0, steps=1, repeats=2).mean == pytest.approx(4)
    assert exact_error(problem, shares=1.0, steps=1).total == pytest.approx(4)
    assert printed_bound(problem, shares=1.0, steps=1).total == pytest.approx(2)


def test_counterexample_to_the_mean_of_the_squared_gap():
    """phi = (1, 0), eta = 1, W_0 = W' = 1/2, W_ref = 1, p = 1/2: W_1 is 0 or 1, so the error is 1/2. Neither
    eta nor the cross term matters. The theorem says 3/8, since it averages delta^2 = (1, 0)."""
    problem = by_hand([[1.0], [0.0]], start=0.5, teacher=1.0)
    assert exact_error(problem, shares=0.5, steps=1).total == pytest.approx(1 / 2)
    assert printed_bound(problem, shares=0.5, steps=1).total == pytest.approx(3 / 8)


def test_the_cross_term_stays_at_convergence_where_parameters_outnumber_samples():
    """D = 2, N = 1: of W_ref - W* = (0, 1) and W_0 - W* = (0, 3) the data see nothing, so nothing is ever
    learnt and the error stays 9; the theorem says (3 - 1)^2 + 1 = 5, without noise, after any number of steps."""
    problem = by_hand([[1.0, 0.0]], start=np.array([0.0, 3.0]), teacher=np.array([0.0, 1.0]))
    assert exact_error(problem, shares=1.0, steps=math.inf).total == pytest.approx(9)
    assert printed_bound(problem, shares=1.0, steps=math.inf).total == pytest.approx(5)


def test_the_printed_bound_depends_on_units():
    """Outputs in other units are the same training, with the same exact error; the printed bound changes."""
    problem = random_problem(3, rate=0.3)
    other = problem.at_unit_rate()
    arguments = {"shares": SHARES, "steps": STEPS}
    np.testing.assert_allclose(
        exact_error(other, **arguments).total, exact_error(problem, **arguments).total, rtol=1e-9
    )
    ratio = printed_bound(other, **arguments).noise[0, -1] / printed_bound(problem, **arguments).noise[0, -1]
    assert ratio == pytest.approx(problem.learning_rate**-2)


def test_the_setting_of_method_md():
    """24 samples, 8 parameters, eta 0.3, real data only, converged: printed and exact differ by eta^2."""
    problem = replace(random_problem(0, num_samples=24, num_parameters=8), learning_rate=0.3)
    exact = exact_error(problem, shares=0.0, steps=2000)
    assert printed_bound(problem, shares=0.0, steps=2000).noise == pytest.approx(0.09 * exact.noise, rel=1e-9)
    assert exact.initial < 1e-6 * exact.noise


# --- the bound that holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mixing", ["bernoulli", "fixed"])
@pytest.mark.parametrize("measure", ["parameters", "predictions"])
def test_the_valid_bound_is_never_exceeded(measure, mixing):
    steps = np.concatenate([np.arange(12), [50, 400]])
    shares = np.linspace(0, 1, 11)
    for seed in range(100):
        problem = varied_problem(seed)
        arguments = {"shares": shares, "steps": steps, "measure": measure, "mixing": mixing}
        exact, bound = exact_error(problem, **arguments), valid_bound(problem, **arguments)
        assert (exact.total <= bound.total * (1 + 1e-9)).all(), seed
        assert (exact.noise <= bound.noise * (1 + 1e-9) + 1e-15).all(), seed
        assert (np.abs(exact.cross) <= bound.cross * (1 + 1e-9) + 1e-12).all(), seed


def test_the_valid_bound_holds_for_adversarial_problems():
    """Distances aligned, one sample of all the leverage and all the gap: where the other bounds fail."""
    for start, teacher, rate in product([-3.0, 0.0, 3.0], [-1.0, 1.0], [0.3, 2.4]):  # 2.4 diverges
        problem = by_hand(
            [[1.0], [0.01]], start=start, teacher=teacher, noise=np.array([5.0, 0.0]), learning_rate=rate
        )
        exact = exact_error(problem, shares=SHARES, steps=STEPS).total
        assert (exact <= valid_bound(problem, shares=SHARES, steps=STEPS).total * (1 + 1e-9)).all()


def test_the_valid_bound_is_attained():
    aligned = by_hand([[1.0]], start=3.0, teacher=1.0, noise=1.0, learning_rate=0.5)
    exact, bound = (
        which(aligned, shares=SHARES[[0, 3]], steps=STEPS) for which in (exact_error, valid_bound)
    )
    np.testing.assert_allclose(bound.total, exact.total)


def test_the_printed_bound_is_exceeded_in_most_random_problems():
    worst = [
        np.max(
            exact_error(p, shares=SHARES, steps=STEPS).total
            / printed_bound(p, shares=SHARES, steps=STEPS).total
        )
        for p in map(varied_problem, range(100))
    ]
    assert np.mean(np.array(worst) > 1 + 1e-9) > 0.9


# --- limits ----------------------------------------------------------------------------------------------------


def test_without_synthetic_data_the_teacher_does_not_matter():
    near, far = (random_problem(1, teacher_gap=gap) for gap in (0.1, 50.0))
    terms = exact_error(near, shares=0.0, steps=STEPS)
    np.testing.assert_allclose(terms.total, exact_error(far, shares=0.0, steps=STEPS).total)
    assert not terms.teacher.any()
    assert not terms.cross.any()


def test_with_synthetic_data_alone_nothing_is_random_and_the_teacher_is_learnt():
    problem = random_problem(1, noise=9.0, teacher_gap=2.0)
    terms = exact_error(problem, shares=1.0, steps=[5, math.inf])
    assert not terms.noise.any()
    assert terms.total[1] == pytest.approx(4.0)


def test_before_training_the_error_is_the_starting_points_for_every_share():
    problem = random_problem(2, initial=1.5)
    np.testing.assert_allclose(exact_error(problem, shares=SHARES, steps=0).total, 1.5**2)


def test_many_steps_approach_convergence():
    problem = random_problem(4)
    late, limit = (exact_error(problem, shares=SHARES, steps=steps).total for steps in (5000, math.inf))
    np.testing.assert_allclose(late, limit, rtol=1e-9)


def test_a_tiny_learning_rate_learns_in_proportion():
    """First order in eta: the error moves by -2 eta T times the gradient's part, the noise stays second order."""
    problem = replace(random_problem(4), learning_rate=1e-9)
    terms = exact_error(problem, shares=0.0, steps=10)
    moved = 2 * 1e-9 * 10 * np.sum(problem.predict(problem.truth) ** 2)
    assert 1.0 - terms.total == pytest.approx(moved, rel=1e-4)
    by_noise = (1e-9 * 10) ** 2 * np.sum(problem.features**2)
    assert terms.noise == pytest.approx(by_noise, rel=1e-6)


def test_unseen_directions_keep_their_initial_error():
    problem = random_problem(6, num_samples=3, num_parameters=40, noise=0.0)
    unseen = np.eye(40) - np.linalg.pinv(problem.features) @ problem.features
    kept = np.sum((unseen @ (problem.start - problem.truth)) ** 2)
    assert exact_error(problem, shares=0.0, steps=math.inf).total == pytest.approx(kept)


def test_error_of_predictions_at_convergence_is_the_hat_matrix():
    problem = random_problem(8, num_samples=20, num_parameters=5, noise=2.0)
    exact = exact_error(problem, shares=0.0, steps=math.inf, measure="predictions")
    assert exact.total == pytest.approx(2.0 * 5 / 20)


# --- shapes and messages -----------------------------------------------------------------------------------------


def test_terms_have_the_shape_of_shares_and_steps():
    problem = random_problem(0)
    grid = exact_error(problem, shares=np.full((2, 3), 0.5), steps=STEPS)
    assert grid.total.shape == (2, 3, 5)
    assert exact_error(problem, shares=0.5, steps=3).total.shape == ()
    alone = exact_error(problem, shares=0.5, steps=STEPS[3]).cross
    assert grid.cross[1, 2, 3] == pytest.approx(float(alone))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": 1.2}, "share is 1.2"),
        ({"steps": -1}, "whole number"),
        ({"steps": 1.5}, "whole number"),
        ({"measure": "pixels"}, 'expected "parameters" or "predictions"'),
        ({"mixing": "shuffled"}, 'expected "bernoulli" or "fixed"'),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        exact_error(random_problem(0), **{"shares": 0.5, "steps": 3, **change})


def test_convergence_needs_a_small_enough_learning_rate():
    with pytest.raises(ValueError, match="expected less than 2"):
        exact_error(random_problem(0, rate=2.5), shares=0.5, steps=math.inf)


def test_a_problem_checks_its_shapes():
    problem = random_problem(0)
    with pytest.raises(ValueError, match=r"teacher has the shape \(3,\)"):
        Problem(**{**vars(problem), "teacher": np.zeros(3)})
    with pytest.raises(ValueError, match="expected a variance"):
        Problem(**{**vars(problem), "noise": -1.0})
