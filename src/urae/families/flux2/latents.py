"""FLUX.2's latents: 32 channels of 8 x 8 pixels, 2 x 2 of which are a token. The 128 numbers of a token are normalised
each by itself, by the running statistics of the batch norm in the VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Pipeline
from torch import Tensor

from urae.families.family import Posterior
from urae.families.flux.latents import PATCH, FluxLatents, vae_device
from urae.families.identity import fingerprint

__all__ = ["PATCH", "Flux2Latents"]


@dataclass(frozen=True)
class Flux2Latents(FluxLatents):
    """Packed as FLUX.1's are: the order of a token's numbers is the same."""

    @torch.no_grad()
    def encode(self, pipe: Any, pixels: Tensor) -> Posterior:
        """(mu - mean) / deviation and std / deviation of each number of a token, (B, 32, H / 8, W / 8), fp32."""
        vae = pipe.vae
        distribution = vae.encode(pixels.to(vae_device(pipe), vae.dtype)).latent_dist
        mean, std = (_patches(part.float().cpu()) for part in (distribution.mean, distribution.std))
        middle, deviation = (values.cpu() for values in _statistics(vae))
        return Posterior(mean=_unpatched((mean - middle) / deviation), std=_unpatched(std / deviation))

    @torch.no_grad()
    def decode(self, pipe: Any, clean: Tensor) -> Tensor:
        vae = pipe.vae
        middle, deviation = (values.to(clean.device) for values in _statistics(vae))
        latents = _unpatched(_patches(clean) * deviation + middle)
        pixels = vae.decode(latents.to(vae_device(pipe), vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)

    def identity(self, pipe: Any) -> str:
        return fingerprint([pipe.vae], also=f"{pipe.vae.config.batch_norm_eps}")


def _statistics(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each number of a token, (128, 1, 1)."""
    mean, variance = (values[:, None, None].float() for values in (vae.bn.running_mean, vae.bn.running_var))
    return mean, torch.sqrt(variance + vae.config.batch_norm_eps)


def _patches(latents: Tensor) -> Tensor:
    return Flux2Pipeline._patchify_latents(latents)


def _unpatched(patches: Tensor) -> Tensor:
    return Flux2Pipeline._unpatchify_latents(patches)
