"""The settings that keep a run's tensors in the host's memory: refused on a CPU, and put together as asked."""

from dataclasses import replace

import pytest
import torch

from tiny_calls import inputs
from urae.adapters import Minor
from urae.execution.modules import repeated_blocks
from urae.resolution import ResolutionPolicy
from urae.training import plan_training, train
from urae.training.plan import check_fit
from urae.training.resume import run_identity
from urae.training.running import _attached, _checkpointing

SAVERS = [("offload_activations", True, "false"), ("swap_blocks", 2, "0")]


@pytest.mark.parametrize(("name", "value", "off"), SAVERS)
def test_without_a_gpu_it_has_no_effect_and_is_refused(pipe, recipe, name, value, off):
    with pytest.raises(ValueError, match=f"{name} moves what a GPU .* on a CPU, .* set {name}={off}$"):
        train(pipe, recipe(**{name: value, "gradient_checkpointing": "full"}))


@pytest.mark.parametrize(("name", "value", "off"), SAVERS)
def test_a_run_may_go_on_with_or_without(recipe, name, value, off):
    plain = recipe(gradient_checkpointing="full")
    same = {"data": "a", "base": "b", "start": ""}
    assert run_identity(plain, **same) == run_identity(replace(plain, **{name: value}), **same)


def test_a_gpu_that_cannot_multiply_is_refused_though_the_matrices_are_on_the_host(pipe, recipe, monkeypatch):
    """And before anything else is done: nothing is cached or decomposed in vain."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    made = recipe(
        base_weights="fp8_dynamic", swap_blocks=2, gradient_checkpointing="full", policy=ResolutionPolicy()
    )
    with pytest.raises(ValueError, match=r"this one has 8\.6: choose fp8$"):
        check_fit(pipe, made, torch.device("cuda"), num_images=2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    check_fit(pipe, made, torch.device("cuda"), num_images=2)


@pytest.mark.parametrize("base_weights", ["as_loaded", "nf4"])
def test_a_recipe_puts_them_together(pipe, recipe, base_weights):
    """Settings that train() would refuse here: the same gradients, over matrices that are stored as asked."""
    made = recipe(adapter=Minor(rank=2), gradient_checkpointing="attention", base_weights=base_weights)
    plan = plan_training(pipe, made)
    with_savers = replace(plan.recipe, offload_activations=True, swap_blocks=3)
    plain, saved = (gradients(p) for p in (plan, replace(plan, recipe=with_savers)))
    assert len(plain) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, saved, strict=True))
    assert not any(block._forward_pre_hooks for block in repeated_blocks(pipe.transformer))


def gradients(plan) -> list[torch.Tensor]:
    with _attached(plan) as attached, _checkpointing(plan):
        plan.pipe.transformer(**inputs()).sample.square().mean().backward()
        return [parameter.grad for parameter in attached.parameters()]
