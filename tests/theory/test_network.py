"""The network: its gradient, its linearisation, and training in the wide limit."""

import numpy as np
import pytest

from urae.theory import exact_error, random_network, simulate, survey_widths


def test_pull_is_the_gradient_of_half_the_squared_residuals():
    network = random_network(0, width=5, num_samples=4)
    rng = np.random.default_rng(1)
    weights, labels, direction = (rng.normal(size=size) for size in (20, 4, 20))

    def loss(w):
        return 0.5 * np.sum((network.predict(w) - labels) ** 2)

    slope = (loss(weights + 1e-5 * direction) - loss(weights - 1e-5 * direction)) / 2e-5
    gradient = network.pull(weights, network.predict(weights) - labels)
    assert gradient @ direction == pytest.approx(slope, rel=1e-7)


def test_predict_is_the_network_spelt_out():
    network = random_network(0, width=3, num_inputs=2, num_samples=4)
    weights = np.arange(9) / 10
    hidden, output = weights[:6].reshape(3, 2), weights[6:]
    spelt = [sum(a * np.tanh(w @ u) for w, a in zip(hidden, output, strict=True)) for u in network.inputs]
    np.testing.assert_allclose(network.predict(weights), np.array(spelt) / np.sqrt(3))


def test_the_linearisation_predicts_small_moves():
    network = random_network(0, width=50)
    move = 1e-4 * np.random.default_rng(2).normal(size=len(network.start))
    moved = network.predict(network.start + move) - network.predict(network.start)
    np.testing.assert_allclose(network.problem.predict(network.start + move), moved, atol=1e-6)


def test_half_of_each_distance_is_seen_by_the_data():
    problem = random_network(0, width=100, teacher_gap=0.5, initial=2.0).problem
    seen = np.linalg.svd(problem.features, full_matrices=False)[2]
    offsets = np.stack([problem.start - problem.truth, problem.teacher - problem.truth])
    np.testing.assert_allclose(np.sum(offsets**2, axis=1), [4.0, 0.25])
    np.testing.assert_allclose(np.sum((offsets @ seen.T) ** 2, axis=1), [2.0, 0.125])


def test_a_wide_network_has_the_exact_error_of_its_linearisation():
    network = random_network(0, width=256)
    arguments = {"shares": [0.0, 0.5, 1.0], "steps": [1, 30]}
    simulation = simulate(network, repeats=50, **arguments)
    exact = exact_error(network.problem, **arguments).total
    np.testing.assert_array_less(
        np.abs(simulation.mean - exact), 4 * simulation.standard_error + 0.02 * exact
    )


def test_the_wider_the_network_the_closer_to_linear():
    narrow, wide = survey_widths((8, 512), num_networks=4, repeats=10, steps=30)
    assert wide.difference < narrow.difference / 3
    assert np.abs(wide.deviations).max() < 4
