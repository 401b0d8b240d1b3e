"""The simulation: reproducible, shaped as asked, and strict about what cannot be simulated."""

import numpy as np
import pytest

from urae.theory import random_problem, simulate


def test_the_seed_decides():
    problem = random_problem(0)
    first, again, other = (
        simulate(problem, shares=0.5, steps=9, repeats=20, seed=seed).mean for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_results_have_the_shape_of_shares_and_steps_in_any_order():
    problem = random_problem(0)
    forth = simulate(problem, shares=[[0.0, 0.5]], steps=[1, 4, 9], repeats=20)
    back = simulate(problem, shares=[[0.0, 0.5]], steps=[9, 4, 1], repeats=20)
    assert forth.mean.shape == forth.standard_error.shape == (1, 2, 3)
    np.testing.assert_array_equal(forth.mean, back.mean[..., ::-1])


def test_the_standard_error_falls_with_the_root_of_the_repeats():
    problem = random_problem(0)
    few, many = (simulate(problem, shares=0.5, steps=20, repeats=num).standard_error for num in (200, 20000))
    assert few / many == pytest.approx(10, rel=0.3)


def test_a_fixed_number_of_synthetic_samples_is_kept():
    # One parameter per sample and eta = 1: W_1 is the labels, 1 where synthetic and 0 where real.
    problem = random_problem(0, num_samples=10, num_parameters=10)
    own = type(problem)(
        **{
            **vars(problem),
            "features": np.eye(10),
            "start": np.zeros(10),
            "truth": np.zeros(10),
            "teacher": np.ones(10),
            "noise": 0.0,
            "learning_rate": 1.0,
        }
    )
    fixed = simulate(own, shares=0.3, steps=1, mixing="fixed")
    free = simulate(own, shares=0.3, steps=1)
    assert fixed.mean == pytest.approx(3)
    assert fixed.standard_error == 0
    assert free.standard_error > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repeats": 1}, "repeats is 1"),
        ({"steps": np.inf}, "cannot be simulated"),
        ({"steps": 2.5}, "whole numbers"),
        ({"shares": 0.3, "mixing": "fixed"}, "whole numbers of 24 samples"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        simulate(random_problem(0), **{"shares": 0.5, "steps": 3, "repeats": 10, **change})
