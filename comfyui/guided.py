"""Two passes: a native picture, upscaled, starts the second pass (SDEdit), guides it (I-Max) or both (HiFlow).

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

__all__ = ["SCHEDULES", "Hiflow", "Imax", "enlarged", "low_pass", "sharpened", "sigmas_below", "smooth"]

SCHEDULES = ("cosine_decay", "constant", "cosine_shift")
MAX_STRETCH = 0.05
"""Largest difference in aspect ratio, as a share, that upscaling may even out."""
BLUR = 1.05
"""Standard deviation, in pixels, of the blur that HiFlow's sharpening undoes."""


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
    patch: int = 1
    """Latents along a side of what ComfyUI has as one place: 2 for FLUX.2, whose 128 channels are 2 x 2 latents."""

    def __call__(self, arguments: dict[str, Any]) -> Tensor:
        """ComfyUI's hook after guidance: returns other denoised latents."""
        step = Step.of(arguments, self.guide, "I-Max")
        pull = step.reference - step.velocity
        return step.denoised(step.velocity + self.weight * self._part(pull, step.progress))

    def _part(self, pull: Tensor, progress: float) -> Tensor:
        smooth = _unpatched(pull, self.patch, lambda latents: low_pass(latents, level=self.low_pass_level))
        c = (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "cosine_shift":
            return c * pull + (1 - c) * smooth
        return smooth if self.schedule == "constant" else c * smooth


@dataclass(kw_only=True)
class Hiflow:
    """Direction and acceleration aligned to the upscaled picture (HiFlow), for a pass that starts from it.

    Direction: v + a (n - i) / n P(v_ref - v). Acceleration: then towards v_before + v_ref - v_ref_before by
    b (n - i) / n. `urae` follows the native pass by default, which is over where a node can be put; this is its
    reference "picture".
    """

    guide: Tensor
    """As I-Max's."""
    direction: float = 1.0
    acceleration: float = 0.5
    """Weights in [0, 1] at the first step; both fade to 0."""
    cutoff: float = 0.2
    """Where low frequencies end, as a share of the highest; above 0."""
    patch: int = 1
    """As I-Max's."""
    before: tuple[Tensor, Tensor] | None = None
    """What the step before took, and its reference; kept within a pass."""

    def __call__(self, arguments: dict[str, Any]) -> Tensor:
        """ComfyUI's hook after guidance: returns other denoised latents."""
        step = Step.of(arguments, self.guide, "HiFlow")
        fade = 1 - step.progress
        difference = step.reference - step.velocity
        pull = _unpatched(difference, self.patch, lambda latents: smooth(latents, cutoff=self.cutoff))
        velocity = step.velocity + self.direction * fade * pull
        if step.progress > 0 and self.before is not None:
            aligned = self.before[0] + step.reference - self.before[1]
            velocity = torch.lerp(velocity, aligned, self.acceleration * fade)
        self.before = None if step.is_last else (velocity, step.reference)
        return step.denoised(velocity)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One call of the model, in the words of `urae`."""

    given: Tensor
    """Denoised latents, before they are corrected."""
    velocity: Tensor
    reference: Tensor
    """v_ref = (noisy - guide) / sigma."""
    sigma: Tensor
    progress: float
    """i / n at the i-th of n steps."""
    is_last: bool

    @classmethod
    def of(cls, arguments: dict[str, Any], guide: Tensor, method: str) -> Step:
        """From what ComfyUI tells its hook after guidance."""
        noisy, denoised = arguments["input"], arguments["denoised"]
        sigmas = arguments["model_options"]["transformer_options"]["sample_sigmas"]
        sigma = arguments["sigma"].flatten()[0]
        if noisy.shape[-2:] != guide.shape[-2:]:
            raise ValueError(
                f"the sampler was given latents of {_size(noisy)}, but URAE {method} ones of {_size(guide)}: give it "
                "the node's latent"
            )
        return cls(
            given=denoised,
            velocity=(noisy - denoised) / sigma,
            reference=(noisy - guide.to(noisy)) / sigma,
            sigma=sigma,
            progress=progress(sigma, sigmas),
            is_last=len(sigmas) < 2 or bool(sigma <= sigmas[-2]),
        )

    def denoised(self, velocity: Tensor) -> Tensor:
        return self.given - self.sigma * (velocity - self.velocity)


def progress(sigma: Tensor, sigmas: Tensor) -> float:
    """Where a noise level stands among those of the sampler, (steps + 1,): i / steps at the i-th."""
    sigma, levels = float(sigma), [float(level) for level in sigmas]
    steps = len(levels) - 1
    for index, (above, below) in enumerate(zip(levels, levels[1:], strict=False)):
        if sigma > below:
            return min(1.0, max(0.0, index + (above - sigma) / (above - below)) / steps)
    return 1.0


def _unpatched(latents: Tensor, patch: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` of the latents, each at a place of its own."""
    return F.pixel_unshuffle(function(F.pixel_shuffle(latents, patch)), patch)


def low_pass(latents: Tensor, *, level: int) -> Tensor:
    """Each value replaced by the mean of its block of 2^level x 2^level, cut blocks by what is inside; (..., H, W)."""
    block, (height, width) = 2**level, latents.shape[-2:]
    padding = (0, -width % block, 0, -height % block)
    flat = latents.flatten(0, -3)  # a video model's have five dimensions
    inside = F.pad(torch.ones_like(flat[:1]), padding)
    means = F.avg_pool2d(F.pad(flat, padding), block) / F.avg_pool2d(inside, block)
    blocks = means.repeat_interleave(block, dim=-2).repeat_interleave(block, dim=-1)
    return blocks[..., :height, :width].reshape(latents.shape)


def smooth(latents: Tensor, *, cutoff: float) -> Tensor:
    """A Butterworth low-pass of order 4, by the Fourier transform, half of which is left at `cutoff` (HiFlow)."""
    height, width = latents.shape[-2:]
    rows = 2 * torch.fft.fftfreq(height, device=latents.device)[:, None]
    columns = 2 * torch.fft.rfftfreq(width, device=latents.device)
    gain = 1 / (1 + ((rows**2 + columns**2) / cutoff**2) ** 4)
    return torch.fft.irfft2(torch.fft.rfft2(latents.float()) * gain, s=(height, width)).to(latents)


def sigmas_below(start: float, *, shift: float, steps: int) -> Tensor:
    """Noise levels (steps + 1,) from `start`, in (0, 1], to 0, spaced as the timestep shift spaces them.

    From 1 they are those of the stock pipeline of diffusers.
    """
    nominal = start / (shift - (shift - 1) * start)
    times = torch.linspace(nominal, nominal / steps, steps, dtype=torch.float64)
    return torch.cat([shift * times / (1 + (shift - 1) * times), torch.zeros(1)]).float()


def enlarged(
    native: Tensor, grid: tuple[int, int], *, decode: Callable, encode: Callable, sharpen: float = 0.0
) -> Tensor:
    """The native latents' picture as latents of (rows, columns): decoded, upscaled by bicubic interpolation of its
    pixels, as Pillow does it, sharpened and encoded. decode and encode are a VAE's."""
    height, width = grid
    stretch = abs(math.log(native.shape[-1] * height / (native.shape[-2] * width)))
    if stretch > MAX_STRETCH:
        raise ValueError(
            f"the native latents are {_size(native)}, of another shape than the target's {width}x{height}: make both "
            "of the same shape"
        )
    if native.shape[-2] * native.shape[-1] >= height * width:
        raise ValueError(
            f"the native latents are {_size(native)}, not smaller than the target's {width}x{height}: native and "
            "target may be exchanged"
        )
    pixels = decode(native).flatten(0, -4).movedim(-1, 1)  # a video model's VAE has frames
    factor = pixels.shape[-1] // native.shape[-1]
    size = (height * factor, width * factor)
    # With antialias the kernel is Pillow's (a = -0.5); without, torch takes a = -0.75.
    upscaled = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    return encode(sharpened(upscaled, amount=sharpen).movedim(1, -1)[..., :3])


def sharpened(pixels: Tensor, *, amount: float) -> Tensor:
    """Pixels (B, C, H, W) in [0, 1] plus `amount` times their difference to a 3 x 3 Gaussian blur; those on the border
    stay."""
    if amount == 0:
        return pixels
    line = torch.tensor([math.exp(-((place / BLUR) ** 2) / 2) for place in (-1, 0, 1)]).to(pixels)
    kernel = (line[:, None] * line / line.sum() ** 2)[None, None].expand(pixels.shape[1], 1, 3, 3)
    inner = pixels[..., 1:-1, 1:-1]
    blurred = F.conv2d(pixels, kernel, groups=pixels.shape[1])
    found = pixels.clone()
    found[..., 1:-1, 1:-1] = (inner + amount * (inner - blurred)).clamp(0, 1)
    return found


def _size(latents: Tensor) -> str:
    return f"{latents.shape[-1]}x{latents.shape[-2]}"
