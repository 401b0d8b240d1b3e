"""The settings that keep a run's tensors in the host's memory: refused on a CPU, and put together as asked."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from tiny_calls import inputs
from urae.adapters import Minor
from urae.execution.modules import repeated_blocks
from urae.resolution import ResolutionPolicy
from urae.training import train
from urae.training.resume import run_identity
from urae.training.running import _attached, _check_fit, _checkpointing

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
    made = recipe(base_weights="fp8_dynamic", swap_blocks=2, gradient_checkpointing="full")
    accelerator = SimpleNamespace(device=torch.device("cuda"), num_processes=1)
    with pytest.raises(ValueError, match=r"this one has 8\.6: choose fp8$"):
        _check_fit(pipe, made, ResolutionPolicy(), accelerator)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    _check_fit(pipe, made, ResolutionPolicy(), accelerator)


@pytest.mark.parametrize("base_weights", ["as_loaded", "nf4"])
def test_a_recipe_puts_them_together(pipe, recipe, base_weights):
    """Settings that train() would refuse here: the same gradients, over matrices that are stored as asked."""
    made = recipe(adapter=Minor(rank=2), gradient_checkpointing="attention", base_weights=base_weights)
    plain, saved = (
        gradients(pipe, r) for r in (made, replace(made, offload_activations=True, swap_blocks=3))
    )
    assert len(plain) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, saved, strict=True))
    assert not any(block._forward_pre_hooks for block in repeated_blocks(pipe.transformer))


def gradients(pipe, recipe) -> list[torch.Tensor]:
    accelerator = Accelerator(cpu=True)
    with (
        _attached(pipe, recipe, accelerator, None) as attached,
        _checkpointing(pipe, recipe, accelerator.device),
    ):
        pipe.transformer(**inputs()).sample.square().mean().backward()
        return [parameter.grad for parameter in attached.parameters()]
