"""Two passes: a native picture, upscaled, starts the second pass (SDEdit) or guides it (I-Max).

The formulas are those of `urae.generation`, with ComfyUI's words: a sampler asks for the denoised latents, which are
noisy - sigma x velocity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["SCHEDULES", "Imax", "enlarged", "low_pass", "sigmas_below"]

SCHEDULES = ("cosine_decay", "constant", "cosine_shift")
MAX_STRETCH = 0.05
"""Largest difference in aspect ratio, as a share, that upscaling may even out."""


@dataclass(frozen=True, kw_only=True)
class Imax:
    """v + w (the schedule's part of v_ref - v), with v_ref = (noisy - guide) / sigma (I-Max).

    A sampler that asks between its steps is given the pull of the place between them.
    """

    guide: Tensor
    """Clean latents at the target size, (1 or B, C, H, W), normalised as the model sees them."""
    schedule: str = "cosine_decay"
    weight: float = 1.0
    """In [0, 1]."""
    low_pass_level: int = 1
    """P averages over blocks of 2^level latents."""

    def __call__(self, arguments: dict[str, Any]) -> Tensor:
        """ComfyUI's hook after guidance: returns other denoised latents."""
        noisy, denoised = arguments["input"], arguments["denoised"]
        sigmas = arguments["model_options"]["transformer_options"]["sample_sigmas"]
        sigma = arguments["sigma"].flatten()[0]
        if noisy.shape[-2:] != self.guide.shape[-2:]:
            raise ValueError(
                f"the sampler was given latents of {_size(noisy)}, but URAE I-Max ones of {_size(self.guide)}: "
                "give it the node's latent"
            )
        # v_ref - v = (denoised - guide) / sigma.
        pull = (denoised - self.guide.to(noisy)) / sigma
        change = self.weight * self._part(pull, progress(sigma, sigmas))
        return denoised - sigma * change

    def _part(self, pull: Tensor, progress: float) -> Tensor:
        smooth = low_pass(pull, level=self.low_pass_level)
        c = (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "cosine_shift":
            return c * pull + (1 - c) * smooth
        return smooth if self.schedule == "constant" else c * smooth


def progress(sigma: Tensor, sigmas: Tensor) -> float:
    """Where a noise level stands among those of the sampler, (steps + 1,): i / steps at the i-th."""
    sigma, levels = float(sigma), [float(level) for level in sigmas]
    steps = len(levels) - 1
    for index, (above, below) in enumerate(zip(levels, levels[1:], strict=False)):
        if sigma > below:
            return min(1.0, max(0.0, index + (above - sigma) / (above - below)) / steps)
    return 1.0


def low_pass(latents: Tensor, *, level: int) -> Tensor:
    """Each value replaced by the mean of its block of 2^level x 2^level, cut blocks by what is inside; (..., H, W)."""
    block, (height, width) = 2**level, latents.shape[-2:]
    padding = (0, -width % block, 0, -height % block)
    inside = F.pad(torch.ones_like(latents[..., :1, :, :]), padding)
    means = F.avg_pool2d(F.pad(latents, padding), block) / F.avg_pool2d(inside, block)
    return means.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)[..., :height, :width]


def sigmas_below(start: float, *, shift: float, steps: int) -> Tensor:
    """Noise levels (steps + 1,) from `start`, in (0, 1], to 0, spaced as the timestep shift spaces them.

    From 1 they are those of the stock pipeline of diffusers.
    """
    nominal = start / (shift - (shift - 1) * start)
    times = torch.linspace(nominal, nominal / steps, steps, dtype=torch.float64)
    return torch.cat([shift * times / (1 + (shift - 1) * times), torch.zeros(1)]).float()


def enlarged(native: Tensor, target: Tensor, *, decode: Callable, encode: Callable) -> Tensor:
    """The native latents' picture at the size of the target's latents, as latents: decoded, upscaled by bicubic
    interpolation of its pixels, as Pillow does it, and encoded. decode and encode are a VAE's."""
    height, width = target.shape[-2:]
    stretch = abs(math.log(native.shape[-1] * height / (native.shape[-2] * width)))
    if stretch > MAX_STRETCH:
        raise ValueError(
            f"the native latents are {_size(native)}, of another shape than the target's {_size(target)}: make both of "
            "the same shape"
        )
    if native.shape[-2] * native.shape[-1] >= height * width:
        raise ValueError(
            f"the native latents are {_size(native)}, not smaller than the target's {_size(target)}: native and target "
            "may be exchanged"
        )
    pixels = decode(native).movedim(-1, 1)
    factor = pixels.shape[-1] // native.shape[-1]
    size = (height * factor, width * factor)
    # With antialias the kernel is Pillow's (a = -0.5); without, torch takes a = -0.75.
    upscaled = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    return encode(upscaled.movedim(1, -1)[..., :3])


def _size(latents: Tensor) -> str:
    return f"{latents.shape[-1]}x{latents.shape[-2]}"
