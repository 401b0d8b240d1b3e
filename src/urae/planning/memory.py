"""Bytes on one GPU, phase by phase, of a training run.

What a training step keeps is reckoned in widths: numbers per token, in units of the transformer's width. A
block keeps the inputs of its norms, of attention and of its activations, 11 or 12 widths, and the inputs of the
adapted layers; with checkpointing its own input alone. Under bf16 autocast its norms keep theirs in fp32, and each
adapted layer has a copy of its input, unless the block is compiled. These were counted on fake tensors of the
full-size architecture and in compiled blocks, and tests/planning/test_plan_memory.py counts them again. While a
block's gradients are computed, `BACKWARD` widths more are alive; these are what an H200 measured
(benchmarks/results/gpu.json), with which the tests compare the whole.

What comes beside: a share of the GPU for its driver, libraries and fragments (`CUDA_CONTEXT`, `USABLE`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

from urae.adapters import Full, Lora
from urae.execution.budget import encoding_bytes
from urae.execution.choices import Checkpointing, VaeWay
from urae.execution.memory import memory_need
from urae.execution.modules import weight_bytes
from urae.execution.strips import has_strips
from urae.families import Architecture, family_of
from urae.planning.adapter import FP32, AdapterSize, adapter_size, optimizer_bytes
from urae.planning.compute import Trained
from urae.planning.gpus import GIB, Gpu
from urae.planning.host import block_bytes, saved_bytes, stored_bytes
from urae.resolution import num_image_tokens, text_tokens
from urae.training import Recipe

__all__ = ["activation_bytes", "empty", "offloaded_bytes", "phases", "usable"]

CUDA_CONTEXT = 0.6 * GIB
"""What CUDA and its libraries take before the first tensor; about."""

USABLE = 0.95
"""Share of the rest that is planned with; fragments and workspaces of kernels take some. More than what
`urae.execution.budget` reckons with, since here the gradients' needs are measured, and nothing else has the GPU."""

BACKWARD = 11
"""Widths per token that are alive beside what was kept, while a block's gradients are computed."""

AROUND = 2
"""Widths per token that the model keeps outside of its blocks."""

WORKSPACE = 6
"""Copies in fp64 of the largest matrix that is decomposed: itself, its factorisation, and the iteration's."""

RESTORING = 2
"""Copies of the largest matrix, in the type that is computed in, while it is restored: itself, and where nf4 looks up
its values."""


def empty(gpu: Gpu) -> float:
    """Bytes that are free on a GPU that nothing else uses."""
    return gpu.num_bytes - CUDA_CONTEXT


def usable(gpu: Gpu) -> float:
    """Bytes of a GPU to plan with."""
    return empty(gpu) * USABLE


def phases(
    architecture: Architecture, trained: Trained, recipe: Recipe, *, num_gpus: int = 1
) -> dict[str, int]:
    """Most bytes that are allocated on one GPU in each phase of a run; `trained` is the recipe's adapter on the
    architecture's transformer."""
    weights, fixed = _resident_bytes(architecture.transformer, recipe), _fixed(architecture, recipe.size)
    held = weights + _state_bytes(_adapter_size(architecture.transformer, recipe.adapter), recipe)
    teacher = 0 if recipe.teacher == "base" else weight_bytes(architecture.transformer)
    held += (fixed["vae"] if recipe.sample_every else 0) + teacher + _restoring_bytes(trained, recipe)
    found = {
        "captions": fixed["captions"],
        "images": fixed["vae"] + fixed["encode"],
        "training": held
        + activation_bytes(architecture, trained, recipe, num_images=recipe.images_at_a_time(num_gpus)),
    }
    if not isinstance(recipe.adapter, Lora | Full):
        # What is stored in another way is brought to the GPU afterwards only.
        placed = recipe.base_weights == "as_loaded" and not recipe.swap_blocks
        found["decomposing"] = weights * placed + _workspace_bytes(trained)
    if recipe.sample_every:
        found["samples"] = held + fixed["draw"]
    return found


@lru_cache(maxsize=4)
def _fixed(architecture: Architecture, size: int) -> dict[str, int]:
    """What is the same for all options of a plan, each of which walks through all modules."""
    need = memory_need(architecture, (size, size))
    return {
        "captions": architecture.encoder_bytes,
        "vae": weight_bytes(architecture.vae),
        "encode": encoding_bytes(architecture.vae, (size, size), _way_to_encode(architecture.vae)),
        "draw": max(need.denoise, need.decode["whole"]),
    }


def _way_to_encode(vae: Any) -> VaeWay:
    """The one that needs the least and is exact; in tiles where there is none but the whole."""
    return "strips" if has_strips(vae) else "tiles"


