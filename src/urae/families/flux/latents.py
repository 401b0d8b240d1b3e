"""FLUX.1's latents: 16 channels of 8 x 8 pixels, 2 x 2 of which are a token; shifted and scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxPipeline
from torch import Tensor

from urae.families.family import Posterior, Size
from urae.families.identity import fingerprint

__all__ = ["PATCH", "FluxLatents", "vae_device"]

PATCH = 2
"""Side of a token in latents."""


@dataclass(frozen=True)
class FluxLatents:
    """By the stock pipeline's own helpers, which pack 2 x 2 latents into a token."""

    def pixels_per_token(self, pipe: Any) -> int:
        return PATCH * 2 ** (len(pipe.vae.config.block_out_channels) - 1)

    def native_size(self, pipe: Any) -> int:
        """1024 for FLUX.1, 128 for the miniature."""
        return int(pipe.vae.config.sample_size)

    def shape(self, pipe: Any, size: Size) -> tuple[int, int]:
        width, height = (PATCH * (side // self.pixels_per_token(pipe)) for side in size)
        return height, width

    @torch.no_grad()
    def encode(self, pipe: Any, pixels: Tensor) -> Posterior:
        """Mean (mu - shift) x scale and std x scale, (B, 16, H / 8, W / 8), fp32."""
        vae = pipe.vae
        distribution = vae.encode(pixels.to(vae_device(pipe), vae.dtype)).latent_dist
        mean, std = distribution.mean.float().cpu(), distribution.std.float().cpu()
        shift, scale = vae.config.shift_factor, vae.config.scaling_factor
        return Posterior(mean=(mean - shift) * scale, std=std * scale)

    @torch.no_grad()
    def decode(self, pipe: Any, clean: Tensor) -> Tensor:
        vae = pipe.vae
        latents = clean / vae.config.scaling_factor + vae.config.shift_factor
        pixels = vae.decode(latents.to(vae_device(pipe), vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)

    def pack(self, latents: Tensor) -> Tensor:
        """Tokens (B, H W / 4, 4 C)."""
        return FluxPipeline._pack_latents(latents, *latents.shape)

    def unpack(self, tokens: Tensor, height: int, width: int) -> Tensor:
        return FluxPipeline._unpack_latents(tokens, height, width, vae_scale_factor=1)

    def noise(self, pipe: Any, size: Size, generator: Any, *, num: int = 1) -> Tensor:
        width, height = size
        channels = pipe.transformer.config.in_channels // PATCH**2
        dtype, device = pipe.transformer.dtype, pipe._execution_device
        return pipe.prepare_latents(num, channels, height, width, dtype, device, generator)[0]

    def identity(self, pipe: Any) -> str:
        config = pipe.vae.config
        return fingerprint([pipe.vae], also=f"{config.shift_factor} {config.scaling_factor}")

    def num_values(self, pipe: Any, size: int) -> int:
        height, width = self.shape(pipe, (size, size))
        return int(pipe.vae.config.latent_channels) * height * width


def vae_device(pipe: Any) -> torch.device:
    """Where the VAE computes: where it lies, unless it is offloaded until then. The pipeline's own answer is about
    the first of its parts, and while data are cached the others lie elsewhere."""
    hooks = ("_hf_hook", "_diffusers_hook")
    is_offloaded = any(hasattr(module, hook) for module in pipe.vae.modules() for hook in hooks)
    return pipe._execution_device if is_offloaded else pipe.vae.device
