"""What a run writes: its cache of latents and embeddings, its checkpoints and its adapter."""

from __future__ import annotations

from typing import Any

from urae.families import family_of
from urae.planning.adapter import FP32, AdapterSize, optimizer_bytes
from urae.training import Recipe

__all__ = ["adapter_bytes", "cache_bytes", "checkpoint_bytes"]

HEADER = 400
"""Bytes of a safetensors header, about."""


def cache_bytes(pipe: Any, size: int, *, num_captions: int = 2) -> int:
    """One image of this size (px) and its captions in a cache: mean and std of the latents, and what the text
    encoders say about each caption, in the type in which the parts are loaded."""
    family = family_of(pipe)
    latents, text = 2 * family.latents.num_values(pipe, size), family.text.num_values(pipe)
    return (latents + num_captions * text) * pipe.vae.dtype.itemsize + (1 + num_captions) * HEADER


def checkpoint_bytes(size: AdapterSize, recipe: Recipe) -> int:
    """One checkpoint: the adapter, the optimizer's state, the moving average."""
    average = size.trained if recipe.ema else 0
    return FP32 * (size.trained + size.frozen + average) + optimizer_bytes(size, recipe.optimizer)


def adapter_bytes(size: AdapterSize) -> int:
    """The result's file, without what it started from."""
    return FP32 * size.exported
