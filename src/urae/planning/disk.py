"""What a run writes: its cache of latents and embeddings, its checkpoints and its adapter."""

from __future__ import annotations

from typing import Any

from urae.planning.adapter import FP32, AdapterSize, optimizer_bytes
from urae.training import Recipe

__all__ = ["adapter_bytes", "cache_bytes", "checkpoint_bytes"]

HEADER = 400
"""Bytes of a safetensors header, about."""


def cache_bytes(pipe: Any, size: int, *, num_captions: int = 2) -> int:
    """One image of this size (px) and its captions in a cache: mean and std of the latents, and what both text
    encoders say about each caption, in the type in which the parts are loaded."""
    config, itemsize = pipe.transformer.config, pipe.vae.dtype.itemsize
    shrink = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    latents = 2 * pipe.vae.config.latent_channels * (size // shrink) ** 2
    text = pipe.tokenizer_2.model_max_length * config.joint_attention_dim + config.pooled_projection_dim
    return (latents + num_captions * text) * itemsize + (1 + num_captions) * HEADER


def checkpoint_bytes(size: AdapterSize, recipe: Recipe) -> int:
    """One checkpoint: the adapter, the optimizer's state, the moving average."""
    average = size.trained if recipe.ema else 0
    return FP32 * (size.trained + size.frozen + average) + optimizer_bytes(size, recipe.optimizer)


def adapter_bytes(size: AdapterSize) -> int:
    """The result's file, without what it started from."""
    return FP32 * size.exported
