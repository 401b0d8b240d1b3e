"""The plan of a run: what is decided before it begins, as text, as a value, and as what is run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from urae.resolution import ResolutionPolicy
from urae.training import plan_training, run_training, train


def test_it_says_what_is_trained_on_and_leaves_the_pipeline_alone(pipe, recipe):
    before = {name: tensor.clone() for name, tensor in pipe.transformer.state_dict().items()}
    plan = plan_training(pipe, recipe(num_validation=2, validate_every=2, sigma_shift=3.0))
    assert str(plan) == (
        "7 images at 128 px, 7 of them with two captions\n"
        "sigma uniform with shift 3: 2.9% of the draws above 0.99"
    )
    assert (len(plan.train_on), len(plan.held_out), plan.num_images, plan.done) == (7, 2, 2, 0)
    assert plan.policy == ResolutionPolicy.for_size(pipe, 128)
    after = pipe.transformer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_two_are_equal_where_they_train_the_same(pipe, recipe):
    plan = plan_training(pipe, recipe())
    assert plan == plan_training(pipe, recipe())
    assert plan != plan_training(pipe, recipe(lr=2e-3))
    assert plan != plan_training(pipe, recipe(policy="reference"))


def test_run_is_train(pipe, recipe, tmp_path):
    plan = plan_training(pipe, recipe(out=str(tmp_path / "a")))
    run_training(plan)
    with pytest.raises(
        ValueError, match=r"after step 0, and .*step-000004 has been written since: plan it again"
    ):
        run_training(plan)
    train(pipe, recipe(out=str(tmp_path / "b")))
    a, b = (Path(tmp_path / name / "adapter.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_it_goes_on_from_the_checkpoint_of_the_same_run_alone(pipe, recipe):
    train(pipe, recipe(steps=2))
    plan = plan_training(pipe, recipe())
    assert plan.done == 2
    assert str(plan).splitlines()[-1] == "going on after step 2"
    with pytest.raises(ValueError, match="holds a checkpoint of another run: seed is 0 there and 1 here"):
        plan_training(pipe, recipe(seed=1))


@pytest.mark.parametrize(
    ("settings", "num_processes", "images"),
    [({}, 1, 8), ({}, 4, 2), ({"gradient_accumulation": 4}, 2, 1), ({"context_parallel": 2}, 4, 4)],
)
def test_how_a_batch_is_dealt_out(recipe, settings, num_processes, images):
    asked = recipe(**{"batch_size": 8, **settings})
    assert asked.images_at_a_time(num_processes) == images
    with pytest.raises(
        ValueError, match="batch_size is 8: expected a multiple of .*processes or GPUs x gradient_acc"
    ):
        replace(asked, context_parallel=1).images_at_a_time(3)


def test_left_to_the_plan_blocks_are_compiled_where_the_steps_pay_for_it(pipe, recipe):
    """Decided by the steps of the whole run, and said; the run itself is one with `true` or `false`."""
    few, many = (plan_training(pipe, recipe(compile="auto", steps=steps)) for steps in (4, 10**8))
    assert (few.recipe.compile, many.recipe.compile) == (False, True)
    assert "blocks eager: 8 steps on an image would save about 0 s, compiling takes about" in str(few)
    assert f"blocks compiled: {2 * 10**8} steps on an image would save about" in str(many)
    assert "blocks" not in str(plan_training(pipe, recipe(compile=False)))
    swapped = recipe(compile="auto", steps=10**8, gradient_checkpointing="full")
    assert not replace(swapped, swap_blocks=1).not_compiled_since.startswith("context")
    with pytest.raises(ValueError, match="compile is true and swap_blocks is 1 and compiled blocks hold"):
        replace(swapped, compile=True, swap_blocks=1)
