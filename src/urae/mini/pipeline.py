"""The trained miniature, loaded from the package: a stock FluxPipeline, offline, in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import FluxPipeline

__all__ = ["WEIGHTS", "pipeline"]

WEIGHTS = Path(__file__).parent / "weights"
"""The standard diffusers folder: `FluxPipeline.from_pretrained(urae.mini.WEIGHTS)` reads it too."""


def pipeline(dtype: torch.dtype = torch.float32) -> FluxPipeline:
    """The miniature FLUX: native 128 px, 16 px a token, 32 text tokens; a stock pipeline on the CPU.

    It draws captions of `urae.mini.scene`, such as "a flat tiger left of a glossy umbrella on a wood
    background". Without `height` and `width` a call makes the native size."""
    pipe = FluxPipeline.from_pretrained(WEIGHTS, torch_dtype=dtype)
    pipe.default_sample_size = pipe.vae.config.sample_size // pipe.vae_scale_factor
    return pipe
