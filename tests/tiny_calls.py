"""Calls of the tiny transformer of the golden values: its inputs, and a training step's gradients."""

from __future__ import annotations

import torch
from diffusers import FluxPipeline
from torch import Tensor

from urae.adapters import attach
from urae.execution import compiled_blocks, gradient_checkpointing


def inputs(tokens: int = 8, text: int = 7) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(2, tokens**2, 64, generator=generator),
        "encoder_hidden_states": torch.randn(2, text, 32, generator=generator),
        "pooled_projections": torch.randn(2, 24, generator=generator),
        "timestep": torch.tensor([0.3, 0.8]),
        "guidance": torch.ones(2),
        "img_ids": FluxPipeline._prepare_latent_image_ids(1, tokens, tokens, "cpu", torch.float32),
        "txt_ids": torch.zeros(text, 3),
    }


def gradients(transformer, spec, mode, *, compile: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    attached = attach(transformer, spec)
    try:
        with (
            compiled_blocks(transformer, compile),
            gradient_checkpointing(transformer, mode, compiled=compile),
        ):
            transformer(**inputs()).sample.square().mean().backward()
        return {name: parameter.grad for name, parameter in attached.named_parameters().items()}
    finally:
        attached.detach()
