"""Z-Image's latents: by a VAE like FLUX.1's, shifted and scaled. The pipeline keeps them as they are, in fp32; the
transformer makes the tokens, 2 x 2 of them each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from urae.families.family import Size
from urae.families.flux.latents import PATCH, FluxLatents

__all__ = ["PATCH", "ZImageLatents"]


@dataclass(frozen=True)
class ZImageLatents(FluxLatents):
    """Encoded and decoded as FLUX.1's."""

    def pack(self, latents: Tensor) -> Tensor:
        return latents

    def unpack(self, tokens: Tensor, height: int, width: int) -> Tensor:
        return tokens

    def noise(self, pipe: Any, size: Size, generator: Any, *, num: int = 1) -> Tensor:
        width, height = size
        channels, device = pipe.transformer.config.in_channels, pipe._execution_device
        return pipe.prepare_latents(num, channels, height, width, torch.float32, device, generator)