_adapter_size = lru_cache(maxsize=4)(adapter_size)


def activation_bytes(architecture: Architecture, trained: Trained, recipe: Recipe, *, num_images: int) -> int:
    """Of a training step on that many images at a time, gradients of activations included."""
    copies = recipe.base_dtype == "bf16" and not recipe.compile
    layers = family_of(architecture).layers
    kept = [
        layers.kept(block, copies=copies) + _inputs(trained, adapted, () if copies else layers.shared_inputs)
        for block, adapted in trained.blocks().items()
    ]
    widths = AROUND + BACKWARD + _alive(kept, recipe.gradient_checkpointing, recipe.offload_activations)
    masks = (1 if recipe.gradient_checkpointing else len(kept)) * _mask_bytes(architecture, recipe)
    return int(num_images * (widths * _unit(architecture, trained, recipe) + masks))


def offloaded_bytes(architecture: Architecture, trained: Trained, recipe: Recipe) -> int:
    """Activations of one image that leave a GPU in the forward pass and come back in the backward pass."""
    if not recipe.offload_activations:
        return 0
    widths = (len(trained.blocks()) - 1) * (1 + (recipe.gradient_checkpointing == "attention"))
    return int(max(widths, 0) * _unit(architecture, trained, recipe))


def _unit(architecture: Architecture, trained: Trained, recipe: Recipe) -> int:
    """Bytes of one width on the tokens of an image that a GPU has."""
    of_each = (num_image_tokens(architecture, recipe.size), text_tokens(architecture))
    tokens = sum(math.ceil(num / recipe.context_parallel) for num in of_each)
    return int(tokens * trained.width * (torch.bfloat16.itemsize if recipe.base_dtype == "bf16" else FP32))


def _mask_bytes(architecture: Architecture, recipe: Recipe) -> int:
    """Bytes of the mask that each block makes for an image, of all tokens wherever they are computed."""
    if family_of(architecture).layers.mask != "pairs":
        return 0
    tokens = num_image_tokens(architecture, recipe.size) + text_tokens(architecture)
    return tokens**2 * (torch.bfloat16.itemsize if recipe.base_dtype == "bf16" else FP32)


def _alive(kept: list[float], checkpointing: Checkpointing, offload: bool) -> float:
    """Widths that are kept when the most are: by all blocks, or, with checkpointing, by a block that is computed
    again and the inputs of those before it; when these are on the host, of the one before it."""
    if not checkpointing:
        return sum(kept)
    attention = checkpointing == "attention"
    here = 2 if offload else len(kept)
    return max(
        (min(num, here) * (1 + attention) + own - attention for num, own in enumerate(kept, 1)), default=0
    )


def _inputs(trained: Trained, adapted: list[str], shared: tuple[tuple[str, ...], ...]) -> float:
    """Widths of the inputs of a block's adapted layers, of which some are `shared`."""
    inputs = {name: trained.sides[name][0] / trained.width for name in adapted if ".norm" not in name}
    return sum({_shared_input(name, shared): widths for name, widths in inputs.items()}.values())


def _shared_input(name: str, shared: tuple[tuple[str, ...], ...]) -> str:
    return next((layers[0] for layers in shared if name.endswith(layers)), name)


def _state_bytes(size: AdapterSize, recipe: Recipe) -> int:
    """Parameters, where they started, gradients, the optimizer, the average."""
    copies = 2 + (recipe.ema > 0) + (recipe.distill_weight > 0 and recipe.teacher == "base")
    changed = size.trained * FP32 if isinstance(recipe.adapter, Full) else 0
    return FP32 * (copies * size.trained + size.frozen) + optimizer_bytes(size, recipe.optimizer) + changed


def _workspace_bytes(trained: Trained) -> int:
    largest = max(inputs * outputs for inputs, outputs in (trained.sides[name] for name in trained.adapted))
    return WORKSPACE * largest * torch.float64.itemsize


def _resident_bytes(transformer: Any, recipe: Recipe) -> int:
    """Of the transformer's weights, those that are on a GPU at a time."""
    whole = stored_bytes(transformer, recipe)
    return whole - saved_bytes(block_bytes(transformer, recipe), recipe.swap_blocks)


def _restoring_bytes(trained: Trained, recipe: Recipe) -> int:
    """Of the largest matrix, while it is restored from fewer bits."""
    if recipe.base_weights == "as_loaded":
        return 0
    largest = max(inputs * outputs for inputs, outputs in trained.sides.values())
    return RESTORING * largest * (torch.bfloat16.itemsize if recipe.base_dtype == "bf16" else FP32)
