"""The path of a native pass: what the model took the clean image to be at each noise level.

A picture is only the path's last point. HiFlow draws the second pass towards the point of its own noise level, so that
what the native pass decided early is decided early there too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from urae.errors import BadFile
from urae.io import read_weights, write_weights

__all__ = ["NativePath"]


@dataclass(frozen=True, kw_only=True)
class NativePath:
    """Clean latents by noise level; only the last are those of the picture."""

    clean: Tensor
    """noisy - sigma velocity at each step, (N, B, C, H, W), normalised, fp32."""
    sigmas: Tensor
    """Noise level of each step, (N,), falling."""

    def at(self, sigma: Tensor) -> Tensor:
        """Clean latents (B, C, H, W) at a noise level, a scalar, linear between the levels of the pass.

        Above the first level and below the last they are those of that level: passes at another size have other levels.
        """
        later = min(int((self.sigmas > sigma).sum()), len(self.sigmas) - 1)
        if later == 0:
            return self.clean[0]
        above, below = self.sigmas[later - 1], self.sigmas[later]
        share = ((above - sigma) / (above - below)).clamp(max=1)
        return torch.lerp(self.clean[later - 1], self.clean[later], share)

    def to(self, device: torch.device | str) -> NativePath:
        """The same on another device."""
        return NativePath(clean=self.clean.to(device), sigmas=self.sigmas.to(device))

    def save(self, path: Path) -> None:
        """Write a safetensors file; it is whole or not there."""
        write_weights(path, {"clean": self.clean, "sigmas": self.sigmas}, {})

    @classmethod
    def load(cls, path: Path) -> NativePath:
        """What `save` wrote; anything else is a `BadFile`."""
        tensors = read_weights(path, finite=True).tensors
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        clean = shapes.get("clean", ())
        if len(clean) != 5 or shapes != {"clean": clean, "sigmas": clean[:1]}:
            raise BadFile(f"{path} holds {shapes}, which are not the tensors of a native pass: remove it")
        return cls(**tensors)
