"""Krea 2's latents: 16 channels of 8 x 8 pixels by Qwen-Image's VAE, which takes an image for a video of one frame;
each channel has a mean and a deviation of its own. 2 x 2 of them are a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Posterior, Size
from urae.families.flux.latents import PATCH, FluxLatents, vae_device
from urae.families.identity import fingerprint

__all__ = ["PATCH", "Krea2Latents"]

NATIVE = 1024


@dataclass(frozen=True)
class Krea2Latents(FluxLatents):
    """Packed as FLUX.1's are."""

    def pixels_per_token(self, pipe: Any) -> int:
        return PATCH * 2 ** len(pipe.vae.config.temperal_downsample)

    def native_size(self, pipe: Any) -> int:
        """1024. The stock configuration does not say it; a model of another size has `sample_size` in its VAE's, as
        FLUX.1 has."""
        return int(pipe.vae.config.get("sample_size", NATIVE))

    @torch.no_grad()
    def encode(self, pipe: Any, pixels: Tensor) -> Posterior:
        """(mu - mean) / deviation and std / deviation, (B, 16, H / 8, W / 8), fp32."""
        vae = pipe.vae
        frames = pixels.to(vae_device(pipe), vae.dtype)[:, :, None]
        distribution = vae.encode(frames).latent_dist
        mean, std = (part[:, :, 0].float().cpu() for part in (distribution.mean, distribution.std))
        middle, deviation = _statistics(vae)
        return Posterior(mean=(mean - middle) / deviation, std=std / deviation)

    @torch.no_grad()
    def decode(self, pipe: Any, clean: Tensor) -> Tensor:
        vae = pipe.vae
        middle, deviation = (values.to(clean.device) for values in _statistics(vae))
        latents = clean / (1 / deviation) + middle  # in the pipeline's own way, to the bit
        frames = latents.to(vae_device(pipe), vae.dtype)[:, :, None]
        return vae.decode(frames, return_dict=False)[0][:, :, 0].float().clamp(-1, 1)

    def noise(self, pipe: Any, size: Size, generator: Any, *, num: int = 1) -> Tensor:
        width, height = size
        channels = pipe.transformer.config.in_channels // PATCH**2
        dtype, device = pipe.transformer.dtype, pipe._execution_device
        return pipe.prepare_latents(num, channels, height, width, dtype, device, generator)

    def identity(self, pipe: Any) -> str:
        config = pipe.vae.config
        return fingerprint([pipe.vae], also=f"{config.latents_mean} {config.latents_std}")

    def num_values(self, pipe: Any, size: int) -> int:
        height, width = self.shape(pipe, (size, size))
        return int(pipe.vae.config.z_dim) * height * width


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, (16, 1, 1)."""
    mean, std = (torch.tensor(values) for values in (vae.config.latents_mean, vae.config.latents_std))
    return mean[:, None, None], std[:, None, None]
