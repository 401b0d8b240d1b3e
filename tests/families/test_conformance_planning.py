"""The planner's counts for every family are torch's own, and published models need no download."""

from dataclasses import replace

import pytest
import torch
from tiny_families import noisy, velocity
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from urae import plan, recipes
from urae.adapters import IMAGE_STREAM, PAPER_TARGETS, Lora, Mica, Minor, attach
from urae.execution.checkpointing import gradient_checkpointing
from urae.execution.memory import memory_need
from urae.families import open_architecture
from urae.families.family import ATTENTION
from urae.planning.adapter import adapter_size
from urae.planning.compute import Tokens, step_work, trained_by
from urae.resolution import num_image_tokens, num_tokens, text_tokens

LARGE = (128, 64)
"""32 tokens: a model that pads to so many computes no more than these."""

aten = torch.ops.aten
CPU_KERNEL = {
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)
    ),
}
"""Attention on a CPU, which FlopCounterMode does not know."""


def tokens_of(tiny) -> Tokens:
    return Tokens(image=num_image_tokens(tiny.pipe, LARGE), text=text_tokens(tiny.pipe))


def counted(tiny, spec, mode) -> tuple[int, int]:
    """Operations of a forward pass and of a whole step, as torch counts them."""
    latents, here = noisy(tiny, LARGE), attach(tiny.transformer, spec)
    try:
        text = tiny.family.text.encode(tiny.pipe, ["a b c d e f g h i j k l m n o p"])  # as long as it may be
        with (
            gradient_checkpointing(tiny.transformer, mode),
            FlopCounterMode(display=False, custom_mapping=CPU_KERNEL) as flops,
        ):
            error = velocity(tiny, latents, text=text).square().mean()
            forward = flops.get_total_flops()
            error.backward()
            return forward, flops.get_total_flops()
    finally:
        here.detach()


@pytest.mark.parametrize("mode", [False, "full", "attention"])
@pytest.mark.parametrize("targets", [PAPER_TARGETS, IMAGE_STREAM], ids=lambda word: word[0])
def test_operations_are_those_that_torch_counts(tiny, targets, mode):
    spec = Lora(rank=4, targets=targets)
    work = step_work(trained_by(tiny.transformer, spec), tokens_of(tiny), mode)
    assert (work.forward, work.total) == counted(tiny, spec, mode)


def test_operations_of_every_layer_are_those_that_torch_counts(tiny):
    """An adapter on each linear layer by itself, so that each has its place in the backward pass."""
    transformer = tiny.transformer
    layers = sorted({use.name for use in trained_by(transformer, Lora(rank=1)).uses} - {ATTENTION})
    for name in layers:
        if name.endswith(tiny.unread or ("none",)):  # trained for nothing: torch has nothing to count
            continue
        spec = Lora(rank=1, targets=(f"re:^{name.replace('.', '[.]')}$",))
        work = step_work(trained_by(transformer, spec), tokens_of(tiny), False)
        assert (work.forward, work.total) == counted(tiny, spec, False), name


def test_every_linear_layer_is_used_once(tiny):
    used = [use.name for use in trained_by(tiny.transformer, Lora(rank=1)).uses if use.name != ATTENTION]
    linear = [name for name, part in tiny.transformer.named_modules() if isinstance(part, torch.nn.Linear)]
    assert sorted(used) == sorted(linear)


def test_masks_of_all_pairs_are_kept_where_the_family_says_so(tiny):
    """One in each block, which the plan counts."""
    joint, masks = tokens_of(tiny).joint, {}

    def pack(tensor):
        if tensor.shape[-2:] == (joint, joint):
            masks[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda packed: packed):
        kept = velocity(tiny, noisy(tiny, LARGE))  # whose graph holds them
    blocks = len(trained_by(tiny.transformer, Lora(rank=1)).blocks())
    pairs = tiny.family.layers.mask == "pairs"
    assert kept.requires_grad
    assert sorted(masks.values()) == [joint**2 * 4] * (blocks if pairs else 0)


@pytest.mark.parametrize("spec", [Lora(rank=4), Minor(rank=4), Mica(rank=4)], ids=lambda spec: spec.kind)
def test_as_many_parameters_as_are_trained(tiny, spec):
    here = attach(tiny.transformer, spec)
    try:
        trained = sum(parameter.numel() for parameter in here.parameters())
    finally:
        here.detach()
    assert adapter_size(tiny.transformer, spec).trained == trained


def test_published_models_are_planned_without_a_download(tiny):
    for model in tiny.published:
        recipe = replace(recipes.flux_2k(), model=model, sample_every=0)
        found = plan(recipe, "H200")
        assert found.options
        assert all(0 < need < 1e13 for option in found.options for need in option.phases.values())
        assert found.asked.seconds > 0
        assert found.best is not None
        architecture = open_architecture(model, dtype=torch.bfloat16)
        assert num_tokens(architecture, 2048) == 128 * 128 + architecture.text_tokens
        assert memory_need(architecture, (2048, 2048)).denoise > 0
